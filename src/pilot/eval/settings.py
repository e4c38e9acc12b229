"""Choices for an evaluation: how a policy acts in it, and which part of it runs here."""

import inspect
import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pilot.eval.episode import Timekeeping
from pilot.infer.high_level import HighLevel


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a policy acts in its episodes. None is the policy's own choice."""

    robot: str | None = None
    num_steps: int | None = None
    replan_steps: int | None = None
    high_level: HighLevel | None = None
    timekeeping: Timekeeping = field(default_factory=Timekeeping)
    hold_steps: int = 0

    def key(self) -> str:
        """Return the choices as text, for the keys of episodes; what is as always is not in it."""
        parts = [f"{self.replan_steps or ''}"]
        parts += [f"{self.num_steps} steps"] if self.num_steps else []
        parts += [describe(self.high_level)] if self.high_level else []
        parts += [f"robot {self.robot}"] if self.robot else []
        parts += [f"{self.timekeeping}"] if self.timekeeping != Timekeeping() else []
        parts += [f"hold {self.hold_steps}"] if self.hold_steps else []
        return "/".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Return the choices for the log of runs, for tables and for manifests."""
        level = self.high_level
        names = ("robot", "num_steps", "replan_steps", "hold_steps")
        choices = {name: getattr(self, name) for name in names} | asdict(self.timekeeping)
        if level is None:
            return choices | {"high_level": None, "high_level_options": None}
        return choices | {"high_level": level.name, "high_level_options": describe(level)}


def describe(level: HighLevel) -> str:
    """Return a high level as text for a key: a function, such as an affordance, by its module and name.

    Python writes its address, which is another one in each process. That stays for a function inside another one:
    nothing says what it is made of.
    """
    text = str(level)
    for value in (getattr(level, f.name) for f in fields(level)):
        if inspect.isfunction(value) and "<" not in value.__qualname__:
            text = text.replace(repr(value), f"{value.__module__}.{value.__qualname__}")
    return text


@dataclass(frozen=True)
class Shard:
    """Part `number` (from 1) of an evaluation that is cut into `count` parts: every `count`-th episode."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"a shard is one of 1/{self.count} to {self.count}/{self.count}, got {self}")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read `2/8`.

        Raises:
            ValueError: it is no such thing.
        """
        if (match := re.fullmatch(r"(\d+)/(\d+)", text)) is None or int(match[2]) == 0:
            raise ValueError(f"a shard is NUMBER/COUNT such as 2/8, got '{text}'")
        return cls(int(match[1]), int(match[2]))
