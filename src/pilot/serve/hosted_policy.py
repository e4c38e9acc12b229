"""A policy that is served under a name: its sessions, batches and warm-up, and its replacement while robots act."""

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from pilot.names import check_name
from pilot.serve.batching import Answer, Batcher, Reply, attempt
from pilot.serve.sessions import RobotSession
from pilot.serve.wire import pack

log = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
FIXED_METADATA = ("robot", "cameras", "state_names", "action_names", "action_units", "control_hz")
"""What a new policy must share with the one that it replaces: robots that act have been told it."""


class HostedPolicy:
    """A policy with a batcher, under a name.

    The policy needs no more than `infer(observation) -> dict`. If it has them, `metadata`, `session()`,
    `infer_many(sessions, observations, errors="return")` and, for its sessions, `move_to(policy)` are used too. One
    that knows its robots by name lists them in `robots`, says with `describe(robot)` what a client of each is told, and
    starts a `session(robot=…)` for it. `load` reads the policy again from `folder`. `workers` threads compute batches.
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
            raise ValueError(
                f"the name of a policy holds letters, digits, '-', '_' and '.' (64 at most), got {name!r}; "
                "give it one: NAME=FOLDER"
            )
        self.name = name
        self.policy = policy
        self.load = load
        self.folder = folder
        self.generation = 0  # how often the policy has been replaced
        self.ready = False
        self._greetings = pack_greetings(policy)
        # Robots in a batch of a policy that takes one at a time would wait for each other for nothing.
        max_batch = max_batch if hasattr(policy, "infer_many") else 1
        self.batcher = Batcher(self._infer, max_batch=max_batch, workers=workers, name=f"policy {name}")
        self._loading = asyncio.Lock()

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The policy's own metadata; empty if it has none."""
        return getattr(self.policy, "metadata", {})

    def choose_robot(self, name: str | None) -> str | None:
        """Return which of the policy's robots a client is for: the one that it names, or the only one.

        None for a policy that does not say which robots it knows.

        Raises:
            ValueError: the policy does not know that robot, or knows several and the client names none.
        """
        if not (robots := robots_of(self.policy)):
            if name is not None and name != (own := self.metadata.get("robot", name)):
                raise ValueError(f"policy '{self.name}' is for robot '{own}', not for '{name}'")
            return None
        if name is None and len(robots) > 1:
            raise ValueError(
                f"policy '{self.name}' is for robots {', '.join(robots)}: say which you are, in the header "
                f"X-Pilot-Robot or as ?robot={next(iter(robots))}"
            )
        return check_name(f"robot of policy '{self.name}'", next(iter(robots)) if name is None else name, robots)

    def describe(self, robot: str | None) -> Mapping[str, Any]:
        """Return what a client of one of the policy's robots is told."""
        return describe(self.policy, robot)

    def greeting(self, robot: str | None) -> bytes:
        """Return `describe(robot)` as a message."""
        known = self._greetings.get(robot)
        return pack(self.describe(robot)) if known is None else known  # new with a policy that was just loaded

    def start_session(self, robot: str | None = None, *, alone: bool = True) -> tuple[Any, int]:
        """Return a session with the policy for one robot of this kind, and the generation of that policy.

        A policy without sessions is shared by all robots. It is reset for a new one, in the batcher's thread, if
        `alone` says that no other robot would notice.
        """
        # Read the generation first: if the policy is replaced in between, the session is merely moved once too often.
        generation = self.generation
        policy = self.policy
        if hasattr(policy, "session"):
            return open_session(policy, robot), generation
        if hasattr(policy, "reset") and alone:
            self.batcher.run_alone(policy.reset).add_done_callback(self._log_failed_reset)
        return policy, generation

    async def restart(self, robot: RobotSession, *, alone: bool) -> None:
        """Begin anew with a robot: another episode, of which the last one must not be remembered.

        `alone` as in `start_session`.
        """

        def start() -> None:
            robot.state, robot.generation = self.start_session(robot.kind, alone=alone)

        # Between batches, as all that changes a session: else one that a reload moves meanwhile, for an answer that
        # nobody waits for any more, would be noted as the new policy's while it is of the old one.
        await asyncio.wrap_future(self.batcher.run_alone(start))

    def _log_failed_reset(self, reset: Future[Any]) -> None:
        if not reset.cancelled() and (error := reset.exception()) is not None:
            log.error("reset for a new robot failed: %s", error, exc_info=error, extra={"policy": self.name})

    async def infer(self, robot: RobotSession, observation: Mapping[str, Any]) -> Answer:
        """Return the policy's answer to a robot.

        Raises:
            ValueError: the observation is not what the policy takes. Other errors of the policy come as they are.
        """
        return await asyncio.wrap_future(self.batcher.submit(robot, observation))

    async def warm_up(self) -> None:
        """Answer a dummy observation, alone and in a batch, before robots come: the first answers are slow.

        Raises:
            Exception: the policy's own; it cannot answer anything then.
        """
        await asyncio.wrap_future(
            self.batcher.run_alone(lambda: warm_up(self.policy, max_batch=self.batcher.max_batch))
        )
        self.ready = True

    async def reload(self, robots: Callable[[], Sequence[RobotSession]] = list) -> None:
        """Load the policy again while the old one goes on answering, and replace it between two batches.

        `robots` returns the robots to move to the new policy: one that sends nothing would otherwise keep the old
        model in memory.

        Raises:
            ValueError: the new policy is for another robot, or cannot be loaded; the old one stays.
        """
        if self.load is None:
            raise ValueError(f"policy '{self.name}' was not loaded from a folder")
        async with self._loading:  # one at a time: each holds one more model in memory
            loaded = await asyncio.to_thread(attempt, self._load_and_warm_up)
            if isinstance(loaded, Exception):
                raise loaded
            policy, greetings = loaded
            await asyncio.wrap_future(self.batcher.run_alone(lambda: self._replace(policy)))
            self._greetings = greetings
            present = robots()
            await asyncio.wrap_future(self.batcher.run_alone(lambda: self._move_sessions(present)))

    def _load_and_warm_up(self) -> tuple[Any, dict[str | None, bytes]]:
        """Return the new policy and its greetings; all that can fail is done here, before the replacement."""
        assert self.load is not None
        policy = self.load()
        cannot = f"policy '{self.name}' cannot be replaced while it serves"
        if lost := [robot for robot in robots_of(self.policy) if robot not in robots_of(policy)]:
            raise ValueError(f"{cannot}: the new one does not know robot '{lost[0]}'; start another server")
        for robot in robots_of(self.policy) or (None,):
            old, new = self.describe(robot), describe(policy, robot)
            if changed := [key for key in FIXED_METADATA if old.get(key) != new.get(key)]:
                raise ValueError(
                    f"{cannot}: {changed[0]} was {old.get(changed[0])!r} and is now {new.get(changed[0])!r}; start "
                    "another server"
                )
        greetings = pack_greetings(policy)
        warm_up(policy, max_batch=self.batcher.max_batch)
        return policy, greetings

    def _replace(self, policy: Any) -> None:
        """Runs in the batcher's thread, while robots may connect in another (`start_session`)."""
        self.policy = policy
        self.generation += 1

    def _infer(
        self, robots: Sequence[RobotSession], observations: Sequence[Mapping[str, Any]]
    ) -> Sequence[Reply | Exception]:
        """Runs in the batcher's thread."""
        for robot in robots:
            self._move_session(robot)
        if hasattr(self.policy, "infer_many"):
            return self.policy.infer_many([robot.state for robot in robots], observations, errors="return")
        return [attempt(partial(robot.state.infer, observation)) for robot, observation in zip(robots, observations)]

    def _move_sessions(self, robots: Sequence[RobotSession]) -> None:
        for robot in robots:
            attempt(partial(self._move_session, robot))
            # Also of one that is here already: it may have connected while the old policy said what it is told.
            robot.metadata = self.describe(robot.kind)

    def _move_session(self, robot: RobotSession) -> None:
        """Move a session of an earlier policy to the present one; if that fails, the robot that asks is told."""
        if robot.generation == self.generation:
            return
        if hasattr(robot.state, "move_to"):
            robot.state.move_to(self.policy)
        else:
            robot.state, _ = self.start_session(robot.kind, alone=False)
        robot.metadata = self.describe(robot.kind)
        robot.generation = self.generation


def robots_of(policy: Any) -> tuple[str, ...]:
    """Return the names of the robots that a policy acts for; none if it does not say."""
    return tuple(getattr(policy, "robots", ()))


def describe(policy: Any, robot: str | None) -> Mapping[str, Any]:
    """Return what a policy says of itself to one of its robots; without one, its metadata."""
    return getattr(policy, "metadata", {}) if robot is None else policy.describe(robot)


def pack_greetings(policy: Any) -> dict[str | None, bytes]:
    """Return the first message to a client, by the robot that it is for."""
    return {robot: pack(describe(policy, robot)) for robot in robots_of(policy) or (None,)}


def open_session(policy: Any, robot: str | None) -> Any:
    """Start a session with a policy for one of its robots."""
    return policy.session() if robot is None else policy.session(robot=robot)


def warm_up(policy: Any, *, max_batch: int) -> None:
    """Answer one dummy observation of each robot, then `max_batch` of them together, of all kinds in turn.

    Does nothing for a policy that has no sessions or does not say what it sees.
    """
    robots = robots_of(policy) or (None,)
    observations = {robot: dummy_observation(describe(policy, robot)) for robot in robots}
    if not hasattr(policy, "session") or any(observation is None for observation in observations.values()):
        return
    for robot, observation in observations.items():
        open_session(policy, robot).infer(observation)
    if hasattr(policy, "infer_many") and max_batch > 1:
        batch = list(islice(cycle(robots), max_batch))
        policy.infer_many([open_session(policy, robot) for robot in batch], [observations[robot] for robot in batch])


def dummy_observation(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return grey pictures and a state of zeros; None if the metadata names no cameras or state.

    Its subtask is given, so that a high level outside of the model (a person, another server) is not asked.
    """
    if "cameras" not in metadata or "state_names" not in metadata:
        return None
    grey = np.full((224, 224, 3), 127, np.uint8)
    state = np.zeros(len(metadata["state_names"]), np.float32)
    images = dict.fromkeys(metadata["cameras"], grey)
    return {"images": images, "state": state, "prompt": "get ready", "subtask": "wait"}


def fingerprint(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the size and modification time of every file in a folder, to see whether it changes."""
    stats = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # files may come and go meanwhile
            stat = path.stat()
            stats[str(path.relative_to(folder))] = (stat.st_size, stat.st_mtime_ns)
    return stats
