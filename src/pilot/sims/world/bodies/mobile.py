"""The body of robot `mobile`: a base, a lift and one arm in the middle. The head looks past the arm from the left."""

from pilot.robots.mobile import ROBOT
from pilot.sims.world.bodies.base import Arm, Body, View

BODY = Body(
    name="mobile",
    robot=ROBOT,
    arms=(Arm(side="right", mount=(0.06, 0, 0.3), camera="wrist"),),
    views=(
        View(name="front", eye=(0.0, 0.27, 0.80), target=(0.55, 0.08, 0.1), fovy=65),
        View(name="back", eye=(-0.2, 0, 0.6), target=(-1.2, 0, 0.0), fovy=75),
    ),
    is_mobile=True,
)
