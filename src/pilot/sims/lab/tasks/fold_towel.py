"""Fold a towel in half with both hands.

A stand-in: the towel is four stiff plates on hinges (see `folding`), and lies flat at the start.
"""

import numpy as np

from pilot.sims.lab.folding import LAYER, THICK, add_hem, add_plate, fold_over
from pilot.sims.lab.task import LabTask, Turned
from pilot.sims.lab.workbench import Area, Workbench
from pilot.sims.world.motions import Motion
from pilot.sims.world.phrases import Phrasings
from pilot.sims.world.planner import Planner
from pilot.sims.world.task import Step
from pilot.sims.world.things.looks import lighter

PLATE, HALF_WIDTH = 0.045, 0.14  # half length of each of the four plates, half width of the towel [m]
FLAT = 0.45  # folded well enough, from lying flat [rad]

PHRASINGS = Phrasings.of(
    (
        "fold the {towel|cloth|hand towel}{| in half| once| neatly}",
        "{fold|lay} the {far|upper} {edge|end} of the towel over {|to the near one}",
        "fold the towel {over|in two|towards you}",
    ),
    held_out=("{double|halve} the towel", "make the towel half as {long|large}", "tidy the towel by folding it"),
)


def lay_out(bench: Workbench, level: int) -> list[Step]:
    """Put a flat towel before the robot, its ends near and far."""
    rng, spread = bench.rng, 0.01 * level
    xy = Area((0.26 - spread, 0.26 + spread), (-spread, spread)).draw(rng)
    rgb = bench.draw_colour()
    yaw = float(rng.uniform(-0.05, 0.05) * level)
    body = bench.free("towel", xy, yaw=yaw, z=THICK + 0.001)
    add_plate(body, (PLATE, HALF_WIDTH), (0, 0, 0), rgb=rgb)
    for name, limits, at in (
        ("towel near", (-0.1, 0.1), (PLATE, 0, 0)),
        ("towel fold", (-0.1, 3.14), (PLATE * 2, 0, LAYER)),
        ("towel far", (-0.1, 0.1), (PLATE * 2, 0, -LAYER)),
    ):
        body = bench.hinged(body, name, at=at, axis=(0, -1, 0), limits=limits, friction=0.003, damping=0.004)
        z = -LAYER if name == "towel fold" else 0.0
        shade = lighter(rgb, 0.2) if name == "towel near" or name == "towel far" else rgb
        add_plate(body, (PLATE, HALF_WIDTH), (PLATE, 0, z), rgb=shade)
    add_hem(body, (PLATE * 2 - 0.005, 0, 0), HALF_WIDTH, rgb=lighter(rgb, 0.7), along="y")
    words = ("take the far edge of the towel", "fold the towel over")
    return [Step(goal=Turned("towel fold", np.pi, FLAT, "towel folded"), subtasks=words, skill="fold")]


def fold(planner: Planner, step: Step, rng: np.random.Generator) -> Motion:
    """Take the far hem with both hands and swing it over to the near edge."""
    left, right = planner.body.arms
    world, reach = planner.world, 0.09 + float(rng.uniform(-0.01, 0.01))
    pos, rot = world.pos("towel far"), world.rot("towel far")

    def hem(y: float) -> np.ndarray:
        return pos + rot @ np.array([PLATE * 2 - 0.005, y, THICK + 0.006])

    pivot, axis = world.pos("towel fold"), -world.rot("towel near")[:, 1]
    yield from fold_over(planner, {left: hem(reach), right: hem(-reach)}, pivot=pivot, axis=axis)


TASK = LabTask(phrasings=PHRASINGS, lay_out=lay_out, skills={"fold": fold}, seconds=20)
