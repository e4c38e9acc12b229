"""From one message of a robot to the reply: all of serving but the network.

`server.py` calls it for websockets of its own; anything else that carries bytes can as well (`examples/ray_serve.py`).
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from pilot.serve.batching import Answer
from pilot.serve.hosted_policy import HostedPolicy
from pilot.serve.limits import LARGE_MESSAGE, Limits, RateLimit, check_observation
from pilot.serve.metrics import ServerMetrics
from pilot.serve.sessions import RobotSession
from pilot.serve.wire import WireError, pack, unpack

log = logging.getLogger(__name__)

LARGE_READER = ThreadPoolExecutor(1, "large messages")
"""One at a time, in the same memory: new memory for 8 MiB takes 7 ms, and the interpreter's lock is held meanwhile."""
ERROR_LENGTH = 2000  # a policy's error may quote the observation: cut it


class MessageHandler:
    """Answers the messages of all robots that act with one policy.

    `await answer(robot, message)` returns bytes, or a text that says what is wrong with the message; it never raises.
    The reply is the policy's with `"server_timing"` added: ms in the queue (`queue_ms`), in the model (`infer_ms`),
    and from the message's arrival to the answer (`total_ms`).
    """

    def __init__(self, hosted: HostedPolicy, *, limits: Limits, metrics: ServerMetrics) -> None:
        self.hosted, self.limits, self.metrics = hosted, limits, metrics
        self.tracebacks = RateLimit(0.2)  # each takes as long as ten answers

    async def answer(self, robot: RobotSession, message: str | bytes) -> str | bytes:
        """Return the reply to a robot's message, as bytes or, if the message is wrong, as text."""
        received = time.perf_counter()
        try:
            robot.rate.take()
            if len(message) < LARGE_MESSAGE:
                checked = self._read(message)
            else:  # beside the loop, so that other robots are answered meanwhile
                checked = await asyncio.get_running_loop().run_in_executor(LARGE_READER, self._read, message)
            observation = robot.receive(checked)
            answer = await self._act(robot, observation)
            timing = self._count(answer, received)
            reply = pack({**answer.reply, "server_timing": timing})
        except ValueError as error:  # the observation is wrong, and the message says what to do
            return self._refuse(robot, str(error), by="robot")
        except Exception as error:  # the policy is wrong
            if is_worth_logging(robot.errors + 1) and not self.tracebacks.delay():
                log.exception("the policy failed", extra=self._log_fields(robot))
            what = f"the policy failed on this observation ({type(error).__name__}: {error})"
            return self._refuse(robot, f"{what}; the server's log has the details", by="policy")
        robot.record_reply(answer.reply, timing)
        return reply

    def _read(self, message: str | bytes) -> dict[str, Any]:
        return check_observation(read_message(message, self.limits), self.limits)

    async def _act(self, robot: RobotSession, observation: dict[str, Any]) -> Answer:
        """Return the policy's answer within the robot's limits, or one that stands still where it was stopped."""
        if robot.stopped is None:
            answer = await self.hosted.infer(robot, observation)
            reply = robot.keep_within_limits(answer.reply)
            if (reasons := reply.get("limited")) and is_worth_logging(robot.limited):
                words = "%d chunks left the robot's limits so far; the last (%s) wanted %s, sent %s"
                wanted, sent = answer.reply["actions"], reply["actions"]
                log.warning(words, robot.limited, ", ".join(reasons), *first_difference(wanted, sent),
                            extra=self._log_fields(robot))  # fmt: skip
        else:
            answer, reply = Answer(reply={}, queue_seconds=0.0, infer_seconds=0.0, batch_size=1), {}
        if robot.stopped is not None:  # perhaps while the policy computed
            reply = {**robot.stand_still(observation), "stopped": robot.stopped}
        elif robot.released:
            reply["released"] = True
        return replace(answer, reply=reply)

    def _count(self, answer: Answer, received: float) -> Mapping[str, float]:
        total, metrics, policy = time.perf_counter() - received, self.metrics, self.hosted.name
        metrics.answers.labels(policy).inc()
        metrics.total_seconds.labels(policy).observe(total)
        metrics.queue_seconds.labels(policy).observe(answer.queue_seconds)
        metrics.infer_seconds.labels(policy).observe(answer.infer_seconds)
        metrics.batch_size.labels(policy).observe(answer.batch_size)
        return {"infer_ms": 1e3 * answer.infer_seconds, "queue_ms": 1e3 * answer.queue_seconds, "total_ms": 1e3 * total}

    def _refuse(self, robot: RobotSession, error: str, *, by: str) -> str:
        error = error if len(error) <= ERROR_LENGTH else f"{error[:ERROR_LENGTH]}…"
        self.metrics.refused.labels(self.hosted.name, by).inc()
        robot.record_error(error)
        if is_worth_logging(robot.errors):
            log.warning("%d observations refused so far; the last: %s", robot.errors, error,
                        extra=self._log_fields(robot))  # fmt: skip
        return error

    def _log_fields(self, robot: RobotSession) -> dict[str, str]:
        return {"session": robot.id, "policy": self.hosted.name, "address": robot.address}


def first_difference(wanted: np.ndarray, sent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first action that is not as wanted: as it was wanted, and as it is sent."""
    step = int(np.any(wanted != sent, axis=1).argmax())
    return wanted[step], sent[step]


def read_message(message: str | bytes, limits: Limits) -> object:
    """Unpack a robot's message.

    Raises:
        WireError: it is a text, or not a message of the protocol.
    """
    if isinstance(message, str):
        raise WireError("got a text; send an observation as msgpack bytes")
    return unpack(message, max_bytes=limits.message_bytes)


def is_worth_logging(errors: int) -> bool:
    """Return whether `errors` is 1, 2, 4, 8, …: a robot that fails all the time must not fill the disk with our log."""
    return errors & (errors - 1) == 0
