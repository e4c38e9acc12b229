"""A kind of task, and the steps that tasks are made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pilot.sims.rooms import language
from pilot.sims.rooms.choices import ROOMS
from pilot.sims.rooms.stage import Stage
from pilot.sims.world.goals import Closed, Inside, On, Opened, Wiped, Wiping
from pilot.sims.world.physics import add_geom
from pilot.sims.world.scene import Item
from pilot.sims.world.task import Step, Task
from pilot.sims.world.things import find_kind

CLUTTER = {
    "kitchen": ("dishes", "cutlery", "food", "rubbish", "bathroom things"),
    "bedroom": ("clothes", "toys", "books and papers", "stuffed animals", "small things", "bathroom things"),
    "living room": ("toys", "books and papers", "rubbish", "small things", "food", "tools"),
}
"""Families of things that lie about in a room."""
SPILLS = ((0.35, 0.2, 0.1), (0.6, 0.08, 0.12), (0.75, 0.5, 0.1), (0.3, 0.12, 0.35), (0.25, 0.35, 0.15))


@dataclass(frozen=True)
class SpillWiped(Wiped):
    """The spill on a surface is wiped away with an item."""

    item: str = ""
    fixture: str = ""


@dataclass(frozen=True, kw_only=True)
class TaskKind:
    """A kind of task. `suits` says whether a room and a robot can have it; `draw` may find no room for its things."""

    name: str
    length: str
    suits: Callable[[Stage], bool]
    draw: Callable[[Stage], tuple[str, tuple[Step, ...]]]  # the instruction and the steps
    rooms: tuple[str, ...] = ROOMS
    on_request: bool = False  # drawn only where it is named
    seconds: float | None = None  # how long it may take, if not as long as so many steps

    def make(self, stage: Stage) -> Task:
        """Set the stage and return the task.

        Raises:
            ImpossibleSceneError: there is no room for it.
        """
        prompt, steps = self.draw(stage)
        seconds = self.seconds or 20.0 + 35.0 * len(steps)
        return Task(name=self.name, prompt=prompt, steps=steps, length=self.length, max_seconds=seconds)


def noun(fixture: str) -> str:
    """Return what people call a fixture: one opens "the box", not "the box lid"."""
    return fixture.removesuffix(" lid")


def move_step(stage: Stage, item: Item, place: str, *, needs: tuple[int, ...] = ()) -> Step:
    """Return the step that brings an item into a container or onto a surface."""
    on = stage.room.fixtures[place].role == "surface"
    goal = (On if on else Inside)(item=item.name, fixture=place)
    words = language.pick_subtask(item.name), language.put_subtask(item.name, place, on=on)
    return Step(goal=goal, subtasks=words, skill="move", needs=needs)


def open_step(fixture: str, *, enables: tuple[int, ...] = ()) -> Step:
    """Return the step that opens a drawer, a door or a lid."""
    words = (language.open_subtask(noun(fixture)),)
    return Step(goal=Opened(fixture=fixture), subtasks=words, skill="open", enables=enables)


def close_step(fixture: str, *, needs: tuple[int, ...] = ()) -> Step:
    """Return the step that closes a drawer, a door or a lid."""
    words = (language.close_subtask(noun(fixture)),)
    return Step(goal=Closed(fixture=fixture), subtasks=words, skill="close", needs=needs)


def blanket_step() -> Step:
    """Return the step that pulls the blanket up."""
    return Step(goal=Opened(fixture="blanket"), subtasks=(language.BLANKET_SUBTASK,), skill="open")


def put_away_steps(stage: Stage, items: Sequence[Item], *, place: str, joint: str, first: int = 0) -> tuple[Step, ...]:
    """Return the steps: open `joint`, put every item in, close it. `first` is the number of the first step."""
    inside = tuple(range(first + 1, first + 1 + len(items)))
    moves = [move_step(stage, item, place, needs=(first,)) for item in items]
    return (open_step(joint, enables=inside), *moves, close_step(joint, needs=inside))


def spill_step(stage: Stage, surface: str) -> Step:
    """Spill something on a surface, lay a sponge beside it, and return the step that wipes it up."""
    rng, spot = stage.rng, stage.spots[surface]
    middle = stage.reserve(surface, radius=0.1)
    rgb, spots = SPILLS[int(rng.integers(len(SPILLS)))], []
    for _ in range(int(rng.integers(5, 9))):
        x, y = np.array([middle.x, middle.y]) + rng.uniform(-0.055, 0.055, 2)
        size, name = (float(rng.uniform(0.014, 0.026)), 0.0012), f"spill {len(spots) + 1}"
        world = stage.room.spec.worldbody
        add_geom(world, "cylinder", size=size, pos=(x, y, spot.z + 0.001), rgb=rgb, contact="none", name=name)
        spots.append(name)
    sponge = stage.add_item(find_kind("sponge"), where=surface, near=middle)
    stage.effects.append(Wiping(spots=tuple(spots), items=(sponge.name,)))
    goal = SpillWiped(spots=tuple(spots), item=sponge.name, fixture=surface)
    return Step(goal=goal, subtasks=(language.WIPE_SUBTASK,), skill="wipe")


def clutter(stage: Stage, *, where: str | None = None) -> None:
    """Add things that the task is not about, more of them on higher levels."""
    low, high = {1: (0, 2), 2: (2, 4), 3: (4, 7)}[stage.level]
    count = int(stage.rng.integers(low, high + 1))
    stage.add_clutter(CLUTTER[stage.room.name], count, where=where if stage.level == 1 else None)
