"""Stack bowls: one into the other, on the one that stands in the middle."""

from pilot.sims.lab.task import LabTask
from pilot.sims.lab.workbench import Area, Workbench
from pilot.sims.world.goals import StackedOn
from pilot.sims.world.phrases import Phrasings
from pilot.sims.world.task import Step

PHRASINGS = Phrasings.of(
    (
        "{stack|pile up|nest} the bowls{|, please}",
        "{stack|put} the bowls {into|on top of} each other",
        "{put|place|stack} all {|the }bowls {in|into} one {stack|pile}",
        "make {one stack|a stack} of the bowls",
    ),
    held_out=(
        "the bowls take {too much|a lot of} room, stack them",
        "build a tower of bowls",
        "let one bowl hold the others",
    ),
)


def lay_out(bench: Workbench, level: int) -> list[Step]:
    """Put a bowl in the middle and one or two at its sides."""
    middle = Area((0.31, 0.36), (-0.04, 0.04))
    sides = [Area((0.28, 0.40), (0.16, 0.28)), Area((0.28, 0.40), (-0.28, -0.16))]
    base = bench.put(["bowl"], middle)
    if level == 1:
        sides = [sides[int(bench.rng.integers(2))]]
    bowls = [bench.put(["bowl"], side) for side in sides]
    return [
        Step(
            goal=StackedOn(bowl.name, base.name),
            subtasks=(f"pick up the {bowl.name}", f"put the {bowl.name} on the {base.name}"),
        )
        for bowl in bowls
    ]


TASK = LabTask(phrasings=PHRASINGS, lay_out=lay_out, seconds=40)
