"""From a config to everything a run needs: data, statistics, tokenizers, model. Whatever cannot work fails here."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from pilot.convert import paligemma
from pilot.data.action_chunks import whole_chunks
from pilot.data.formats.open_dataset import open_episodes, open_image_text
from pilot.data.loading.loader import Loader, RobotRows
from pilot.data.mixture import Mixture, RowSource
from pilot.data.storage.frame_cache import cache_frames
from pilot.data.storage.remote import CHECKPOINT_FILES, fetch
from pilot.datasets import load_layout
from pilot.models.base import Model
from pilot.models.bundle import Bundle, load_bundle, ordered_tokens
from pilot.models.pi import Pi, PiConfig
from pilot.models.registry import build_model, model_kind, require_pi
from pilot.robots import load_adapter, load_robot
from pilot.tokenizers import ACTION_TOKENIZERS, fit_action_tokenizer, load_action_tokenizer
from pilot.tokenizers.base import ActionTokenizer
from pilot.tokenizers.text import TextTokenizer
from pilot.train.checks import check_config, check_sources
from pilot.train.config import Source, TrainConfig
from pilot.train.distributed import Ranks
from pilot.train.embodiments import (
    datasets_of,
    fit_to_robot,
    other_chunks,
    pipelines,
    robot_of,
    shown_cameras,
    stats_of,
)
from pilot.train.learner import uses_threads
from pilot.train.resume import claim
from pilot.train.validation import Numbers, hold_out
from pilot.train.warm_start import looking_with, restarted
from pilot.types import NormStats, Robot


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

    Raises:
        FileNotFoundError: a source or `init_from` is not there.
        ValueError: the folder holds another run, or sources, robot and model do not fit together.
    """
    ranks = ranks or Ranks()
    check_config(config, ranks=ranks.world_size)
    last = claim(out, config, resume=resume, write=ranks.is_main)
    robot = load_robot(config.robot)
    sources: dict[str, RowSource] = {}
    held_out: dict[str, Numbers] = {}
    for source in config.data.sources:
        rows, name = _open(source, config, progress), _name(source.path)
        sources[name], held_out[name] = hold_out(rows, name=name, share=config.data.held_out, seed=config.seed)
    check_sources(config, sources)
    bundle = _start(config, robot, sources, out / "policy" if last is not None else None)
    weights = [(_name(source.path), source.weight) for source in config.data.sources if source.weight is not None]
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
        pipelines(config, bundle, sources, out=out, resumed=last is not None or not ranks.is_main),
        batch_size=config.batch_size,
        with_fast=config.objective.fast_weight > 0,
        augments=config.data.augment,
        workers=config.data.workers,
        rank=ranks.rank,
        ranks=ranks.world_size,
        passes=None if uses_threads(config, ranks) else config.parallel.accumulate,
        length=config.model.max_tokens if config.compute.compile else 0,
        pin=ranks.device.type == "cuda",
    )
    return Setup(bundle=bundle, loader=loader, resume_from=last, held_out=held_out)


def _name(path: str) -> str:
    return Path(path).name


def _open(source: Source, config: TrainConfig, progress: bool) -> RowSource:
    name, robot = _name(source.path), robot_of(source, config)
    if source.kind == "web":
        return open_image_text(
            source.path,
            loc_stride=config.data.loc_stride,
            source=name,
            question=source.question,
            camera=shown_cameras(load_robot(config.robot))[0],
            skip_bad=config.data.skip_bad,
            cache_gb=config.data.cache_gb,
        )
    horizon, skip_bad = config.model.action_horizon, config.data.skip_bad
    dataset = open_episodes(
        source.path, horizon, layouts=load_layout, skip_bad=skip_bad, cache_gb=config.data.cache_gb
    )  # fmt: skip
    if report := dataset.skip_report():
        print(report, flush=True)
    fit_to_robot(dataset, robot, source)
    if config.data.frame_cache:
        cache_frames(dataset, progress=progress)
    return RobotRows(
        name,
        dataset,
        loc_stride=config.data.loc_stride,
        box_jitter=config.data.box_jitter,
        teaches=source.teaches,
        cameras=source.cameras,
        prompt=source.prompt,
        group_by=config.data.group_by,
    )


def _start(config: TrainConfig, robot: Robot, sources: dict[str, RowSource], resumed: Path | None) -> Bundle:
    """The bundle that a run starts from: its own when resumed, that of `init_from`, or a fresh one."""
    if resumed is not None:
        return _of_checkpoint(config, robot, resumed)
    start, generator = config.init_from, torch.Generator().manual_seed(config.seed)
    if start is not None and start.kind == "checkpoint":
        bundle = _of_checkpoint(config, robot, fetch(start.path, only=CHECKPOINT_FILES), fresh=bool(start.fresh))
        if not start.fresh:
            return bundle
        model = restarted(bundle.pi, require_pi(config.model), fresh=start.fresh, generator=generator)
        return replace(bundle, model=model)
    if not datasets_of(robot.name, config, sources):
        raise ValueError(f"run '{config.name}' has no robot source of '{robot.name}': its statistics come from one")
    stats = stats_of(robot.name, config, sources)
    text, actions = TextTokenizer(), None
    if start is not None and start.kind == "weights":
        base = load_bundle(fetch(start.path, only=CHECKPOINT_FILES))
        text, actions = base.text, base.action_tokenizer
        if actions is None and config.objective.fast_weight > 0:
            actions = make_action_tokenizer(config, sources, robot, stats=stats["actions"])
        model: Model = restarted(base.pi, require_pi(config.model), fresh=start.fresh, generator=generator)
    elif not isinstance(config.model, PiConfig):
        model = _baseline(config, generator)
    else:
        base_path = _paligemma_path(config)
        if base_path is not None:
            text = paligemma.find_text_tokenizer(base_path)
        actions = make_action_tokenizer(config, sources, robot, stats=stats["actions"])
        if base_path is not None:
            model = paligemma.init_model(config.model, base_path, generator=generator)
        else:
            model = Pi(config.model).initialize(generator, ordered_tokens=ordered_tokens(text))
    return Bundle(
        model=model, robot=robot, norm_stats=stats, text=text, action_tokenizer=actions,
        loc_stride=config.data.loc_stride,
    )  # fmt: skip


def _of_checkpoint(config: TrainConfig, robot: Robot, path: Path, *, fresh: bool = False) -> Bundle:
    """Read a policy whose robot is the run's, and whose model is too, unless parts of it are to be made anew."""
    bundle = load_bundle(path)
    if (got := bundle.robot.name) != robot.name:
        raise ValueError(
            f"{path} was trained for robot '{got}', this run is for '{robot.name}'; to take its weights and "
            "tokenizers alone: init_from.kind=weights"
        )
    if fresh:
        return bundle
    have, want = bundle.model.config, config.model
    if isinstance(have, PiConfig) and isinstance(want, PiConfig):
        own = {name: getattr(want, name) for name in ("insulate", "rtc_max_delay", "integrate_padded_dims")}
        have = replace(have, **own)
    if have != want:
        raise ValueError(f"{path} holds a model of another shape than the config '{config.name}' asks for")
    bundle.model.config = config.model
    return bundle


def _paligemma_path(config: TrainConfig) -> Path | None:
    start = config.init_from
    if start is None:
        return None
    if start.kind != "paligemma":
        raise ValueError(f"a model of the π0 family does not start from {start}; see InitFrom for the kinds")
    return fetch(start.path, only=CHECKPOINT_FILES)


def _baseline(config: TrainConfig, generator: torch.Generator) -> Model:
    """Make a baseline from random weights, or with a published ResNet."""
    model, start = build_model(config.model).initialize(generator), config.init_from
    if start is None:
        return model
    if start.kind == "torchvision":
        return looking_with(model, start.path)
    raise ValueError(f"a {model_kind(config.model)} starts from a checkpoint of its own, not from {start}")


def make_action_tokenizer(
    config: TrainConfig, sources: dict[str, RowSource], robot: Robot, *, stats: NormStats
) -> ActionTokenizer:
    """What `data.action_tokenizer` names: a kind, fitted to whole chunks of the data, or a folder, read.

    FAST is fitted to those of all robots of the run; codebooks and bins, which are of certain dims, to the run's own.
    """
    kind = config.data.action_tokenizer
    if kind not in ACTION_TOKENIZERS:
        return load_action_tokenizer(fetch(kind))
    adapter, datasets = load_adapter(robot), datasets_of(robot.name, config, sources)
    chunks = whole_chunks(datasets, robot, stats=stats, norm=config.model.norm, adapter=adapter, seed=config.seed)
    size = require_pi(config.model).fast_vocab_size
    options: dict[str, Any] = {
        "fast": {"vocab_size": size, "scale": config.data.fast_scale},
        "vq": {"seed": config.seed},
    }
    if kind == "fast":
        options["fast"]["others"] = other_chunks(robot.name, config, sources)
    return fit_action_tokenizer(kind, chunks, **{"vocab_size": min(size, 256), **options.get(kind, {})})
