"""The robot of `sims/homes`: a ceiling gantry with a suction gripper.

State: pad position x y z [m], last suction command (0 or 1), holding (0 or 1, a vacuum sensor).
Action: absolute target x y z [m] of the next control step, and suction (above 0.5 is on).
"""

from pilot.types import Robot

ROBOT = Robot(
    name="homes",
    cameras=("room", "wrist"),
    wrist_cameras=("wrist",),
    state_names=("x", "y", "z", "suction", "holding"),
    action_names=("x", "y", "z", "suction"),
    delta_mask=(True, True, True, False),
    control_hz=10.0,
)
