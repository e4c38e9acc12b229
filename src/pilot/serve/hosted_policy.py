"""A policy that is served under a name: its sessions, its batches, warming it up, and changing it while robots act."""

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pilot.serve.batching import Answer, Batcher, Reply, attempt
from pilot.serve.sessions import RobotSession
from pilot.serve.wire import pack

log = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
SAME = ("robot", "cameras", "state_names", "action_names")  # what a policy must share with the one it replaces


class Hosted:
    """`policy.infer(observation) -> dict` is all that is needed. What else there is of `policy.metadata`,
    `policy.session()`, `session.move_to(policy)` and `policy.infer_many(sessions, observations, errors="return")` is
    used.

    `load` makes the policy anew from what lies on disk, in `folder`. Batches are computed by `workers` threads.
    """

    def __init__(
        self,
        name: str,
        policy: Any,
        *,
        load: Callable[[], Any] | None = None,
        folder: Path | None = None,
        max_batch: int = 16,
        workers: int = 1,
    ) -> None:
        if not NAME.fullmatch(name):
            raise ValueError(f"a policy is served under letters, digits, '-', '_' and '.', got the name {name!r}")
        self.name, self.policy, self.load, self.folder = name, policy, load, folder
        self.generation = 0
        self.ready = False
        self._loading = asyncio.Lock()
        self.greeting = pack(self.metadata)
        self.batcher = Batcher(self._infer, max_batch=max_batch, workers=workers, name=f"policy {name}")

    @property
    def metadata(self) -> Mapping[str, Any]:
        return getattr(self.policy, "metadata", {})

    def begin(self, *, alone: bool = True) -> tuple[Any, int]:
        """State of its own for a robot, and of which generation. A policy that can only be reset is reset while no
        other robot would notice, and while it does not compute."""
        generation = self.generation  # first: a session of a newer policy is only brought along once too often
        policy = self.policy
        if hasattr(policy, "session"):
            return policy.session(), generation
        if hasattr(policy, "reset") and alone:
            self.batcher.call(policy.reset).add_done_callback(self._say_if_failed)
        return policy, generation

    def _say_if_failed(self, reset: Future[Any]) -> None:
        if not reset.cancelled() and (error := reset.exception()) is not None:
            log.error("not reset for a new robot: %s", error, exc_info=error, extra={"policy": self.name})

    async def infer(self, robot: RobotSession, observation: Mapping[str, Any]) -> Answer:
        """The policy's answer to a robot.

        Raises:
            ValueError: the observation is not what the policy takes; and whatever else the policy raises.
        """
        return await asyncio.wrap_future(self.batcher.ask(robot, observation))

    async def warm_up(self) -> None:
        """Answer a made-up observation, alone and in a batch, before robots wait for it: the first answers are slow.

        Raises:
            Exception: of the policy, which then cannot answer anything.
        """
        await asyncio.wrap_future(self.batcher.call(lambda: warm_up(self.policy, max_batch=self.batcher.max_batch)))
        self.ready = True

    async def reload(self, robots: Callable[[], Sequence[RobotSession]] = list) -> None:
        """Load the policy anew while the old one goes on answering; change over between two batches. The `robots` that
        are here by then come along, lest one that is silent keeps the old model in memory.

        Raises:
            ValueError: it is for another robot, or cannot be loaded; the old one stays.
        """
        if self.load is None:
            raise ValueError(f"policy '{self.name}' was not loaded from a folder")
        async with self._loading:  # one at a time: each is a model more in memory
            loaded = await asyncio.to_thread(attempt, self._load_warm)
            if isinstance(loaded, Exception):
                raise loaded
            policy, greeting = loaded
            await asyncio.wrap_future(self.batcher.call(lambda: self._change_to(policy)))
            self.greeting = greeting
            here = robots()
            await asyncio.wrap_future(self.batcher.call(lambda: [attempt(partial(self._bring_along, r)) for r in here]))

    def _load_warm(self) -> tuple[Any, bytes]:
        """The new policy, and what it says of itself: from here on nothing can fail."""
        assert self.load is not None
        policy = self.load()
        old, new = self.metadata, getattr(policy, "metadata", {})
        if changed := [key for key in SAME if old.get(key) != new.get(key)]:
            raise ValueError(
                f"policy '{self.name}' cannot be changed while it serves: {changed[0]} was {old.get(changed[0])!r}, "
                f"now {new.get(changed[0])!r}; start another server"
            )
        warm_up(policy, max_batch=self.batcher.max_batch)
        return policy, pack(new)

    def _change_to(self, policy: Any) -> None:
        """In the batcher's thread, while robots connect in another (`begin`)."""
        self.policy = policy
        self.generation += 1

    def _infer(
        self, robots: Sequence[RobotSession], observations: Sequence[Mapping[str, Any]]
    ) -> Sequence[Reply | Exception]:
        """In the batcher's thread."""
        for robot in robots:
            self._bring_along(robot)
        if hasattr(self.policy, "infer_many"):
            return self.policy.infer_many([robot.state for robot in robots], observations, errors="return")
        return [attempt(partial(robot.state.infer, observation)) for robot, observation in zip(robots, observations)]

    def _bring_along(self, robot: RobotSession) -> None:
        """A session that an earlier policy began goes on with the one that is here now; if it cannot, whoever asks is
        told."""
        if robot.generation == self.generation:
            return
        if hasattr(robot.state, "move_to"):
            robot.state.move_to(self.policy)
        else:
            robot.state, _ = self.begin(alone=False)
        robot.generation = self.generation


def warm_up(policy: Any, *, max_batch: int) -> None:
    """Answer a made-up observation alone and `max_batch` of them together. A policy that does not say what it sees, or
    has no sessions to spare, is left alone."""
    observation = made_up(getattr(policy, "metadata", {}))
    if observation is None or not hasattr(policy, "session"):
        return
    policy.session().infer(observation)
    if hasattr(policy, "infer_many") and max_batch > 1:
        policy.infer_many([policy.session() for _ in range(max_batch)], [observation] * max_batch)


def made_up(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """Grey pictures and a state of zeros, for a policy that says what its cameras and its state are.

    It is told what to do, so that nobody outside of the model is asked.
    """
    if "cameras" not in metadata or "state_names" not in metadata:
        return None
    grey = np.full((224, 224, 3), 127, np.uint8)
    state = np.zeros(len(metadata["state_names"]), np.float32)
    images = dict.fromkeys(metadata["cameras"], grey)
    return {"images": images, "state": state, "prompt": "get ready", "subtask": "wait"}


def fingerprint(folder: Path) -> dict[str, tuple[int, int]]:
    """Sizes and times of the files in a checkpoint folder: changes when it does. Files may come and go meanwhile."""
    found = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            stat = path.stat()
            found[str(path.relative_to(folder))] = (stat.st_size, stat.st_mtime_ns)
    return found
