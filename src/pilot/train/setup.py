"""From a config to everything a run needs: data, statistics, tokenizers, model. Whatever cannot work fails here."""

import json
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from pilot.convert import paligemma
from pilot.data.action_chunks import whole_chunks
from pilot.data.formats.open import open_episodes, open_pictures
from pilot.data.loading.loader import Loader, RobotRows
from pilot.data.mixture import Mixture, Rows
from pilot.data.storage.files import write_json
from pilot.data.storage.frame_cache import cache_frames
from pilot.data.storage.remote import CHECKPOINT_FILES, fetch
from pilot.datasets import load_layout
from pilot.models.bundle import Bundle, config_from_dict, load_bundle, ordered_tokens
from pilot.models.pi import Pi, PiConfig
from pilot.models.registry import build_model, model_kind, require_pi
from pilot.robots import load_adapter, load_robot
from pilot.tokenizers import ACTION_TOKENIZERS, fit_action_tokenizer, load_action_tokenizer
from pilot.tokenizers.base import ActionTokenizer
from pilot.tokenizers.text import TextTokenizer
from pilot.train import checkpoint
from pilot.train.checks import check_config, check_sources
from pilot.train.config import OptimConfig, Source, TrainConfig
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
from pilot.train.validation import Numbers, hold_out
from pilot.train.warm_start import looking_with, restarted
from pilot.types import NormStats, Robot

PALIGEMMA = "paligemma:"
"""In front of `init_from`: the path is of PaliGemma's weights, not of a checkpoint of pilot."""
WEIGHTS = "weights:"
"""In front of `init_from`: weights and tokenizers of a checkpoint are taken, not its robot and its statistics."""
TORCHVISION = "torchvision:"
"""In front of `init_from`: weights of torchvision's ResNet-18, for a model that looks with it (ACT)."""


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
    last = _claim(config, out, resume=resume, write=ranks.is_main)
    robot = load_robot(config.robot)
    sources: dict[str, Rows] = {}
    held_out: dict[str, Numbers] = {}
    for source in config.sources:
        rows, name = _open(source, config, progress), _name(source.path)
        sources[name], held_out[name] = hold_out(rows, name=name, share=config.held_out, seed=config.seed)
    check_sources(config, sources)
    bundle = _start(config, robot, sources, out / "policy" if last is not None else None)
    weights = [(_name(source.path), source.weight) for source in config.sources if source.weight is not None]
    mixture = Mixture(
        sources,
        seed=config.seed,
        weights=dict(weights) or None,
        power=config.mixture_power,
        draws=config.draws,
        streams=config.streams,
    )
    loader = Loader(
        mixture,
        pipelines(config, bundle, sources, out=out, resumed=last is not None or not ranks.is_main),
        batch_size=config.batch_size,
        say_actions=config.fast_weight > 0,
        augments=config.augments,
        workers=config.loader_workers,
        rank=ranks.rank,
        ranks=ranks.world_size,
        passes=None if uses_threads(config, ranks) else config.accumulate,
        length=config.model.max_tokens if config.compile else 0,
        pin=ranks.device.type == "cuda",
    )
    return Setup(bundle=bundle, loader=loader, resume_from=last, held_out=held_out)


def _claim(config: TrainConfig, out: Path, *, resume: bool, write: bool) -> Path | None:
    """Write the config into a fresh folder, or check that a used one belongs to the same run; its last checkpoint."""
    file, mine = out / "config.json", json.loads(json.dumps(asdict(config)))
    last = checkpoint.last_checkpoint(out)
    if file.exists() and last is not None:
        if not resume:
            raise ValueError(f"{out} holds a run at {last.name}; resume it, or choose another folder")
        theirs = json.loads(file.read_text())
        theirs = _with_what_is_new(theirs, kind=model_kind(config.model))
        free = {"skip_bad", "loader_workers", "threads", "log_every", "save_every"}
        free |= {"validate_every", "validate_rows", "eval_suite", "eval_every", "eval_episodes"}
        free |= {"loss_spike", "grad_spike", "log_to", "keep", "keep_every"}
        free |= {"device", "precision", "parallel", "shards", "accumulate", "checkpointing", "compile"}
        free |= {"cache_gb"}
        if changed := [name for name in mine if name not in free and theirs.get(name) != mine[name]]:
            raise ValueError(
                f"{out} holds a run with other {', '.join(changed)}; choose another folder or the same config"
            )
    if write:
        write_json(file, mine)
    return last


def _with_what_is_new(values: dict[str, Any], *, kind: str) -> dict[str, Any]:
    """A stored config with the defaults of fields that are younger than it, as JSON."""
    missing = [f for f in fields(TrainConfig) if f.name not in values and f.default_factory is MISSING]
    values = {f.name: f.default for f in missing if f.default is not MISSING} | values
    values["model"] = asdict(config_from_dict(values["model"], kind=kind))
    values["optim"] = asdict(OptimConfig()) | values["optim"]
    values["sources"] = [asdict(Source(**source)) for source in values["sources"]]
    return json.loads(json.dumps(values))


def _name(path: str) -> str:
    return Path(path).name


def _open(source: Source, config: TrainConfig, progress: bool) -> Rows:
    name, robot = _name(source.path), robot_of(source, config)
    if source.kind == "web":
        return open_pictures(
            source.path,
            loc_stride=config.loc_stride,
            source=name,
            question=source.question,
            camera=shown_cameras(load_robot(config.robot))[0],
            skip_bad=config.skip_bad,
            cache_gb=config.cache_gb,
        )
    horizon, skip_bad = config.model.action_horizon, config.skip_bad
    dataset = open_episodes(
        source.path, horizon, layouts=load_layout, skip_bad=skip_bad, cache_gb=config.cache_gb
    )  # fmt: skip
    if report := dataset.skip_report():
        print(report, flush=True)
    fit_to_robot(dataset, robot, source)
    if config.frame_cache:
        cache_frames(dataset, progress=progress)
    return RobotRows(
        name,
        dataset,
        loc_stride=config.loc_stride,
        box_jitter=config.box_jitter,
        teaches=source.teaches,
        cameras=source.cameras,
        prompt=source.prompt,
    )


def _start(config: TrainConfig, robot: Robot, sources: dict[str, Rows], resumed: Path | None) -> Bundle:
    """The bundle that a run starts from: its own when resumed, that of `init_from`, or a fresh one."""
    init_from, generator = config.init_from or "", torch.Generator().manual_seed(config.seed)
    if resumed is not None or (init_from and not init_from.startswith((PALIGEMMA, WEIGHTS, TORCHVISION))):
        path = resumed or fetch(init_from, only=CHECKPOINT_FILES)
        bundle = load_bundle(path)
        if (got := bundle.robot.name) != robot.name:
            raise ValueError(
                f"{path} was trained for robot '{got}', this run is for '{robot.name}'; to take its weights and "
                f"tokenizers alone: init_from={WEIGHTS}{path}"
            )
        have, want = bundle.model.config, config.model
        if isinstance(have, PiConfig) and isinstance(want, PiConfig):
            own = {name: getattr(want, name) for name in ("insulate", "rtc_max_delay", "integrate_padded_dims")}
            have = replace(have, **own)
        if config.fresh and resumed is None:
            model = restarted(bundle.pi, require_pi(want), fresh=config.fresh, generator=generator)
            return replace(bundle, model=model)
        if have != want:
            raise ValueError(f"{path} holds a model of another shape than the config '{config.name}' asks for")
        bundle.model.config = config.model
        return bundle
    datasets = datasets_of(robot.name, config, sources)
    if not datasets:
        raise ValueError(f"run '{config.name}' has no robot source of '{robot.name}': its statistics come from one")
    stats = stats_of(robot.name, config, sources)
    if init_from.startswith(WEIGHTS):
        return _of_weights(config, robot, sources, stats=stats)
    if not isinstance(config.model, PiConfig):
        return _baseline(config, robot, stats=stats, generator=generator)
    base = fetch(init_from.removeprefix(PALIGEMMA), only=CHECKPOINT_FILES) if init_from else None
    text = paligemma.find_text_tokenizer(base) if base is not None else TextTokenizer()
    actions = make_action_tokenizer(config, sources, robot, stats=stats["actions"])
    if base is not None:
        model = paligemma.start(config.model, base, generator=generator)
    else:
        model = Pi(config.model).initialize(generator, ordered_tokens=ordered_tokens(text))
    return Bundle(
        model=model, robot=robot, norm_stats=stats, text=text, action_tokenizer=actions, loc_stride=config.loc_stride
    )


def _baseline(config: TrainConfig, robot: Robot, *, stats: dict[str, NormStats], generator: torch.Generator) -> Bundle:
    """A baseline from nothing, or looking with a published ResNet. It says no actions."""
    model, init_from = build_model(config.model).initialize(generator), config.init_from or ""
    if init_from.startswith(TORCHVISION):
        looking_with(model, init_from.removeprefix(TORCHVISION))
    elif init_from:
        raise ValueError(f"a {model_kind(config.model)} starts from a checkpoint of its own, not from {init_from}")
    return Bundle(
        model=model, robot=robot, norm_stats=stats, text=TextTokenizer(), action_tokenizer=None,
        loc_stride=config.loc_stride,
    )  # fmt: skip


def _of_weights(config: TrainConfig, robot: Robot, sources: dict[str, Rows], *, stats: dict[str, NormStats]) -> Bundle:
    """The weights and tokenizers of a checkpoint of any robot, with the robot and the statistics of this run."""
    assert config.init_from is not None
    base = load_bundle(fetch(config.init_from.removeprefix(WEIGHTS), only=CHECKPOINT_FILES))
    actions = base.action_tokenizer
    if actions is None and config.fast_weight > 0:
        actions = make_action_tokenizer(config, sources, robot, stats=stats["actions"])
    generator = torch.Generator().manual_seed(config.seed)
    model = restarted(base.pi, require_pi(config.model), fresh=config.fresh, generator=generator)
    return Bundle(
        model=model, robot=robot, norm_stats=stats, text=base.text, action_tokenizer=actions,
        loc_stride=config.loc_stride,
    )  # fmt: skip


def make_action_tokenizer(
    config: TrainConfig, sources: dict[str, Rows], robot: Robot, *, stats: NormStats
) -> ActionTokenizer:
    """What `config.action_tokenizer` names: a kind, fitted to whole chunks of the data, or a folder, read.

    FAST is fitted to those of all robots of the run; codebooks and bins, which are of certain dims, to the run's own.
    """
    kind = config.action_tokenizer
    if kind not in ACTION_TOKENIZERS:
        return load_action_tokenizer(fetch(kind))
    adapter, datasets = load_adapter(robot), datasets_of(robot.name, config, sources)
    chunks = whole_chunks(datasets, robot, stats=stats, norm=config.model.norm, adapter=adapter, seed=config.seed)
    size = require_pi(config.model).fast_vocab_size
    options: dict[str, Any] = {"fast": {"vocab_size": size, "scale": config.fast_scale}, "vq": {"seed": config.seed}}
    if kind == "fast":
        options["fast"]["others"] = other_chunks(robot.name, config, sources)
    return fit_action_tokenizer(kind, chunks, **{"vocab_size": min(size, 256), **options.get(kind, {})})
