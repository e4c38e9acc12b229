"""Many robots, one model: while it computes for some, the others queue up, and are the next batch.

A robot that is alone is answered at once, and the busier the server, the larger the batches. Robots that were answered
together send their next observations at almost the same time, but one after the other. So the first of them waits a
moment for the others (`LINGER`); otherwise it would be a batch of one, and all others would wait until that is
computed. Other work on the model (`Batcher.run_alone`, such as loading new weights) runs while no batch is computed.

One thread computes, or several `workers` for a small model on a CPU: its operations are too short to be shared by
cores, so each core computes batches of its own. A robot is never in two batches at once, nor twice in one.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

LINGER = 0.05
"""How long to wait for robots that were just answered, as a share of the time that their last batch took."""

Reply = Mapping[str, Any]
Infer = Callable[[Sequence[Any], Sequence[Mapping[str, Any]]], Sequence[Reply | Exception]]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A reply, with the seconds it spent in the queue and in the model, and the size of its batch."""

    reply: Reply
    queue_seconds: float
    infer_seconds: float
    batch_size: int


@dataclass(frozen=True, kw_only=True, eq=False)
class _Request:
    session: Any
    observation: Mapping[str, Any]
    arrived: float
    future: Future[Answer]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    run: Callable[[], Any]
    future: Future[Any]


class Batcher:
    """Collects requests from any thread into batches; `submit` returns a future of the `Answer`.

    `infer(sessions, observations)` answers several requests at once and returns an exception in the place of one that
    it cannot answer. If it raises, each request of the batch runs again alone: a request that breaks the model breaks
    it for nobody else. A request whose future is cancelled before its turn is dropped, since nobody waits for it.
    """

    def __init__(
        self, infer: Infer, *, max_batch: int = 16, workers: int = 1, linger: float = LINGER, name: str = "policy"
    ) -> None:
        if max_batch < 1 or workers < 1:
            raise ValueError(f"max_batch and workers must be 1 or more, got max_batch={max_batch}, workers={workers}")
        self.infer = infer
        self.max_batch = max_batch
        self.workers = workers
        self.linger = linger
        self._waiting: deque[_Request | _Job] = deque()
        self._busy: set[int] = set()  # ids of sessions in a batch that is being computed
        self._expected: dict[int, float] = {}  # ids of sessions just answered → until when to wait for them
        self._answered: dict[int, float] = {}  # ids of sessions answered in the last second → when
        self._computing = 0  # how many workers compute
        self._job_running = False
        self._closing = False
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._work, name=f"{name} {i}", daemon=True) for i in range(workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, session: Any, observation: Mapping[str, Any]) -> Future[Answer]:
        """Queue an observation of one robot's session."""
        request = _Request(session=session, observation=observation, arrived=time.perf_counter(), future=Future())
        self._put(request)
        return request.future

    def run_alone(self, run: Callable[[], Any]) -> Future[Any]:
        """Queue a call that runs while no batch is computed."""
        job = _Job(run=run, future=Future())
        self._put(job)
        return job.future

    def close(self) -> None:
        """Answer what is queued, then end the threads. Returns at once."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def join(self, *, timeout: float) -> None:
        """Wait until the threads have ended, after `close`: for each of them at most `timeout` seconds."""
        for thread in self._threads:
            thread.join(timeout)

    def _put(self, item: "_Request | _Job") -> None:
        with self._changed:
            if self._closing:
                raise RuntimeError("the server is stopping")
            # Drop requests of clients that have left: their pictures would fill the memory.
            self._waiting = deque(other for other in self._waiting if not other.future.cancelled())
            if isinstance(item, _Request):
                self._expected.pop(id(item.session), None)
            self._waiting.append(item)
            self._changed.notify()

    def _work(self) -> None:
        """Run one worker thread: take work, do it, hand out the results."""
        while (work := self._take()) is not None:
            start = time.perf_counter()
            if isinstance(work, _Job):
                results = [(work.future, attempt(work.run))] if work.future.set_running_or_notify_cancel() else []
            else:
                results = self._answer([r for r in work if r.future.set_running_or_notify_cancel()])
            self._finish(work, seconds=time.perf_counter() - start)
            # Last, because each result wakes a thread that then competes with this one for the interpreter.
            for future, result in results:
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

    def _take(self) -> "list[_Request] | _Job | None":
        """Wait for the next work: a job, or a batch of requests; None when the batcher has closed."""
        with self._changed:
            while (work := self._next_work(now := time.perf_counter())) is None:
                if self._closing and not self._waiting:
                    return None
                self._changed.wait(self._linger_left(now) if self._waiting else None)
            if self._waiting:  # another worker can take the rest
                self._changed.notify()
            self._computing += 1
            if isinstance(work, _Job):
                self._job_running = True
            else:
                self._busy |= {id(request.session) for request in work}
            return work

    def _next_work(self, now: float) -> "list[_Request] | _Job | None":
        """Take from the queue a job if nothing is computed, or one worker's share of the requests."""
        if self._job_running or not self._waiting:
            return None
        if isinstance(first := self._waiting[0], _Job):
            if self._computing:
                return None
            self._waiting.popleft()
            return first
        ready = self._ready_requests()
        expected = 0 if self._closing else self._count_expected(now)
        share = min(self.max_batch, -(-(len(ready) + len(self._busy) + expected) // self.workers))
        if expected and len(ready) < share:
            return None  # linger: the others are about to ask
        # The robot that was answered longest ago comes first, so that one that never pauses does not delay the others.
        chosen = sorted(ready, key=lambda request: self._answered.get(id(request.session), 0.0))[:share]
        for request in chosen:
            self._waiting.remove(request)
        return sorted(chosen, key=lambda request: request.arrived) or None

    def _ready_requests(self) -> list[_Request]:
        """Return the requests before the next job, at most one per robot and none of a robot that is being answered.

        A robot that waited too long connects again and asks again; its second request is for a later batch.
        """
        ready: dict[int, _Request] = {}
        for item in takewhile(lambda item: isinstance(item, _Request), self._waiting):
            if isinstance(item, _Request) and id(item.session) not in self._busy:
                ready.setdefault(id(item.session), item)
        return list(ready.values())

    def _count_expected(self, now: float) -> int:
        """Return how many robots that were just answered may send their next observation any moment."""
        self._expected = {session: until for session, until in self._expected.items() if until > now}
        return len(self._expected)

    def _linger_left(self, now: float) -> float | None:
        """Return the seconds until the wait for the first expected robot ends; None if no robot is expected.

        `now` must be the time that `_next_work` saw. With a later one, the last robot could drop out of `_expected`
        between the two calls; this would return None, and nothing would wake the worker.
        """
        return min(self._expected.values()) - now if self._count_expected(now) else None

    def _finish(self, work: "list[_Request] | _Job", *, seconds: float) -> None:
        with self._changed:
            self._computing -= 1
            self._job_running = False
            if not isinstance(work, _Job):
                sessions = {id(request.session) for request in work}
                self._busy -= sessions
                until = (now := time.perf_counter()) + self.linger * seconds
                recent = {session: when for session, when in self._answered.items() if now - when < 1}
                self._answered = recent | dict.fromkeys(sessions, now)
                asked_again = {id(item.session) for item in self._waiting if isinstance(item, _Request)}
                self._expected |= dict.fromkeys(sessions - asked_again, until)
            self._changed.notify_all()

    def _answer(self, requests: list[_Request]) -> list[tuple[Future[Any], Any]]:
        """Compute one batch: for each request its future, and the answer or the exception."""
        if not requests:
            return []
        start = time.perf_counter()
        replies = attempt(lambda: self._infer(requests))
        if isinstance(replies, Exception):
            if len(requests) == 1:
                return [(requests[0].future, replies)]
            return [result for request in requests for result in self._answer([request])]
        seconds = time.perf_counter() - start
        results: list[tuple[Future[Any], Any]] = []
        for request, reply in zip(requests, replies):
            if not isinstance(reply, Exception):
                queue_seconds = start - request.arrived
                reply = Answer(
                    reply=reply, queue_seconds=queue_seconds, infer_seconds=seconds, batch_size=len(requests)
                )
            results.append((request.future, reply))
        return results

    def _infer(self, requests: list[_Request]) -> Sequence[Reply | Exception]:
        replies = self.infer([r.session for r in requests], [r.observation for r in requests])
        assert len(replies) == len(requests), (len(replies), len(requests))
        return replies


def attempt(run: Callable[[], Any]) -> Any:
    """Return the result of `run()`, or the exception that it raises.

    Nothing may end a worker thread or the event loop: `SystemExit` and its like, with which some libraries crash,
    become a `RuntimeError`.
    """
    try:
        return run()
    except Exception as error:
        return error
    except BaseException as error:
        crash = RuntimeError(f"{type(error).__name__}: {error}")
        crash.__cause__ = error
        return crash
