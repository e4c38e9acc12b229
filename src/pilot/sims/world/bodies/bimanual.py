"""The body of robot `bimanual`: two arms side by side, 50 cm apart. Its camera looks between them."""

from pilot.robots.bimanual import ROBOT
from pilot.sims.world.bodies.base import Arm, Body, View

BODY = Body(
    name="bimanual",
    robot=ROBOT,
    arms=(
        Arm(side="left", mount=(0, 0.25, 0), camera="left_wrist"),
        Arm(side="right", mount=(0, -0.25, 0), camera="right_wrist"),
    ),
    views=(View(name="front", eye=(-0.22, 0, 0.80), target=(0.36, 0, 0), fovy=58),),
)
