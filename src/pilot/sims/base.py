"""What a simulator offers. Evaluation, collection and the demo speak to this file and know no simulator by name.

A simulator is a module or a folder in `pilot/sims` with `SUITES`, a tuple of `Suite`s, and, if the demo can teach a
policy something in it, a `LESSON`, and, if people will ask for suites that it cannot have, `MISSING_SUITES`: why, by
the beginning of their names. Names are listed often, so the module itself imports nothing heavy: physics and
rendering are imported by the methods that need them.

A *scene* is a numbered place to act in (a home, a table with an initial state); an *episode* is a numbered start in it.
The same suite, scene, episode and seed give the same start, bit for bit.
"""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from pilot.names import check_name
from pilot.types import Robot

Observation = dict[str, Any]
"""`{"images": {camera: uint8 [h w 3]}, "state": float32 [sd], "prompt": str}`, in the robot's own units."""

Box = tuple[float, float, float, float]
"""`(y0, x0, y1, x1)` in [0, 1] of the first camera's picture."""

Info = dict[str, Any]
"""What the simulator knows about the episode now. `success` (bool) is always there; a simulator may add

- `task`: the name of the episode's task, where scenes of a suite have several: what mixtures and statistics group by,
- `subtask`: what to do next, in words, and `box`: where that is in the latest pictures (`Box` or None),
- `placed`, `targets`: how many goals are reached, of how many: the rubric,
- `first_grasped`: the name of the first object that was lifted (or None), `wrong_object`: it was not asked for,
- `broken`: the physics blew up; the episode has failed, and nothing of it is recorded.
"""

Question = tuple[str, str]
"""A question about a picture, and its answer."""

DriveFn = Callable[[Observation], np.ndarray]
"""From an observation to an action [ad]: a policy that drives while the expert's answers are recorded."""

SPLITS = ("train", "validation", "test")
SEEDS_PER_SPLIT = 50_000
DONE = "done"  # the subtask of an expert with nothing left to do


class SimEnv(Protocol):
    """One environment of a suite. Physics and pictures are separate calls, because pictures cost the most."""

    robot: Robot

    @property
    def max_steps(self) -> int:
        """Control steps until the episode is cut off."""
        ...

    def reset_to(self, scene: int, *, episode: int = 0, seed: int = 0) -> tuple[Observation, Info]:
        """Begin episode `episode` in scene `scene`."""
        ...

    def advance(self, action: np.ndarray) -> Info:
        """Run one control step of physics with an action [ad], without pictures."""
        ...

    def observe(self) -> Observation:
        """Return the observation now."""
        ...

    def render(self) -> np.ndarray:
        """Return a picture for people, uint8 [h w 3]."""
        ...

    def close(self) -> None:
        """Free what the environment holds."""
        ...


@runtime_checkable
class ShowsMotion(Protocol):
    """An environment that can draw planned actions into a picture. Optional, for people who watch (`pilot play`)."""

    def path_of(self, actions: np.ndarray) -> np.ndarray:
        """Return where actions [n ad] would take the hand, as (y, x) in the first camera's picture [n 2]."""
        ...


@runtime_checkable
class Steerable(Protocol):
    """An environment that a person steers by other axes than the dims of its actions: by the hand of an arm, say."""

    @property
    def steering_axes(self) -> tuple[str, ...]:
        """What each axis moves, in words; the most used first, because they get the best keys."""
        ...

    def steer(self, axes: Mapping[str, float], *, is_open: bool) -> np.ndarray:
        """Return the next action [ad] for axes pushed by −1 to 1, those that are not named by 0, and the gripper."""
        ...


class ScriptedExpert(Protocol):
    """A scripted policy that reads the simulator's state."""

    @property
    def subtask(self) -> tuple[str | None, Box | None]:
        """The subtask that the next action belongs to (None without words), and its box."""
        ...

    def act(self) -> np.ndarray:
        """Return the next action [ad]."""
        ...


class Disturbance:
    """Changes what is executed of an expert's actions. This one changes nothing."""

    def apply(self, state: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, bool]:
        """Return the executed action, and whether it differs so much that it must not be learned from."""
        return action, False


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A named set of tasks in one simulator; a subclass says how its environments are made.

    The flags say what a suite offers beyond an environment; the methods that belong to a flag are called only where it
    is set. Subclasses are frozen dataclasses: suites are compared, hashed, and sent to worker processes.
    """

    name: str
    title: str  # what is asked of the robot, in a few words
    split: str = "test"  # which scenes: "train" or "test"
    is_part: bool = False  # another suite has the same tasks: it runs only where it is named

    scene: ClassVar[str] = "scene"  # what people call a scene: "17 of 20 homes"
    package: ClassVar[str] = ""  # the module that its extra installs; "" needs no more than MuJoCo
    extra: ClassVar[str] = ""  # pilot's extra that installs it
    has_expert: ClassVar[bool] = False  # `expert`: demonstrations can be collected
    has_subtasks: ClassVar[bool] = False  # `Info` has "subtask" and "box": the control "oracle" works
    has_supervisor: ClassVar[bool] = False  # `utterances`: verbal demonstrations
    has_questions: ClassVar[bool] = False  # `web_rows`: pictures with questions and answers
    asks_one_thing: ClassVar[bool] = False  # in all scenes, though the words may differ: there is nothing to shuffle
    has_affordances: ClassVar[bool] = False  # `known_subtasks` and `feasible_subtasks`: what could be said, and done

    @property
    def robot(self) -> Robot:
        """The robot that acts here."""
        raise NotImplementedError

    @property
    def robots(self) -> tuple[str, ...]:
        """The names of the robots that can act here; `with_robot` gives the suite of each."""
        return (self.robot.name,)

    def with_robot(self, name: str) -> "Suite":
        """Return this suite with the robot of that name acting in it; its name ends in `@robot`.

        Raises:
            ValueError: that robot cannot act here; the nearest that can is suggested.
        """
        check_name(f"robot of suite '{self.name}'", name, self.robots)
        return self

    @property
    def is_installed(self) -> bool:
        """Whether the package that it needs is there."""
        return not self.package or importlib.util.find_spec(self.package) is not None

    def check_ready(self) -> None:
        """Check that what the suite needs is there and whole, before anything runs. Override it where that is more.

        Raises:
            ImportError: its package is not installed; the message says how to.
            FileNotFoundError: files of the package are missing.
        """
        if not self.is_installed:
            name = self.extra or self.package
            raise ImportError(f"suite '{self.name}' needs '{self.package}': pip install 'pilot[{name}]'")

    def make_env(self, *, image_size: int = 64) -> SimEnv:
        """Make an environment whose pictures have `image_size` pixels on a side.

        Raises:
            ValueError: the suite's options do not fit together.
        """
        raise NotImplementedError

    def task_of(self, scene: int) -> str:
        """Return the name of a scene's task: what statistics are grouped by."""
        return self.name

    def prompt(self, scene: int, *, seed: int = 0) -> str:
        """Return the instruction of a scene's first episode. Override it where that is possible without physics."""
        env = self.make_env()
        try:
            return env.reset_to(scene, seed=seed)[0]["prompt"]
        finally:
            env.close()

    def instructions(self, env: SimEnv) -> tuple[str, ...]:
        """Return what a person may ask for in the episode that `env` stands in, its own instruction first."""
        return (env.observe()["prompt"],)

    def expert(self, env: SimEnv, rng: np.random.Generator, *, shuffle: bool = False) -> ScriptedExpert:
        """Make an expert for the episode that `env` stands in; `rng` draws its style.

        `shuffle`: it works through its goals in an order drawn by `rng`, so that words are needed to foresee it.
        """
        raise NotImplementedError

    def disturb(self, env: SimEnv, rng: np.random.Generator) -> Disturbance:
        """Make a demonstration harder: move `env` to an odd start, and return what disturbs the steps that follow."""
        return Disturbance()

    def utterances(self, subtask: str) -> tuple[str, ...]:
        """Return what a supervisor may say to ask for a subtask."""
        raise NotImplementedError

    def known_subtasks(self) -> tuple[str, ...]:
        """Return the words of all subtasks that its scenes can have."""
        raise NotImplementedError

    def feasible_subtasks(self, env: SimEnv) -> dict[str, float]:
        """Return how feasible each subtask of the scene is now, 0 to 1, whatever the task is."""
        raise NotImplementedError

    def corrections(self, subtask: str) -> tuple[str, ...]:
        """Return what a supervisor may say when a subtask has to be done once more: something slipped."""
        return tuple(f"no, {words}" for words in self.utterances(subtask))

    def web_rows(self, scene: int, *, rows: int, seed: int, image_size: int = 64) -> list[tuple[bytes, list[Question]]]:
        """Return about `rows` questions on pictures of a scene, as (PNG, questions with answers)."""
        raise NotImplementedError

    def labels(self, *, scene: int, episode: int) -> dict[str, Any]:
        """Return what is stored with a demonstration; `group` is the task that mixtures weigh it by."""
        return {"group": self.name, self.scene: scene, "episode": episode}

    def settings(self) -> dict[str, Any]:
        """Return the options that decide what is collected, as JSON; stored with the set and compared when it grows."""
        return {"suite": self.name, "split": self.split}


@dataclass(frozen=True, kw_only=True)
class TaskSuite(Suite):
    """A suite of several tasks, each with numbered starts: scene `n` is start `n // tasks` of task `n % tasks`.

    So the first scenes of a suite see every task once, and any number of episodes is spread over the tasks evenly.
    """

    tasks: tuple[str, ...]
    starts: int | None = None  # how many starts a task has; None: as many as wanted

    def locate(self, scene: int) -> tuple[str, int]:
        """Return a scene's task and the number of its start.

        Raises:
            ValueError: there is no such scene.
        """
        start, index = divmod(scene, len(self.tasks))
        if scene < 0 or (self.starts is not None and start >= self.starts):
            last = len(self.tasks) * (self.starts or 1)
            raise ValueError(f"suite '{self.name}' has {last} scenes ({self.starts} starts of each task), not {scene}")
        return self.tasks[index], start

    def task_of(self, scene: int) -> str:
        return self.locate(scene)[0]

    def labels(self, *, scene: int, episode: int) -> dict[str, Any]:
        return super().labels(scene=scene, episode=episode) | {"group": self.task_of(scene)}


def start_seed(split: str, start: int, *, episode: int, seed: int) -> int:
    """Return the seed of a numbered start, for simulators that draw all of it from one number.

    Start `n` has seed `n` in the train split, 50,000 + `n` in the validation split, and 100,000 + `n` in the test
    split. Later episodes, and other seeds, are other starts.

    Raises:
        ValueError: no start of this split: it would be one of the next.
    """
    if start < 0 or (start >= SEEDS_PER_SPLIT and split != SPLITS[-1]):
        raise ValueError(f"the {split} split has starts 0 to {SEEDS_PER_SPLIT - 1}, not {start}; take other scenes")
    first = SPLITS.index(split) * SEEDS_PER_SPLIT + start
    return first if episode == seed == 0 else int(np.random.default_rng((first, episode, seed)).integers(2**31))


def check_action(action: np.ndarray, robot: Robot) -> np.ndarray:
    """Return an action as float64 [ad].

    Raises:
        ValueError: another shape, or numbers that are not finite.
    """
    action = np.asarray(action, float)
    if action.shape != (robot.action_dim,) or not np.isfinite(action).all():
        raise ValueError(
            f"an action of '{robot.name}' is {robot.action_dim} finite numbers {robot.action_names}, got {action}"
        )
    return action


def import_extra(module: str, *, extra: str) -> Any:
    """Import a simulator's package, which an extra of pilot installs.

    Raises:
        ImportError: it is not installed; the message says how to.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"this suite needs '{error.name or module}': pip install 'pilot[{extra}]'") from error


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """Something new for the demo to teach. The `new` task is in no data that the policy was trained on.

    `known` is a task that it must not forget, `questions` a suite whose web rows are about both.
    """

    new: Suite
    known: Suite
    questions: Suite
