"""Sets of Open X-Embodiment whose robots `pilot.robots` knows: RT-1's kitchen data and Berkeley's UR5.

Both record the gripper as a change: 1 closes, −1 opens, 0 leaves it.
"""

import numpy as np
from jaxtyping import Bool, Float

from pilot.data.formats.rlds import EpisodeFeatures, RldsLayout, RobotColumns
from pilot.datasets import Dataset

PRESSED = 0.1  # a change above this is meant


def fractal_columns(features: EpisodeFeatures) -> RobotColumns:
    """Read state (position, quaternion, how far closed) and action (how far the hand moves, and the gripper, 1
    open)."""
    pose, closed = features["observation/base_pose_tool_reached"], features["observation/gripper_closed"]
    hand = [features["action/world_vector"], features["action/rotation_delta"]]
    is_open = ~is_closed(features["action/gripper_closedness_action"].reshape(-1))
    return RobotColumns(
        state=np.concatenate([pose, closed.reshape(-1, 1)], axis=1),
        actions=np.concatenate([*hand, is_open[:, None]], axis=1),
    )


def ur5_columns(features: EpisodeFeatures) -> RobotColumns:
    """Read `robot_state`: six joints, the hand's pose (7), whether the gripper is closed, and more.

    The commands are of the hand; an action here is the joints that were reached at the next step, so the last step is
    left out.
    """
    robot = features["observation/robot_state"]
    joints, gripper = robot[:, :6], robot[:, 13:14]
    closed = is_closed(features["action/gripper_closedness_action"].reshape(-1))
    return RobotColumns(
        state=np.concatenate([joints, gripper], axis=1)[:-1],
        actions=np.concatenate([joints[1:], closed[:-1, None]], axis=1),
    )


def is_closed(change: Float[np.ndarray, " t"]) -> Bool[np.ndarray, " t"]:
    """Return whether the gripper is to be closed, from its changes. Before the first change it is the other way round,
    or open."""
    pressed = np.where(np.abs(change) > PRESSED, np.sign(change), 0)
    changes = np.flatnonzero(pressed)
    if not len(changes):
        return np.zeros(len(change), bool)
    last = np.searchsorted(changes, np.arange(len(change)), side="right") - 1
    return np.where(last < 0, -pressed[changes[0]], pressed[changes[np.maximum(last, 0)]]) > 0


_INSTRUCTION = ("observation/natural_language_instruction",)

DATASETS = (
    Dataset(
        name="fractal20220817_data",
        path="fractal20220817_data",
        robot="google_robot",
        reader="robot",
        objective="flow and FAST on actions",
        layout=RldsLayout(
            fps=3.0, cameras={"image": "observation/image"}, instruction=_INSTRUCTION, columns=fractal_columns
        ),
    ),
    Dataset(
        name="berkeley_autolab_ur5",
        path="berkeley_autolab_ur5",
        robot="ur5",
        reader="robot",
        objective="flow and FAST on actions",
        layout=RldsLayout(
            fps=5.0,
            cameras={"base_rgb": "observation/image", "wrist_rgb": "observation/hand_image"},
            instruction=_INSTRUCTION,
            columns=ur5_columns,
        ),
    ),
)
