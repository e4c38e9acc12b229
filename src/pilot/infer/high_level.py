"""High levels: what decides on the next subtask, to be chosen by name or made with options of their own.

| name       | who decides                                                                                     |
|------------|-------------------------------------------------------------------------------------------------|
| `model`    | the model itself: from what it has read of pictures and prompt it says the subtask              |
| `none`     | nobody: the low level acts on the prompt                                                        |
| `implicit` | nobody, though the model has learned to say subtasks (π0.5, section V.D: trained with, run without) |
| `oracle`   | whoever sends the observations: each holds the true `subtask`                                   |

A high level is shared by sessions and holds nothing of any robot. One that works on what the model has read *decides*,
for a batch of robots at once. One outside of the model *advises*: each session has an `Advisor` of it, which is asked
at every turn and never keeps it waiting. Advice in plain words is a verbal instruction: it takes the place of the
prompt, and the model decides on a subtask below it, with its box. `verbatim` advice is acted on as it stands, for
models whose subtasks are bare words.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from pilot.infer.hierarchy import Subtask, Turn
    from pilot.infer.policy import Policy


class Advisor(Protocol):
    """What an outside high level knows of one robot. `trouble`: why it could not decide when it last tried."""

    trouble: str | None

    def advise(
        self, observation: Mapping[str, Any], *, now: float, event: bool, history: Sequence["Subtask"]
    ) -> str | None:
        """What is to be done, at time `now` [s]; None if nothing has been said yet. Waits for nothing.

        `event`: the person has said something new, or the subtask has ended.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class HighLevel:
    """What all have in common; by itself it neither decides nor advises."""

    name: ClassVar[str]
    verbatim: bool = False

    def check(self, policy: "Policy") -> None:
        """Raises:
        ValueError: it cannot work with this policy.
        """
        if self.verbatim and not policy.decides:
            raise ValueError("verbatim advice is for models that act on subtasks; this one acts on its prompt alone")

    def advisor(self) -> Advisor | None:
        """A new session's own."""
        return None

    def decider(self, policy: "Policy") -> "HighLevel | None":
        """What decides on what the model has read, if anything does."""
        return None

    def prepare(self, observation: Mapping[str, Any]) -> Any:
        """What `decide` needs of a raw observation, as `Turn.prepared`."""
        return None

    def decide(self, policy: "Policy", reading: Any, turns: Sequence["Turn"]) -> Any:
        """Set `spoken` of each turn, a row of the reading each; returns the reading that goes on with it."""
        raise NotImplementedError(f"high level '{self.name}' does not decide")


@dataclass(frozen=True, kw_only=True)
class Model(HighLevel):
    """The model itself, greedily."""

    name: ClassVar[str] = "model"

    def check(self, policy: "Policy") -> None:
        super().check(policy)
        if not policy.decides:
            raise ValueError("this model has not learned to say subtasks; take high_level='none'")

    def decider(self, policy: "Policy") -> HighLevel | None:
        return self

    def decide(self, policy: "Policy", reading: Any, turns: Sequence["Turn"]) -> Any:
        tokens, reading = policy.speak(reading)
        for turn, said in zip(turns, tokens, strict=True):
            turn.spoken = policy.subtask_text(said)
        return reading


@dataclass(frozen=True, kw_only=True)
class Silent(HighLevel):
    """Nobody."""

    name: ClassVar[str] = "none"


@dataclass(frozen=True, kw_only=True)
class Implicit(HighLevel):
    """Nobody, in a model that could."""

    name: ClassVar[str] = "implicit"

    def check(self, policy: "Policy") -> None:
        super().check(policy)
        if not policy.decides:
            raise ValueError("this model has not learned subtasks, so none are implicit in it; take high_level='none'")


@dataclass(frozen=True, kw_only=True)
class Advising(HighLevel):
    """A high level outside of the model, with the model's own below it where advice is plain words."""

    def decider(self, policy: "Policy") -> HighLevel | None:
        return Model() if policy.decides and not self.verbatim else None


@dataclass(frozen=True, kw_only=True)
class Oracle(Advising):
    """The observation says it."""

    name: ClassVar[str] = "oracle"

    def advisor(self) -> Advisor:
        return _Oracle()


class _Oracle:
    trouble = None

    def advise(
        self, observation: Mapping[str, Any], *, now: float, event: bool, history: Sequence["Subtask"]
    ) -> str | None:
        raise ValueError(f"high level 'oracle' needs the true 'subtask' in each observation; got {sorted(observation)}")


NAMED = {level.name: level for level in (Model, Silent, Implicit, Oracle)}


def named(name: str) -> HighLevel:
    """The high level of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in NAMED:
        near = difflib.get_close_matches(name, NAMED, n=1, cutoff=0.0)
        raise ValueError(f"no high level '{name}'; did you mean '{near[0]}'? There are {', '.join(NAMED)}")
    return NAMED[name]()
