"""Refuse what cannot work before the first batch: `check_config` before anything is opened, `check_sources` after.

What can be told without torch, and so at once, is in `train/early_checks.py`.
Files that are not there, dims of a set that are not its robot's, statistics and weights that are missing or do not fit
are said where they are read (`train/setup.py`, `train/embodiments.py`, `data/pipeline.py`).
"""

from collections.abc import Mapping

from pilot.data.loading.loader import RobotRows
from pilot.data.mixture import RowSource
from pilot.models.bundle import empty_model
from pilot.models.pi import PiConfig
from pilot.tokenizers.prompts import FORMATS
from pilot.tokenizers.text import LOC_BINS
from pilot.train.config import Source, TrainConfig
from pilot.train.early_checks import check_settings
from pilot.train.freezing import choose_learning
from pilot.train.warm_start import fresh_parts


def check_config(config: TrainConfig, *, ranks: int = 1) -> None:
    """Raise `ValueError` for a run that cannot work, whatever its data; the message says what to do."""
    check_settings(config, ranks=ranks)
    if isinstance(config.model, PiConfig):
        _check_losses(config, config.model)
        model = empty_model(config.model)
        if config.init_from is not None:
            fresh_parts(model, config.init_from.fresh)
        choose_learning(model, freeze=config.freeze, lora=config.lora)


def _check_losses(config: TrainConfig, model: PiConfig) -> None:
    """Raise `ValueError` for a loss that the model does not have or that no source teaches."""
    if "flow" in config.objective.losses and model.action_expert is None:
        raise ValueError(
            f"alpha is {config.objective.alpha:g}, but the model has no action expert; set alpha=0, or give it one"
        )
    if {"text", "fast"} <= requested_losses(config) and (shared := overlapping_ids(model)):
        raise ValueError(
            f"{len(shared)} FAST ids are also <loc> tokens, which boxes are said in; set model.fast_offset so that its "
            f"{model.fast_vocab_size} ids lie elsewhere, such as {model.vocab_size - model.loc_start}"
        )
    taught = set().union(*({"text"} if s.kind == "web" else s.teaches for s in config.data.sources))
    if config.objective.trains_vision_alone:
        return
    for loss in sorted(requested_losses(config) - taught):
        raise ValueError(
            f"no source of run '{config.name}' teaches '{loss}', whose weight is {config.objective.weight_of(loss):g}; "
            f"set it to 0 ({'alpha' if loss == 'flow' else loss + '_weight'}), or name it in a source's `teaches`"
        )


def overlapping_ids(model: PiConfig) -> range:
    """Return the ids that are FAST tokens and `<loc>` tokens at the same time."""
    top = model.vocab_size - model.fast_offset
    return range(max(top - model.fast_vocab_size, model.loc_start), min(top, model.loc_start + LOC_BINS))


def requested_losses(config: TrainConfig) -> frozenset[str]:
    """Return the losses on rows of robots that the run weighs and its model can have."""
    able = {"text", "fast", "flow"} if config.model.generates_text else {"flow"}
    return frozenset(name for name in able if config.objective.weight_of(name) > 0)


def check_sources(config: TrainConfig, sources: Mapping[str, RowSource]) -> None:
    """Raise `ValueError` for sets that cannot teach what their sources promise."""
    pairs = list(zip(config.data.sources, sources.items(), strict=True))
    demonstrations = [(source, name, rows) for source, (name, rows) in pairs if isinstance(rows, RobotRows)]
    if mute := [
        name for source, name, rows in demonstrations if _promises_words(config, source) and not has_subtasks(rows)
    ]:
        raise ValueError(
            f"sources {mute} have no subtasks to say, and the text loss weighs {config.objective.text_weight:g}; "
            "annotate them (pilot data annotate), give them teaches=('fast', 'flow'), or set text_weight=0"
        )
    horizon = config.model.chunk_steps
    for _, name, rows in demonstrations:
        longest = max(episode.stop - episode.start for episode in rows.dataset.episodes)
        if longest < horizon:
            raise ValueError(
                f"the longest episode of '{name}' has {longest} steps and a chunk has {horizon}: no chunk is whole; "
                "lower action_horizon in the config"
            )


def _promises_words(config: TrainConfig, source: Source) -> bool:
    asks = (
        config.objective.text_weight > 0
        and config.model.generates_text
        and FORMATS[config.model.prompt].target is not None
    )
    return asks and "text" in source.teaches


def has_subtasks(rows: RobotRows) -> bool:
    """Return whether there is a subtask anywhere in a set of demonstrations."""
    return bool((rows.dataset.subtask_index >= 0).any())
