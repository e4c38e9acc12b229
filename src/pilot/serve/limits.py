"""What a stranger may send: how large, how often, and of what kind. The policy itself says what its robot looks like.

Whoever exceeds a limit is told what was expected and what came. Nobody else notices.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pilot.serve.wire import MAX_BYTES

NAME_LETTERS, DEPTH = 200, 16  # of a name in an observation, and how deep it may be nested


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one server. `strangers` are connections that have not yet said what they want; times are in seconds."""

    message_bytes: int = MAX_BYTES
    pictures: int = 16
    picture_pixels: int = 4096 * 3072
    prompt_letters: int = 4000
    observations_per_second: float = 200.0
    small_frames_per_second: float = 1000.0  # pings and crumbs; not less than twice the observations
    robots: int = 64
    viewers: int = 16
    strangers: int = 128
    handshake_seconds: float = 10.0
    ping_seconds: float = 20.0  # a robot that does not answer a ping for as long again is gone
    send_seconds: float = 10.0  # to take in an answer
    resume_seconds: float = 60.0  # a robot that comes back within these goes on where it was
    drain_seconds: float = 10.0  # for answers under way when the server stops

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f"the limit {name} is a number above 0, got {value}")


class Rate:
    """A second's worth of observations, or `what` else, may come at once, then as many as flow in (a token bucket)."""

    def __init__(
        self, per_second: float, *, what: str = "observations", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.per_second, self.what, self.clock = per_second, what, clock
        self.room, self.seen = max(1.0, per_second), clock()

    def take(self) -> None:
        """Count one.

        Raises:
            ValueError: one too many.
        """
        now = self.clock()
        self.room = min(max(1.0, self.per_second), self.room + (now - self.seen) * self.per_second)
        self.seen = now
        if self.room < 1:
            wait = (1 - self.room) / self.per_second
            raise ValueError(f"more than {self.per_second:g} {self.what} in a second; the next in {1e3 * wait:.0f} ms")
        self.room -= 1


def check_observation(observation: Any, limits: Limits) -> dict[str, Any]:
    """What any robot's observation must be, whatever the robot.

    Raises:
        ValueError: no dict with names, names, words or pictures beyond the limits, or numbers that are NaN or infinite.
    """
    if not isinstance(observation, dict) or not all(isinstance(key, str) for key in observation):
        got = type(observation).__name__
        raise ValueError(f"an observation is a dict with images, state and prompt by name, got a {got}")
    prompt = observation.get("prompt")
    if isinstance(prompt, str) and len(prompt) > limits.prompt_letters:
        raise ValueError(f"the prompt has {len(prompt)} letters, the limit is {limits.prompt_letters}")
    images = observation.get("images")
    if isinstance(images, Mapping) and len(images) > limits.pictures:
        raise ValueError(f"{len(images)} pictures, the limit is {limits.pictures}")
    for name, leaf in leaves(observation):
        if isinstance(leaf, np.ndarray):
            check_array(leaf, name, limits=limits)
        elif isinstance(leaf, str) and len(leaf) > limits.prompt_letters:
            raise ValueError(f"'{name}' has {len(leaf)} letters, the limit is {limits.prompt_letters}")
    return observation


def leaves(value: Any, name: str = "", *, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """What is in nested dicts and lists, with the way to it: `images.wrist`. Names are short, for errors tell them."""
    if not isinstance(value, Mapping | list):
        yield name, value
        return
    if depth > DEPTH:
        raise ValueError(f"an observation is nested {DEPTH} deep at most, this one is deeper at '{name}'")
    for key, part in value.items() if isinstance(value, Mapping) else enumerate(value):
        if isinstance(key, str | bytes) and len(key) > NAME_LETTERS:
            raise ValueError(f"a name has {len(key)} letters, the limit is {NAME_LETTERS}; it begins with {key[:20]!r}")
        yield from leaves(part, f"{name}.{key}" if name else str(key), depth=depth + 1)


def check_array(array: np.ndarray, name: str, *, limits: Limits) -> None:
    if array.ndim > 4:
        raise ValueError(f"'{name}' has {array.ndim} dimensions {list(array.shape)}; pictures are [h w 3], states [n]")
    if array.ndim >= 3 and array.size > 3 * limits.picture_pixels:
        got = f"{array.dtype} {list(array.shape)}"
        raise ValueError(f"'{name}' is {got}, the limit is {limits.picture_pixels} pixels; send smaller pictures")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(
            f"'{name}' ({array.dtype} {list(array.shape)}) is {array[first]} at {list(first)}; send numbers"
        )
