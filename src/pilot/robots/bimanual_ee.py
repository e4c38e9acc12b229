"""The `bimanual`, moved by its hands: where they should be instead of how the joints should stand.

State and action, the left hand's first, as of `arm_ee`: position x y z [m], the first two columns of the rotation, in
the frame of the stand between the arms; how far the gripper is open, 0 (closed) to 1 (9 cm).
"""

import dataclasses

from pilot.robots.arm_ee import LIMITS as HAND_LIMITS
from pilot.robots.arm_ee import ROBOT as ARM_EE
from pilot.robots.bimanual import ROBOT as BIMANUAL
from pilot.types import MotionLimits, make_bool_mask

_NAMES = tuple(f"{side}_{name}" for side in ("left", "right") for name in ARM_EE.state_names)

ROBOT = dataclasses.replace(
    BIMANUAL,
    name="bimanual_ee",
    state_names=_NAMES,
    action_names=_NAMES,
    state_units=ARM_EE.state_units * 2,
    action_units=ARM_EE.action_units * 2,
    delta_mask=make_bool_mask(3, -7, 3, -7),
    control_mode="end_effector",
    limits=MotionLimits.join(HAND_LIMITS, HAND_LIMITS),
)
