"""The `mobile` robot, whose arm is moved by its hand.

State and action: base and lift as of `mobile`, then position x y z [m] of the hand, the first two columns of its
rotation and the gripper as of `arm_ee`, in the frame of the base (x forwards, z up from the floor).
"""

import dataclasses

from pilot.robots.arm_ee import LIMITS as ARM_LIMITS
from pilot.robots.arm_ee import ROBOT as ARM_EE
from pilot.robots.mobile import BASE_LIMITS
from pilot.robots.mobile import ROBOT as MOBILE
from pilot.types import MotionLimits, make_bool_mask

# Of the hand, seen from the floor below the base: as the arm's, with the lift beneath it.
HAND_LIMITS = dataclasses.replace(
    ARM_LIMITS, low=(-0.9, -0.9, 0.0, *ARM_LIMITS.low[3:]), high=(0.9, 0.9, 2.1, *ARM_LIMITS.high[3:])
)

_NAMES = (*MOBILE.state_names[:4], *ARM_EE.state_names)
_UNITS = (*MOBILE.state_units[:4], *ARM_EE.state_units)

ROBOT = dataclasses.replace(
    MOBILE,
    name="mobile_ee",
    state_names=_NAMES,
    action_names=_NAMES,
    state_units=_UNITS,
    action_units=_UNITS,
    delta_mask=make_bool_mask(-3, 4, -7),
    control_mode="end_effector",
    limits=MotionLimits.join(BASE_LIMITS, HAND_LIMITS),
)
