"""PushT (Diffusion Policy, 2303.04137) on gym-pusht: a disc pushes a T onto the place that is drawn for it.

Conventions: 10 Hz; at most 300 steps; success is 95 % of the T on its place; an action is where the disc shall be, in
pixels of the 512 × 512 plane, clipped to it. Scene `n` is the start of seed `n` in the train split, of seed
50,000 + `n` in the validation split, and of seed 100,000 + `n` in the test split, as in the paper's code.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pilot.robots.pusht import ROBOT
from pilot.sims.base import Info, Observation, SimEnv, Suite, check_action, import_extra, start_seed
from pilot.types import Robot

PROMPT = "push the T-shaped block onto the T-shaped target"
PLANE = 512.0
SUCCESS = 0.95  # of the T's area


class PushTEnv:
    """One plane with a T, a target and a disc."""

    robot = ROBOT
    max_steps = 300

    def __init__(self, suite: "PushTSuite", *, image_size: int) -> None:
        module = import_extra("gym_pusht.envs.pusht", extra="pusht")
        sides = {"observation_width": image_size, "observation_height": image_size}
        self._env = module.PushTEnv(obs_type="state", render_mode="rgb_array", **sides)
        self._split = suite.split

    def reset_to(self, scene: int, *, episode: int = 0, seed: int = 0) -> tuple[Observation, Info]:
        """Begin the start of that number; later episodes of a scene, and other seeds, are other starts."""
        self._state = self._env.reset(seed=start_seed(self._split, scene, episode=episode, seed=seed))[0]
        return self.observe(), {"success": False, "progress": 0.0}

    def advance(self, action: np.ndarray) -> Info:
        """Run one control step (0.1 s)."""
        self._state, _, _, _, info = self._env.step(np.clip(check_action(action, ROBOT), 0, PLANE))
        return {"success": bool(info["coverage"] > SUCCESS), "progress": float(min(info["coverage"] / SUCCESS, 1.0))}

    def observe(self) -> Observation:
        """Return `{"images": {"image"}, "state": disc [2], "prompt"}`."""
        picture = np.asarray(self._env._render(visualize=False), np.uint8)
        return {"images": {"image": picture}, "state": self._state[:2].astype(np.float32), "prompt": PROMPT}

    def render(self) -> np.ndarray:
        """Return the plane as people like to see it."""
        return np.asarray(self._env.render(), np.uint8)

    def close(self) -> None:
        """Free the plane."""
        self._env.close()


@dataclass(frozen=True, kw_only=True)
class PushTSuite(Suite):
    """PushT from numbered starts."""

    scene: ClassVar[str] = "start"
    package: ClassVar[str] = "gym_pusht"
    extra: ClassVar[str] = "pusht"

    @property
    def robot(self) -> Robot:
        return ROBOT

    def make_env(self, *, image_size: int = 96) -> SimEnv:
        return PushTEnv(self, image_size=image_size)

    def prompt(self, scene: int, *, seed: int = 0) -> str:
        return PROMPT


SUITES = (PushTSuite(name="pusht", title="push the T onto its place"),)
