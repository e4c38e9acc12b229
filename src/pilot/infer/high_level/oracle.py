"""The truth as the high level: whoever sends an observation puts the subtask into it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pilot.infer.high_level.base import Advisor, HighLevel, Subtask
from pilot.infer.high_level.model import ModelHighLevel
from pilot.infer.high_level.subtasks import SubtaskCodec
from pilot.types import Sample


@dataclass(frozen=True, kw_only=True)
class Oracle(HighLevel):
    """Each observation holds the true `subtask`. One without a box is a verbal instruction: the model finds the box."""

    name: ClassVar[str] = "oracle"

    def advisor(self) -> Advisor:
        return _MissingTruth()

    def decider(self, codec: SubtaskCodec | None) -> HighLevel | None:
        return None if codec is None else ModelHighLevel()


class _MissingTruth:
    """Is asked only where an observation holds no subtask."""

    trouble = None

    def advise(self, sample: Sample, *, now: float, event: bool, history: Sequence[Subtask]) -> str | None:
        raise ValueError("high level 'oracle' needs the true 'subtask' in each observation")
