"""Close a box: the two side flaps first, then the two that lie over them.

A stand-in: stiff plates on hinges that stay where they are left, in place of cardboard that bends. The box is given
folded out, with its bottom closed; π0 folds it from a flat sheet.
"""

import numpy as np

from pilot.sims.lab.motions import grip_all
from pilot.sims.lab.task import LabTask, Turned
from pilot.sims.lab.workbench import CARDBOARD, Area, Workbench, paint
from pilot.sims.world.ik import pointing_down
from pilot.sims.world.motions import Motion, reach, wait
from pilot.sims.world.phrases import Phrasings
from pilot.sims.world.physics import add_geom
from pilot.sims.world.planner import Planner
from pilot.sims.world.task import Step

HALF, HEIGHT, WALL = (0.09, 0.12), 0.12, 0.004  # inside measures [m]
SIDES, ENDS = ("left flap", "right flap"), ("front flap", "back flap")
OPEN = 1.9  # how far flaps stand open at the start, from closed [rad]
SHUT = 0.35  # closed enough, from lying flat [rad]; the upper flaps rest on the lower ones

PHRASINGS = Phrasings.of(
    (
        "{close|shut|fold up} the {box|carton|cardboard box}",
        "fold {in|down} the {flaps of the box|box flaps|four flaps}",
        "{close|fold} all {|the }flaps of the {box|carton}",
        "assemble the {box|cardboard box|carton}",
    ),
    held_out=(
        "get the {box|carton} ready to {ship|send}",
        "make sure that the box is closed",
        "finish folding the box",
    ),
)


def lay_out(bench: Workbench, level: int) -> list[Step]:
    """Put an open carton before the robot."""
    rng, spread = bench.rng, 0.015 * level
    xy = Area((0.31 - spread, 0.31 + spread), (-spread, spread)).draw(rng)
    box = bench.free("box", xy, yaw=float(rng.uniform(-0.05, 0.05) * level))
    rgb = paint(rng, CARDBOARD)
    bench.tub(box, (*HALF, HEIGHT), rgb=rgb, wall=WALL, mass=0.6)
    x, y, z = HALF[0] + WALL, HALF[1] + WALL, HEIGHT + WALL
    flaps = {  # where the hinge is, its axis, and which way the flap lies when closed
        "left flap": ((0.0, y, z), (-1.0, 0, 0), (0, -1), HALF[1] / 2),
        "right flap": ((0.0, -y, z), (1.0, 0, 0), (0, 1), HALF[1] / 2),
        "back flap": ((x, 0.0, z + 0.006), (0, 1.0, 0), (-1, 0), HALF[0] / 2),
        "front flap": ((-x, 0.0, z + 0.006), (0, -1.0, 0), (1, 0), HALF[0] / 2),
    }
    for name, (at, axis, inward, length) in flaps.items():
        start = OPEN + float(rng.uniform(-0.2, 0.2))
        flap = bench.hinged(box, name, at=at, axis=axis, limits=(-0.02, 2.2), friction=0.012, start=start)
        half = np.abs(np.array(inward)) * (length - 0.004) + (1 - np.abs(np.array(inward))) * (np.array(HALF) - 0.004)
        middle = (inward[0] * length, inward[1] * length, 0)
        add_geom(flap, "box", size=(*half, 0.002), pos=middle, rgb=paint(rng, rgb, spread=0.1), mass=0.03)
    words = {SIDES: "fold in the side flaps", ENDS: "fold in the front and back flaps"}
    return [
        Step(
            goal=Turned(flap, 0.0, SHUT, f"{flap} closed"), subtasks=(text,), skill="sides" if pair == SIDES else "ends"
        )
        for pair, text in words.items()
        for flap in pair
    ]


# Where hands go to push a flap over, seen from its hinge: outwards and up [m].
_PUSH = ((0.11, -0.02), (0.075, 0.04), (0.03, 0.08), (-0.03, 0.07), (-0.06, 0.03), (-0.06, 0.022))


def fold_sides(planner: Planner, step: Step, rng: np.random.Generator) -> Motion:
    """Push both side flaps over, each with the hand on its side."""
    yield from _fold(planner, along_y=True, aside=0.0, push=_PUSH)


def fold_ends(planner: Planner, step: Step, rng: np.random.Generator) -> Motion:
    """Push the front flap over with the left hand and the back flap with the right one."""
    yield from _fold(planner, along_y=False, aside=0.03, push=_PUSH)


def _fold(planner: Planner, *, along_y: bool, aside: float, push: tuple[tuple[float, float], ...]) -> Motion:
    left, right = planner.body.arms
    centre, rot = planner.world.pos("box"), planner.world.rot("box")
    yaw = float(np.arctan2(rot[1, 0], rot[0, 0]))
    down = pointing_down(yaw)
    edge = HALF[1] + WALL if along_y else HALF[0] + WALL

    def poses(out: float, up: float) -> dict:
        first = (0.0, edge + out) if along_y else (-edge - out, aside)
        second = (0.0, -edge - out) if along_y else (edge + out, -aside)
        z = HEIGHT + WALL + up
        return {arm: (centre + rot @ np.array([*xy, z]), down) for arm, xy in ((left, first), (right, second))}

    yield from grip_all(planner, (left, right), 0, seconds=0.1)
    yield from reach(planner, poses(0.11, 0.12), speed=0.5)
    for i, (out, up) in enumerate(push):
        yield from reach(planner, poses(out, up), speed=0.3 if i == 0 else 0.35)
    yield from reach(planner, poses(-0.03, 0.14), speed=0.4)
    yield from wait(planner, 0.2)


TASK = LabTask(
    phrasings=PHRASINGS,
    lay_out=lay_out,
    skills={"sides": fold_sides, "ends": fold_ends},
    seconds=40,
    ordered=True,
)
