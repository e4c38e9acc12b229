"""Two static arms of `sims/world` side by side, joint position targets at 50 Hz.

State and action, the left arm's first: six joints [rad] and how far the gripper is open, 0 (closed) to 1 (9 cm).
"""

from pilot.robots.arm import LIMITS as ARM_LIMITS
from pilot.types import Gripper, MotionLimits, Robot, make_bool_mask

_PARTS = (*(f"joint_{i}" for i in range(1, 7)), "gripper")
_NAMES = tuple(f"{side}_{part}" for side in ("left", "right") for part in _PARTS)
_UNITS = (("rad",) * 6 + ("0 to 1",)) * 2

ROBOT = Robot(
    name="bimanual",
    cameras=("front", "left_wrist", "right_wrist"),
    wrist_cameras=("left_wrist", "right_wrist"),
    slots=("front", "left_wrist", "right_wrist"),
    state_names=_NAMES,
    action_names=_NAMES,
    state_units=_UNITS,
    action_units=_UNITS,
    delta_mask=make_bool_mask(6, -1, 6, -1),
    grippers=tuple(
        Gripper(action=name, open=1.0, closed=0.0, state=name, state_open=1.0, state_closed=0.0)
        for name in ("left_gripper", "right_gripper")
    ),
    control_hz=50.0,
    limits=MotionLimits.join(ARM_LIMITS, ARM_LIMITS),
    control_mode="joint",
)
