"""The expert of all worlds: from the state of the world it finds the next step of the task, and runs the skill for it.

It can be asked in any state, also in one that a policy or a disturbance led to: what has been done is read from the
world, a motion goes on from the command that stands, and when a motion raises a `Deviation` the step begins anew.
"""

from collections.abc import Callable, Mapping

import numpy as np

from pilot.sims.base import Box
from pilot.sims.world.env import WorldEnv
from pilot.sims.world.goals import Goal, NearTo, StackedOn, Wiped, Wiping
from pilot.sims.world.motions import Deviation, Motion, wait
from pilot.sims.world.opening import close_fixture, open_fixture
from pilot.sims.world.planner import Planner
from pilot.sims.world.scene import Scene, held_items
from pilot.sims.world.skills import pick, place, put_back, stack, tuck
from pilot.sims.world.sweeping import push, wipe
from pilot.sims.world.task import Step

Skill = Callable[[Planner, Step, np.random.Generator], Motion]
"""What an expert does for a step: a simulator's own skills are named in its steps and given to `WorldExpert`."""

_PATIENCE = 3  # failures before another step is tried first


class WorldExpert:
    """Acts in the episode that `env` stands in; `rng` draws its style: grasps, speeds, where it stands.

    `shuffle`: takes steps in an order drawn by `rng`, else the nearest first. `skills` adds to, or replaces, `SKILLS`.
    """

    def __init__(
        self,
        env: WorldEnv,
        rng: np.random.Generator,
        *,
        shuffle: bool = False,
        skills: Mapping[str, Skill] | None = None,
    ):
        self.env, self.rng = env, rng
        self.planner = Planner(env.world, env.controller, env.scene)
        self.skills = SKILLS | dict(skills or {})
        self.failures: list[str] = []  # why motions had to begin again
        steps = len(env.scene.task.steps)
        self._order = [int(i) for i in rng.permutation(steps)] if shuffle else None
        self._tries = [0] * steps
        self._number: int | None = None  # of the step that the motion is for; None at rest
        self._motion: Motion | None = None

    @property
    def subtask(self) -> tuple[str | None, Box | None]:
        """The subtask that the next action belongs to, and its box."""
        number = self._next_step()
        return self.env.subtask_of(None if number is None else self.env.scene.task.steps[number])

    def act(self) -> np.ndarray:
        """Return the next action [ad]."""
        number = self._next_step()
        if self._motion is None or (number != self._number and not self._finishes()):
            self._begin(number)
        for _ in range(2):
            assert self._motion is not None, "_begin made one"
            try:
                return self.env.controller.encode(next(self._motion))
            except StopIteration:
                self._begin(self._next_step())
            except Deviation as deviation:
                self._fail(str(deviation))
        return self.env.controller.encode(self.env.controller.command)

    def _next_step(self) -> int | None:
        """Return the number of the step to do: the one that was begun for as long as that makes sense."""
        task, done = self.env.scene.task, self.env.goal_states()
        candidates = task.open_steps(done)
        if not candidates:
            return None
        least = min(self._tries[i] // _PATIENCE for i in candidates)
        candidates = [i for i in candidates if self._tries[i] // _PATIENCE == least]
        held = held_items(self.env.world, self.env.scene)
        if in_hand := [i for i in candidates if task.steps[i].goal.item in held]:
            candidates = in_hand
        if self._number in candidates:
            return self._number
        if self._order is not None:
            return min(candidates, key=self._order.index)
        return min(candidates, key=lambda i: self._distance(task.steps[i].goal))

    def _distance(self, goal: Goal) -> float:
        """Return how far what a goal is about is from the robot [m]."""
        world, scene = self.env.world, self.env.scene
        if goal.item is not None:
            where = world.pos(scene.items[goal.item].body)
        elif goal.fixture is not None:
            where = world.pos(scene.fixtures[goal.fixture].body)
        else:
            return 0.0
        return float(np.linalg.norm(where[:2] - self.planner.ik.root(self.env.controller.command.q)[0][:2]))

    def _finishes(self) -> bool:
        """Return whether the motion may come to its end, its step being done: the hand still has to go away."""
        return self._number is not None and self.env.goal_states()[self._number]

    def _begin(self, number: int | None) -> None:
        """Begin the motion of a step, or of coming to rest."""
        self._number = number
        step = None if number is None else self.env.scene.task.steps[number]
        self._motion = self._steps_of(step)

    def _steps_of(self, step: Step | None) -> Motion:
        """Put back what is held without need; then do the step, or come to rest and stay there."""
        wanted = () if step is None else step.goal.items
        if step is not None and isinstance(step.goal, Wiped):
            wanted = (*wanted, *wiping_items(self.env.scene))
        for name, arm in held_items(self.env.world, self.env.scene).items():
            if name not in wanted and not self._may_hold(name):
                yield from put_back(self.planner, self.env.scene.items[name], arm, rng=self.rng)
        if step is not None:
            if self._tries[self._number or 0] % _PATIENCE > 1:  # at once first, then from afar
                yield from tuck(self.planner)
            yield from self.skills[step.skill](self.planner, step, self.rng)
            yield from wait(self.planner, 0.15)
            return
        yield from tuck(self.planner)
        while True:
            yield self.env.controller.command

    def _may_hold(self, name: str) -> bool:
        """Return whether a task that is done, or its other steps, ask for an item to be held."""
        return any(step.skill == "pick" and step.goal.item == name for step in self.env.scene.task.steps)

    def _fail(self, why: str) -> None:
        self.failures.append(why)
        if self._number is not None:
            self._tries[self._number] += 1
        self._number = self._next_step()
        self._motion = self._pause_and_begin(self._number)

    def _pause_and_begin(self, number: int | None) -> Motion:
        """Let things come to rest, then begin anew."""
        yield from wait(self.planner, 0.2)
        yield from self._steps_of(None if number is None else self.env.scene.task.steps[number])


def wiping_items(scene: Scene) -> tuple[str, ...]:
    """Return the names of the items that wipe spots away."""
    return tuple(name for effect in scene.effects if isinstance(effect, Wiping) for name in effect.items)


def _move(planner: Planner, step: Step, rng: np.random.Generator) -> Motion:
    """Pick the item up unless it is held, and put it where the goal says."""
    goal, scene = step.goal, planner.scene
    assert goal.item is not None
    item = scene.items[goal.item]
    fixture = None if goal.fixture is None else scene.fixtures[goal.fixture]
    if planner.holder(item.name) is None:
        yield from pick(planner, item, rng=rng, to=fixture)
    if isinstance(goal, StackedOn):
        yield from stack(planner, item, scene.items[goal.base], rng=rng)
    elif fixture is not None:
        yield from place(planner, item, fixture, rng=rng)
    elif isinstance(goal, NearTo):
        yield from place(planner, item, None, rng=rng, xy=goal.xy)


def _pick(planner: Planner, step: Step, rng: np.random.Generator) -> Motion:
    assert step.goal.item is not None
    yield from pick(planner, planner.scene.items[step.goal.item], rng=rng)


def _open(planner: Planner, step: Step, rng: np.random.Generator) -> Motion:
    assert step.goal.fixture is not None
    yield from open_fixture(planner, planner.scene.fixtures[step.goal.fixture], rng=rng)


def _close(planner: Planner, step: Step, rng: np.random.Generator) -> Motion:
    assert step.goal.fixture is not None
    yield from close_fixture(planner, planner.scene.fixtures[step.goal.fixture], rng=rng)


def _push(planner: Planner, step: Step, rng: np.random.Generator) -> Motion:
    goal, scene = step.goal, planner.scene
    assert goal.item is not None
    where = scene.fixtures[goal.fixture] if goal.fixture is not None else getattr(goal, "xy", (0.0, 0.0))
    yield from push(planner, scene.items[goal.item], where, rng=rng)


def _wipe(planner: Planner, step: Step, rng: np.random.Generator) -> Motion:
    """Take one of the things that wipe, and draw it over the spots that are left."""
    goal, scene = step.goal, planner.scene
    assert isinstance(goal, Wiped)
    tools = [scene.items[name] for name in wiping_items(scene)]
    held = [item for item in tools if planner.holder(item.name) is not None]
    tool = (held or tools)[0]
    if not held:
        yield from pick(planner, tool, rng=rng)
    yield from wipe(planner, tool, goal.spots, rng=rng)


SKILLS: dict[str, Skill] = {
    "move": _move, "pick": _pick, "open": _open, "close": _close, "push": _push, "wipe": _wipe,
}  # fmt: skip
