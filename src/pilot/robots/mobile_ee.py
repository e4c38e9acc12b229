"""The `mobile` robot, whose arm is moved by its hand.

State and action: base and lift as of `mobile`, then position x y z [m] of the hand, the first two columns of its
rotation and the gripper as of `arm_ee`, in the frame of the base (x forwards, z up from the floor).
"""

import dataclasses

from pilot.robots.arm_ee import ROBOT as ARM_EE
from pilot.robots.mobile import ROBOT as MOBILE
from pilot.types import make_bool_mask

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
)
