"""Fold a shirt: both sleeves in, then the hem end over the rest.

A stand-in: the shirt is four stiff plates on hinges (see `folding`) and lies flat at the start, its collar towards the
robot.
"""

import numpy as np

from pilot.sims.lab.folding import LAYER, THICK, add_hem, add_plate, fold_over
from pilot.sims.lab.task import LabTask, Turned
from pilot.sims.lab.workbench import Area, Workbench
from pilot.sims.world.motions import UP, Motion
from pilot.sims.world.phrases import Phrasings
from pilot.sims.world.planner import Planner
from pilot.sims.world.task import Step
from pilot.sims.world.things.looks import lighter

CHEST = (0.09, 0.09)  # half sizes x y of the part that stays on the table [m]
SLEEVE = (0.045, 0.045)
TAIL = 0.08  # half length of the part that is folded over last [m]
FLAT = 0.5  # folded well enough, from lying flat [rad]: what lies on a sleeve is not flat

PHRASINGS = Phrasings.of(
    (
        "fold the {shirt|t-shirt|top}{| neatly| up| on the table}",
        "{fold|tuck} in the sleeves and fold the {shirt|t-shirt}{| in half}",
        "make a {tidy|small|flat} {pile|package} of the shirt",
    ),
    held_out=("get the {shirt|t-shirt} ready for the drawer", "the laundry is dry, please fold the shirt"),
)


def lay_out(bench: Workbench, level: int) -> list[Step]:
    """Put a flat shirt before the robot."""
    rng, spread = bench.rng, 0.01 * level
    xy = Area((0.27 - spread, 0.27 + spread), (-spread, spread)).draw(rng)
    rgb = bench.draw_colour()
    trim = lighter(rgb, 0.6)
    shirt = bench.free("shirt", xy, yaw=float(rng.uniform(-0.04, 0.04) * level), z=THICK + 0.001)
    add_plate(shirt, CHEST, (0, 0, 0), rgb=rgb, mass=0.12)
    for side, sign in (("left", 1), ("right", -1)):
        at = (-CHEST[0] + SLEEVE[0] + 0.01, sign * CHEST[1], LAYER)
        limits = (-0.1, 3.14)
        sleeve = bench.hinged(
            shirt, f"{side} sleeve", at=at, axis=(sign, 0, 0), limits=limits, friction=0.003, damping=0.004
        )
        add_plate(sleeve, SLEEVE, (0, sign * SLEEVE[1], -LAYER), rgb=lighter(rgb, 0.15), mass=0.025)
        add_hem(sleeve, (0, sign * (2 * SLEEVE[1] - 0.006), -LAYER), SLEEVE[0], rgb=trim, along="x")
    tail = bench.hinged(
        shirt, "tail", at=(CHEST[0], 0, LAYER), axis=(0, -1, 0), limits=(-0.1, 3.14), friction=0.003, damping=0.004
    )
    add_plate(tail, (TAIL, CHEST[1]), (TAIL, 0, -LAYER), rgb=lighter(rgb, 0.15), mass=0.06)
    add_hem(tail, (2 * TAIL - 0.006, 0, -LAYER), CHEST[1], rgb=trim, along="y")
    sleeves = "fold in the sleeves"
    return [
        Step(goal=Turned("left sleeve", np.pi, FLAT, "left sleeve folded"), subtasks=(sleeves,), skill="sleeves"),
        Step(goal=Turned("right sleeve", np.pi, FLAT, "right sleeve folded"), subtasks=(sleeves,), skill="sleeves"),
        Step(
            goal=Turned("tail", np.pi, FLAT, "tail folded"),
            subtasks=("fold the shirt over",),
            skill="tail",
            needs=(0, 1),
        ),
    ]


def fold_sleeves(planner: Planner, step: Step, rng: np.random.Generator) -> Motion:
    """Fold in the sleeves that are still out, one after the other, each with the hand on its side."""
    world = planner.world
    for arm, side, sign in zip(planner.body.arms, ("left", "right"), (1, -1), strict=True):
        if abs(world.joint(f"{side} sleeve") - np.pi) < FLAT:
            continue
        pos, rot = world.pos(f"{side} sleeve"), world.rot(f"{side} sleeve")
        at = np.array([rng.uniform(-0.01, 0.01), sign * (2 * SLEEVE[1] - 0.006), -LAYER + THICK + 0.006])
        axis = sign * world.rot("shirt")[:, 0]
        # Beyond upright it falls over by itself; the hand would have to reach around the arm to lay it down.
        yield from fold_over(planner, {arm: pos + rot @ at}, pivot=pos, axis=axis, seconds=1.6, angle=0.65 * np.pi)


def fold_tail(planner: Planner, step: Step, rng: np.random.Generator) -> Motion:
    """Take the far hem with both hands and swing it over to the collar."""
    left, right = planner.body.arms
    reach, world = 0.06 + float(rng.uniform(-0.01, 0.01)), planner.world
    pos, rot = world.pos("tail"), world.rot("tail")

    def hem(y: float) -> np.ndarray:
        return pos + rot @ np.array([2 * TAIL - 0.006, y, -LAYER + THICK + 0.006])

    axis = -world.rot("shirt")[:, 1]
    yield from fold_over(planner, {left: hem(reach), right: hem(-reach)}, pivot=pos + 0.004 * UP, axis=axis)


TASK = LabTask(
    phrasings=PHRASINGS,
    lay_out=lay_out,
    skills={"sleeves": fold_sleeves, "tail": fold_tail},
    seconds=40,
)
