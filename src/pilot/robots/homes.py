"""The robot of `sims/homes`: a ceiling gantry with a suction gripper.

State: pad position x y z [m], last suction command (0 or 1), holding (0 or 1, a vacuum sensor).
Action: absolute target x y z [m] of the next control step, and suction (above 0.5 is on).
"""

from pilot.types import Gripper, MotionLimits, Robot, make_bool_mask

ROBOT = Robot(
    name="homes",
    cameras=("room", "wrist"),
    wrist_cameras=("wrist",),
    state_names=("x", "y", "z", "suction", "holding"),
    action_names=("x", "y", "z", "suction"),
    state_units=("m", "m", "m", "0 or 1", "0 or 1"),
    action_units=("m", "m", "m", "0 or 1"),
    delta_mask=make_bool_mask(3, -1),
    grippers=(Gripper(action="suction", open=0.0, closed=1.0, state="suction", state_open=0.0, state_closed=1.0),),
    control_hz=10.0,
    # The gantry's rails, and a control step beyond them, which experts that are pushed about may ask for in vain.
    limits=MotionLimits(
        low=(-0.4, -0.35, -0.05, 0.0),
        high=(0.4, 0.35, 0.43, 1.0),
        speed=(2.0, 2.0, 2.0, 20.0),
        acceleration=(None,) * 4,
    ),
)
