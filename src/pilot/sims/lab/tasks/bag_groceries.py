"""Bag groceries: everything on the table goes into a paper bag.

A stand-in: the bag is stiff and stands open.
"""

import numpy as np

from pilot.sims.lab.motions import put_exactly
from pilot.sims.lab.task import LabTask, move_step
from pilot.sims.lab.workbench import CARDBOARD, Area, Workbench, paint
from pilot.sims.world.motions import UP, Deviation, Motion, about
from pilot.sims.world.phrases import Phrasings
from pilot.sims.world.planner import Planner
from pilot.sims.world.skills import pick, tuck
from pilot.sims.world.task import Step

GROCERIES = (
    "apple", "orange", "lemon", "tomato", "banana", "carrot", "soup can", "jam jar", "yoghurt", "cheese", "milk carton",
    "cereal box", "loaf of bread", "pear", "tuna tin",
)  # fmt: skip
BAG = "paper bag"
HALF, HEIGHT = (0.09, 0.11), 0.15  # half sizes inside, and height [m]
_CLEAR = 0.045  # of the tcp over the rim when it lets go [m]

PHRASINGS = Phrasings.of(
    (
        "{bag|pack} the groceries{|, please}",
        "{put|pack} {all|} the {groceries|food|shopping} {in|into} the {bag|paper bag}",
        "{put|pack} everything {in|into} the {bag|paper bag}",
    ),
    held_out=(
        "the customer would like a bag for that",
        "get the {shopping|food} ready to be carried home",
        "nothing stays on the counter, use the bag",
    ),
)


def lay_out(bench: Workbench, level: int) -> list[Step]:
    """Put the bag in the middle, where every hand reaches it, and groceries at its sides."""
    rng = bench.rng
    xy = (float(rng.uniform(0.38, 0.41)), float(rng.uniform(-0.04, 0.04)))
    yaw = float(rng.uniform(-0.2, 0.2))
    bench.container(BAG, xy, (*HALF, HEIGHT), rgb=paint(rng, CARDBOARD), yaw=yaw, mass=1.0)
    bench.take(xy, 0.14)
    areas = (Area((0.26, 0.42), (0.14, 0.34)), Area((0.26, 0.42), (-0.34, -0.14)))
    count = 2 if level == 1 else int(rng.integers(3, 5))
    moves = [move_step(bench.put(GROCERIES, areas, gap=0.035), BAG) for _ in range(count)]
    return [Step(goal=move.goal, subtasks=move.subtasks, skill="bag") for move in moves]


def put_in_bag(planner: Planner, step: Step, rng: np.random.Generator) -> Motion:
    """Pick a thing up, unless it is held, and let go of it just inside the bag: a hand does not fit in."""
    assert step.goal.item is not None
    item = planner.scene.items[step.goal.item]
    if planner.holder(item.name) is None:
        yield from pick(planner, item, rng=rng, to=planner.scene.fixtures[BAG])
    arm = planner.holder(item.name)
    if arm is None:
        raise Deviation(f"the {item.name} is not in the gripper")
    bag, now = planner.world.pos(BAG), planner.world.rot(item.body)
    tcp, centre = planner.world.site(arm.tcp)[0], planner.world.centre(item.body)
    hangs = float(tcp[2] - planner.box_of(item.body)[0][2])
    height = bag[2] + max(HEIGHT + _CLEAR, hangs + 0.015)
    poses = []
    for turn in np.radians([0, 40, -40, 80, -80, 120, -120, 180]):
        rotation = about(UP, float(turn))
        hand = np.array([*(bag + [*rng.uniform(-0.02, 0.02, 2), 0] - rotation @ (centre - tcp))[:2], height])
        poses.append((hand + rotation @ (planner.world.pos(item.body) - tcp), rotation @ now))
    yield from put_exactly(planner, item, poses, rng=rng, over=0.08, spread=0.03, leave=0.08)
    yield from tuck(planner)


TASK = LabTask(phrasings=PHRASINGS, lay_out=lay_out, skills={"bag": put_in_bag}, seconds=90)
