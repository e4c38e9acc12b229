"""Who is evaluated: the policy of a checkpoint, a policy object, or "expert", the scripted one that sees everything."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pilot.data.storage.remote import fetch_checkpoint
from pilot.infer.policy import Policy, load_policy
from pilot.models.bundle import load_bundle
from pilot.models.trained_robots import TrainedRobots, find_robot, same_dims
from pilot.sims.base import Observation, Suite

SAME_RATE = 0.01  # a difference that is none: 30 Hz and 29.97


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
    return fetch_checkpoint(policy)


def robots_of(policy: Any) -> TrainedRobots:
    """Return the robots of a checkpoint's folder or of a policy object, by name; none where it does not say.

    Raises:
        ValueError: the checkpoint is damaged.
    """
    if isinstance(policy, str | Path):
        return load_bundle(policy, weights=False).robots
    return policy.bundle.robots if isinstance(policy, Policy) else {}


def robot_for(policy: Any, suite: Suite, *, robot: str | None = None) -> str | None:
    """Return which of a policy's robots acts in a suite; None for the expert and for a policy that names none.

    It is `robot`, or else the suite's own robot by name, or else the only one that the policy knows.

    Raises:
        ValueError: the suite has no expert; a checkpoint is damaged, does not know the robot, or its robot has other
            dims, cameras or another rate than the suite's.
    """
    if policy == "expert":
        if not suite.has_expert:
            raise ValueError(f"suite '{suite.name}' has no scripted expert")
        if robot not in (None, suite.robot.name):
            raise ValueError(f"the expert of suite '{suite.name}' acts for robot '{suite.robot.name}', not '{robot}'")
        return None
    if not (robots := robots_of(policy)):
        return robot
    own = suite.robot
    if robot is None and own.name not in robots and len(robots) > 1:
        raise ValueError(
            f"suite '{suite.name}' is for robot '{own.name}', which the policy was not trained on; it knows "
            f"{', '.join(robots)}. Name one with the same dims and cameras (--robot), or train it on '{own.name}'"
        )
    chosen = find_robot(robots, own.name if robot is None and own.name in robots else robot).robot
    if not (same_dims(chosen, own) and set(chosen.cameras) <= set(own.cameras)):
        raise ValueError(
            f"{name_of(policy)} is for robot '{chosen.name}' with cameras {chosen.cameras}, {chosen.state_dim} state "
            f"and {chosen.action_dim} action dims; suite '{suite.name}' is for '{own.name}' with {own.cameras}, "
            f"{own.state_dim} and {own.action_dim}"
        )
    if abs(chosen.control_hz - own.control_hz) > SAME_RATE * own.control_hz:
        raise ValueError(
            f"{name_of(policy)} has learned to act {chosen.control_hz:g} times a second as robot '{chosen.name}', "
            f"suite '{suite.name}' takes {own.control_hz:g}; train it at that rate, or choose another suite"
        )
    return chosen.name


def with_known_robot(suite: Suite, robots: TrainedRobots, *, robot: str | None = None) -> Suite:
    """Return the suite with the robot acting in it that is asked for, or else one that the policy knows, if it can.

    The suite's own robot comes first.
    """
    known = [name for name in (suite.robot.name, *suite.robots) if name in robots]
    wanted = robot or next(iter(known), suite.robot.name)
    return suite.with_robot(wanted) if wanted in suite.robots and wanted != suite.robot.name else suite


def name_of(policy: Any) -> str:
    """Return what a message calls a policy: its folder, if it has one."""
    return str(policy) if isinstance(policy, str | Path) else "the policy"


class Driver:
    """A checkpoint's policy of one of its robots as a function from observations to actions, for `pilot.sims.collect`.

    It travels to worker processes as the checkpoint's path; each loads it when it is first asked, on one core.
    `replan_steps`: actions from one look to the next (None: as the policy says). `name` tells it from drivers that act
    otherwise, in the settings of a set.
    """

    def __init__(
        self, path: str | Path, *, robot: str | None = None, replan_steps: int | None = None, name: str = "a policy"
    ) -> None:
        self.path, self.robot, self.replan_steps, self.name = path, robot, replan_steps, name
        self._policy: Any = None
        self.reset()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "robot": self.robot, "replan_steps": self.replan_steps, "name": self.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def reset(self) -> None:
        """Begin another episode."""
        self._session: Any = None
        self._planned: list[np.ndarray] = []

    @property
    def looks(self) -> bool:
        """Whether the next call looks at the observation; else it goes on with the actions planned before."""
        return not self._planned

    def __call__(self, observation: Observation) -> np.ndarray:
        """Return the next action [ad]: the policy looks once in `replan_steps` actions."""
        if self._policy is None:
            torch.set_num_threads(1)  # the processes are the parallelism
            self._policy = load(self.path)
        if self._session is None:
            self._session = self._policy.session(robot=self.robot, replan_steps=self.replan_steps)
        if not self._planned:
            self._planned = list(self._session.infer(observation)["actions"][: self._session.replan_steps])
        return self._planned.pop(0)
