"""MetaWorld's simulated Sawyer, moved by its hand, at 80 Hz.

State: position x y z [m] of the hand, gripper from 0 (closed) to 1 (open). Action: how far the hand moves in this step,
relative already (1 is 1 cm), and the gripper's effort, −1 opens and 1 closes.
"""

from pilot.types import Gripper, MotionLimits, Robot, make_bool_mask

ROBOT = Robot(
    name="metaworld",
    cameras=("corner4", "gripperPOV"),
    wrist_cameras=("gripperPOV",),
    slots=("base_0_rgb", "left_wrist_0_rgb"),
    state_names=("x", "y", "z", "gripper"),
    action_names=("dx", "dy", "dz", "effort"),
    state_units=("m",) * 3 + ("0 to 1",),
    action_units=("1 cm per step",) * 3 + ("-1 to 1",),
    delta_mask=make_bool_mask(-4),
    grippers=(Gripper(action="effort", open=-1.0, closed=1.0, state="gripper", state_open=1.0, state_closed=0.0),),
    control_hz=80.0,
    # The simulator takes ±1 and may be given any other value in the next step. Its fingers press as hard as it says.
    limits=MotionLimits(
        low=(-1.0,) * 4,
        high=(1.0,) * 4,
        speed=(160.0,) * 4,
        acceleration=(None,) * 4,
        effort=(None, None, None, 1.0),
    ),
)
