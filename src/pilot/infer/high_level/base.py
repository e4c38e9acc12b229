"""What all high levels share: what they are asked, what they answer, and the two that decide nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool

from pilot.infer.engine.protocol import Engine
from pilot.infer.high_level.subtasks import SubtaskCodec
from pilot.types import Sample


@dataclass(frozen=True, kw_only=True)
class Subtask:
    """A subtask of a session's history: its words, its box (y0, x0, y1, x1) in 0…1, and when it began [s]."""

    start: float
    words: str
    box: tuple[float, float, float, float] | None


@dataclass(frozen=True, kw_only=True)
class SubtaskRequest:
    """One robot's turn, as a high level is told of it.

    With `decide` it decides now; otherwise the robot continues with `subtask` (None: with none). `previous` is the
    subtask until now, where nothing but time is a reason for another one. `prepared` is what `HighLevel.prepare` made
    of the observation. All that is drawn at random comes from `generator`.
    """

    decide: bool
    subtask: str | None
    previous: str | None
    prepared: Any
    generator: torch.Generator


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The subtask that was decided on, with its box in front, and what goes into the answer beside it."""

    subtask: str | None
    details: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Advisor(Protocol):
    """One robot's connection to a high level outside of the model."""

    @property
    def trouble(self) -> str | None:
        """Why it could not decide when it last tried; None if it could."""
        ...

    def advise(self, sample: Sample, *, now: float, event: bool, history: Sequence[Subtask]) -> str | None:
        """Return what is to be done about these pictures, state and prompt; None if nothing is known yet.

        `now` is the session's time [s]; `event` says that the prompt is new or the subtask has ended. It never waits.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class HighLevel:
    """A way to decide on subtasks, shared by sessions. This one neither decides nor advises."""

    name: ClassVar[str]

    def check(self, codec: SubtaskCodec | None) -> None:
        """Check that it works with a model; `codec` is None where the model has not learned to write subtasks.

        Raises:
            ValueError: it does not.
        """

    # --- outside of the model ----------------------------------------------------------------------------------------

    def advisor(self) -> Advisor | None:
        """Return a new session's connection to it, if it is outside of the model."""
        return None

    def advises_subtasks(self, codec: SubtaskCodec | None) -> bool:
        """Return whether advice is the subtask itself; if not, it takes the place of the prompt."""
        return False

    # --- inside of it ------------------------------------------------------------------------------------------------

    def decider(self, codec: SubtaskCodec | None) -> "HighLevel | None":
        """Return the high level that decides from what the model has prefilled, if any does."""
        return None

    def prepare(self, observation: Mapping[str, Any]) -> Any:
        """Return what `decide` needs of a raw observation, as `SubtaskRequest.prepared`."""
        return None

    @property
    def batches_continuing_rows(self) -> bool:
        """Whether `decide` also takes robots that do not decide now, and leaves their rows as they are."""
        return False

    def decide(
        self, prefilled: Any, requests: Sequence[SubtaskRequest], *, engine: Engine, codec: SubtaskCodec
    ) -> tuple[list[Decision], Any]:
        """Decide for each row of what is prefilled; also return the state with the subtasks in it."""
        raise NotImplementedError(f"high level '{self.name}' does not decide")


@dataclass(frozen=True, kw_only=True)
class NoHighLevel(HighLevel):
    """Nothing decides: the low level acts on the prompt."""

    name: ClassVar[str] = "none"


@dataclass(frozen=True, kw_only=True)
class Implicit(HighLevel):
    """Nothing decides, though the model has learned to: π0.5's ablation, trained with subtasks and run without."""

    name: ClassVar[str] = "implicit"

    def check(self, codec: SubtaskCodec | None) -> None:
        check_writes_subtasks(codec)


def check_writes_subtasks(codec: SubtaskCodec | None) -> SubtaskCodec:
    """Return the codec of a model that has learned to write subtasks.

    Raises:
        ValueError: it has not.
    """
    if codec is None:
        raise ValueError("this model has not learned to write subtasks; take high_level='none'")
    return codec


def rows_to_skip(requests: Sequence[SubtaskRequest], *, device: torch.device | str) -> Bool[torch.Tensor, " b"] | None:
    """Return which rows do not decide now; None if all do."""
    if all(request.decide for request in requests):
        return None
    return torch.tensor([not request.decide for request in requests], device=device)
