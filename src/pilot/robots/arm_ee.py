"""The `arm`, moved by its hand: where the hand should be instead of how the joints should stand.

State and action: position x y z [m] of the point between the fingertips, and the first two columns of its rotation, in
the frame of the arm's stand (x forwards, z up); how far the gripper is open, 0 (closed) to 1 (9 cm). The hand's x axis
points out of the gripper, its fingers open along y.
"""

import dataclasses

from pilot.robots.arm import ROBOT as ARM
from pilot.types import MotionLimits, make_bool_mask

_NAMES = ("x", "y", "z", "r11", "r21", "r31", "r12", "r22", "r32", "gripper")
_UNITS = ("m",) * 3 + ("1",) * 6 + ("0 to 1",)

# The arm reaches 0.7 m around its shoulder; columns of a rotation are within 1.
LIMITS = MotionLimits(
    low=(-0.9, -0.9, -0.9) + (-1.0,) * 6 + (0.0,),
    high=(0.9, 0.9, 1.1) + (1.0,) * 6 + (1.0,),
    speed=(6.0,) * 3 + (40.0,) * 6 + (60.0,),
    acceleration=(None,) * 10,
)

ROBOT = dataclasses.replace(
    ARM,
    name="arm_ee",
    state_names=_NAMES,
    action_names=_NAMES,
    state_units=_UNITS,
    action_units=_UNITS,
    delta_mask=make_bool_mask(3, -7),
    control_mode="end_effector",
    limits=LIMITS,
)
