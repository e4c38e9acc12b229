"""High levels outside of the model: the truth, a person, a vision-language model. What they say arrives when it does.

The low level never waits: until there is something new it goes on with what was said last.
"""

import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pilot.data import transforms
from pilot.data.tools import vlm_endpoint
from pilot.data.tools.vlm_endpoint import RetryLater, VlmEndpoint
from pilot.infer.high_level.base import Advisor, HighLevel
from pilot.infer.high_level.deciding import Model
from pilot.types import Sample

if TYPE_CHECKING:
    from pilot.infer.policy import Policy
    from pilot.infer.session import Subtask

log = logging.getLogger(__name__)

PAUSES = (1.0, 4.0, 16.0)  # [s]
LONGEST = 100  # characters of a subtask; more is no subtask
HELP = "type what the robot is to do next, or nothing to leave it to itself"
QUESTION = """A robot was told: "{prompt}". The pictures show what its cameras see now: {cameras}.
{done}What is it to do next? Answer with one instruction of a few words, with the object and the place, such as "pick up
the red cup" or "put it in the sink", and with nothing else. If all is done, answer "done".{labels}"""


@dataclass(frozen=True, kw_only=True)
class Advising(HighLevel):
    """A high level outside of the model, with the model's own below it unless advice is `verbatim`."""

    verbatim: bool = False

    def check(self, policy: "Policy") -> None:
        if self.verbatim and not policy.decides:
            raise ValueError("verbatim advice is for models that act on subtasks; this one acts on its prompt alone")

    def decider(self, policy: "Policy") -> HighLevel | None:
        return Model() if policy.decides and not self.verbatim else None


@dataclass(frozen=True, kw_only=True)
class Oracle(Advising):
    """Each observation says it."""

    name: ClassVar[str] = "oracle"

    def advisor(self) -> Advisor:
        return _Truth()


class _Truth:
    """Is asked only where an observation says nothing."""

    trouble, verbatim = None, False

    def advise(self, sample: Sample, *, now: float, event: bool, history: Sequence["Subtask"]) -> str | None:
        raise ValueError("high level 'oracle' needs the true 'subtask' in each observation")


# --- a person --------------------------------------------------------------------------------------------------------


class Keyboard:
    """The last line that a person typed, None for an empty one. Reads on in a thread of its own, from `start` on."""

    def __init__(self, lines: Iterable[str] | None = None) -> None:
        self.lines, self.last, self.closed = lines, None, False
        self.thread = threading.Thread(target=self.listen, name="keyboard", daemon=True)

    def start(self) -> None:
        """Begin to listen, once."""
        if not self.thread.ident:
            print(HELP, flush=True)
            self.thread.start()

    def listen(self) -> None:
        for line in sys.stdin if self.lines is None else self.lines:
            self.last = line.strip() or None
        self.closed = True


@dataclass(frozen=True, kw_only=True)
class Human(Advising):
    """A person at a keyboard, heard by all sessions."""

    name: ClassVar[str] = "human"
    keyboard: Keyboard = field(default_factory=Keyboard)

    def advisor(self) -> Advisor:
        self.keyboard.start()
        return _Listener(self)


class _Listener:
    def __init__(self, human: Human) -> None:
        self.keyboard, self.verbatim = human.keyboard, human.verbatim

    @property
    def trouble(self) -> str | None:
        return "the keyboard is closed: nobody can say what comes next" if self.keyboard.closed else None

    def advise(self, sample: Sample, *, now: float, event: bool, history: Sequence["Subtask"]) -> str | None:
        return self.keyboard.last


# --- a vision-language model -----------------------------------------------------------------------------------------


def in_thread(job: Callable[[], str]) -> "Future[str]":
    """A promise of what `job` returns; nobody waits for it, not even the end of the program."""
    promise: Future[str] = Future()

    def run() -> None:
        try:
            promise.set_result(job())
        except Exception as error:
            promise.set_exception(error)

    threading.Thread(target=run, name="vlm", daemon=True).start()
    return promise


def at_once(job: Callable[[], str], *, sleep: Callable[[float], None] = time.sleep) -> "Future[str]":
    """What `job` returns, waited for: for evaluations, where time stands still meanwhile.

    Raises:
        ConnectionError: no answer after some attempts; an evaluation does not go on without its high level.
    """
    promise: Future[str] = Future()
    reason: RetryLater | None = None
    for pause in PAUSES:
        try:
            promise.set_result(job())
        except ValueError as error:
            promise.set_exception(error)
        except RetryLater as error:
            reason = error
            sleep(max(pause, error.seconds or 0.0))
            continue
        return promise
    raise ConnectionError(f"the high level does not answer: {reason}") from reason


@dataclass(frozen=True, kw_only=True)
class Vlm(Advising):
    """A vision-language model behind an OpenAI-compatible endpoint.

    It is asked `every` so many seconds, and when the person speaks or a subtask ends, one question at a time per robot.
    An answer is heard at the turn after it has come, and what is advised for one prompt is not heard for another.
    `labels`: the only answers to choose from. Pictures of `cameras` (none named: all) go into a question, their longer
    side at most `size`.
    """

    name: ClassVar[str] = "vlm"
    endpoint: VlmEndpoint
    labels: tuple[str, ...] = ()
    every: float = 2.0
    cameras: tuple[str, ...] = ()
    size: int = 448
    submit: Callable[[Callable[[], str]], "Future[str]"] = field(default=in_thread, repr=False)

    def advisor(self) -> Advisor:
        return _Correspondent(self)

    def question(
        self, prompt: str, pictures: Mapping[str, np.ndarray], *, history: Sequence["Subtask"]
    ) -> list[dict[str, Any]]:
        done = f"Until now it did this: {'; '.join(subtask.words for subtask in history)}.\n" if history else ""
        labels = f"\nChoose among: {'; '.join(self.labels)}." if self.labels else ""
        text = QUESTION.format(prompt=prompt, cameras=", ".join(pictures), done=done, labels=labels)
        shown = [vlm_endpoint.image_part(transforms.picture(pixels), size=self.size) for pixels in pictures.values()]
        return [vlm_endpoint.text_part(text), *shown]

    def read(self, said: str) -> str:
        """The subtask out of what the model said.

        Raises:
            ValueError: there is none.
        """
        line = next((line for line in map(str.strip, said.splitlines()) if line), "")
        words = " ".join(line.strip("\"'`*").rstrip(".").strip("\"'`*").split())
        if self.labels:
            known = {label.lower(): label for label in self.labels}
            if words.lower() not in known:
                raise ValueError(f"'{words[:LONGEST]}' is none of {list(self.labels)}")
            return known[words.lower()]
        if not words or len(words) > LONGEST:
            raise ValueError(f"no subtask of 1 to {LONGEST} characters in {said[:200]!r}")
        return words


class _Correspondent:
    """The letters between one robot and the model."""

    def __init__(self, level: Vlm) -> None:
        self.level, self.verbatim = level, level.verbatim
        self.trouble: str | None = None
        self.prompt: str | None = None
        self.advice: str | None = None
        self.answer: Future[str] | None = None
        self.asked_at, self.asked_for = -math.inf, ""
        self.outdated = False
        self.not_before = -math.inf

    def advise(self, sample: Sample, *, now: float, event: bool, history: Sequence["Subtask"]) -> str | None:
        if sample.prompt != self.prompt:
            self.prompt, self.advice = sample.prompt, None
        self.collect(now)
        self.outdated = self.outdated or event
        due = self.outdated or now - self.asked_at >= self.level.every - 1e-9
        if due and self.answer is None and now >= self.not_before:
            self.ask(sample, history=history)
            self.asked_at, self.outdated = now, False
        return self.advice

    def collect(self, now: float) -> None:
        """Read the answer, if one has come; one to another prompt is thrown away."""
        if self.answer is None or not self.answer.done():
            return
        answer, self.answer = self.answer, None
        if self.asked_for != self.prompt:
            return
        try:
            self.advice, self.trouble = self.level.read(answer.result()), None
        except (ValueError, RetryLater, OSError) as error:
            if self.trouble is None:
                log.warning("the high level goes on with its last advice: %s", error)
            self.trouble = str(error)
            if isinstance(error, RetryLater) and error.seconds is not None:
                self.not_before = now + error.seconds

    def ask(self, sample: Sample, *, history: Sequence["Subtask"]) -> None:
        level, prompt = self.level, sample.prompt
        shown = {c: np.array(pixels) for c, pixels in sample.images.items() if not level.cameras or c in level.cameras}
        self.asked_for = prompt
        self.answer = level.submit(
            lambda: vlm_endpoint.ask_vlm(level.endpoint, level.question(prompt, shown, history=history))
        )  # fmt: skip
