"""Bus a table: dishes go into a tub, rubbish into a bin."""

from pilot.sims.lab.task import LabTask, move_step
from pilot.sims.lab.workbench import DARK, Area, Workbench, paint
from pilot.sims.world.phrases import Phrasings
from pilot.sims.world.task import Step

DISHES = ("plate", "bowl", "mug", "glass", "saucer")
RUBBISH = ("crumpled paper", "crushed can", "wrapper", "paper cup", "apple core", "egg shell")
TUB, BIN = "dish tub", "trash bin"

PHRASINGS = Phrasings.of(
    (
        "{bus|clear|clean up} the table{|, please}",
        "put the dishes in the {tub|dish tub} and the {trash|rubbish} in the {bin|trash bin}",
        "sort the table: dishes {in|into} the tub, {trash|rubbish|garbage} {in|into} the bin",
        "{clear|take} everything off the table{|: dishes in the tub, trash in the bin}",
    ),
    held_out=(
        "the guests are gone, tidy up the table",
        "make the table ready for the next guests",
        "sort what the guests left {behind|here}",
    ),
)


def lay_out(bench: Workbench, level: int) -> list[Step]:
    """Put a tub and a bin at the sides, and dishes and rubbish between them."""
    rng = bench.rng
    side = 1 if rng.random() < 0.5 else -1
    for name, inside, rgb, sign in (
        (TUB, (0.11, 0.10, 0.09), (0.55, 0.57, 0.60), side),
        (BIN, (0.085, 0.085, 0.13), DARK, -side),
    ):
        xy = (float(rng.uniform(0.38, 0.41)), sign * float(rng.uniform(0.28, 0.31)))
        bench.container(name, xy, inside, rgb=paint(rng, rgb))
        bench.take(xy, 0.13)
    area = Area((0.22, 0.46), (-0.17, 0.17)) if level > 1 else Area((0.30, 0.38), (-0.12, 0.12))
    count = (int(rng.integers(1, 3)), int(rng.integers(1, 3))) if level > 1 else (1, 1)
    dishes = [bench.put(DISHES, area, gap=0.025) for _ in range(count[0])]
    rubbish = [bench.put(RUBBISH, area, gap=0.025) for _ in range(count[1])]
    return [move_step(item, TUB) for item in dishes] + [move_step(item, BIN) for item in rubbish]


TASK = LabTask(phrasings=PHRASINGS, lay_out=lay_out, seconds=75)
