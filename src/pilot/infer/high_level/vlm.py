"""A vision-language model elsewhere as the high level. What it says arrives when it does.

The low level never waits: until there is something new it continues with what was said last.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from pilot.data import transforms
from pilot.data.tools import vlm_endpoint
from pilot.data.tools.vlm_endpoint import RetryLater, VlmEndpoint
from pilot.infer.high_level.base import Advisor, Subtask
from pilot.infer.high_level.external import ExternalHighLevel
from pilot.types import Sample

log = logging.getLogger(__name__)

PAUSES = (1.0, 4.0, 16.0)  # [s]
LONGEST = 100  # characters of a subtask; more is no subtask
QUESTION = """A robot was told: "{prompt}". The pictures show what its cameras see now: {cameras}.
{done}What is it to do next? Answer with one instruction of a few words, with the object and the place, such as "pick up
the red cup" or "put it in the sink", and with nothing else. If all is done, answer "done".{labels}"""


def in_thread(job: Callable[[], str]) -> "Future[str]":
    """Start `job` in a thread and return a future of its result; nothing waits for it, not even the end of Python."""
    future: Future[str] = Future()

    def run() -> None:
        try:
            future.set_result(job())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, name="vlm", daemon=True).start()
    return future


def at_once(job: Callable[[], str], *, sleep: Callable[[float], None] = time.sleep) -> "Future[str]":
    """Run `job` and wait for its result: for evaluations, where simulated time stands still meanwhile.

    Raises:
        ConnectionError: no answer after some attempts; an evaluation does not continue without its high level.
    """
    future: Future[str] = Future()
    reason: RetryLater | None = None
    for pause in PAUSES:
        try:
            future.set_result(job())
        except ValueError as error:
            future.set_exception(error)
        except RetryLater as error:
            reason = error
            sleep(max(pause, error.seconds or 0.0))
            continue
        return future
    raise ConnectionError(f"the high level does not answer: {reason}") from reason


@dataclass(frozen=True, kw_only=True)
class Vlm(ExternalHighLevel):
    """A vision-language model behind an OpenAI-compatible endpoint.

    It is asked `every` so many seconds, and when the prompt is new or a subtask ends, one question at a time per robot.
    An answer counts from the turn after it has come, and only for the prompt that it was given for. `labels`: the only
    answers to choose from. Pictures of `cameras` (none named: all) go into a question, their longer side at most
    `size`.
    """

    name: ClassVar[str] = "vlm"
    endpoint: VlmEndpoint
    labels: tuple[str, ...] = ()
    every: float = 2.0
    cameras: tuple[str, ...] = ()
    size: int = 448
    submit: Callable[[Callable[[], str]], "Future[str]"] = field(default=in_thread, repr=False)

    def advisor(self) -> Advisor:
        return _VlmAdvisor(self)

    def question(
        self, prompt: str, pictures: Mapping[str, np.ndarray], *, history: Sequence[Subtask]
    ) -> list[dict[str, Any]]:
        """Return the text and the pictures of a question, as the endpoint takes them."""
        done = f"Until now it did this: {'; '.join(subtask.words for subtask in history)}.\n" if history else ""
        labels = f"\nChoose among: {'; '.join(self.labels)}." if self.labels else ""
        text = QUESTION.format(prompt=prompt, cameras=", ".join(pictures), done=done, labels=labels)
        shown = [vlm_endpoint.image_part(transforms.picture(pixels), size=self.size) for pixels in pictures.values()]
        return [vlm_endpoint.text_part(text), *shown]

    def read(self, said: str) -> str:
        """Read the subtask out of an answer.

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


class _VlmAdvisor:
    """The questions of one robot and the answers to them."""

    def __init__(self, level: Vlm) -> None:
        self.level = level
        self.trouble: str | None = None
        self.prompt: str | None = None
        self.advice: str | None = None
        self.answer: Future[str] | None = None
        self.asked_at = -math.inf
        self.asked_for = ""  # the prompt that the open question is about
        self.outdated = False  # something has happened since the last question
        self.not_before = -math.inf

    def advise(self, sample: Sample, *, now: float, event: bool, history: Sequence[Subtask]) -> str | None:
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
        """Take in the answer, if one has come; an answer about another prompt is thrown away."""
        if self.answer is None or not self.answer.done():
            return
        answer, self.answer = self.answer, None
        if self.asked_for != self.prompt:
            return
        try:
            self.advice, self.trouble = self.level.read(answer.result()), None
        except (ValueError, RetryLater, OSError) as error:
            if self.trouble is None:
                log.warning("the high level continues with its last advice: %s", error)
            self.trouble = str(error)
            if isinstance(error, RetryLater) and error.seconds is not None:
                self.not_before = now + error.seconds

    def ask(self, sample: Sample, *, history: Sequence[Subtask]) -> None:
        """Send a question with copies of the pictures: the caller may overwrite its own."""
        level, prompt = self.level, sample.prompt
        shown = {c: np.array(pixels) for c, pixels in sample.images.items() if not level.cameras or c in level.cameras}
        self.asked_for = prompt
        self.answer = level.submit(
            lambda: vlm_endpoint.ask_vlm(level.endpoint, level.question(prompt, shown, history=history))
        )  # fmt: skip
