"""The suites of the lab: one for each task. Free of physics, which is imported when it is used."""

import importlib
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from pilot.sims.base import SPLITS, ScriptedExpert
from pilot.sims.lab import language
from pilot.sims.world.phrases import Phrasings
from pilot.sims.world.suites import WorldSuite


def task_of(name: str) -> Any:
    """Return the `LabTask` of a module of `lab/tasks`."""
    return importlib.import_module(f"pilot.sims.lab.tasks.{name}").TASK


@dataclass(frozen=True, kw_only=True)
class LabSuite(WorldSuite):
    """One task on a table. `task` is the module of `lab/tasks` that says how it is laid out and done.

    The test split asks in words that no other split uses, and has kinds and colours that no other split has.
    """

    scene: ClassVar[str] = "table"
    has_supervisor: ClassVar[bool] = True
    asks_one_thing: ClassVar[bool] = True

    task: str
    arms: tuple[str, ...]  # bodies that can do it
    body: str = "bimanual"
    # Fields with a help text are options of `pilot collect`.
    level: int = field(default=2, metadata={"help": "1: few things in a small area; 2: all of it", "choices": (1, 2)})

    @property
    def bodies(self) -> tuple[str, ...]:  # type: ignore[override]
        """The bodies that can do the task."""
        return self.arms

    def draw(self, scene: int, episode: int, seed: int) -> Any:
        from pilot.sims.lab.workbench import Workbench
        from pilot.sims.world.bodies import load_body
        from pilot.sims.world.task import Task

        numbers = (SPLITS.index(self.split), scene, episode, seed)
        is_test = self.split == "test"
        bench = Workbench(load_body(self.body), np.random.default_rng(numbers), held_out=is_test)
        task = task_of(self.task)
        steps = tuple(task.lay_out(bench, self.level))
        prompt = task.phrasings.draw(bench.rng, held_out=is_test and bool(bench.rng.random() < 0.5))
        return bench.scene(
            Task(self.task, prompt, steps, ordered=task.ordered, length="steps", max_seconds=task.seconds)
        )

    def expert(self, env: Any, rng: np.random.Generator, *, shuffle: bool = False) -> ScriptedExpert:
        from pilot.sims.world.expert import WorldExpert

        return WorldExpert(env, rng, shuffle=shuffle, skills=task_of(self.task).skills)

    def utterances(self, subtask: str) -> tuple[str, ...]:
        return language.utterances(subtask)

    def labels(self, *, scene: int, episode: int) -> dict[str, Any]:
        return {"group": self.task, "level": self.level, self.scene: scene, "episode": episode}

    @property
    def phrasings(self) -> Phrasings:
        """The ways in which the task is asked for."""
        return task_of(self.task).phrasings


_EITHER, _BOTH = ("bimanual", "arm"), ("bimanual",)
TASKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "stack_bowls": ("stack bowls", _EITHER),
    "eggs_in_carton": ("put eggs into a carton", _EITHER),
    "bus_table": ("bus a table: dishes apart from rubbish", _EITHER),
    "items_in_drawer": ("put things into a drawer", _EITHER),
    "takeout_box": ("pack a take-out box", _EITHER),
    "bag_groceries": ("bag groceries", _EITHER),
    "paper_roll": ("put a paper roll on its holder", _EITHER),
    "toast": ("take toast out of a toaster", _EITHER),
    "unload_dryer": ("unload a dryer", _EITHER),
    "microwave": ("put food into a microwave", _EITHER),
    "assemble_box": ("close a box, flap by flap", _BOTH),
    "fold_shirt": ("fold a shirt", _BOTH),
    "fold_towel": ("fold a towel", _BOTH),
}
"""Of each task, its title and the bodies that can do it."""

EASY = ("stack_bowls", "eggs_in_carton", "bus_table", "items_in_drawer")
"""The tasks that a policy learns first: they have a second suite, with few things in a small area."""


def _suite(task: str, *, level: int) -> LabSuite:
    title, arms = TASKS[task]
    name = f"lab-{task.replace('_', '-')}"
    if level == 1:
        name, title = f"{name}-l1", f"{title}, few things"
    return LabSuite(name=name, title=title, task=task, arms=arms, level=level)


SUITES = (*(_suite(task, level=1) for task in EASY), *(_suite(task, level=2) for task in TASKS))
