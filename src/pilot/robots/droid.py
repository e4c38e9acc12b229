"""DROID: a Franka arm with a Robotiq gripper, two outer cameras and one on the wrist, at 15 Hz.

State: seven joints [rad], gripper from 0 (open) to 1 (closed). Action: joint velocities as shares of the fastest
(1 is 0.2 rad per step), which are relative already, and the gripper's target on the state's scale. The second outer
camera is not shown to models; a data set may name either of the two as the first.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pilot.types import Gripper, MotionLimits, Robot, make_bool_mask

ROBOT = Robot(
    name="droid",
    cameras=("exterior_image_1_left", "exterior_image_2_left", "wrist_image_left"),
    wrist_cameras=("wrist_image_left",),
    slots=("base_0_rgb", None, "left_wrist_0_rgb"),
    state_names=(*(f"joint_{i}" for i in range(7)), "gripper"),
    action_names=(*(f"velocity_{i}" for i in range(7)), "gripper"),
    state_units=("rad",) * 7 + ("0 to 1",),
    action_units=("0.2 rad per step",) * 7 + ("0 to 1",),
    delta_mask=make_bool_mask(-8),
    grippers=(Gripper(action="gripper", open=0.0, closed=1.0, state="gripper", state_open=0.0, state_closed=1.0),),
    control_hz=15.0,
    # DROID's own controller scales velocities down to ±1; how fast they may change, it does not say.
    limits=MotionLimits(low=(-1.0,) * 7 + (0.0,), high=(1.0,) * 8, speed=(30.0,) * 8, acceleration=(None,) * 8),
)


def from_openpi(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the observation that openpi's DROID client sends into pilot's words."""
    gripper = np.atleast_1d(np.asarray(raw["observation/gripper_position"]))
    cameras = {camera: f"observation/{camera}" for camera in ROBOT.cameras}
    return {
        "images": {camera: raw[key] for camera, key in cameras.items() if key in raw},
        "state": np.concatenate([np.asarray(raw["observation/joint_position"]), gripper]),
        "prompt": raw.get("prompt"),
    }
