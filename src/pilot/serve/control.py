"""A robot that moves at its own rate while a policy elsewhere computes: `next` at every control tick never waits.

    policy = PolicyClient(host, port)
    with Controller(policy, executor_for("rtc", policy.metadata), observe=look) as robot:
        pace = Pace(hz=policy.metadata["control_hz"])
        while True:
            command = robot.next(missed=pace.wait())
            if command.action is not None:
                send(command.action)

One other thread does all that waits for the network: requests, answers, connecting again. At each tick the control loop
checks for an answer, hands it to the executor (`infer/executor.py`), which decides what the robot does, and sends the
next request with what the robot sees now. No clock is read here: the same answers at the same ticks give the same
commands. Numpy only.

A robot whose description has limits is kept within them (`infer/safety.py`), whatever the policy says. `stop` is the
emergency stop: it holds until `release`. A stop on the server's dashboard does the same, until it is released there or
here.
"""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from pilot.infer.executor import (
    ChunkRequest,
    Command,
    Executor,
    LateBehavior,
    OpenLoop,
    TemporalEnsemble,
    repeat_last,
    zero_dims,
)
from pilot.infer.safety import MotionFilter, measured_position, motion_filter
from pilot.memory import shorten_garbage_collection
from pilot.names import suggest_names
from pilot.types import is_rate

log = logging.getLogger(__name__)

_STILL = 0.02  # of its highest speed: what is measured to move no faster stands still, and sensors are noisy
EXECUTORS: dict[str, type[Executor]] = {"rtc": Executor, "open-loop": OpenLoop, "ensemble": TemporalEnsemble}


def executor_for(name: str, metadata: Mapping[str, Any], *, late: LateBehavior | None = None) -> Executor:
    """Return the executor of that name for a policy with this metadata.

    `rtc` goes on with the old chunk while the next one is computed to continue it. `open-loop` executes
    `replan_steps` actions of a chunk, then stands still until the next. `ensemble` averages what all chunks say of a
    moment. `late` says what the robot does when no answer comes in time; by default it stands still
    (`standing_still`). Commands stay within the robot's limits, if it declares some.

    Raises:
        ValueError: there is no such executor.
    """
    if name not in EXECUTORS:
        raise ValueError(f"no executor '{name}'; {suggest_names(name, EXECUTORS, listed='there are')}")
    return EXECUTORS[name](
        replan_steps=int(metadata.get("replan_steps", 1)),
        late=late or standing_still(metadata),
        motion=motion_filter(metadata),
    )


def standing_still(metadata: Mapping[str, Any]) -> LateBehavior:
    """Return a rule that repeats the last command, with zero for steps and velocities (units "rad per step", "m/s")."""
    units = metadata.get("action_units") or ()
    moving = [dim for dim, unit in enumerate(units) if is_rate(unit)]
    still = zero_dims(*moving) if moving else repeat_last
    return LateBehavior(hold=still, stop=still)


class RemotePolicy(Protocol):
    """A policy elsewhere: `serve.client.PolicyClient`, or something that behaves like it."""

    metadata: dict[str, Any]

    def infer(self, observation: Mapping[str, Any], /) -> dict[str, Any]:
        """Return what the policy answers to an observation, a chunk of actions among it."""
        ...

    def connect(self) -> None:
        """Connect again after the connection was lost."""
        ...

    def reset(self) -> None:
        """Begin a new episode."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class Worker(Protocol):
    """Runs jobs that wait for the network: a pool of one thread, or in tests a clock that is turned by hand."""

    def submit(self, job: Callable[[], Any], /) -> Future[Any]:
        """Run a job and return its future result."""
        ...

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more jobs."""
        ...


class Controller:
    """Commands for one robot; `observe` must return at once, with the latest pictures and joint positions.

    An error is logged and kept in `error` until there is an answer again. A lost connection is opened again as soon as
    possible; after a refused observation or a refused connection the controller pauses for `pause` ticks. Meanwhile
    the executor holds the last command, then stops. `reply` is the last answer, with the subtask in it. `motion` keeps
    the commands within limits; by default those of the policy's robot, if it has some.
    """

    def __init__(
        self,
        policy: RemotePolicy,
        executor: Executor,
        *,
        observe: Callable[[], Mapping[str, Any]],
        pause: int = 10,
        worker: Worker | None = None,
        motion: MotionFilter | None = None,
    ) -> None:
        self.policy = policy
        self.executor = executor
        executor.motion = motion or executor.motion or motion_filter(policy.metadata)
        self.observe = observe
        self.pause = pause
        self.reply: dict[str, Any] = {}
        self.error: Exception | None = None
        self._worker: Worker = worker or ThreadPoolExecutor(1, thread_name_prefix="policy")
        self._pending: tuple[Future[Any], ChunkRequest | None] | None = None
        self._pause_left = 0  # ticks until the next request
        self._reset_policy = False  # before the next request
        self._lost = False  # the connection
        self._stopped_by_server = False
        self._moved_by_others = True  # perhaps, so that limits count from where the robot is measured to be
        self._place_before: np.ndarray | None = None  # where it was measured a tick ago, after a reset
        self._still_moves = False  # after a reset: what it sees now will not hold
        self._reasons: tuple[str, ...] = ()  # why the last command was changed

    def stop(self) -> None:
        """Stop the robot at the next tick: an emergency stop, which holds until `release`, also over a `reset`."""
        self._stopped_by_server = False  # whoever stops it here, releases it here
        self.executor.stop()

    def release(self) -> None:
        """Let the robot move again after a stop; only a person should. A stop on the dashboard stops it once more."""
        self._stopped_by_server = False
        self.executor.release()

    def _heed_server(self, reply: Mapping[str, Any]) -> None:
        """Stop where a person has pressed stop on the dashboard; go on when one has released the robot there."""
        if reply.get("stopped") and not self.executor.is_stopped:
            log.warning("stopped by the server: %s", reply["stopped"])
            self.executor.stop()
            self._stopped_by_server = True
        elif reply.get("released") and self._stopped_by_server:
            log.warning("released by the server")
            self.release()

    def next(self, *, missed: int = 0) -> Command:
        """Return the command of this tick; `missed` ticks have passed without a call since the last one."""
        self.executor.skip(missed)
        self._collect()
        self._pause_left = max(0, self._pause_left - 1 - missed)
        if self._moved_by_others:
            self._look_for_motion()
        if self._pending is None and not self._pause_left and not self._still_moves:
            self._submit_next()
        if self._moved_by_others and self.executor.state.chunks and not self.executor.is_stopped:
            self._place()
        command = self.executor.next()
        self._log_intervention(command)
        return command

    def _look_for_motion(self) -> None:
        """See whether the robot still moves after a reset: then what it sees now will not hold."""
        motion, before = self.executor.motion, self._place_before
        self._place_before, self._still_moves = None, False
        if motion is None or self.executor.has_settled or (place := self._measure()) is None:
            return
        step = np.inf if before is None else np.abs(place - before)
        moves = np.isfinite(place) & ~(step <= _STILL * motion.speed * motion.dt)
        self._still_moves = bool(moves.any() or motion.last[motion.rates].any())
        self._place_before = place

    def _measure(self) -> np.ndarray | None:
        """Return where the robot is measured to be, NaN in dims that nobody measures; None if that is all of them."""
        if (state := self.observe().get("state")) is None:
            return None
        place = measured_position(self.policy.metadata, np.asarray(state, float))
        return place if np.isfinite(place).any() else None

    def _place(self) -> None:
        """Let limits count from where the robot is if it rests; else it is believed to be where it was sent."""
        if self.executor.motion is not None and not self._still_moves and (place := self._measure()) is not None:
            self.executor.place(place)
        self._moved_by_others = self._still_moves = False

    def _log_intervention(self, command: Command) -> None:
        """Log the command that was wanted whenever another reason begins to keep the robot from it."""
        if command.reasons and command.reasons != self._reasons:
            reasons = ", ".join(command.reasons)
            log.warning("tick %d: %s; wanted %s, sent %s", command.tick, reasons, command.wanted, command.action)
        self._reasons = command.reasons

    def reset(self) -> None:
        """Begin another task: the robot waits, and neither the executor nor the policy remembers the last one."""
        self.executor.reset()
        self._moved_by_others, self._place_before = True, None
        self.reply = {}
        self.error = None
        self._reset_policy = True
        self._pause_left = 0

    def close(self) -> None:
        """End the connection to the policy, which ends what the other thread waits for, and then that thread."""
        self.policy.close()
        self._worker.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> "Controller":
        shorten_garbage_collection()  # a full one would let ticks of a moving robot pass
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _submit_next(self) -> None:
        """Submit what is needed now, if anything: first a connection, then a request."""
        if self._lost:
            self._pending = self._worker.submit(self.policy.connect), None
        elif (request := self.executor.request()) is not None:
            self._submit_request(request)

    def _submit_request(self, request: ChunkRequest) -> None:
        rtc = self.policy.metadata.get("rtc")
        try:
            observation = build_observation(self.observe(), request, joins=self.executor.joins_chunks and bool(rtc))
        except BaseException:
            self.executor.give_up(request)
            raise
        if rtc is not None:  # these two are for our server; openpi's does not know them
            observation["control_tick"] = request.tick
            if (executed := self.executor.count_executed()) is not None:
                observation["executed"] = executed
        reset, self._reset_policy = self._reset_policy, False

        def infer() -> dict[str, Any]:
            if reset:
                self.policy.reset()
            return self.policy.infer(observation)

        self._pending = self._worker.submit(infer), request

    def _collect(self) -> None:
        """Take the result of what was submitted last, if it is done."""
        if self._pending is None or not self._pending[0].done():
            return
        (future, request), self._pending = self._pending, None
        try:
            reply = future.result()
            self._lost = False
            if request is not None:
                self._heed_server(reply)
                is_taken = self.executor.deliver(request, np.asarray(reply["actions"]))
                if request.state is self.executor.state:
                    self.reply, self.error = reply, None
                    if not is_taken:
                        self._say_too_slow(request, len(reply["actions"]))
        except Exception as error:
            self._failed(error, request)

    def _say_too_slow(self, request: ChunkRequest, actions: int) -> None:
        """Keep and log an error if an answer came when the last of its actions was past: others will be as late."""
        ticks = self.executor.state.tick - request.tick
        if ticks >= actions:
            self.error = TimeoutError(
                f"an answer took {ticks} ticks, and a chunk has {actions} actions: the robot cannot use it. Is the "
                "network slow, or the server overloaded?"
            )
            log.warning("%s", self.error)

    def _failed(self, error: Exception, request: ChunkRequest | None) -> None:
        if str(error) != str(self.error):  # log it once, however often it is tried again
            log.warning("%s: %s", type(error).__name__, error)
        self.error = error
        if request is not None:
            self.executor.give_up(request)
        self._lost = isinstance(error, ConnectionError)
        if request is None or not self._lost:
            self._pause_left = self.pause


def build_observation(observation: Mapping[str, Any], request: ChunkRequest, *, joins: bool) -> dict[str, Any]:
    """Return the observation to send; if the next chunk `joins` the old one, with the actions executed meanwhile."""
    if not joins or not len(request.leftover):
        return dict(observation)
    return {**observation, "previous": {"actions": request.leftover, "delay": request.delay}}
