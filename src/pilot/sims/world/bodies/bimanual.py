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
    views=(View(name="front", eye=(-0.27, 0, 0.89), target=(0.38, 0, 0), fovy=60),),
)
