"""Who is evaluated: the policy of a checkpoint, a policy object, or "expert", the scripted one that sees everything."""

from pathlib import Path
from typing import Any

from pilot.data.storage.remote import CHECKPOINT_FILES, fetch
from pilot.infer.policy import load_policy
from pilot.models.bundle import load_bundle
from pilot.robots.homes import ROBOT


def load(policy: Any) -> Any:
    """A policy from its path, a policy object as it is, None for the word "expert"."""
    if policy == "expert":
        return None
    return load_policy(policy) if isinstance(policy, str | Path) else policy


def at_hand(policy: Any) -> Any:
    """The policy; of a checkpoint its folder here, wherever it lies.

    Raises:
        FileNotFoundError: it is no checkpoint.
        ValueError: it is damaged, or for another robot than that of the homes.
    """
    if policy == "expert" or not isinstance(policy, str | Path):
        return policy
    folder = fetch(policy, only=CHECKPOINT_FILES)
    robot = load_bundle(folder, weights=False).robot
    same_dims = (robot.state_dim, robot.action_dim) == (ROBOT.state_dim, ROBOT.action_dim)
    if not (same_dims and set(robot.cameras) <= set(ROBOT.cameras)):
        raise ValueError(
            f"{policy} is for robot '{robot.name}' with cameras {robot.cameras}, {robot.state_dim} state and "
            f"{robot.action_dim} action dims; the suites are for '{ROBOT.name}' with {ROBOT.cameras}, "
            f"{ROBOT.state_dim} and {ROBOT.action_dim}"
        )
    return folder
