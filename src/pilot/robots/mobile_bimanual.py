"""A mobile robot of `sims/world`: a base that drives in any direction, a lift and two arms, at 50 Hz.

State: velocity of the base forwards, to the left [m/s] and turning left [rad/s], in its own frame and as measured,
height of the lift [m]; then, the left arm's first, six joints [rad] and how far the gripper is open, 0 (closed) to 1
(9 cm). Action: the same, as targets. `front` looks down from the head, `back` to the rear.
"""

from dataclasses import replace

from pilot.robots.arm import LIMITS as ARM_LIMITS
from pilot.robots.bimanual import ROBOT as BIMANUAL
from pilot.robots.mobile import BASE_LIMITS, hand_box
from pilot.types import MotionLimits, Robot, make_bool_mask

_NAMES = ("base_vx", "base_vy", "base_wz", "lift", *BIMANUAL.state_names)
_UNITS = ("m/s", "m/s", "rad/s", "m", *BIMANUAL.state_units)

ROBOT = Robot(
    name="mobile_bimanual",
    cameras=("front", "back", "left_wrist", "right_wrist"),
    wrist_cameras=("left_wrist", "right_wrist"),
    slots=("front", "back", "left_wrist", "right_wrist"),
    state_names=_NAMES,
    action_names=_NAMES,
    state_units=_UNITS,
    action_units=_UNITS,
    delta_mask=make_bool_mask(-3, 7, -1, 6, -1),
    grippers=BIMANUAL.grippers,
    control_hz=50.0,
    limits=replace(
        MotionLimits.join(BASE_LIMITS, *[ARM_LIMITS] * 2),
        workspaces=(hand_box(first=4, mount=(0.06, 0.22, 0.3)), hand_box(first=11, mount=(0.06, -0.22, 0.3))),
    ),
    control_mode="joint",
)
