"""What a task of the lab is, and goals that several of them share."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pilot.sims.world.goals import Goal, Inside
from pilot.sims.world.phrases import Phrasings
from pilot.sims.world.physics import Physics
from pilot.sims.world.scene import Item, Scene
from pilot.sims.world.task import Step

Skill = Callable[[Any, Step, np.random.Generator], Iterator[Any]]
"""From the planner of an episode, the step and a random generator to a motion: commands, one per tick."""


@dataclass(frozen=True, kw_only=True)
class LabTask:
    """One task. `lay_out` puts everything on the workbench, and returns the steps to do."""

    phrasings: Phrasings
    lay_out: Callable[[Any, int], Sequence[Step]]  # of the workbench and the level: 1 few things, 2 all
    skills: Mapping[str, Skill] = field(default_factory=dict)  # by `Step.skill`, beyond those of the toolkit
    seconds: float = 60.0  # until an episode is cut off
    ordered: bool = False  # later steps need earlier ones


def move_step(item: Item, fixture: str) -> Step:
    """Return the step of putting an item into a container."""
    words = (f"pick up the {item.name}", f"put the {item.name} in the {fixture}")
    return Step(goal=Inside(item.name, fixture), subtasks=words)


@dataclass(frozen=True)
class Turned(Goal):
    """A goal: a hinge or a slide stands within `tolerance` of `at`."""

    joint: str
    at: float
    tolerance: float
    name: str

    def holds(self, world: Physics, scene: Scene) -> bool:
        return abs(world.joint(self.joint) - self.at) < self.tolerance
