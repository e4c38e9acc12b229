"""A mobile robot of `sims/world`: a base that drives in any direction, a lift and one arm, at 20 Hz.

State: velocity of the base forwards, to the left [m/s] and turning left [rad/s], in its own frame and as measured,
height of the lift [m], six joints [rad], how far the gripper is open, 0 (closed) to 1 (9 cm). Action: the same, as
targets. `front` looks down from the head, `back` to the rear.
"""

from pilot.robots.arm import LIMITS as ARM_LIMITS
from pilot.types import Gripper, MotionLimits, Robot, make_bool_mask

_NAMES = ("base_vx", "base_vy", "base_wz", "lift", *(f"joint_{i}" for i in range(1, 7)), "gripper")
_UNITS = ("m/s", "m/s", "rad/s", "m") + ("rad",) * 6 + ("0 to 1",)

# The base's top speed and the lift's range are those of the body (`sims/world/control.py`, `bodies/base.py`).
BASE_LIMITS = MotionLimits(
    low=(-0.8, -0.8, -1.6, 0.3),
    high=(0.8, 0.8, 1.6, 0.9),
    speed=(80.0, 80.0, 160.0, 3.0),  # it may be stopped, and turned round, within a tick
    acceleration=(None,) * 4,
)

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
    limits=MotionLimits.join(BASE_LIMITS, ARM_LIMITS),
    control_mode="joint",
)
