"""What a client may send: how much, how often, and of what kind. The policy itself checks what its robot looks like.

Who exceeds a limit is told what was expected and what came. Other robots notice nothing.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pilot.serve.wire import MAX_BYTES

NAME_LENGTH = 200  # length of a key in an observation
LARGE_MESSAGE = 2**20  # bytes; a larger one takes so long to read that other robots would notice
MAX_DEPTH = 16  # levels of nested dicts and lists in an observation


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of one server; times are in seconds."""

    message_bytes: int = MAX_BYTES
    camera_bytes: int = 8 * 2**20  # of a message for each camera of the robot: more than 1080p without compression
    pictures: int = 16
    picture_pixels: int = 4096 * 3072
    prompt_characters: int = 4000
    observations_per_second: float = 200.0
    small_frames_per_second: float = 1000.0  # pings and tiny messages; at least twice the observations
    robots: int = 64
    viewers: int = 16
    pending_connections: int = 128  # those that have not yet sent a request
    requests_per_second: float = 20.0  # of new connections; more wait, since those who are connected come first
    handshake_seconds: float = 10.0
    ping_seconds: float = 20.0  # a robot that does not answer a ping within this time is disconnected
    send_seconds: float = 10.0  # how long a client may take to receive an answer
    resume_seconds: float = 60.0  # a robot that reconnects within this time continues its session
    drain_seconds: float = 10.0  # how long a stopping server finishes answers

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f"the limit {name} must be above 0, got {value}")

    def largest_message(self, cameras: int) -> int:
        """Return the bytes that a message of a robot with so many cameras may have."""
        return min(self.message_bytes, max(1, cameras) * self.camera_bytes)


class Patience:
    """The pause after a message that was refused: twice as long after each in a row, none after a good one.

    Somebody who sends nonsense as fast as it is answered takes the time of the robots; who errs once notices nothing.
    """

    FIRST, LONGEST = 0.005, 0.5  # seconds

    def __init__(self) -> None:
        self.seconds = 0.0

    async def pause(self, *, refused: bool) -> None:
        """Wait as long as this answer asks for."""
        self.seconds = min(max(self.FIRST, 2 * self.seconds), self.LONGEST) if refused else 0.0
        await asyncio.sleep(self.seconds)  # even of 0: a client that never waits must not block the event loop


class RateLimit:
    """A token bucket: `at_once` events may come together (by default those of one second), then `per_second`.

    `what` names the events in the error.
    """

    def __init__(
        self,
        per_second: float,
        *,
        what: str = "observations",
        at_once: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.per_second, self.what, self.clock = per_second, what, clock
        self.at_once = max(1.0, per_second if at_once is None else at_once)
        self.tokens, self.updated = self.at_once, clock()

    def take(self) -> None:
        """Count one event.

        Raises:
            ValueError: the rate is exceeded; the message says when the next event is allowed.
        """
        if wait := self.delay():
            raise ValueError(f"more than {self.per_second:g} {self.what} in a second; the next in {1e3 * wait:.0f} ms")

    def delay(self) -> float:
        """Count one event and return 0; where it is not allowed yet, return the seconds until it is."""
        now = self.clock()
        self.tokens = min(self.at_once, self.tokens + (now - self.updated) * self.per_second)
        self.updated = now
        if self.tokens < 1:
            return (1 - self.tokens) / self.per_second
        self.tokens -= 1
        return 0.0


class Turnstile:
    """Admits callers in the order of their arrival: the first `at_once` immediately, the others at `per_second`."""

    def __init__(self, per_second: float, *, at_once: float) -> None:
        self.rate, self.first = RateLimit(per_second, at_once=at_once), asyncio.Lock()

    async def wait(self, *, is_gone: Callable[[], bool]) -> None:
        """Wait for this caller's turn; one that is gone by then takes no time from those behind it."""
        async with self.first:
            while not is_gone() and (seconds := self.rate.delay()):
                await asyncio.sleep(seconds)


def check_observation(observation: Any, limits: Limits) -> dict[str, Any]:
    """Return the observation if it is one that any robot could send.

    Raises:
        ValueError: it is not a dict with string keys; names, texts or pictures exceed the limits; a number is NaN or
            infinite.
    """
    if not isinstance(observation, dict) or not all(isinstance(key, str) for key in observation):
        got = type(observation).__name__
        raise ValueError(f"an observation is a dict with images, state and prompt by name, got a {got}")
    prompt = observation.get("prompt")
    if isinstance(prompt, str) and len(prompt) > limits.prompt_characters:
        raise ValueError(f"the prompt has {len(prompt)} characters, the limit is {limits.prompt_characters}")
    images = observation.get("images")
    if isinstance(images, Mapping) and len(images) > limits.pictures:
        raise ValueError(f"{len(images)} pictures, the limit is {limits.pictures}")
    for name, leaf in iter_leaves(observation):
        if isinstance(leaf, np.ndarray):
            check_array(leaf, name, limits=limits)
        elif isinstance(leaf, float | np.floating) and not math.isfinite(leaf):
            raise ValueError(f"'{name}' is {leaf}; send finite numbers")
        elif isinstance(leaf, str) and len(leaf) > limits.prompt_characters:
            raise ValueError(f"'{name}' has {len(leaf)} characters, the limit is {limits.prompt_characters}")
    return observation


def iter_leaves(value: Any, name: str = "", *, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the values in nested dicts and lists with their paths, such as `images.wrist`.

    Raises:
        ValueError: nested too deep, or a name is no text, or too long to be quoted in an error.
    """
    if not isinstance(value, Mapping | list):
        yield name, value
        return
    if depth > MAX_DEPTH:
        raise ValueError(f"an observation is nested {MAX_DEPTH} deep at most, this one is deeper at '{name}'")
    for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
        if isinstance(value, Mapping) and not isinstance(key, str):
            raise ValueError(f"names are text, got {key!r:.80}" + (f" in '{name}'" if name else ""))
        if isinstance(key, str) and len(key) > NAME_LENGTH:
            raise ValueError(
                f"a name has {len(key)} characters, the limit is {NAME_LENGTH}; it begins with {key[:20]!r}"
            )
        yield from iter_leaves(item, f"{name}.{key}" if name else str(key), depth=depth + 1)


def check_array(array: np.ndarray, name: str, *, limits: Limits) -> None:
    """Check one array of an observation.

    Raises:
        ValueError: it has too many dimensions or pixels, or numbers that are NaN or infinite.
    """
    if array.ndim > 4:
        raise ValueError(f"'{name}' has {array.ndim} dimensions {list(array.shape)}; pictures are [h w 3], states [n]")
    if array.ndim >= 3 and array.size > 3 * limits.picture_pixels:
        got = f"{array.dtype} {list(array.shape)}"
        raise ValueError(f"'{name}' is {got}, the limit is {limits.picture_pixels} pixels; send smaller pictures")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(
            f"'{name}' ({array.dtype} {list(array.shape)}) is {array[first]} at {list(first)}; send finite numbers"
        )
