"""Subtasks from a vision-language model behind an OpenAI-compatible endpoint (`data/tools/vlm_endpoint.py`).

Each episode is one question: frames evenly spaced in time, the instruction, and the form of the answer.
"""

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pilot.data.formats.episodes import Episode
from pilot.data.formats.lerobot import LeRobotDataset
from pilot.data.tools import vlm_endpoint
from pilot.data.tools.annotate import Labels
from pilot.data.tools.vlm_endpoint import RetryLater, VlmEndpoint

MAX_WAIT = 60.0
QUESTION = """A robot was told: "{task}". These are {count} frames of how it did that, each after its time.
Divide the episode into the subtasks that the robot does one after the other. Name each as an instruction of a few
words, with the object and the place, such as "pick up the red cup" or "put it in the sink". {vocabulary}
Answer with nothing but JSON, in order of time, the first at 0:
[{{"start": 0.0, "subtask": "..."}}, ...]
Times are seconds, below {seconds:.1f}."""


@dataclass(kw_only=True)
class VlmLabeller:
    """Asks about one episode at a time. `frames` pictures of `camera` (default: the first) go into a question.

    `subtasks`: the only answers to choose from; none leaves the words to the model.
    """

    endpoint: VlmEndpoint
    frames: int = 16
    size: int = 336
    camera: str | None = None
    subtasks: Sequence[str] = ()
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    _next: float = field(default=0.0, init=False)

    @property
    def by(self) -> str:
        """Who answers, with all that decides what."""
        asked = f"{self.frames} frames of {self.size} pixels, {self.camera or 'the first camera'}"
        words = f", choosing among {', '.join(self.subtasks)}" if self.subtasks else ""
        return f"{self.endpoint.model} at {self.endpoint.url} ({asked}{words})"

    def __call__(self, dataset: LeRobotDataset, episode: Episode) -> Labels:
        """Raises:
        ConnectionError: no answer after all attempts, or one that says that asking again is no use.
        ValueError: only answers that are none.
        """
        question = self._question(dataset, episode)
        seconds = (episode.stop - episode.start) / float(dataset.fps)
        reason: Exception | None = None
        for attempt in range(self.endpoint.attempts):
            try:
                self._wait_for_turn()
                return self._read(vlm_endpoint.ask_vlm(self.endpoint, question), seconds)
            except RetryLater as wait:
                reason, pause = wait, wait.seconds
            except ValueError as error:
                reason, pause = error, None
            if attempt + 1 < self.endpoint.attempts:
                self.sleep(min(2.0**attempt if pause is None else pause, MAX_WAIT))
        where = (
            f"{self.endpoint.url} ({self.endpoint.model}), episode {episode.index}, {self.endpoint.attempts} attempts"
        )
        kind = ConnectionError if isinstance(reason, RetryLater) else ValueError
        raise kind(f"{where}: {reason}; answers up to here are kept, the same command goes on") from reason

    def _question(self, dataset: LeRobotDataset, episode: Episode) -> list[dict[str, Any]]:
        camera = self.camera or dataset.cameras[0]
        length = episode.stop - episode.start
        steps = np.unique(np.linspace(0, length - 1, min(self.frames, length)).round().astype(int)).tolist()
        vocabulary = f"Choose among: {', '.join(self.subtasks)}." if self.subtasks else ""
        question = QUESTION.format(
            task=episode.task, count=len(steps), vocabulary=vocabulary, seconds=length / float(dataset.fps)
        )
        content = [vlm_endpoint.text_part(question)]
        for step in steps:
            content.append(vlm_endpoint.text_part(f"{step / float(dataset.fps):.1f} s"))
            content.append(vlm_endpoint.image_part(dataset.picture(episode.start + step, camera), size=self.size))
        return content

    def _read(self, answer: str, seconds: float) -> list[tuple[float, str]]:
        """Read the subtasks out of an answer."""
        match = re.search(r"\[.*\]", answer, re.DOTALL)
        try:
            rows = json.loads(match[0]) if match else None
            labels = [(float(row["start"]), " ".join(str(row["subtask"]).split())) for row in rows or []]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"no list of subtasks in {answer[:200]!r} ({error!r})") from error
        if not labels or any(not words or not 0 <= at < seconds for at, words in labels):
            raise ValueError(f"times outside 0 to {seconds:.1f} s, or no words, in {answer[:200]!r}")
        if self.subtasks and (unknown := [words for _, words in labels if words not in self.subtasks]):
            raise ValueError(f"'{unknown[0]}' is none of {list(self.subtasks)}")
        return labels

    def _wait_for_turn(self) -> None:
        now = self.clock()
        if now < self._next:
            self.sleep(self._next - now)
        self._next = max(now, self._next) + 60.0 / self.endpoint.per_minute
