"""One message of a robot, and what it is told: the whole of serving but the network.

`server.py` speaks it over its own websockets; anything else that carries bytes can as well (`examples/ray_serve.py`).
"""

import logging
import time
from collections.abc import Mapping

from pilot.serve.batching import Answer
from pilot.serve.hosted_policy import Hosted
from pilot.serve.limits import Limits, check_observation
from pilot.serve.metrics import Metrics
from pilot.serve.sessions import RobotSession
from pilot.serve.wire import WireError, pack, unpack

log = logging.getLogger(__name__)

ERROR_LETTERS = 2000  # what the policy says of an observation may quote it


class Conversation:
    """`await answer(robot, message)`: bytes, or a text that says what is wrong with the message. Never raises.

    The reply is the policy's, with `"server_timing"` added: ms in the queue (`queue_ms`), in the model (`infer_ms`),
    and in all from the message's arrival to the answer (`total_ms`).
    """

    def __init__(self, hosted: Hosted, *, limits: Limits, metrics: Metrics) -> None:
        self.hosted, self.limits, self.metrics = hosted, limits, metrics

    async def answer(self, robot: RobotSession, message: str | bytes) -> str | bytes:
        received = time.perf_counter()
        try:
            robot.rate.take()
            observation = robot.hear(check_observation(read(message, self.limits), self.limits))
            answer = await self.hosted.infer(robot, observation)
            timing = self._count(answer, received)
            reply = pack({**answer.reply, "server_timing": timing})
        except ValueError as error:  # for people: it says what to do
            return self._refuse(robot, str(error), by="robot")
        except Exception as error:
            if worth_a_line(robot.errors + 1):
                log.exception("the policy failed", extra=self._who(robot))
            what = f"the policy failed on this observation ({type(error).__name__}: {error})"
            return self._refuse(robot, f"{what}; the server's log has the details", by="policy")
        robot.told(answer.reply, timing)
        return reply

    def _count(self, answer: Answer, received: float) -> Mapping[str, float]:
        total, metrics, policy = time.perf_counter() - received, self.metrics, self.hosted.name
        metrics.answers.add(policy=policy)
        metrics.total.add(total, policy=policy)
        metrics.queued.add(answer.queued, policy=policy)
        metrics.infer.add(answer.took, policy=policy)
        metrics.batch.add(answer.batch, policy=policy)
        return {"infer_ms": 1e3 * answer.took, "queue_ms": 1e3 * answer.queued, "total_ms": 1e3 * total}

    def _refuse(self, robot: RobotSession, error: str, *, by: str) -> str:
        error = error if len(error) <= ERROR_LETTERS else f"{error[:ERROR_LETTERS]}…"
        self.metrics.refused.add(policy=self.hosted.name, by=by)
        robot.refused(error)
        if worth_a_line(robot.errors):
            log.warning("refused %d so far, now: %s", robot.errors, error, extra=self._who(robot))
        return error

    def _who(self, robot: RobotSession) -> dict[str, str]:
        return {"session": robot.id, "policy": self.hosted.name, "address": robot.address}


def read(message: str | bytes, limits: Limits) -> object:
    if isinstance(message, str):
        raise WireError("got a text; an observation is sent as msgpack bytes")
    return unpack(message, max_bytes=limits.message_bytes)


def worth_a_line(errors: int) -> bool:
    """The 1st, 2nd, 4th, 8th, … of a robot: nobody can fill a disk with our log."""
    return errors & (errors - 1) == 0
