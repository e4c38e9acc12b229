"""A small recording and some web rows to train on, and runs of a few steps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.web import WebWriter
from pilot.data.formats.writer import LeRobotWriter, encode_png
from pilot.models.pi import pi05
from pilot.robots.homes import ROBOT
from pilot.train import checkpoint
from pilot.train.config import (
    CheckpointConfig,
    DataConfig,
    LoggingConfig,
    OptimConfig,
    ParallelConfig,
    Source,
    TrainConfig,
)


def record(path: Path) -> Path:
    rng = np.random.default_rng(0)
    with LeRobotWriter(path, ROBOT, ROBOT.control_hz) as writer:
        for _ in range(3):
            steps = np.linspace(0, 1, 12, dtype=np.float32)[:, None]
            goal = rng.uniform(-1, 1, 3).astype(np.float32)
            state = np.concatenate((steps * goal, np.zeros((12, 2), np.float32)), 1)
            action = np.concatenate((steps * goal + 0.05, (steps > 0.5).astype(np.float32)), 1)
            frames = {
                fmt.STATE: state,
                fmt.ACTION: action,
                fmt.IMAGES + "room": rng.integers(0, 256, (12, 16, 16, 3), dtype=np.uint8),
                fmt.IMAGES + "wrist": rng.integers(0, 256, (12, 16, 16, 3), dtype=np.uint8),
                fmt.BOX: np.tile(np.array([0.1, 0.2, 0.4, 0.6], np.float32), (12, 1)),
                fmt.PERTURBED: np.zeros(12, bool),
            }
            writer.add_episode(
                frames, task="put the red cup in the sink",
                persistent=[(0.0, "subtask", "assistant", "pick up the red cup")],
                events=[], labels={"group": "single"},
            )  # fmt: skip
    return path


def record_web(path: Path) -> Path:
    rng = np.random.default_rng(1)
    with WebWriter(path) as writer:
        for i in range(6):
            picture = encode_png(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
            writer.add(picture, [(f"what is here, number {i}?", "a red cup" + " and a blue ball" * (i % 3))])
    return path


def changed(run: TrainConfig, **changes: object) -> TrainConfig:
    """A copy of a run with other settings; a dict changes fields of a group: `data={"held_out": 0.1}`."""
    groups = {name: replace(getattr(run, name), **new) for name, new in changes.items() if isinstance(new, dict)}
    return replace(run, **changes | groups)


def config(path: Path, **changes: object) -> TrainConfig:
    base = TrainConfig(
        name="toy", model=pi05("debug", max_tokens=80), robot="homes", steps=8, batch_size=4,
        data=DataConfig(sources=(Source(path=str(path)),), loc_stride=64),
        optim=OptimConfig(peak_lr=3e-3, warmup_steps=2), parallel=ParallelConfig(threads=1),
        logging=LoggingConfig(log_every=1), checkpoints=CheckpointConfig(save_every=4),
    )  # fmt: skip
    return changed(base, **changes)


def read_all(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint, after the check that a run makes before it goes on from there."""
    checkpoint.read_values(folder)
    shapes = checkpoint.shapes_in(folder).items()
    tensors = {name: torch.empty(shape.size, dtype=shape.properties.dtype) for name, shape in shapes}
    checkpoint.read_tensors(folder, tensors)
    return tensors


def weights(out: Path, of: str = "model") -> dict[str, torch.Tensor]:
    """The weights in the last checkpoint, or their moving average (`ema`), or what the optimizer remembers."""
    folder = checkpoint.last_checkpoint(out)
    assert folder is not None
    read = read_all(folder)
    return {name.removeprefix(f"{of}/"): tensor for name, tensor in read.items() if name.startswith(f"{of}/")}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
