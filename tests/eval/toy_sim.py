"""A simulator for tests: a point that has to go to 1, in scenes that fail, crash, kill their process or hang.

What goes wrong does so once per scene, or always: `folder` remembers it across processes.
"""

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pilot.robots.pusht import ROBOT as PUSHT
from pilot.sims.base import Info, Observation, Suite, check_action
from pilot.types import Robot

ROBOT = replace(
    PUSHT, name="toy", cameras=("room",), wrist_cameras=(), slots=(), state_names=("x",), action_names=("x",),
    state_units=(), action_units=(), delta_mask=(False,), grippers=(), limits=None, control_hz=10.0,
)  # fmt: skip
STEPS = 12


@dataclass(frozen=True, kw_only=True)
class ToySuite(Suite):
    """Scenes of a point on a line."""

    has_expert: ClassVar[bool] = True
    folder: str = ""
    crashes: tuple[int, ...] = ()  # an exception in the middle of an episode
    broken_starts: tuple[int, ...] = ()  # an exception at every reset
    kills: tuple[int, ...] = ()  # the process dies
    hangs: tuple[int, ...] = ()
    always: bool = False

    @property
    def robot(self) -> Robot:
        return ROBOT

    def make_env(self, *, image_size: int = 64) -> "ToyEnv":
        return ToyEnv(self, image_size)

    def prompt(self, scene: int, *, seed: int = 0) -> str:
        return f"go to one, {scene}"

    def expert(self, env: Any, rng: np.random.Generator, *, shuffle: bool = False) -> "ToyExpert":
        return ToyExpert(env)


class ToyEnv:
    """The point moves half of the way to where it is told, but not further than 0.25."""

    robot = ROBOT
    max_steps = STEPS

    def __init__(self, suite: ToySuite, image_size: int):
        self.suite, self.image_size, self.closed = suite, image_size, False

    def reset_to(self, scene: int, *, episode: int = 0, seed: int = 0) -> tuple[Observation, Info]:
        if scene in self.suite.broken_starts:
            raise RuntimeError("the scene cannot be built")
        self.scene, self.x, self.steps = scene, 0.01 * seed, 0
        return self.observe(), self.info()

    def advance(self, action: np.ndarray) -> Info:
        self.steps += 1
        if self.steps == 3:
            self.go_wrong()
        (target,) = check_action(action, ROBOT)
        self.x += float(np.clip(target - self.x, -0.25, 0.25))
        return self.info()

    def go_wrong(self) -> None:
        suite = self.suite
        if self.scene not in (*suite.crashes, *suite.kills, *suite.hangs):
            return
        mark = Path(suite.folder) / f"{self.scene}"
        if mark.exists() and not suite.always:
            return
        mark.touch()
        if self.scene in suite.crashes:
            raise RuntimeError("the physics blew up")
        if self.scene in suite.kills:
            os._exit(7)
        time.sleep(1000)

    def info(self) -> Info:
        return {"success": abs(self.x - 1.0) < 0.05, "progress": min(max(self.x, 0.0), 1.0)}

    def observe(self) -> Observation:
        picture = np.full((self.image_size, self.image_size, 3), round(255 * min(abs(self.x), 1)), np.uint8)
        return {"images": {"room": picture}, "state": np.float32([self.x]), "prompt": self.suite.prompt(self.scene)}

    def render(self) -> np.ndarray:
        return self.observe()["images"]["room"]

    def close(self) -> None:
        self.closed = True


@dataclass
class ToyExpert:
    """Goes to one, or past it in every third scene."""

    env: ToyEnv
    subtask: tuple[str, None] = ("go", None)

    def act(self) -> np.ndarray:
        return np.array([2.0 if self.env.scene % 3 == 2 else 1.0])


SUITES = (ToySuite(name="toy", title="go to one"),)
