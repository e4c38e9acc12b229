"""The sources that a run draws rows from, without torch: `pilot train` asks before anything is opened."""

from dataclasses import replace

from pilot.train.config import TrainConfig


def without_empty_sources(config: TrainConfig) -> TrainConfig:
    """Return a config without its sources of weight 0: they would still have a part in statistics and tokenizers.

    Raises:
        ValueError: all sources have weight 0.
    """
    sources = tuple(source for source in config.data.sources if source.weight != 0)
    if config.data.sources and not sources:
        raise ValueError(
            f"all sources of run '{config.name}' have weight 0, so it would learn from nothing; give one of them a "
            "weight above 0, or set all to none: then they count by their rows"
        )
    return replace(config, data=replace(config.data, sources=sources))
