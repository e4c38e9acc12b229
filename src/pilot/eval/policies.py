"""Who is evaluated: the policy of a checkpoint, a policy object, or "expert", the scripted one that sees everything."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pilot.data.storage.remote import CHECKPOINT_FILES, fetch
from pilot.infer.policy import load_policy
from pilot.models.bundle import load_bundle
from pilot.sims.base import Observation, Suite
from pilot.types import Robot


def load(policy: Any, *, num_steps: int | None = None) -> Any:
    """Load a policy from its path; a policy object is returned as it is, and None for the word "expert"."""
    if policy == "expert":
        return None
    if not isinstance(policy, str | Path):
        return policy
    return load_policy(policy, num_steps=num_steps)


def fetch_policy(policy: Any) -> Any:
    """Return the folder of a checkpoint on this machine, wherever it lies; anything else is returned as it is.

    Raises:
        FileNotFoundError: it is no checkpoint.
    """
    if policy == "expert" or not isinstance(policy, str | Path):
        return policy
    return fetch(policy, only=CHECKPOINT_FILES)


def robot_of(policy: Any) -> Robot:
    """Return the robot of a checkpoint's folder or of a policy object.

    Raises:
        ValueError: the checkpoint is damaged.
    """
    return load_bundle(policy, weights=False).robot if isinstance(policy, str | Path) else policy.bundle.robot


def check_robot(policy: Any, suite: Suite) -> None:
    """Check that a policy can act in a suite.

    Raises:
        ValueError: the suite has no expert, or a checkpoint is damaged or for another robot.
    """
    if policy == "expert" and not suite.has_expert:
        raise ValueError(f"suite '{suite.name}' has no scripted expert")
    if policy == "expert" or not isinstance(policy, str | Path):
        return
    robot, own = robot_of(policy), suite.robot
    same_dims = (robot.state_dim, robot.action_dim) == (own.state_dim, own.action_dim)
    if not (same_dims and set(robot.cameras) <= set(own.cameras)):
        raise ValueError(
            f"{policy} is for robot '{robot.name}' with cameras {robot.cameras}, {robot.state_dim} state and "
            f"{robot.action_dim} action dims; suite '{suite.name}' is for '{own.name}' with {own.cameras}, "
            f"{own.state_dim} and {own.action_dim}"
        )


class Driver:
    """A checkpoint's policy as a function from observations to actions, for `pilot.sims.collect`.

    It travels to worker processes as the checkpoint's path; each loads it when it is first asked, on one core.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self._policy: Any = None
        self.reset()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])

    def reset(self) -> None:
        """Begin another episode."""
        self._session: Any = None
        self._planned: list[np.ndarray] = []

    def __call__(self, observation: Observation) -> np.ndarray:
        """Return the next action [ad]: the policy looks once in `replan_steps` actions."""
        if self._policy is None:
            torch.set_num_threads(1)  # the processes are the parallelism
            self._policy = load(self.path)
        if self._session is None:
            self._session = self._policy.session()
        if not self._planned:
            self._planned = list(self._session.infer(observation)["actions"][: self._session.replan_steps])
        return self._planned.pop(0)
