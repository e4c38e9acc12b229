"""BridgeData V2's WidowX 250, moved by its hand, at 5 Hz.

State: position x y z [m] and roll pitch yaw [rad] of the hand, gripper from 0 (closed) to 1 (open). Action: how far
the hand moves in this step, relative already [m, rad], and the gripper's target, 1 open and 0 closed. `image_0` looks
over the shoulder and is in every episode, the wrist camera `image_3` in few.
"""

from pilot.types import Gripper, MotionLimits, Robot, make_bool_mask

ROBOT = Robot(
    name="bridge",
    cameras=("image_0", "image_1", "image_2", "image_3"),
    wrist_cameras=("image_3",),
    slots=("base_0_rgb", None, None, "left_wrist_0_rgb"),
    state_names=("x", "y", "z", "roll", "pitch", "yaw", "gripper"),
    action_names=("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper"),
    state_units=("m",) * 3 + ("rad",) * 3 + ("0 to 1",),
    action_units=("m per step",) * 3 + ("rad per step",) * 3 + ("0 or 1",),
    delta_mask=make_bool_mask(-7),
    grippers=(Gripper(action="gripper", open=1.0, closed=0.0, state="gripper", state_open=1.0, state_closed=0.0),),
    control_hz=5.0,
    # The action space of the robot's own environments: at most 5 cm and 0.25 rad in a step, from any step to any other.
    limits=MotionLimits(
        low=(-0.05,) * 3 + (-0.25,) * 3 + (0.0,),
        high=(0.05,) * 3 + (0.25,) * 3 + (1.0,),
        speed=(0.5,) * 3 + (2.5,) * 3 + (5.0,),
        acceleration=(None,) * 7,
    ),
)
