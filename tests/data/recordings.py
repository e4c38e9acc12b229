"""Small random recordings of a toy robot, for the tests of everything that reads data."""

import numpy as np

from pilot.data import lerobot_format as fmt
from pilot.data.writer import LeRobotWriter
from pilot.types import Robot

ROBOT = Robot(
    name="toy",
    cameras=("room", "wrist"),
    state_names=("x", "y", "hold"),
    action_names=("x", "y"),
    delta_mask=(True, True),
    control_hz=10,
)


def episode(rng: np.random.Generator, length: int, *, perturbed: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    return {
        fmt.STATE: rng.normal(size=(length, 3)).astype(np.float32),
        fmt.ACTION: rng.normal(size=(length, 2)).astype(np.float32),
        fmt.IMAGES + "room": rng.integers(0, 256, (length, 8, 16, 3), dtype=np.uint8),
        fmt.IMAGES + "wrist": rng.integers(0, 256, (length, 8, 8, 3), dtype=np.uint8),
        fmt.BOX: np.where(np.arange(length)[:, None] % 2, np.nan, rng.random((length, 4))).astype(np.float32),
        fmt.PERTURBED: np.isin(np.arange(length), perturbed),
    }


def record(path, episodes, **options) -> None:
    with LeRobotWriter(path, ROBOT, 10, **options) as writer:
        for number, frames in enumerate(episodes):
            add(writer, frames, number)


def add(writer: LeRobotWriter, frames: dict[str, np.ndarray], number: int) -> None:
    writer.add_episode(
        frames,
        task=f"task {number % 2}",
        persistent=[(0.2, "subtask", "assistant", "reach"), (0.5, "subtask", "assistant", f"grasp {number}")],
        events=[(3, "interjection", "user", f"say {number}")],
        labels={"group": "even" if number % 2 == 0 else "odd"},
    )
