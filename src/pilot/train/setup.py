"""From a config to everything a run needs: data, statistics, tokenizers, model. Whatever cannot work fails here."""

from dataclasses import dataclass, field
from pathlib import Path

from pilot.data.formats.episodes import EpisodeDataset
from pilot.data.formats.image_text import ImageTextRows
from pilot.data.formats.open_dataset import open_episodes, open_image_text
from pilot.data.loading.loader import Loader, RobotRows
from pilot.data.mixture import Mixture, RowSource
from pilot.data.storage.frame_cache import cache_frames
from pilot.datasets import layouts_from
from pilot.models.bundle import Bundle
from pilot.robots import load_robot
from pilot.train.checks import check_config, check_sources
from pilot.train.config import Source, TrainConfig
from pilot.train.distributed import Ranks
from pilot.train.embodiments import fit_to_robot, pipelines
from pilot.train.learner import uses_threads
from pilot.train.resume import claim
from pilot.train.robots import robot_of
from pilot.train.sources import without_empty_sources
from pilot.train.start import first_bundle
from pilot.train.validation import Numbers, hold_out


@dataclass(kw_only=True)
class Setup:
    """A run before its first step. `held_out`: the rows of each source that it never trains on, by number."""

    bundle: Bundle
    loader: Loader
    resume_from: Path | None
    held_out: dict[str, Numbers] = field(default_factory=dict)


def prepare(
    config: TrainConfig, out: Path, *, resume: bool, progress: bool = True, ranks: Ranks | None = None
) -> Setup:
    """Open the sources, make or load statistics, tokenizers and weights, and find the checkpoint to go on from.

    A source of weight 0 is left out of all of it.

    Raises:
        FileNotFoundError: a source or `init_from` is not there.
        ValueError: the folder holds another run, or sources, robot and model do not fit together.
    """
    ranks, config = ranks or Ranks(), without_empty_sources(config)
    # Cheap checks first: a wrong setting should not cost minutes of opening data.
    check_config(config, ranks=ranks.world_size)
    last = claim(out, config, resume=resume, write=ranks.is_main)
    sources: dict[str, RowSource] = {}
    held_out: dict[str, Numbers] = {}
    for source in config.data.sources:
        rows, name = _open(source, config, progress), source.label
        sources[name], held_out[name] = hold_out(rows, name=name, share=config.data.held_out, seed=config.seed)
    check_sources(config, sources)
    computed = last is not None or not ranks.is_main  # by this run before it stopped, or by the main rank
    bundle = first_bundle(config, sources, out=out, resumed=last is not None, computed=computed)
    # Weights are fp32 also where the checkpoint is bf16; the learner makes the copies that compute in less.
    bundle.model.float()
    weights = [(source.label, source.weight) for source in config.data.sources if source.weight is not None]
    mixture = Mixture(
        sources,
        seed=config.seed,
        weights=dict(weights) or None,
        power=config.data.mixture_power,
        draws=config.data.draws,
        streams=config.data.streams,
    )
    loader = Loader(
        mixture,
        pipelines(config, bundle, sources, out=out, computed=computed),
        batch_size=config.batch_size,
        with_fast=config.objective.fast_weight > 0,
        augments=config.data.augment,
        state_shift=config.data.state_shift,
        workers=config.data.workers,
        rank=ranks.rank,
        ranks=ranks.world_size,
        passes=None if uses_threads(config, ranks) else config.parallel.accumulate,
        length=config.model.max_tokens if config.compute.compile else 0,
        pin=ranks.device.type == "cuda",
    )
    return Setup(bundle=bundle, loader=loader, resume_from=last, held_out=held_out)


def _open(source: Source, config: TrainConfig, progress: bool) -> RowSource:
    name, robot = source.label, robot_of(source, config)
    if source.kind == "web":
        rows = open_image_text(
            source.path,
            loc_stride=config.data.loc_stride,
            zoom=source.zoom,
            source=name,
            question=source.question,
            camera=next(iter(load_robot(config.robot).shown_cameras)),
            skip_bad=config.data.skip_bad,
            cache_gb=config.data.cache_gb,
        )
        _print_skipped(rows)
        return rows
    horizon, skip_bad = config.model.chunk_steps, config.data.skip_bad
    dataset = open_episodes(
        source.path, horizon, layouts=layouts_from(source.layouts), skip_bad=skip_bad, cache_gb=config.data.cache_gb
    )  # fmt: skip
    fit_to_robot(dataset, robot, source)
    if config.data.frame_cache:
        cache_frames(dataset, progress=progress)
    _print_skipped(dataset)
    return RobotRows(
        name,
        dataset,
        loc_stride=config.data.loc_stride,
        box_jitter=config.data.box_jitter,
        teaches=source.teaches,
        cameras=source.cameras,
        prompt=source.prompt,
        group_by=config.data.group_by,
        moments=getattr(config.model, "observation_steps", 1),
        first_seconds=source.first_seconds,
    )


def _print_skipped(opened: EpisodeDataset | ImageTextRows) -> None:
    """Say what `data.skip_bad` has left out so far; what is found bad in training is warned about then."""
    if report := opened.skip_report():
        print(report, flush=True)
