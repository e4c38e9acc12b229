"""A UR5e with a Robotiq gripper: joint position targets at 20 Hz, one outer camera and one on the wrist.

State and action: six joints [rad], gripper from 0 (open) to 1 (closed).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pilot.types import Gripper, MotionLimits, Robot, make_bool_mask

_NAMES = ("base", "shoulder", "elbow", "wrist_1", "wrist_2", "wrist_3", "gripper")
_UNITS = ("rad",) * 6 + ("0 to 1",)

ROBOT = Robot(
    name="ur5",
    cameras=("base_rgb", "wrist_rgb"),
    wrist_cameras=("wrist_rgb",),
    slots=("base_0_rgb", "left_wrist_0_rgb"),
    state_names=_NAMES,
    action_names=_NAMES,
    state_units=_UNITS,
    action_units=_UNITS,
    delta_mask=make_bool_mask(6, -1),
    grippers=(Gripper(action="gripper", open=0.0, closed=1.0, state="gripper", state_open=0.0, state_closed=1.0),),
    control_hz=20.0,
    # Ranges of ±360° and speeds of 180°/s are those of Universal Robots' UR5e data sheet, which names no acceleration.
    limits=MotionLimits(
        low=(-6.28319,) * 6 + (0.0,),
        high=(6.28319,) * 6 + (1.0,),
        speed=(3.14159,) * 6 + (40.0,),
        acceleration=(None,) * 7,
    ),
)


def from_openpi(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the observation of openpi's UR5 example into pilot's words."""
    state = np.concatenate([np.asarray(raw["joints"]), np.atleast_1d(np.asarray(raw["gripper"]))])
    images = {camera: raw[camera] for camera in ROBOT.cameras if camera in raw}
    return {"images": images, "state": state, "prompt": raw.get("prompt")}
