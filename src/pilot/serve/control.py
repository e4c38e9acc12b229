"""A robot under the commands of a policy elsewhere: `next` at every control tick, and never a wait.

    policy = PolicyClient(host, port)
    with Controller(policy, executor_for("rtc", policy.metadata), observe=look) as robot:
        pace = Pace(hz=policy.metadata["control_hz"])
        while True:
            command = robot.next(missed=pace.wait())
            if command.action is not None:
                send(command.action)

All that waits for the network happens in one other thread: questions, answers, connecting again. The control loop looks
whether there is an answer, hands it to the executor (`infer/executor.py`), which decides what is done at each tick, and
asks the next question with what the robot sees now. No clock is read here: the same answers at the same ticks give the
same commands. Numpy only.
"""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from pilot.infer.executor import Command, Executor, Late, OpenLoop, Request, TemporalEnsemble, repeat, zero
from pilot.names import suggest_names

log = logging.getLogger(__name__)

EXECUTORS: dict[str, type[Executor]] = {"rtc": Executor, "open-loop": OpenLoop, "ensemble": TemporalEnsemble}


def executor_for(name: str, metadata: Mapping[str, Any], *, late: Late | None = None) -> Executor:
    """The executor of that name for a policy that calls itself `metadata`.

    `rtc` goes on with the old chunk while the next is made to join it; `open-loop` does so many actions of a chunk,
    then stands until the next; `ensemble` averages what all chunks say of a moment. `late` says what is done when no
    answer comes in time; if not given, the robot stands still (`standing_still`).

    Raises:
        ValueError: there is no such executor.
    """
    if name not in EXECUTORS:
        raise ValueError(f"no executor '{name}'; {suggest_names(name, EXECUTORS, listed='there are')}")
    return EXECUTORS[name](replan_steps=int(metadata.get("replan_steps", 1)), late=late or standing_still(metadata))


def standing_still(metadata: Mapping[str, Any]) -> Late:
    """The last command again, without its steps and velocities, by their units: "rad per step", "m/s"."""
    units = metadata.get("action_units") or ()
    moving = [dim for dim, unit in enumerate(units) if unit.endswith(("per step", "per second", "/s"))]
    still = zero(*moving) if moving else repeat
    return Late(hold=still, stop=still)


class Policy(Protocol):
    """Who is asked: a `serve.client.PolicyClient`, or what behaves like one."""

    metadata: dict[str, Any]

    def infer(self, observation: Mapping[str, Any], /) -> dict[str, Any]: ...
    def connect(self) -> None: ...
    def reset(self) -> None: ...
    def close(self) -> None: ...


class Worker(Protocol):
    """Where waiting is done: a pool of one thread, or in tests a clock that is turned by hand."""

    def submit(self, job: Callable[[], Any], /) -> Future[Any]: ...
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None: ...


class Controller:
    """Commands for one robot. `observe` returns at once with what the cameras and joints last said.

    What goes wrong is logged, kept in `error` until there is an answer again, and asked anew: a lost connection as soon
    as it is back, a refused observation or who does not want us after `pause` ticks. Meanwhile the executor holds, and
    then stops. `reply` is the last answer, with the subtask in it.
    """

    def __init__(
        self,
        policy: Policy,
        executor: Executor,
        *,
        observe: Callable[[], Mapping[str, Any]],
        pause: int = 10,
        worker: Worker | None = None,
    ) -> None:
        self.policy, self.executor, self.observe, self.pause = policy, executor, observe, pause
        self.reply: dict[str, Any] = {}
        self.error: Exception | None = None
        self._worker: Worker = worker or ThreadPoolExecutor(1, thread_name_prefix="policy")
        self._pending: tuple[Future[Any], Request | None] | None = None
        self._quiet, self._forget, self._lost = 0, False, False

    def next(self, *, missed: int = 0) -> Command:
        """The command of this tick; `missed` ticks have passed since the last without one."""
        self.executor.skip(missed)
        self._land()
        self._quiet = max(0, self._quiet - 1 - missed)
        if self._pending is None and not self._quiet:
            self._send_off()
        return self.executor.next()

    def reset(self) -> None:
        """Another task: the robot waits, with no memory of what it did, and so will the policy."""
        self.executor.reset()
        self.reply, self.error, self._forget, self._quiet = {}, None, True, 0

    def close(self) -> None:
        """Hang up. Closes the policy's connection too, since the other thread may be waiting at it."""
        self.policy.close()
        self._worker.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> "Controller":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send_off(self) -> None:
        """What is wanted now, if anything; no question before there is somebody to ask."""
        if self._lost:
            self._pending = self._worker.submit(self.policy.connect), None
        elif (request := self.executor.request()) is not None:
            self._ask(request)

    def _ask(self, request: Request) -> None:
        rtc = self.policy.metadata.get("rtc")
        try:
            observation = question(self.observe(), request, joins=self.executor.joins and bool(rtc))
        except BaseException:
            self.executor.give_up(request)
            raise
        if rtc is not None and (executed := self.executor.executed()) is not None:
            observation["executed"] = executed  # for people who look at a server of ours; others know no such key
        forget, self._forget = self._forget, False

        def ask() -> dict[str, Any]:
            if forget:
                self.policy.reset()
            return self.policy.infer(observation)

        self._pending = self._worker.submit(ask), request

    def _land(self) -> None:
        """See what became of the last thing that was sent off, if it is back."""
        if self._pending is None or not self._pending[0].done():
            return
        (future, request), self._pending = self._pending, None
        try:
            reply = future.result()
            self._lost = False
            if request is not None:
                self.executor.deliver(request, np.asarray(reply["actions"]))
                if request.episode is self.executor.episode:
                    self.reply, self.error = reply, None
        except Exception as error:
            self._failed(error, request)

    def _failed(self, error: Exception, request: Request | None) -> None:
        if str(error) != str(self.error):  # once, however often it is tried
            log.warning("%s: %s", type(error).__name__, error)
        self.error = error
        if request is not None:
            self.executor.give_up(request)
        self._lost = isinstance(error, ConnectionError)
        if request is None or not self._lost:
            self._quiet = self.pause


def question(observation: Mapping[str, Any], request: Request, *, joins: bool) -> dict[str, Any]:
    """The observation, and what the robot does meanwhile if the next chunk is to be joined to it."""
    if not joins or not len(request.leftover):
        return dict(observation)
    return {**observation, "previous": {"actions": request.leftover, "delay": request.delay}}
