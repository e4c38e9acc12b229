"""All that one server holds; the code for HTTP, robots and viewers reads and writes it in one event loop."""

import hmac
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pilot.serve import vla_eval
from pilot.serve.auth import ApiKeys, Role, WrongKeys
from pilot.serve.handler import MessageHandler
from pilot.serve.hosted_policy import HostedPolicy
from pilot.serve.limits import Limits
from pilot.serve.metrics import ServerMetrics
from pilot.serve.sessions import SessionStore

RESERVED = ("live", vla_eval.PATH)  # the paths of viewers, and of benchmarks that speak a protocol of their own


@dataclass(kw_only=True)
class ServerState:
    """The policies by name (the first is the default), the robots' sessions, and the metrics.

    Where the server has no API keys, `command_key` is what a person needs to command its robots: it is printed at the
    start, so that it is known to who started the server, and to nobody else on the machine or behind a web page.
    """

    policies: Mapping[str, HostedPolicy]
    limits: Limits = field(default_factory=Limits)
    keys: ApiKeys = field(default_factory=ApiKeys)
    command_key: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    wrong_keys: WrongKeys = field(default_factory=WrongKeys)
    metrics: ServerMetrics = field(default_factory=ServerMetrics)
    sessions: SessionStore = field(init=False)
    handlers: dict[str, MessageHandler] = field(init=False)
    answering: int = 0
    viewers: int = 0
    stopping: bool = False

    def __post_init__(self) -> None:
        self.sessions = SessionStore(self.limits)
        self.handlers = {
            name: MessageHandler(hosted, limits=self.limits, metrics=self.metrics)
            for name, hosted in self.policies.items()
        }
        self.metrics.start_time.set(time.time())
        self.metrics.ready.set_function(lambda: self.ready)
        self.metrics.robots.set_function(lambda: len(self.sessions.connected()))
        self.metrics.viewers.set_function(lambda: self.viewers)
        self.metrics.answering.set_function(lambda: self.answering)

    @property
    def ready(self) -> bool:
        """Whether the server accepts robots: all policies are warm, and it is not stopping."""
        return not self.stopping and all(hosted.ready for hosted in self.policies.values())

    def find_policy(self, name: str) -> HostedPolicy | None:
        """Return the policy of that name; without a name, the first."""
        return self.policies.get(name) if name else next(iter(self.policies.values()))

    def check_key(self, key: str | None, *, address: str, role: Role | None = None) -> str:
        """Return the owner of an API key that has this role (`ApiKeys.owner`); wrong keys slow their address down.

        Raises:
            TooManyWrongKeys: nobody looks at a key from this address for now.
            PermissionError: the key is wrong, or has another role.
        """
        if self.keys and (wait := self.wrong_keys.wait(address, key)):
            raise TooManyWrongKeys(f"too many wrong API keys; try again in {wait:.0f} s")
        try:
            owner = self.keys.owner(key)
        except PermissionError:
            self.wrong_keys.add(address, key, is_right=False)
            raise
        if self.keys:
            self.wrong_keys.add(address, key, is_right=True)
            self.keys.owner(key, role=role)
        return owner

    def may_command(self, key: str | None, *, address: str) -> bool:
        """Return whether this key, as a viewer shows it, may command robots."""
        if not self.keys:
            return hmac.compare_digest((key or "").encode(errors="surrogatepass"), self.command_key.encode())
        try:
            self.check_key(key, address=address, role="command")
        except PermissionError:
            return False
        return True

    def describe_policies(self) -> list[dict[str, Any]]:
        """Return what the dashboard shows of each policy."""
        shown = ("robot", "robots", "cameras", "action_names", "action_horizon", "replan_steps", "control_hz")
        return [
            {"name": hosted.name, "reloads": hosted.generation, **{key: hosted.metadata.get(key) for key in shown}}
            for hosted in self.policies.values()
        ]


class TooManyWrongKeys(PermissionError):
    """Whoever tried many wrong keys has to wait."""


def to_hosted(policies: Any, *, max_batch: int) -> dict[str, HostedPolicy]:
    """Return hosted policies by name, from one policy, policies by name, or a list of hosted ones.

    Raises:
        ValueError: there is no policy, or two have one name.
    """
    if isinstance(policies, HostedPolicy):
        policies = [policies]
    if isinstance(policies, Mapping):
        policies = [HostedPolicy(name, policy, max_batch=max_batch) for name, policy in policies.items()]
    if not isinstance(policies, Iterable):
        policies = [HostedPolicy("policy", policies, max_batch=max_batch)]
    hosted: dict[str, HostedPolicy] = {}
    for policy in policies:
        if policy.name in hosted or policy.name in RESERVED:
            raise ValueError(
                f"the name '{policy.name}' is taken; serve each policy under a name of its own: NAME=FOLDER"
            )
        hosted[policy.name] = policy
    if not hosted:
        raise ValueError("there is no policy to serve")
    return hosted
