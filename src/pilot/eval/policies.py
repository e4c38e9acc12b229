"""Who is evaluated: the policy of a checkpoint, a policy object, or "expert", the scripted one that sees everything."""

from pathlib import Path
from typing import Any

from pilot.data.storage.remote import CHECKPOINT_FILES, fetch
from pilot.infer.policy import load_policy
from pilot.models.bundle import load_bundle
from pilot.sims.base import Suite
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
