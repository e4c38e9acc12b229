"""A static arm of `sims/world`: six joints and a gripper on a stand, joint position targets at 20 Hz.

State and action: six joints [rad] and how far the gripper is open, 0 (closed) to 1 (9 cm). `front` is fixed and looks
over the arm's shoulder at what it works on.
"""

from pilot.types import Gripper, HandWorkspace, Joint, MotionLimits, Robot, make_bool_mask

_NAMES = (*(f"joint_{i}" for i in range(1, 7)), "gripper")
_UNITS = ("rad",) * 6 + ("0 to 1",)

# From the shoulder to the hand: the links of the body (`sims/world/bodies/base.py`).
JOINTS = (
    Joint(dim=0, axis=(0, 0, 1), at=(0, 0, 0.10)),
    Joint(dim=1, axis=(0, 1, 0), at=(0, 0, 0.05)),
    Joint(dim=2, axis=(0, 1, 0), at=(0.34, 0, 0)),
    Joint(dim=3, axis=(1, 0, 0), at=(0.16, 0, 0)),
    Joint(dim=4, axis=(0, 1, 0), at=(0.15, 0, 0)),
    Joint(dim=5, axis=(1, 0, 0), at=(0.06, 0, 0)),
)
HAND = (0.115, 0.0, 0.0)  # between the fingertips, on the last link

# Joint ranges are those of the body. The hand stays above the table that the arm stands on, but for what it presses.
# The rest is ours: the experts' fastest motions pass.
LIMITS = MotionLimits(
    low=(-3.0, -2.4, -0.2, -2.9, -2.0, -3.1, 0.0),
    high=(3.0, 1.4, 2.9, 2.9, 2.0, 3.1, 1.0),
    speed=(8.0,) * 6 + (60.0,),
    acceleration=(None,) * 7,
    workspaces=(HandWorkspace(low=(-0.9, -0.9, -0.05), high=(0.9, 0.9, 1.1), joints=JOINTS, hand=HAND),),
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
