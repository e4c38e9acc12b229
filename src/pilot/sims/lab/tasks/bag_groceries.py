"""Bag groceries: everything on the table goes into a paper bag.

A stand-in: the bag is stiff and stands open.
"""

from pilot.sims.lab.task import LabTask, move_step
from pilot.sims.lab.workbench import CARDBOARD, Area, Workbench, paint
from pilot.sims.world.phrases import Phrasings
from pilot.sims.world.task import Step

GROCERIES = (
    "apple", "orange", "lemon", "tomato", "banana", "carrot", "soup can", "jam jar", "yoghurt", "cheese", "milk carton",
    "cereal box", "loaf of bread", "pear", "tuna tin",
)  # fmt: skip
BAG = "paper bag"

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
    """Put the bag on one side and groceries beside it."""
    rng = bench.rng
    side = 1 if rng.random() < 0.5 else -1
    xy = (float(rng.uniform(0.38, 0.42)), side * float(rng.uniform(0.18, 0.22)))
    yaw = float(rng.uniform(-0.2, 0.2))
    bench.container(BAG, xy, (0.09, 0.11, 0.18), rgb=paint(rng, CARDBOARD), yaw=yaw, mass=1.0)
    bench.take(xy, 0.16)
    area = Area((0.24, 0.44), (-0.32, 0.0) if side > 0 else (0.0, 0.32))
    count = 2 if level == 1 else int(rng.integers(3, 5))
    return [move_step(bench.put(GROCERIES, area, gap=0.03), BAG) for _ in range(count)]


TASK = LabTask(phrasings=PHRASINGS, lay_out=lay_out, seconds=90)
