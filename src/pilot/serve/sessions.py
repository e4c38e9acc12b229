"""What a server knows of each robot: the policy's session with it, and what people may look at.

A robot that loses its connection and comes back under the same session name within `Limits.resume_seconds` continues
where it was. All of this belongs to the server's event loop, but for what a robot has of the policy: its `state` and
`generation`, once they exist, are changed by the batcher's threads alone (`serve/hosted_policy.py`), which never work
for one robot twice at a time. Its `metadata` is replaced as a whole, here and there.
"""

import hashlib
import io
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from pilot.infer.safety import limit_chunk, measured_position
from pilot.serve.limits import Limits, RateLimit
from pilot.types import is_rate

HISTORY = 50  # subtasks remembered per robot
LATENCIES = 500  # answers per robot that the percentiles are computed from
PICTURE_SECONDS = 0.2  # how often a picture is kept for people to look at
PICTURE_SIDE = 192  # its longest side in pixels

SAYS_WHERE = {"action_names", "action_units", "action_horizon", "state_names"}  # what standing still takes to know

Timing = Mapping[str, float]
SessionKey = tuple[str, str, str | None, str | None]


@dataclass(kw_only=True)
class SentChunk:
    """Actions [ah ad] that were sent, and how many of them the robot executed, once that is known."""

    actions: np.ndarray
    sent: float
    executed: int | None = None

    def executed_by(self, now: float, *, control_hz: float) -> int:
        """Return how many actions have been executed: as the robot said, or estimated by the clock."""
        if self.executed is not None:
            return self.executed
        return min(len(self.actions), int((now - self.sent) * control_hz))


@dataclass(kw_only=True, eq=False)
class RobotSession:
    """One robot that acts with a policy.

    `state` is the policy's own session with it, and `generation` counts the reloads before the policy that made it.
    `kind` is which of the policy's robots it is, where the policy knows them by name.
    """

    name: str
    policy: str
    state: Any
    generation: int
    metadata: Mapping[str, Any]
    rate: RateLimit
    kind: str | None = None
    owner: str = ""
    address: str = ""
    connection: Any = None
    since: float = field(default_factory=time.time)
    seen: float = 0.0  # when the last observation came
    disconnected: float | None = None  # when the connection ended, by the monotonic clock
    observations: int = 0
    errors: int = 0
    last_error: str | None = None
    prompt: str | None = None
    command: str | None = None
    subtask: str | None = None
    box: Any = None
    history: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=HISTORY))
    chunk: SentChunk | None = None
    previous_chunk: SentChunk | None = None
    pictures: dict[str, "CameraPicture"] = field(default_factory=dict)
    pictures_taken: float = 0.0
    latency: deque[Timing] = field(default_factory=lambda: deque(maxlen=LATENCIES))
    stopped: str | None = None  # why the robot has to stand still until a person releases it
    released: bool = False  # by a person, after a stop
    # The stopped robots of a server, by their `place`.
    stopped_places: dict[tuple[str, ...], list["RobotSession"]] = field(default_factory=dict)
    limited: int = 0  # chunks that had to be kept within the robot's limits

    @cached_property
    def id(self) -> str:
        """The name that people see.

        Whoever knows the session's own name can take it over, so that one stays secret. Robots of other kinds, or with
        other keys or policies, may have the same name, so these are part of the id.
        """
        whose = f"{self.owner}/{self.policy}/{self.kind or ''}/{self.name}"
        return hashlib.sha256(whose.encode()).hexdigest()[:8]

    def receive(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Note an observation, and return the one to act on: with a person's command in place of the prompt.

        A command ends when the robot itself sends another prompt. `executed`, the number of actions of the last chunk
        that were executed, is for the dashboard alone: the policy does not see it.
        """
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

    def record_reply(self, reply: Mapping[str, Any], timing: Timing) -> None:
        """Note the policy's reply and how long it took."""
        self.latency.append(timing)
        self.box, subtask = reply.get("box"), reply.get("subtask")
        if isinstance(subtask, str) and subtask != self.subtask:
            self.history.append((time.time(), subtask))
        self.subtask = subtask if isinstance(subtask, str) else None
        actions = reply.get("actions")
        if isinstance(actions, np.ndarray) and actions.ndim == 2:
            self.previous_chunk, self.chunk = self.chunk, SentChunk(actions=actions, sent=time.time())

    def record_error(self, error: str) -> None:
        """Note that an observation was refused."""
        self.errors += 1
        self.last_error = error

    def set_command(self, command: str | None) -> None:
        """Act on a person's words until the robot sends another prompt; None returns to the robot's own prompt."""
        self.command = command

    def stop(self, reason: str) -> None:
        """Let the robot stand still from its next answer on, until `release`: an emergency stop."""
        self.stopped, self.released = self.stopped or reason, False
        others = self.stopped_places.setdefault(self.place, [])
        if self not in others:
            others.append(self)

    def release(self) -> None:
        """Let the robot act again; only a person should. Other robots of its place that are stopped stay so."""
        self.stopped, self.released = None, True
        others = self.stopped_places.get(self.place, [])
        # Who is gone may have come back as this one.
        self.stopped_places[self.place] = [o for o in others if o is not self and o.connection is not None]

    def stay_stopped(self) -> None:
        """Stop a new session of a robot that was stopped: coming back under another name does not release it.

        Robots of one place cannot be told apart, so one that is new is stopped too while another is.
        """
        others = [] if self.observations else self.stopped_places.get(self.place, [])
        reasons = [robot.stopped for robot in (self, *others) if robot.stopped is not None]
        if not reasons:
            return
        if len(others) == 1 and others[0].connection is None:
            self.chunk = others[0].chunk  # it is the same robot, which was commanded so last
        # This one takes the place of those that are gone: a robot may come back without end.
        self.stopped_places[self.place] = [robot for robot in others if robot.connection is not None]
        self.stop(reasons[0])

    @property
    def place(self) -> tuple[str, ...]:
        """What a robot keeps when it comes back under another name: key, policy, kind and address without the port."""
        return self.owner, self.policy, self.kind or "", self.address.rpartition(":")[0]

    def stand_still(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """Return a reply that keeps the robot where it is: no motion, places as measured, the rest as commanded last.

        Grippers are commanded as before: one that holds something is measured to be wider than it was told to be.

        Raises:
            ValueError: the policy does not say what its actions mean, the state is not the robot's, or a place is
                neither measured nor known from the last command.
        """
        refusal = f"the robot was stopped ({self.stopped}); release it on the dashboard"
        if not self.metadata.keys() >= SAYS_WHERE or "state" not in observation:
            raise ValueError(refusal)
        action = measured_position(self.metadata, read_state(observation["state"], self.metadata["state_names"]))
        action[[is_rate(unit) for unit in self.metadata["action_units"]]] = 0.0
        if self.chunk is not None:
            executed = self.chunk.executed or 0
            last = self.chunk.actions[min(max(executed - 1, 0), len(self.chunk.actions) - 1)]
            grips = np.isin(self.metadata["action_names"], self.metadata.get("grippers") or ())
            action = np.where(np.isfinite(action) & ~grips, action, last)
        if not np.isfinite(action).all():
            raise ValueError(refusal)
        action = action.astype(np.float32)
        return {"actions": np.tile(action, (int(self.metadata["action_horizon"]), 1)), "subtask": None}

    def keep_within_limits(self, reply: Mapping[str, Any]) -> dict[str, Any]:
        """Return a reply whose actions are within the robot's limits; `limited` says why where they were not.

        A robot whose limits say so is stopped instead.

        Raises:
            ValueError: the actions have other dims than the robot.
        """
        actions, metadata = reply.get("actions"), self.metadata  # read once: a reload may bring other limits meanwhile
        if not metadata.get("limits") or not isinstance(actions, np.ndarray):
            return dict(reply)
        sent, reasons = limit_chunk(actions, metadata)
        if not reasons:
            return dict(reply)
        self.limited += 1
        if metadata["limits"].get("on_violation") == "stop":
            self.stop(f"its policy left its limits: {', '.join(reasons)}")
        return {**reply, "actions": sent, "limited": list(reasons)}

    def _end_chunk(self, executed: Any, previous: Any) -> None:
        """Note how much of the last chunk was executed: as the robot says, else from what it has left of it."""
        if self.chunk is None:
            return
        total = len(self.chunk.actions)
        left = previous.get("actions") if isinstance(previous, Mapping) else None
        if executed is None and isinstance(left, np.ndarray) and left.ndim == 2:
            executed = total - len(left)
        if isinstance(executed, int | np.integer):
            self.chunk.executed = min(max(int(executed), 0), total)
        else:
            hz = float(self.metadata.get("control_hz") or 0)
            self.chunk.executed = self.chunk.executed_by(time.time(), control_hz=hz)

    def _keep_pictures(self, images: Any) -> None:
        """Keep small copies now and then, so that watching costs the robot nothing and memory stays bounded."""
        if not isinstance(images, Mapping) or self.seen - self.pictures_taken < PICTURE_SECONDS:
            return
        pictures = {str(name): image for name, image in images.items() if is_picture(image)}
        self.pictures = {name: CameraPicture(downsample(image)) for name, image in pictures.items()}
        self.pictures_taken = self.seen


def session_key(*, owner: str, policy: str, kind: str | None, name: str | None) -> SessionKey:
    """Return what tells a session from all others: whose it is (by API key), with which policy, for which robot."""
    return owner, policy, kind, name


def read_state(value: Any, names: Sequence[str]) -> np.ndarray:
    """Return a state as numbers, one for each name.

    Raises:
        ValueError: it is something else.
    """
    try:
        state = np.asarray(value, float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"'state' is a vector of numbers ({', '.join(names)}): {error}") from error
    if state.shape != (len(names),):
        raise ValueError(f"'state' has {len(names)} dims ({', '.join(names)}), got shape {list(state.shape)}")
    return state


class CameraPicture:
    """A small picture of a camera; it becomes JPEG only when somebody looks."""

    def __init__(self, image: np.ndarray) -> None:
        self.image = image

    @cached_property
    def jpeg(self) -> bytes:
        """The picture as a JPEG file."""
        file = io.BytesIO()
        Image.fromarray(self.image).save(file, "JPEG", quality=90, subsampling=0)
        return file.getvalue()


def is_picture(image: Any) -> bool:
    """Return whether `image` is a picture that can be shown: uint8 [h w 3]."""
    if not isinstance(image, np.ndarray) or image.ndim != 3:
        return False
    return image.dtype == np.uint8 and image.shape[2] == 3 and min(image.shape) > 0


def downsample(image: np.ndarray) -> np.ndarray:
    """Return a copy of [h w 3] with every n-th pixel, at most `PICTURE_SIDE` on a side."""
    step = -(-max(image.shape[:2]) // PICTURE_SIDE)
    return image[::step, ::step].copy()


class SessionStore:
    """The sessions of all robots that are connected, and of those that may come back."""

    def __init__(self, limits: Limits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits, self.clock = limits, clock
        self._robots: dict[SessionKey, RobotSession] = {}
        self._stopped_places: dict[tuple[str, ...], list[RobotSession]] = {}

    def __iter__(self) -> Iterator[RobotSession]:
        return iter(list(self._robots.values()))

    def connected(self) -> list[RobotSession]:
        """Return the robots that have a connection."""
        return [robot for robot in self if robot.connection is not None]

    def find(self, id: str) -> RobotSession | None:
        """Return the robot with the id that people see."""
        return next((robot for robot in self if robot.id == id), None)

    def open(
        self, name: str | None, *, owner: str, policy: str, start_session: Callable[[], tuple[Any, int]],
        metadata: Mapping[str, Any], kind: str | None = None,
    ) -> RobotSession:  # fmt: skip
        """Return the session of that name that this owner (API key) has with that policy for a robot of that kind, or a
        new one.
        """
        self.drop_expired()
        name = name or uuid.uuid4().hex
        key = session_key(owner=owner, policy=policy, kind=kind, name=name)
        if key not in self._robots:
            state, generation = start_session()
            rate = RateLimit(self.limits.observations_per_second)
            self._robots[key] = RobotSession(
                name=name, policy=policy, owner=owner, state=state, generation=generation, metadata=metadata, rate=rate,
                kind=kind, stopped_places=self._stopped_places,
            )  # fmt: skip
        self._robots[key].metadata = metadata  # a reload may have brought other limits
        return self._robots[key]

    def disconnect(self, robot: RobotSession, connection: Any, *, over: bool = False) -> None:
        """Note that a connection of the robot has ended; from now on the robot may come back for a while.

        `over` says that it will not come back: its session is dropped. Nothing happens if another connection has
        taken the place of this one.
        """
        if robot.connection is not connection:
            return
        robot.connection = None
        robot.disconnected = self.clock()
        if over:
            self._robots = {key: other for key, other in self._robots.items() if other is not robot}

    def drop_expired(self) -> None:
        """Drop robots that did not come back in time and, where too many are away, those away the longest."""
        away = sorted(
            (robot.disconnected, key)
            for key, robot in self._robots.items()
            if robot.connection is None and robot.disconnected is not None
        )
        expired = [key for since, key in away if self.clock() - since > self.limits.resume_seconds]
        too_many = [key for _, key in away[: max(0, len(away) - self.limits.robots)]]
        for key in {*expired, *too_many}:
            del self._robots[key]
