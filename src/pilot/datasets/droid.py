"""DROID (RLDS release 1.0.1, `droid/1.0.1`): joint velocities, as openpi trains on it.

Failed episodes are left out. Steps in which the arm rests are left out of what training draws, by openpi's rule: of
each stretch that moves for about a second or more all but the end, whose chunks would mostly hold still. Policies
trained on resting arms learn to rest.
"""

from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float

from pilot.data.formats.rlds import EpisodeFeatures, RldsLayout, RobotColumns
from pilot.datasets import Dataset

STILL = 1e-3  # change of a joint's velocity command below which a step is idle
IDLE_STEPS, MOVING_STEPS, CUT_STEPS = 7, 16, 10


def columns(features: EpisodeFeatures) -> RobotColumns | None:
    """Read state and action: joints, then the gripper (0 is open, 1 closed). Failed episodes are left out."""
    if "success" not in features.metadata("file_path"):
        return None
    gripper = features["observation/gripper_position"].reshape(-1, 1)
    target = features["action_dict/gripper_position"].reshape(-1, 1)
    velocity = features["action_dict/joint_velocity"]
    return RobotColumns(
        state=np.concatenate([features["observation/joint_position"], gripper], axis=1),
        actions=np.concatenate([velocity, target], axis=1),
        trainable=moving(velocity),
    )


def moving(velocity: Float[np.ndarray, "t d"]) -> Bool[np.ndarray, " t"]:
    """Find the steps to train on: see the module's head (openpi, examples/droid/compute_droid_nonidle_ranges.py).

    Stretches of at least `IDLE_STEPS` idle steps go; of what is left, stretches of fewer than `MOVING_STEPS`, and the
    last `CUT_STEPS` of the others.
    """
    idle = np.concatenate([[False], (np.abs(np.diff(velocity, axis=0)) < STILL).all(axis=1)])
    keep = np.ones(len(velocity), bool)
    for start, stop in _runs(idle):
        if stop - start >= IDLE_STEPS:
            keep[start:stop] = False
    trainable = np.zeros(len(velocity), bool)
    for start, stop in _runs(keep):
        if stop - start >= MOVING_STEPS:
            trainable[start : stop - CUT_STEPS] = True
    return trainable


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """(start, stop) of each stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(int)))
    return [(int(a), int(b)) for a, b in list(pairwise(edges))[::2]]


_CAMERAS = ("exterior_image_1_left", "exterior_image_2_left", "wrist_image_left")

DATASETS = (
    Dataset(
        name="droid",
        path="droid",
        robot="droid",
        reader="robot",
        objective="flow and FAST on actions",
        layout=RldsLayout(
            fps=15.0,
            cameras={camera: f"observation/{camera}" for camera in _CAMERAS},
            instruction=("language_instruction", "language_instruction_2", "language_instruction_3"),
            columns=columns,
        ),
    ),
)
