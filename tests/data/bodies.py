"""Small random recordings of any robot, and ways to damage them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.writer import LeRobotWriter
from pilot.types import Robot

EPISODES, STEPS = 3, 12


def record_robot(
    path: Path, robot: Robot, *, seed: int, scale: float = 1.0, cameras: tuple[str, ...] | None = None
) -> Path:
    """Three episodes of twelve steps whose states and actions are normal with deviation `scale`."""
    rng = np.random.default_rng(seed)
    robot = replace(robot, cameras=cameras or robot.cameras, wrist_cameras=(), slots=())
    with LeRobotWriter(path, robot, robot.control_hz) as writer:
        for number in range(EPISODES):
            frames = {
                fmt.IMAGES + camera: rng.integers(0, 256, (STEPS, 16, 16, 3), dtype=np.uint8)
                for camera in robot.cameras
            }
            frames[fmt.STATE] = scale * rng.normal(size=(STEPS, robot.state_dim)).astype(np.float32)
            frames[fmt.ACTION] = scale * rng.normal(size=(STEPS, robot.action_dim)).astype(np.float32)
            writer.add_episode(frames, task=f"task {number}", persistent=[(0.0, "subtask", "assistant", "push")])
    return path


def put_nan(path: Path, *, column: str, row: int) -> Path:
    """NaN at a row of a recording's data file, which is returned."""
    file = next(path.glob("data/*/*.parquet"))
    table = pq.read_table(file)
    values = np.array(table[column].to_pylist(), np.float32)
    values[row] = np.nan
    damaged = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    pq.write_table(table.set_column(table.column_names.index(column), column, damaged), file)
    return file
