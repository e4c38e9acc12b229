"""A person at the keyboard as the high level."""

import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from pilot.infer.high_level.base import Advisor, Subtask
from pilot.infer.high_level.external import ExternalHighLevel
from pilot.types import Sample

HELP = "type what the robot is to do next; an empty line takes it back"


class Keyboard:
    """The last line that a person typed, None for an empty one. A thread reads on from `start`."""

    def __init__(self, lines: Iterable[str] | None = None) -> None:
        self.lines = lines
        self.last: str | None = None
        self.closed = False
        self.thread = threading.Thread(target=self.read_lines, name="keyboard", daemon=True)

    def start(self) -> None:
        """Begin to read, once."""
        if not self.thread.ident:
            print(HELP, flush=True)
            self.thread.start()

    def read_lines(self) -> None:
        """Read lines until there are no more; `last` is the newest, and an empty one takes it back."""
        for line in sys.stdin if self.lines is None else self.lines:
            self.last = line.strip() or None
        self.closed = True


@dataclass(frozen=True, kw_only=True)
class Human(ExternalHighLevel):
    """A person at a keyboard, heard by all sessions. Until something is typed the low level acts on the prompt."""

    name: ClassVar[str] = "human"
    keyboard: Keyboard = field(default_factory=Keyboard)

    def advisor(self) -> Advisor:
        self.keyboard.start()
        return _KeyboardAdvisor(self.keyboard)


class _KeyboardAdvisor:
    def __init__(self, keyboard: Keyboard) -> None:
        self.keyboard = keyboard

    @property
    def trouble(self) -> str | None:
        return "the keyboard is closed: nobody can say what comes next" if self.keyboard.closed else None

    def advise(self, sample: Sample, *, now: float, event: bool, history: Sequence[Subtask]) -> str | None:
        return self.keyboard.last
