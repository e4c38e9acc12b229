"""MetaWorld's fifty tasks (1910.10897), version 3: one task, ten, fifty, and the groups by difficulty of 2206.14244.

Conventions: 80 Hz, at most 500 steps; success at any step ends the episode. The goal's position is hidden from the
state, which is the hand's position and the gripper's opening; where it is not drawn in the picture, nobody can know it.
The camera "corner4" is where LeRobot puts its "corner2", and its pictures come upside down: they are turned by 180°.
Scene `n` has number `n // tasks` of its task's 50 positions, which the seed 42 draws, LeRobot's; in the train split the
seed is 43, in the validation split 44.
"""

import random
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pilot.robots.metaworld import ROBOT
from pilot.sims.base import Box, Info, Observation, ScriptedExpert, SimEnv, TaskSuite, check_action, import_extra
from pilot.types import Robot

SEEDS = {"test": 42, "train": 43, "validation": 44}
STARTS = 50
MT10 = (
    "reach", "push", "pick-place", "door-open", "drawer-open", "drawer-close", "button-press-topdown",
    "peg-insert-side", "window-open", "window-close",
)  # fmt: skip
EASY = (
    "button-press", "button-press-topdown", "button-press-topdown-wall", "button-press-wall", "coffee-button",
    "dial-turn", "door-close", "door-lock", "door-open", "door-unlock", "drawer-close", "drawer-open", "faucet-close",
    "faucet-open", "handle-press", "handle-press-side", "handle-pull", "handle-pull-side", "lever-pull",
    "plate-slide", "plate-slide-back", "plate-slide-back-side", "plate-slide-side", "reach", "reach-wall",
    "window-close", "window-open", "peg-unplug-side",
)  # fmt: skip
MEDIUM = (
    "basketball", "bin-picking", "box-close", "coffee-pull", "coffee-push", "hammer", "peg-insert-side", "push-wall",
    "soccer", "sweep", "sweep-into",
)  # fmt: skip
HARD = ("assembly", "hand-insert", "pick-out-of-hole", "pick-place", "push", "push-back")
VERY_HARD = ("shelf-place", "disassemble", "stick-pull", "stick-push", "pick-place-wall")
MT50 = tuple(sorted(EASY + MEDIUM + HARD + VERY_HARD))


def instruction(task: str) -> str:
    """Return a task's instruction: its name in words."""
    return task.replace("-", " ")


class MetaWorldEnv:
    """One task at a time; a task's model is compiled when it is first wanted, and kept."""

    robot = ROBOT
    max_steps = 500

    def __init__(self, suite: "MetaWorldSuite", *, image_size: int) -> None:
        self._suite, self._size = suite, image_size
        self._gl = import_extra("pilot.sims.gl", extra="sim")
        self._package = import_extra("metaworld", extra="metaworld")
        self._envs: dict[str, tuple[Any, Any, list[Any]]] = {}  # by task: environment, renderer, positions

    def reset_to(self, scene: int, *, episode: int = 0, seed: int = 0) -> tuple[Observation, Info]:
        """Begin a start of a task. The positions are numbered: `episode` and `seed` move on to others of the 50."""
        task, start = self._suite.locate(scene)
        if task not in self._envs:
            self._envs[task] = self._make(task)
        self.task = task
        self._env, self._renderer, positions = self._envs[task]
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002 - some of its tasks draw from the global generator at a reset
        self._env.set_task(positions[(start + episode + seed) % STARTS])
        self.vector = self._env.reset()[0]  # what its experts read [39]
        return self.observe(), {"success": False}

    def _make(self, task: str) -> tuple[Any, Any, list[Any]]:
        name = f"{task}-v3"
        benchmark = self._package.MT1(name, seed=SEEDS[self._suite.split])
        env = benchmark.train_classes[name]()
        return env, self._gl.Renderer(env.model, self._size), benchmark.train_tasks

    def advance(self, action: np.ndarray) -> Info:
        """Run one control step (1/80 s)."""
        self.vector, _, _, _, info = self._env.step(np.clip(check_action(action, ROBOT), -1, 1).astype(np.float32))
        return {"success": bool(info["success"])}

    def observe(self) -> Observation:
        """Return `{"images": {"corner4", "gripperPOV"}, "state" [4], "prompt"}`."""
        images = {"corner4": self.render(), "gripperPOV": self._renderer.render(self._env.data, "gripperPOV")}
        return {"images": images, "state": self.state(), "prompt": instruction(self.task)}

    def state(self) -> np.ndarray:
        """Return the hand's position [m] and how far the gripper is open, float32 [4]."""
        return self.vector[:4].astype(np.float32)

    def render(self) -> np.ndarray:
        """Return the picture of the table, upright."""
        return self._renderer.render(self._env.data, "corner4")[::-1, ::-1].copy()

    def close(self) -> None:
        """Free all tasks' models."""
        for env, renderer, _ in self._envs.values():
            renderer.close()
            env.close()
        self._envs.clear()


class MetaWorldExpert:
    """MetaWorld's own scripted policy for the task that an environment stands in; it has no words for its steps."""

    def __init__(self, env: MetaWorldEnv) -> None:
        policies = import_extra("metaworld.policies", extra="metaworld")
        self._env, self._policy = env, policies.ENV_POLICY_MAP[f"{env.task}-v3"]()

    @property
    def subtask(self) -> tuple[str | None, Box | None]:
        """No words and no box."""
        return None, None

    def act(self) -> np.ndarray:
        """Return the next action [4]."""
        goal = np.asarray(self._env._env._target_pos, float)  # hidden from policies, and needed by the script
        return np.clip(self._policy.get_action(np.append(self._env.vector[:36], goal)), -1, 1)


@dataclass(frozen=True, kw_only=True)
class MetaWorldSuite(TaskSuite):
    """Some of MetaWorld's tasks, from 50 starts each."""

    starts: int | None = STARTS
    scene: ClassVar[str] = "start"
    package: ClassVar[str] = "metaworld"
    extra: ClassVar[str] = "metaworld"
    has_expert: ClassVar[bool] = True

    @property
    def robot(self) -> Robot:
        return ROBOT

    def make_env(self, *, image_size: int = 224) -> SimEnv:
        return MetaWorldEnv(self, image_size=image_size)

    def prompt(self, scene: int, *, seed: int = 0) -> str:
        return instruction(self.task_of(scene))

    def expert(self, env: Any, rng: np.random.Generator, *, shuffle: bool = False) -> ScriptedExpert:
        return MetaWorldExpert(env)


SUITES = (
    MetaWorldSuite(name="metaworld-mt50", title="fifty tasks", tasks=MT50),
    MetaWorldSuite(name="metaworld-mt10", title="ten tasks", tasks=MT10, is_part=True),
    MetaWorldSuite(name="metaworld-easy", title="28 easy tasks", tasks=EASY, is_part=True),
    MetaWorldSuite(name="metaworld-medium", title="11 harder tasks", tasks=MEDIUM, is_part=True),
    MetaWorldSuite(name="metaworld-hard", title="6 hard tasks", tasks=HARD, is_part=True),
    MetaWorldSuite(name="metaworld-very-hard", title="5 very hard tasks", tasks=VERY_HARD, is_part=True),
    *(MetaWorldSuite(name=f"metaworld-{t}", title=instruction(t), tasks=(t,), is_part=True) for t in MT50),
)
