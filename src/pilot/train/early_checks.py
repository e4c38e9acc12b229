"""Refuse settings and paths that cannot work, without torch: whoever mistypes is answered at once.

`pilot train` and `pilot plan` call this before they import what computes. `train/checks.py` says the rest.
"""

import math
import os
from collections import Counter
from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path

from pilot.data.formats.open_dataset import check_episodes, check_image_text
from pilot.data.mixture import check_teaches
from pilot.data.storage.remote import fetch_checkpoint, is_remote
from pilot.models.baselines.configs import LOSSES as BASELINE_LOSSES
from pilot.names import check_name
from pilot.train.config import WEIGHTS, TrainConfig
from pilot.train.robots import robots_of

AT_LEAST = {
    "steps": 1, "batch_size": 1, "seed": 0,
    "data.mixture_power": 0, "data.streams": 1, "data.loc_stride": 1, "data.box_jitter": 0, "data.state_shift": 0,
    "data.held_out": 0, "data.cache_gb": 0, "data.workers": 0,
    **dict.fromkeys((f"objective.{name}" for name in WEIGHTS.values()), 0), "objective.flow_draws": 1,
    "optim.final_lr": 0, "optim.warmup_steps": 0, "optim.decay_steps": 1, "optim.eps": 0, "optim.weight_decay": 0,
    "optim.muon_lr": 0, "parallel.shards": 1, "parallel.accumulate": 1, "parallel.threads": 0, "logging.log_every": 1,
    "logging.loss_spike": 0, "logging.grad_spike": 0,
    "evaluation.validate_every": 0, "evaluation.validate_rows": 1, "evaluation.every": 0, "evaluation.episodes": 1,
    "checkpoints.save_every": 1, "checkpoints.keep": 1, "checkpoints.keep_every": 1,
}  # fmt: skip
"""The least that settings may be, by name; those that may be None are not looked at then."""
ABOVE_0 = ("data.fast_scale", "optim.peak_lr", "optim.clip_norm")


def check_settings(config: TrainConfig, *, ranks: int = 1) -> None:
    """Raise `ValueError` for settings that contradict each other, whatever the model and the data."""
    _check_numbers(config, ranks)
    _check_loss_weights(config)
    _check_compute(config)
    _check_manifest(config)
    _check_robots(config)
    _check_start(config)


def check_paths(config: TrainConfig, *, resumed: bool = False) -> None:
    """Check that the data of a run is there, and what it starts from; a run that is `resumed` has started already.

    What lies at an address (`hf://`, `gs://`) is asked for later, when it is fetched.

    Raises:
        FileNotFoundError: a source or `init_from` is not there, or no reader knows the files there.
    """
    for source in config.data.sources:
        if is_remote(source.path):
            continue
        if source.kind == "web":
            check_image_text(Path(source.path))
        else:
            check_episodes(Path(source.path))
    start = config.init_from
    if start is not None and not resumed and not is_remote(start.path) and not fetch_checkpoint(start.path).exists():
        raise FileNotFoundError(
            f"init_from: {start.path} does not exist; give the folder of a checkpoint, or its address (hf://, gs://)"
        )


def _check_numbers(config: TrainConfig, ranks: int) -> None:
    for name, low in AT_LEAST.items():
        value = attrgetter(name)(config)
        if value is not None and not low <= value < math.inf:
            raise ValueError(f"{name} is at least {low}, got {value}")
    for name in ABOVE_0:
        if not 0 < (value := attrgetter(name)(config)) < math.inf:
            raise ValueError(f"{name} is above 0, got {value}")
    if not all(0 <= beta < 1 for beta in config.optim.betas):
        raise ValueError(f"optim.betas are at least 0 and below 1, got {config.optim.betas}")
    if not 0 <= config.ema.decay < 1:
        raise ValueError(f"ema.decay is at least 0 (no average) and below 1, got {config.ema.decay}")
    if not 0 < config.objective.time_s <= 1:
        raise ValueError(f"time_s is above 0 and at most 1, got {config.objective.time_s}")
    if config.batch_size % (passes := ranks * config.parallel.accumulate):
        raise ValueError(
            f"a batch of {config.batch_size} rows does not split over {ranks} ranks of "
            f"{config.parallel.accumulate} passes each; make batch_size a multiple of {passes}"
        )


def _check_loss_weights(config: TrainConfig) -> None:
    for name, weight in config.objective.loss_weights.items():
        check_name("loss in objective.loss_weights", name, (*WEIGHTS, *BASELINE_LOSSES))
        if not 0 <= weight < math.inf:
            raise ValueError(f"objective.loss_weights: the weight of '{name}' is at least 0, got {weight}")


def _check_compute(config: TrainConfig) -> None:
    """Raise `ValueError` for a model that has to be whole, and in fp32, where it would not be."""
    if config.looks_into_blocks and (config.compute.precision == "bf16" or config.parallel.strategy != "none"):
        raise ValueError(
            "a model with a point_layer looks into a block from outside: train it in fp32 (compute.precision=auto) "
            "with parallel.strategy=none"
        )


def _repeated(names: Iterable[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _check_manifest(config: TrainConfig) -> None:
    sources = config.data.sources
    if not sources:
        raise ValueError(f"run '{config.name}' has no sources; name sets of demonstrations in `sources`")
    if twice := _repeated(source.label for source in sources):
        raise ValueError(f"two sources are called {twice}; losses are logged by that, so give one another `name`")
    if config.data.held_out and (twice := _repeated(_location(source.path) for source in sources)):
        raise ValueError(f"{twice} is a source twice: what one holds out (data.held_out), the other would train on")
    if 0 < sum(source.weight is None for source in sources) < len(sources):
        raise ValueError("give a weight to every source or to none (then rows count to the power mixture_power)")
    for source in sources:
        check_teaches(source.path, source.teaches)
        if source.weight is not None and not 0 <= source.weight < math.inf:
            raise ValueError(f"the weight of a source is at least 0, or none; {source.path} has {source.weight}")
        if not 0 < source.zoom <= 1 or (source.zoom < 1 and source.kind != "web"):
            raise ValueError(f"zoom of web rows is above 0 and at most 1, of others 1; {source.path} has {source.zoom}")
        if (first := source.first_seconds) is not None and (not first > 0 or source.kind == "web"):
            raise ValueError(
                f"first_seconds of demonstrations is above 0, web rows have none; {source.path} has {first}"
            )


def _location(path: str) -> str:
    """Return where a source lies, however its path is written."""
    return path.rstrip("/") if is_remote(path) else os.path.realpath(path)


def _check_start(config: TrainConfig) -> None:
    start = config.init_from
    if start is not None and start.fresh and start.kind not in ("checkpoint", "weights"):
        raise ValueError(f"init_from.fresh is for the parts of a checkpoint; {start.kind} has no expert to replace")


def _check_robots(config: TrainConfig) -> None:
    """Raise `ValueError` if a robot has more dims than the model."""
    room = config.model.action_dim
    for name, robot in robots_of(config).items():
        for what, dims in (("state", robot.state_dim), ("action", robot.action_dim)):
            if dims > room:
                raise ValueError(
                    f"robot '{name}' has {dims} {what} dims, the model's action_dim is {room}; raise it in the config"
                )
