"""A simulator of somebody else: a dot that goes to a corner of a square. It has a robot of its own and no MuJoCo."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pilot.sims.base import Suite
from pilot.types import Robot

DOT = Robot(
    name="dot",
    cameras=("top",),
    state_names=("x", "y"),
    action_names=("dx", "dy"),
    state_units=("squares", "squares"),
    action_units=("squares", "squares"),
    delta_mask=(False, False),
    control_hz=5.0,
)
CORNERS = {"lower left": (0.0, 0.0), "lower right": (1.0, 0.0), "upper left": (0.0, 1.0), "upper right": (1.0, 1.0)}


class DotEnv:
    robot, max_steps = DOT, 30

    def reset_to(self, scene, *, episode=0, seed=0):
        rng = np.random.default_rng((scene, episode, seed))
        self.corner = str(rng.choice(list(CORNERS)))
        self.goal, self.xy = np.array(CORNERS[self.corner]), rng.uniform(0.3, 0.7, 2)
        return self.observe(), {"success": False}

    def advance(self, action):
        action = np.asarray(action, float)
        if action.shape != (2,) or not np.isfinite(action).all():
            raise ValueError(f"a dot moves by 2 finite numbers, got {action}")
        self.xy = np.clip(self.xy + np.clip(action, -0.1, 0.1), 0, 1)
        return {"success": bool(np.abs(self.xy - self.goal).max() < 0.05)}

    def observe(self):
        prompt = f"go to the {self.corner} corner"
        return {"images": {"top": self.render()}, "state": self.xy.astype(np.float32), "prompt": prompt}

    def render(self):
        picture = np.zeros((16, 16, 3), np.uint8)
        column, row = np.round(self.xy * 15).astype(int)
        picture[15 - row, column] = 255
        return picture

    def close(self):
        pass


class DotExpert:
    subtask = None, None

    def __init__(self, env):
        self.env = env

    def act(self):
        return np.clip(self.env.goal - self.env.xy, -0.1, 0.1)


@dataclass(frozen=True, kw_only=True)
class DotSuite(Suite):
    scene: ClassVar[str] = "square"
    has_expert: ClassVar[bool] = True
    robot = DOT

    def make_env(self, *, image_size=64):
        return DotEnv()

    def expert(self, env, rng, *, shuffle=False):
        return DotExpert(env)


SUITES = (DotSuite(name="dots", title="go to a corner"),)
