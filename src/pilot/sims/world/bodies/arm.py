"""The body of robot `arm`: one arm on a stand. Its camera looks over the left shoulder, where the arm hides little."""

from pilot.robots.arm import ROBOT
from pilot.sims.world.bodies.base import Arm, Body, View

BODY = Body(
    name="arm",
    robot=ROBOT,
    arms=(Arm(side="right", camera="wrist"),),
    views=(View(name="front", eye=(-0.12, 0.30, 0.72), target=(0.36, 0.04, 0.0), fovy=60),),
)
