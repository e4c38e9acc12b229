"""Stack bowls: one into the other, on the one that stands in the middle."""

import numpy as np

from pilot.sims.lab.motions import put_exactly
from pilot.sims.lab.task import LabTask
from pilot.sims.lab.workbench import Area, Workbench
from pilot.sims.world.goals import StackedOn
from pilot.sims.world.motions import UP, Motion, about
from pilot.sims.world.phrases import Phrasings
from pilot.sims.world.planner import Planner
from pilot.sims.world.skills import pick, tuck
from pilot.sims.world.task import Step

NESTED = 0.02  # a bowl is let go of this far above the one that it goes into [m]

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
            skill="stack",
        )
        for bowl in bowls
    ]


def stack(planner: Planner, step: Step, rng: np.random.Generator) -> Motion:
    """Pick a bowl up, unless it is held, and let it down upright into the pile, however it hangs in the hand."""
    assert isinstance(step.goal, StackedOn)
    world, items = planner.world, planner.scene.items
    item = items[step.goal.item]
    if planner.holder(item.name) is None:
        yield from pick(planner, item, rng=rng)
    base = world.pos(items[step.goal.base].body)  # now: reaching for one bowl may have pushed the others
    piled = [world.pos(other.body) for other in items.values() if other is not item]
    top = max(pos[2] for pos in piled if np.linalg.norm(pos[:2] - base[:2]) < 0.04)
    now = world.rot(item.body)
    yaw = float(np.arctan2(now[1, 0], now[0, 0]))
    at = np.array([*base[:2], top + NESTED])
    poses = [(at, about(UP, yaw + turn)) for turn in np.radians([0, 30, -30, 60, -60, 90, -90, 135, -135, 180])]
    yield from put_exactly(planner, item, poses, rng=rng, over=0.12, spread=0.045, leave=0.12)
    yield from tuck(planner)


TASK = LabTask(phrasings=PHRASINGS, lay_out=lay_out, skills={"stack": stack}, seconds=60)
