"""LIBERO's simulated Franka arm, moved by its hand, at 20 Hz.

State: position x y z [m] and axis-angle [rad] of the hand, the two fingers [m] (0.04 and −0.04 are open). Action:
what the operational-space controller takes, relative already: 1 is 5 cm, or 0.5 rad, per step; gripper −1 opens, 1
closes. Pictures are turned by 180° from how the simulator renders them, in data sets and by whoever runs it.
"""

from collections.abc import Mapping
from typing import Any

from pilot.types import Gripper, MotionLimits, Robot, make_bool_mask

ROBOT = Robot(
    name="libero",
    cameras=("image", "wrist_image"),
    wrist_cameras=("wrist_image",),
    slots=("base_0_rgb", "left_wrist_0_rgb"),
    state_names=("x", "y", "z", "rx", "ry", "rz", "finger_left", "finger_right"),
    action_names=("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper"),
    state_units=("m",) * 3 + ("rad",) * 3 + ("m",) * 2,
    action_units=("5 cm per step",) * 3 + ("0.5 rad per step",) * 3 + ("-1 or 1",),
    delta_mask=make_bool_mask(-7),
    grippers=(
        Gripper(action="gripper", open=-1.0, closed=1.0, state="finger_left", state_open=0.04, state_closed=0.0),
    ),
    control_hz=20.0,
    # The simulator's controller takes ±1 and may be given any other value in the next step.
    limits=MotionLimits(low=(-1.0,) * 7, high=(1.0,) * 7, speed=(40.0,) * 7, acceleration=(None,) * 7),
)


def from_openpi(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the observation that openpi's LIBERO client sends into pilot's words."""
    images = {camera: raw[f"observation/{camera}"] for camera in ROBOT.cameras if f"observation/{camera}" in raw}
    return {"images": images, "state": raw["observation/state"], "prompt": raw.get("prompt")}
