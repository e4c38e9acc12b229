"""Google's mobile manipulator of RT-1 (data set `fractal20220817_data`), moved by its hand, at 3 Hz.

State: position x y z [m] and quaternion qx qy qz qw of the hand, how far the gripper is closed (0 open, 1 closed).
Action: how far the hand moves in this step, relative already [m, rad], and the gripper's target, 1 open and 0 closed.
The recorded command is a change of the gripper (1 close, −1 open, 0 as it is); readers turn it into the target.
"""

from math import pi

from pilot.types import Gripper, MotionLimits, Robot, make_bool_mask

ROBOT = Robot(
    name="google_robot",
    cameras=("image",),
    slots=("base_0_rgb",),
    state_names=("x", "y", "z", "qx", "qy", "qz", "qw", "gripper_closed"),
    action_names=("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper"),
    state_units=("m",) * 3 + ("1",) * 4 + ("0 to 1",),
    action_units=("m per step",) * 3 + ("rad per step",) * 3 + ("0 or 1",),
    delta_mask=make_bool_mask(-7),
    grippers=(
        Gripper(action="gripper", open=1.0, closed=0.0, state="gripper_closed", state_open=0.0, state_closed=1.0),
    ),
    control_hz=3.0,
    # The action space of RT-1, wide as it is: 1 m and a quarter turn in a step, from any step to any other.
    limits=MotionLimits(
        low=(-1.0,) * 3 + (-pi / 2,) * 3 + (0.0,),
        high=(1.0,) * 3 + (pi / 2,) * 3 + (1.0,),
        speed=(6.0,) * 3 + (3 * pi,) * 3 + (3.0,),
        acceleration=(None,) * 7,
    ),
)
