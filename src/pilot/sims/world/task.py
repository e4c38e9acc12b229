"""Tasks: steps with a goal each, in words. What is to be done next follows from the state of the world alone.

So an expert, or the true subtask that a policy is given, is right in any state, after whatever happened before: an
item that falls out of the sink has to be put there again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pilot.sims.world.goals import Goal
from pilot.sims.world.physics import Physics
from pilot.sims.world.scene import Scene, held_items, region_centre

LENGTHS = ("skill", "move", "steps", "room")


@dataclass(frozen=True)
class Step:
    """One goal on the way. `subtasks` are its words: one text, or one until its item is held and one from then on.

    `needs`: numbers of the steps that come before it. `enables`: numbers of the steps that it makes possible; once they
    are all done, it need not hold any longer (a drawer was opened for the spoons).
    """

    goal: Goal
    subtasks: tuple[str, ...]
    skill: str = "move"  # what the expert does: "move", "pick", "open", "close", "push", "wipe", …
    needs: tuple[int, ...] = ()
    enables: tuple[int, ...] = ()

    def words(self, *, is_held: bool) -> str:
        """Return the subtask in words, for when its item is held or not yet."""
        return self.subtasks[-1 if is_held else 0]


@dataclass(frozen=True)
class Task:
    """What is asked in an episode. `ordered`: each step comes after all before it."""

    name: str
    prompt: str
    steps: tuple[Step, ...]
    ordered: bool = False
    length: str = "move"  # one of LENGTHS
    max_seconds: float = 30.0

    def check(self, scene: Scene) -> None:
        """Check that the scene has what the task names.

        Raises:
            ValueError: it does not, or the task's own numbers do not fit.
        """
        if not self.steps or self.length not in LENGTHS:
            raise ValueError(f"task '{self.name}' has {len(self.steps)} steps and length '{self.length}' of {LENGTHS}")
        for step in self.steps:
            step.goal.check(scene)
            if any(not 0 <= other < len(self.steps) for other in (*step.needs, *step.enables)):
                raise ValueError(f"task '{self.name}': {step} names a step that there is not")

    def done(self, world: Physics, scene: Scene) -> tuple[bool, ...]:
        """Return, of each step, whether it holds, or is no longer needed."""
        holds = [step.goal.holds(world, scene) for step in self.steps]
        return tuple(
            is_true or bool(step.enables and all(holds[other] for other in step.enables))
            for step, is_true in zip(self.steps, holds, strict=True)
        )

    def reached(self, done: Sequence[bool]) -> tuple[bool, ...]:
        """Return, of each step, whether it counts: it is done, and so is all that has to come before it."""
        before = [range(i) if self.ordered else step.needs for i, step in enumerate(self.steps)]
        return tuple(done[i] and all(done[other] for other in before[i]) for i in range(len(self.steps)))

    def open_steps(self, done: Sequence[bool]) -> list[int]:
        """Return the numbers of the steps that can be done next."""
        missing = [i for i, is_done in enumerate(done) if not is_done]
        if self.ordered:
            return missing[:1]
        return [i for i in missing if all(done[other] for other in self.steps[i].needs)] or missing[:1]

    def next_step(
        self, world: Physics, scene: Scene, *, done: Sequence[bool], order: Sequence[int] | None = None
    ) -> Step | None:
        """Return the step to do now; None when all is done.

        It is the one whose item is held, or else the first of `order`, numbers of steps; without an order it is the one
        nearest to the robot, because an instruction alone does not say more.
        """
        candidates = self.open_steps(done)
        if len(candidates) > 1:
            held = held_items(world, scene)
            if in_hand := [i for i in candidates if self.steps[i].goal.item in held]:
                candidates = in_hand
            elif order is not None:
                candidates = sorted(candidates, key=list(order).index)
            else:
                candidates = sorted(candidates, key=lambda i: _distance(world, scene, self.steps[i].goal))
        return self.steps[candidates[0]] if candidates else None

    @property
    def items(self) -> tuple[str, ...]:
        """The items that the task is about."""
        return tuple(dict.fromkeys(name for step in self.steps for name in step.goal.items))


def _distance(world: Physics, scene: Scene, goal: Goal) -> float:
    """Return how far what a goal is about is from the robot, seen from above [m]."""
    if goal.item is not None:
        where = world.centre(scene.items[goal.item].body)
    elif goal.fixture is not None:
        where = region_centre(world, scene.fixtures[goal.fixture])
    else:
        return 0.0
    return float(np.linalg.norm(where[:2] - world.pos(scene.body.root)[:2]))
