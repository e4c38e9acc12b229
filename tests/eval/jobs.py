"""A job of an evaluation, its record, and a policy that does nothing in it."""

from typing import Any, ClassVar

import numpy as np

from pilot.eval.records import EpisodeRecord
from pilot.eval.runner import Job
from pilot.eval.suites import load_suite


class Still:
    """A policy that stays where it is, and counts its episodes."""

    metadata: ClassVar[dict[str, Any]] = {"replan_steps": 40, "fingerprint": "still"}

    def __init__(self) -> None:
        self.sessions = 0

    def session(self, *, replan_steps: int) -> "Still":
        self.sessions += 1
        return self

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        stay = np.append(observation["state"][:3], 0.0)
        return {"actions": np.tile(stay, (40, 1)), "subtask": None, "box": None, "timing": {}}


def make_record(**changes) -> EpisodeRecord:
    base = {
        "suite": "homes-l1", "control": "none", "scene": 0, "episode": 0, "seed": 0, "prompt": "p", "asked": "p",
        "success": True, "steps": 20, "first_grasped": "red cup", "wrong_object": False, "right_object_first": True,
        "placed": 1, "targets": 1, "subtasks": (), "infer_ms": 5.0,
    }  # fmt: skip
    return EpisodeRecord(**(base | changes))


def make_job(scene: int = 0, **changes) -> Job:
    base = {"suite": load_suite("homes-l1"), "control": "none", "scene": scene, "seed": 0, "episodes": 8}
    return Job(**(base | changes))
