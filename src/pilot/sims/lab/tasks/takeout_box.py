"""Pack a take-out box: food into the box, then its lid closed.

A stand-in: the box is stiff, its lid a plate on a hinge that stays where it is left.
"""

import numpy as np

from pilot.sims.lab.motions import grip_all
from pilot.sims.lab.task import LabTask, Turned, move_step
from pilot.sims.lab.workbench import Area, Workbench, paint
from pilot.sims.world.ik import pointing_down
from pilot.sims.world.motions import Deviation, Motion, reach, travel
from pilot.sims.world.phrases import Phrasings
from pilot.sims.world.physics import add_geom
from pilot.sims.world.planner import Planner
from pilot.sims.world.skills import arms_by_distance, tuck
from pilot.sims.world.task import Step

FOOD = ("lemon", "tomato", "egg", "donut", "cheese", "slice of toast")
BOX, LID = "take-out box", "take-out lid"
HALF, HEIGHT, WALL = (0.08, 0.10), 0.08, 0.003
OPEN, SHUT = 1.75, 0.3  # of the lid at the start, and closed enough, from closed [rad]

PHRASINGS = Phrasings.of(
    (
        "pack {the food|everything} {in|into} the {take-out box|box}{| and close it}",
        "{fill|pack} the {take-out box|box} and {close|shut} {it|the lid}",
        "put the food in the {take-out box|box}, then close the lid",
    ),
    held_out=("the guest takes the rest home, pack it up", "get the {lunch|meal|order} ready to go"),
)


def lay_out(bench: Workbench, level: int) -> list[Step]:
    """Put an open box before the robot, its lid at the far side, and food at its sides."""
    rng, spread = bench.rng, 0.02 * level
    xy = (float(rng.uniform(0.33, 0.35)), float(rng.uniform(-spread, spread)))
    rgb = paint(rng, (0.82, 0.78, 0.66))
    bench.container(BOX, xy, (*HALF, HEIGHT), rgb=rgb, mass=1.0)
    box = bench.spec.body(BOX)
    lid = bench.hinged(
        box, LID, at=(HALF[0] + WALL, 0, HEIGHT + WALL), axis=(0, 1, 0), limits=(-0.02, 2.0), friction=0.012,
        start=OPEN + float(rng.uniform(-0.1, 0.1)),
    )  # fmt: skip
    add_geom(lid, "box", size=(HALF[0], HALF[1], 0.002), pos=(-HALF[0], 0, 0), rgb=paint(rng, rgb), mass=0.03)
    bench.take(xy, 0.13)
    areas = (Area((0.26, 0.42), (0.14, 0.30)), Area((0.26, 0.42), (-0.30, -0.14)))
    count = 1 if level == 1 else 2
    steps = [move_step(bench.put(FOOD, areas), BOX) for _ in range(count)]
    close = Step(
        goal=Turned(LID, 0.0, SHUT, "lid closed"),
        subtasks=("close the lid",),
        skill="lid",
        needs=tuple(range(count)),
    )
    return [*steps, close]


def close_lid(planner: Planner, step: Step, rng: np.random.Generator) -> Motion:
    """Go behind the lid with a closed hand, and push it over."""
    centre, rotation = planner.world.pos(BOX), planner.world.rot(BOX)
    yaw = float(np.arctan2(rotation[1, 0], rotation[0, 0]))
    down, aside = pointing_down(yaw), float(rng.uniform(-0.02, 0.02))

    def pose(out: float, up: float) -> tuple[np.ndarray, np.ndarray]:
        return centre + rotation @ np.array([HALF[0] + out, aside, HEIGHT + up]), down

    for arm in arms_by_distance(planner, centre, rng):
        start = planner.reach(planner.controller.command.q, {arm: pose(0.08, 0.17)})
        if start is not None:
            break
    else:
        raise Deviation("the far side of the lid is out of reach")
    yield from grip_all(planner, (arm,), 0, seconds=0.2)
    yield from travel(planner, arm, start)
    for out, up in ((0.085, 0.05), (0.05, 0.09), (0.0, 0.12), (-0.06, 0.09), (-0.09, 0.05), (-0.10, 0.022)):
        yield from reach(planner, {arm: pose(out, up)}, speed=0.3, lenient=True)
    yield from reach(planner, {arm: pose(-0.10, 0.14)}, speed=0.4, lenient=True)
    yield from tuck(planner)


TASK = LabTask(phrasings=PHRASINGS, lay_out=lay_out, skills={"lid": close_lid}, seconds=70)
