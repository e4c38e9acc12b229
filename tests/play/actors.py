"""A stand-in for a policy: it goes where the instruction says, and remembers what it was asked."""

from typing import Any, ClassVar

import numpy as np

RISE = 0.02  # of the target, per step [m]


class Still:
    """A policy that keeps a robot where it is, for robots whose actions are named as their states."""

    device = "cpu"

    def session(self, *, robot: str | None, replan_steps: int | None) -> "StillSession":
        return StillSession()


class StillSession:
    replan_steps = 5

    def reset(self) -> None:
        pass

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        return {"actions": np.tile(observation["state"], (10, 1)), "subtask": "wait", "box": None, "timing": {}}


class Lifter:
    """A policy whose sessions lift the pad, whatever they see; words with "never" are refused."""

    device = "cpu"

    def __init__(self) -> None:
        self.heard: list[str] = []

    def session(self, *, robot: str | None, replan_steps: int | None) -> "LifterSession":
        return LifterSession(self, replan_steps or 2)


class LifterSession:
    metadata: ClassVar[dict[str, Any]] = {}

    def __init__(self, policy: Lifter, replan_steps: int) -> None:
        self.policy, self.replan_steps, self.resets = policy, replan_steps, 0

    def reset(self) -> None:
        self.resets += 1

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        words = observation["prompt"]
        if "never" in words:
            raise ValueError(f"this policy does not do {words!r}")
        self.policy.heard.append(words)
        x, y, z = observation["state"][:3]
        actions = np.array([[x, y, z + RISE * (step + 1), 0] for step in range(10)], np.float32)
        return {"actions": actions, "subtask": f"lift for {words}", "box": (0.1, 0.2, 0.3, 0.4), "timing": {}}
