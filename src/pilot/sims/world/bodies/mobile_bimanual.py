"""The body of robot `mobile_bimanual`: a base, a lift and two arms. The head looks down between them."""

from pilot.robots.mobile_bimanual import ROBOT
from pilot.sims.world.bodies.base import Arm, Body, View

BODY = Body(
    name="mobile_bimanual",
    robot=ROBOT,
    arms=(
        Arm(side="left", mount=(0.06, 0.22, 0.3), camera="left_wrist"),
        Arm(side="right", mount=(0.06, -0.22, 0.3), camera="right_wrist"),
    ),
    views=(
        View(name="front", eye=(0.02, 0, 0.78), target=(0.55, 0, 0.1), fovy=62),
        View(name="back", eye=(-0.2, 0, 0.6), target=(-1.2, 0, 0.0), fovy=75),
    ),
    is_mobile=True,
)
