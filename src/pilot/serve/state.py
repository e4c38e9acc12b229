"""All that one server holds; what answers HTTP, robots and people reads and writes it in one event loop."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pilot.serve.auth import Keys
from pilot.serve.connection import Conversation
from pilot.serve.hosted_policy import Hosted
from pilot.serve.limits import Limits
from pilot.serve.metrics import Metrics
from pilot.serve.sessions import Sessions


@dataclass(kw_only=True)
class State:
    """The policies by name, the first of which is meant where none is named; the robots; what is counted."""

    policies: Mapping[str, Hosted]
    limits: Limits = field(default_factory=Limits)
    keys: Keys = field(default_factory=Keys)
    metrics: Metrics = field(default_factory=Metrics)
    sessions: Sessions = field(init=False)
    conversations: dict[str, Conversation] = field(init=False)
    started: float = field(default_factory=time.time)
    answering: int = 0
    viewers: int = 0
    stopping: bool = False

    def __post_init__(self) -> None:
        self.sessions = Sessions(self.limits)
        self.conversations = {
            name: Conversation(hosted, limits=self.limits, metrics=self.metrics)
            for name, hosted in self.policies.items()
        }

    @property
    def ready(self) -> bool:
        return not self.stopping and all(hosted.ready for hosted in self.policies.values())

    def policy(self, name: str) -> Hosted | None:
        return self.policies.get(name) if name else next(iter(self.policies.values()))

    def described(self) -> list[dict[str, Any]]:
        """The policies, for people."""
        shown = ("robot", "cameras", "action_names", "action_horizon", "replan_steps", "control_hz")
        return [
            {"name": hosted.name, "reloads": hosted.generation, **{key: hosted.metadata.get(key) for key in shown}}
            for hosted in self.policies.values()
        ]

    def gauges(self) -> dict[str, tuple[str, float]]:
        return {
            "pilot_ready": ("Whether robots are taken.", float(self.ready)),
            "pilot_robots": ("Robots that are connected.", float(len(self.sessions.connected()))),
            "pilot_viewers": ("People who look.", float(self.viewers)),
            "pilot_answering": ("Observations being answered.", float(self.answering)),
            "pilot_start_time_seconds": ("When the server started, since 1970.", self.started),
        }


def hosted_by_name(policies: Any, *, max_batch: int) -> dict[str, Hosted]:
    """From one policy, policies by name, or some that are `Hosted` already.

    Raises:
        ValueError: none, or two of one name.
    """
    if isinstance(policies, Hosted):
        policies = [policies]
    if isinstance(policies, Mapping):
        policies = [Hosted(name, policy, max_batch=max_batch) for name, policy in policies.items()]
    if not isinstance(policies, Iterable):
        policies = [Hosted("policy", policies, max_batch=max_batch)]
    hosted: dict[str, Hosted] = {}
    for one in policies:
        if one.name in hosted or one.name == "live":
            raise ValueError(f"the name '{one.name}' is taken; serve each policy under a name of its own: NAME=FOLDER")
        hosted[one.name] = one
    if not hosted:
        raise ValueError("there is no policy to serve")
    return hosted
