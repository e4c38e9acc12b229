"""What the high levels have in common, and the two that say nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from pilot.types import Sample

if TYPE_CHECKING:
    from pilot.infer.policy import Policy
    from pilot.infer.session import Subtask, Turn

SUBTASK_TOKENS = 24


@runtime_checkable
class Advisor(Protocol):
    """What an outside high level knows of one robot.

    `trouble`: why it could not decide when it last tried. `verbatim`: its advice is acted on as it stands.
    """

    @property
    def trouble(self) -> str | None: ...
    @property
    def verbatim(self) -> bool: ...

    def advise(self, sample: Sample, *, now: float, event: bool, history: Sequence["Subtask"]) -> str | None:
        """What is to be done about these pictures, state and prompt; None if nothing has been said yet.

        `now` is the session's time [s], `event` says that the person has said something new or the subtask has ended.
        Waits for nothing.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class HighLevel:
    """What all have in common; by itself it neither decides nor advises."""

    name: ClassVar[str]

    def check(self, policy: "Policy") -> None:
        """Raises:
        ValueError: it cannot work with this policy.
        """

    def advisor(self) -> Advisor | None:
        """A new session's own."""
        return None

    def decider(self, policy: "Policy") -> "HighLevel | None":
        """What decides on what the model has read, if anything does."""
        return None

    def prepare(self, observation: Mapping[str, Any]) -> Any:
        """What `decide` needs of a raw observation, as `Turn.prepared`."""
        return None

    @property
    def mixes(self) -> bool:
        """Whether `decide` also takes turns that do not decide now, and leaves them as they are."""
        return False

    def decide(self, policy: "Policy", prefilled: Any, turns: Sequence["Turn"]) -> Any:
        """Set `spoken` of each turn, a row of the reading each; returns the reading that goes on with it."""
        raise NotImplementedError(f"high level '{self.name}' does not decide")


@dataclass(frozen=True, kw_only=True)
class Silent(HighLevel):
    """Nobody."""

    name: ClassVar[str] = "none"


@dataclass(frozen=True, kw_only=True)
class Implicit(HighLevel):
    """Nobody, in a model that could."""

    name: ClassVar[str] = "implicit"

    def check(self, policy: "Policy") -> None:
        check_decides(policy)


def check_decides(policy: "Policy") -> None:
    if not policy.decides:
        raise ValueError("this model has not learned to say subtasks; take high_level='none'")
