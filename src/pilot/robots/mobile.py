"""A mobile robot of `sims/world`: a base that drives in any direction, a lift and one arm, at 20 Hz.

State: velocity of the base forwards, to the left [m/s] and turning left [rad/s], in its own frame and as measured,
height of the lift [m], six joints [rad], how far the gripper is open, 0 (closed) to 1 (9 cm). Action: the same, as
targets. `front` looks down from the head, `back` to the rear.
"""

from dataclasses import replace

from pilot.robots.arm import HAND, JOINTS
from pilot.robots.arm import LIMITS as ARM_LIMITS
from pilot.types import Gripper, HandWorkspace, Joint, MotionLimits, Robot, Vector, make_bool_mask

_NAMES = ("base_vx", "base_vy", "base_wz", "lift", *(f"joint_{i}" for i in range(1, 7)), "gripper")
_UNITS = ("m/s", "m/s", "rad/s", "m") + ("rad",) * 6 + ("0 to 1",)

# The base's top speed and the lift's range are those of the body (`sims/world/control.py`, `bodies/base.py`).
BASE_LIMITS = MotionLimits(
    low=(-0.8, -0.8, -1.6, 0.3),
    high=(0.8, 0.8, 1.6, 0.9),
    speed=(80.0, 80.0, 160.0, 3.0),  # it may be stopped, and turned round, within a tick
    acceleration=(None,) * 4,
)


def hand_box(*, first: int, mount: Vector) -> HandWorkspace:
    """Return where a hand may be, seen from the floor below the base; the dims of its arm begin with `first`.

    Fingers that press may be told to be a little below the floor.
    """
    lift = Joint(dim=3, axis=(0, 0, 1), at=(0, 0, 0), slides=True)
    x, y, z = (of_arm + of_joint for of_arm, of_joint in zip(mount, JOINTS[0].at))
    arm = [replace(joint, dim=joint.dim + first) for joint in JOINTS]
    joints = (lift, replace(arm[0], at=(x, y, z)), *arm[1:])
    return HandWorkspace(low=(-0.9, -1.1, -0.05), high=(0.9, 1.1, 2.1), joints=joints, hand=HAND)


ROBOT = Robot(
    name="mobile",
    cameras=("front", "back", "wrist"),
    wrist_cameras=("wrist",),
    slots=("front", "back", "right_wrist"),
    state_names=_NAMES,
    action_names=_NAMES,
    state_units=_UNITS,
    action_units=_UNITS,
    delta_mask=make_bool_mask(-3, 7, -1),
    grippers=(Gripper(action="gripper", open=1.0, closed=0.0, state="gripper", state_open=1.0, state_closed=0.0),),
    control_hz=20.0,
    limits=replace(MotionLimits.join(BASE_LIMITS, ARM_LIMITS), workspaces=(hand_box(first=4, mount=(0.06, 0.0, 0.3)),)),
    control_mode="joint",
)
