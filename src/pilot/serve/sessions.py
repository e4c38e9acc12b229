"""What a server knows of each robot: the policy's session with it, and what people may look at.

A robot that loses its connection and comes back under the same session name goes on where it was, within
`Limits.resume_seconds`. All of this belongs to the server's event loop; nothing here is shared with other threads.
"""

import hashlib
import io
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from pilot.serve.limits import Limits, Rate

HISTORY = 50  # subtasks remembered of a robot
LATENCIES = 500  # answers that percentiles are of
PICTURE_SECONDS, PICTURE_SIDE = 0.2, 192  # how often a picture for people is kept, and how large

Timing = Mapping[str, float]


@dataclass(kw_only=True)
class Chunk:
    """Actions [ah ad] that were sent, and how many of them the robot did before the next chunk, once that is known."""

    actions: np.ndarray
    sent: float
    executed: int | None = None

    def executed_by(self, now: float, *, control_hz: float) -> int:
        """How many have been done: by the clock, as long as the robot has not said it."""
        if self.executed is not None:
            return self.executed
        return min(len(self.actions), int((now - self.sent) * control_hz))


@dataclass(kw_only=True, eq=False)
class RobotSession:
    """One robot's conversation. `state` is the policy's own session, `generation` the policy that made it."""

    name: str
    policy: str
    state: Any
    generation: int
    metadata: Mapping[str, Any]
    rate: Rate
    owner: str = ""
    address: str = ""
    connection: Any = None
    since: float = field(default_factory=time.time)
    seen: float = 0.0
    left: float | None = None  # by the monotonic clock
    observations: int = 0
    errors: int = 0
    last_error: str | None = None
    prompt: str | None = None
    command: str | None = None
    subtask: str | None = None
    box: Any = None
    history: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=HISTORY))
    chunk: Chunk | None = None
    before: Chunk | None = None
    pictures: dict[str, "Picture"] = field(default_factory=dict)
    pictured: float = 0.0
    latency: deque[Timing] = field(default_factory=lambda: deque(maxlen=LATENCIES))

    @property
    def id(self) -> str:
        """What people see. Who knows the name itself can take the session over, so that is not shown. Robots of other
        keys and policies may have the same name."""
        return hashlib.sha256(f"{self.owner}/{self.policy}/{self.name}".encode()).hexdigest()[:8]

    def hear(self, observation: dict[str, Any]) -> dict[str, Any]:
        """The observation to act on: with a person's command in place of the prompt. A robot that says something new
        itself is heard again. `executed`, how many actions of the last chunk were done, is for people only."""
        self.observations += 1
        self.seen = time.time()
        observation, executed = dict(observation), observation.get("executed")
        observation.pop("executed", None)
        self._end_chunk(executed, observation.get("previous"))
        prompt = observation.get("prompt")
        if isinstance(prompt, str):
            if prompt != self.prompt and self.prompt is not None:
                self.command = None
            self.prompt = prompt
        self._keep_pictures(observation.get("images"))
        return observation if self.command is None else {**observation, "prompt": self.command}

    def told(self, reply: Mapping[str, Any], timing: Timing) -> None:
        """Remember an answer."""
        self.latency.append(timing)
        self.box, subtask = reply.get("box"), reply.get("subtask")
        if isinstance(subtask, str) and subtask != self.subtask:
            self.history.append((time.time(), subtask))
        self.subtask = subtask if isinstance(subtask, str) else None
        actions = reply.get("actions")
        if isinstance(actions, np.ndarray) and actions.ndim == 2:
            self.before, self.chunk = self.chunk, Chunk(actions=actions, sent=time.time())

    def refused(self, error: str) -> None:
        self.errors += 1
        self.last_error = error

    def obey(self, command: str | None) -> None:
        """Act on a person's words until the robot itself says something new, or None: on its own prompt again."""
        self.command = command

    def _end_chunk(self, executed: Any, previous: Any) -> None:
        """How much of the last chunk was done: said by the robot, or seen from what it has left."""
        if self.chunk is None:
            return
        total = len(self.chunk.actions)
        if executed is None and isinstance(previous, Mapping) and isinstance(previous.get("actions"), np.ndarray):
            executed = total - len(previous["actions"])
        if isinstance(executed, int | np.integer):
            self.chunk.executed = min(max(int(executed), 0), total)
        else:
            hz = float(self.metadata.get("control_hz") or 0)
            self.chunk.executed = self.chunk.executed_by(time.time(), control_hz=hz)

    def _keep_pictures(self, images: Any) -> None:
        """Every so often small copies, so that looking costs the robot nothing and the memory of a robot is bounded."""
        if not isinstance(images, Mapping) or self.seen - self.pictured < PICTURE_SECONDS:
            return
        pictures = {str(name): image for name, image in images.items() if is_picture(image)}
        self.pictures, self.pictured = {name: Picture(smaller(image)) for name, image in pictures.items()}, self.seen


class Picture:
    """A small picture of a camera, as JPEG once somebody looks."""

    def __init__(self, image: np.ndarray) -> None:
        self.image = image

    @cached_property
    def jpeg(self) -> bytes:
        file = io.BytesIO()
        Image.fromarray(self.image).save(file, "JPEG", quality=90, subsampling=0)
        return file.getvalue()


def is_picture(image: Any) -> bool:
    if not isinstance(image, np.ndarray) or image.ndim != 3:
        return False
    return image.dtype == np.uint8 and image.shape[2] == 3 and min(image.shape) > 0


def smaller(image: np.ndarray) -> np.ndarray:
    """[h w 3] → every n-th pixel, a copy of at most `PICTURE_SIDE` on a side."""
    step = -(-max(image.shape[:2]) // PICTURE_SIDE)
    return image[::step, ::step].copy()


class Sessions:
    """The robots that are connected, and those that may come back."""

    def __init__(self, limits: Limits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits, self.clock = limits, clock
        self._robots: dict[tuple[str, str, str], RobotSession] = {}

    def __iter__(self) -> Iterator[RobotSession]:
        return iter(list(self._robots.values()))

    def connected(self) -> list[RobotSession]:
        return [robot for robot in self if robot.connection is not None]

    def find(self, public: str) -> RobotSession | None:
        """By what people see."""
        return next((robot for robot in self if robot.id == public), None)

    def open(
        self, name: str | None, *, owner: str, policy: str, begin: Callable[[], tuple[Any, int]],
        metadata: Mapping[str, Any],
    ) -> RobotSession:  # fmt: skip
        """The session of that name that the same owner (API key) has with that policy, or a new one."""
        self.forget()
        name = name or uuid.uuid4().hex
        key = (owner, policy, name)
        if key not in self._robots:
            state, generation = begin()
            rate = Rate(self.limits.observations_per_second)
            self._robots[key] = RobotSession(
                name=name, policy=policy, owner=owner, state=state, generation=generation, metadata=metadata, rate=rate
            )
        return self._robots[key]

    def leave(self, robot: RobotSession, connection: Any, *, over: bool = False) -> None:
        """That connection of the robot is over; unless another has taken its place, the time to come back begins, or,
        if the robot said that all is over, what is known of it is forgotten."""
        if robot.connection is not connection:
            return
        robot.connection, robot.left = None, self.clock()
        if over:
            self._robots = {key: other for key, other in self._robots.items() if other is not robot}

    def forget(self) -> None:
        """Drop those that did not come back in time, and the longest gone where there are too many."""
        gone = [(robot.left, key) for key, robot in self._robots.items() if robot.left is not None]
        gone = sorted((left, key) for left, key in gone if self._robots[key].connection is None)
        late = [key for left, key in gone if self.clock() - left > self.limits.resume_seconds]
        crowd = [key for _, key in gone[: max(0, len(gone) - self.limits.robots)]]
        for key in {*late, *crowd}:
            del self._robots[key]
