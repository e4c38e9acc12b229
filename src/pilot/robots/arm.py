"""A static arm of `sims/world`: six joints and a gripper on a stand, joint position targets at 20 Hz.

State and action: six joints [rad] and how far the gripper is open, 0 (closed) to 1 (9 cm). `front` is fixed and looks
over the arm's shoulder at what it works on.
"""

from pilot.types import Gripper, MotionLimits, Robot, make_bool_mask

_NAMES = (*(f"joint_{i}" for i in range(1, 7)), "gripper")
_UNITS = ("rad",) * 6 + ("0 to 1",)

# Joint ranges are those of the body (`sims/world/bodies/base.py`). The rest is ours: the experts' fastest motions pass.
LIMITS = MotionLimits(
    low=(-3.0, -2.4, -0.2, -2.9, -2.0, -3.1, 0.0),
    high=(3.0, 1.4, 2.9, 2.9, 2.0, 3.1, 1.0),
    speed=(8.0,) * 6 + (60.0,),
    acceleration=(None,) * 7,
)

ROBOT = Robot(
    name="arm",
    cameras=("front", "wrist"),
    wrist_cameras=("wrist",),
    slots=("front", "right_wrist"),
    state_names=_NAMES,
    action_names=_NAMES,
    state_units=_UNITS,
    action_units=_UNITS,
    delta_mask=make_bool_mask(6, -1),
    grippers=(Gripper(action="gripper", open=1.0, closed=0.0, state="gripper", state_open=1.0, state_closed=0.0),),
    control_hz=20.0,
    limits=LIMITS,
    control_mode="joint",
)
