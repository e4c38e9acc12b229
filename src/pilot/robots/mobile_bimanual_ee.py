"""The `mobile_bimanual` robot, whose arms are moved by their hands.

State and action: base and lift as of `mobile_bimanual`, then, the left hand's first, position x y z [m], the first two
columns of the rotation and the gripper as of `arm_ee`, in the frame of the base (x forwards, z up from the floor).
"""

import dataclasses

from pilot.robots.bimanual_ee import ROBOT as BIMANUAL_EE
from pilot.robots.mobile import BASE_LIMITS
from pilot.robots.mobile_bimanual import ROBOT as MOBILE_BIMANUAL
from pilot.robots.mobile_ee import HAND_LIMITS
from pilot.types import MotionLimits, make_bool_mask

_NAMES = (*MOBILE_BIMANUAL.state_names[:4], *BIMANUAL_EE.state_names)
_UNITS = (*MOBILE_BIMANUAL.state_units[:4], *BIMANUAL_EE.state_units)

ROBOT = dataclasses.replace(
    MOBILE_BIMANUAL,
    name="mobile_bimanual_ee",
    state_names=_NAMES,
    action_names=_NAMES,
    state_units=_UNITS,
    action_units=_UNITS,
    delta_mask=make_bool_mask(-3, 4, -7, 3, -7),
    control_mode="end_effector",
    limits=MotionLimits.join(BASE_LIMITS, *[HAND_LIMITS] * 2),
)
