"""Subtasks from a vision-language model behind an OpenAI-compatible endpoint: vLLM, Ollama, or a service.

Each episode is one question: frames evenly spaced in time, the instruction, and the form of the answer. Pictures travel
inside the request, as JPEG. The key is read from the environment and stored nowhere.
"""

import base64
import io
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pilot.data.annotate import Labels
from pilot.data.episodes import Episode
from pilot.data.lerobot import LeRobotDataset

KEY = "OPENAI_API_KEY"
AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)
MAX_WAIT = 60.0
QUESTION = """A robot was told: "{task}". These are {count} frames of how it did that, each after its time.
Divide the episode into the subtasks that the robot does one after the other. Name each as an instruction of a few
words, with the object and the place, such as "pick up the red cup" or "put it in the sink". {vocabulary}
Answer with nothing but JSON, in order of time, the first at 0:
[{{"start": 0.0, "subtask": "..."}}, ...]
Times are seconds, below {seconds:.1f}."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where the model is, and how gently it is asked.

    `url` ends before `/chat/completions`, such as `http://localhost:8000/v1`. `per_minute`: most requests per minute.
    `attempts`: per question, for lack of an answer and for answers that are none.
    """

    url: str
    model: str
    per_minute: float = 60.0
    attempts: int = 5
    timeout_s: float = 120.0


@dataclass(kw_only=True)
class VlmLabeller:
    """Asks about one episode at a time. `frames` pictures of `camera` (default: the first) go into a question.

    `subtasks`: the only answers to choose from; none leaves the words to the model.
    """

    endpoint: Endpoint
    frames: int = 16
    size: int = 336
    camera: str | None = None
    subtasks: Sequence[str] = ()
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    _next: float = field(default=0.0, init=False)

    def __call__(self, dataset: LeRobotDataset, episode: Episode) -> Labels:
        """Raises:
        ConnectionError: no answer after all attempts, or one that says that asking again is no use.
        ValueError: only answers that are none.
        """
        request = self._request(dataset, episode)
        seconds = (episode.stop - episode.start) / float(dataset.fps)
        reason: Exception | None = None
        for attempt in range(self.endpoint.attempts):
            try:
                return self._read(self._send(request), seconds)
            except _Wait as wait:
                reason, pause = wait, wait.seconds
            except ValueError as error:
                reason, pause = error, None
            if attempt + 1 < self.endpoint.attempts:
                self.sleep(min(2.0**attempt if pause is None else pause, MAX_WAIT))
        where = (
            f"{self.endpoint.url} ({self.endpoint.model}), episode {episode.index}, {self.endpoint.attempts} attempts"
        )
        kind = ConnectionError if isinstance(reason, _Wait) else ValueError
        raise kind(f"{where}: {reason}; answers up to here are kept, the same command goes on") from reason

    def _request(self, dataset: LeRobotDataset, episode: Episode) -> dict[str, Any]:
        camera = self.camera or dataset.cameras[0]
        length = episode.stop - episode.start
        steps = np.unique(np.linspace(0, length - 1, min(self.frames, length)).round().astype(int)).tolist()
        words = f"Choose among: {', '.join(self.subtasks)}." if self.subtasks else ""
        question = QUESTION.format(
            task=episode.task, count=len(steps), vocabulary=words, seconds=length / float(dataset.fps)
        )
        content: list[dict[str, Any]] = [{"type": "text", "text": question}]
        for step in steps:
            picture = dataset.picture(episode.start + step, camera)
            content.append({"type": "text", "text": f"{step / float(dataset.fps):.1f} s"})
            content.append({"type": "image_url", "image_url": {"url": jpeg_address(picture, self.size)}})
        return {"model": self.endpoint.model, "temperature": 0, "messages": [{"role": "user", "content": content}]}

    def _send(self, request: dict[str, Any]) -> str:
        """What the model said."""
        self._wait_for_turn()
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {key}"
        address = self.endpoint.url.rstrip("/") + "/chat/completions"
        try:
            message = urllib.request.Request(address, json.dumps(request).encode(), headers)
            with urllib.request.urlopen(message, timeout=self.endpoint.timeout_s) as answer:
                return str(json.load(answer)["choices"][0]["message"]["content"])
        except urllib.error.HTTPError as error:
            said = error.read(300).decode("utf-8", errors="replace")
            if error.code in AGAIN:
                raise _Wait(f"HTTP {error.code}: {said}", _seconds(error.headers.get("Retry-After"))) from error
            hint = f"; is the key in ${KEY} right?" if error.code in (401, 403) else ""
            raise ConnectionError(f"{address} answers HTTP {error.code}: {said}{hint}") from error
        except (OSError, TimeoutError) as error:
            raise _Wait(f"no answer ({error})", None) from error
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"the answer has no {error}; is this a chat endpoint?") from error

    def _read(self, said: str, seconds: float) -> list[tuple[float, str]]:
        """Subtasks out of what the model said."""
        match = re.search(r"\[.*\]", said, re.DOTALL)
        try:
            rows = json.loads(match[0]) if match else None
            found = [(float(row["start"]), " ".join(str(row["subtask"]).split())) for row in rows or []]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"no list of subtasks in {said[:200]!r} ({error!r})") from error
        if not found or any(not words or not 0 <= at < seconds for at, words in found):
            raise ValueError(f"times outside 0 to {seconds:.1f} s, or no words, in {said[:200]!r}")
        if self.subtasks and (unknown := [words for _, words in found if words not in self.subtasks]):
            raise ValueError(f"'{unknown[0]}' is none of {list(self.subtasks)}")
        return found

    def _wait_for_turn(self) -> None:
        now = self.clock()
        if now < self._next:
            self.sleep(self._next - now)
        self._next = max(now, self._next) + 60.0 / self.endpoint.per_minute


class _Wait(Exception):
    """Ask again, after `seconds` if the server says so."""

    def __init__(self, reason: str, seconds: float | None) -> None:
        super().__init__(reason)
        self.seconds = seconds


def jpeg_address(picture: UInt8[np.ndarray, "h w 3"], size: int) -> str:
    """A picture as a `data:` address, its longer side at most `size`."""
    image = Image.fromarray(picture)
    image.thumbnail((size, size))
    buffer = io.BytesIO()
    image.save(buffer, format="jpeg", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _seconds(header: str | None) -> float | None:
    """A `Retry-After` in seconds; dates are not read."""
    return float(header) if header and header.strip().isdigit() else None
