"""Many robots, one model: while it computes for some, the others queue up, and are the next batch.

A robot that is alone is answered at once, and the busier the server, the larger the batches. Robots that were answered
together ask again at almost the same time, but one after the other: the first is kept for a moment (`LINGER`), else it
would be a batch by itself that all others wait for. Whatever else is to be done to the model (`call`) happens while no
batch is computed.

One thread computes, or several `workers` for a small model on a CPU: its operations are too short to be shared by
cores, so each core takes robots of its own. No robot is in two batches at once, nor twice in one.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

LINGER = 0.05  # how long those who were just answered are waited for, as a share of the time that it took

Reply = Mapping[str, Any]
Infer = Callable[[Sequence[Any], Sequence[Mapping[str, Any]]], Sequence[Reply | Exception]]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A reply, seconds in the queue, seconds in the model, and how many robots shared them."""

    reply: Reply
    queued: float
    took: float
    batch: int


@dataclass(frozen=True, kw_only=True, eq=False)
class _Question:
    session: Any
    observation: Mapping[str, Any]
    asked: float
    future: Future[Answer]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    run: Callable[[], Any]
    future: Future[Any]


class Batcher:
    """`ask(session, observation)` from any thread: a future of the `Answer`, or of the error that is its own alone.

    `infer` answers several at once; it gives an exception in the place of one that cannot be answered. If it raises,
    each question of that batch is asked again on its own, so that one who breaks the model breaks it for nobody else.
    A question whose future is cancelled before its turn is not asked: whoever waited is gone.
    """

    def __init__(
        self, infer: Infer, *, max_batch: int = 16, workers: int = 1, linger: float = LINGER, name: str = "policy"
    ) -> None:
        if max_batch < 1 or workers < 1:
            raise ValueError(f"a batch holds 1 or more and has a worker, got max_batch={max_batch}, workers={workers}")
        self.infer, self.max_batch, self.workers, self.linger = infer, max_batch, workers, linger
        self._waiting: deque[_Question | _Job] = deque()
        self._busy: set[int] = set()  # sessions that are being answered
        self._expected: dict[int, float] = {}  # sessions that were answered just now: waited for until then
        self._computing, self._alone, self._closing = 0, False, False
        self._changed = threading.Condition()
        for i in range(workers):
            threading.Thread(target=self._work, name=f"{name} {i}", daemon=True).start()

    def ask(self, session: Any, observation: Mapping[str, Any]) -> Future[Answer]:
        question = _Question(session=session, observation=observation, asked=time.perf_counter(), future=Future())
        self._put(question)
        return question.future

    def call(self, run: Callable[[], Any]) -> Future[Any]:
        """Do something to the model when it is not computing."""
        job = _Job(run=run, future=Future())
        self._put(job)
        return job.future

    def close(self) -> None:
        """Answer what waits, then end the threads. Does not wait for them."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def _put(self, item: "_Question | _Job") -> None:
        with self._changed:
            if self._closing:
                raise RuntimeError("the server is stopping")
            self._waiting = deque(other for other in self._waiting if not other.future.cancelled())  # who left is gone
            if isinstance(item, _Question):
                self._expected.pop(id(item.session), None)
            self._waiting.append(item)
            self._changed.notify()

    def _work(self) -> None:
        while (work := self._take()) is not None:
            start = time.perf_counter()
            if isinstance(work, _Job):
                outcomes = [(work.future, attempt(work.run))] if work.future.set_running_or_notify_cancel() else []
            else:
                outcomes = self._answers([q for q in work if q.future.set_running_or_notify_cancel()])
            self._done(work, took=time.perf_counter() - start)
            for future, outcome in outcomes:  # last: from here on whoever asked wants the interpreter for himself
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)

    def _take(self) -> "list[_Question] | _Job | None":
        """What comes next, once something does: a job, or the questions that wait before the next job."""
        with self._changed:
            while (work := self._next(now := time.perf_counter())) is None:
                if self._closing and not self._waiting:
                    return None
                self._changed.wait(self._patience(now) if self._waiting else None)
            if self._waiting:  # the rest may be for another worker
                self._changed.notify()
            self._computing += 1
            if isinstance(work, _Job):
                self._alone = True
            else:
                self._busy |= {id(question.session) for question in work}
            return work

    def _next(self, now: float) -> "list[_Question] | _Job | None":
        """Off the queue: a job if nothing is computed, or a worker's share of the questions."""
        if self._alone or not self._waiting:
            return None
        if isinstance(first := self._waiting[0], _Job):
            if self._computing:
                return None
            self._waiting.popleft()
            return first
        free = self._free()
        coming = 0 if self._closing else self._coming(now)
        share = min(self.max_batch, -(-(len(free) + len(self._busy) + coming) // self.workers))
        if coming and len(free) < share:
            return None
        for question in free[:share]:
            self._waiting.remove(question)
        return free[:share] or None

    def _free(self) -> list[_Question]:
        """The questions before the next job, one of each robot that is not being answered.

        A robot that was too long without an answer connects anew and asks again: that is for a later batch.
        """
        free: dict[int, _Question] = {}
        for item in takewhile(lambda item: isinstance(item, _Question), self._waiting):
            if isinstance(item, _Question) and id(item.session) not in self._busy:
                free.setdefault(id(item.session), item)
        return list(free.values())

    def _coming(self, now: float) -> int:
        """How many are still expected to ask again any moment."""
        self._expected = {session: until for session, until in self._expected.items() if until > now}
        return len(self._expected)

    def _patience(self, now: float) -> float | None:
        """For how many seconds more the first of them is waited for, if anybody is.

        By the same `now` as `_next`: were nobody expected any more a moment later, nothing would end the wait.
        """
        return min(self._expected.values()) - now if self._coming(now) else None

    def _done(self, work: "list[_Question] | _Job", *, took: float) -> None:
        with self._changed:
            self._computing, self._alone = self._computing - 1, False
            if not isinstance(work, _Job):
                sessions = {id(question.session) for question in work}
                self._busy -= sessions
                until = time.perf_counter() + self.linger * took
                back = {id(item.session) for item in self._waiting if isinstance(item, _Question)}
                self._expected |= dict.fromkeys(sessions - back, until)
            self._changed.notify_all()

    def _answers(self, questions: list[_Question]) -> list[tuple[Future[Any], Any]]:
        """The answer of each question, or the exception in its place."""
        if not questions:
            return []
        start = time.perf_counter()
        replies = attempt(lambda: self._replies(questions))
        if isinstance(replies, Exception):
            if len(questions) == 1:
                return [(questions[0].future, replies)]
            return [outcome for question in questions for outcome in self._answers([question])]
        took = time.perf_counter() - start
        outcomes: list[tuple[Future[Any], Any]] = []
        for question, reply in zip(questions, replies):
            if not isinstance(reply, Exception):
                queued = start - question.asked
                reply = Answer(reply=reply, queued=queued, took=took, batch=len(questions))
            outcomes.append((question.future, reply))
        return outcomes

    def _replies(self, questions: list[_Question]) -> Sequence[Reply | Exception]:
        replies = self.infer([q.session for q in questions], [q.observation for q in questions])
        assert len(replies) == len(questions), (len(replies), len(questions))
        return replies


def attempt(run: Callable[[], Any]) -> Any:
    """What comes of it, or the exception that does. Nothing may end a thread that others wait for, nor their event
    loop: `SystemExit` and its like, with which some libraries crash, become a `RuntimeError`."""
    try:
        return run()
    except Exception as error:
        return error
    except BaseException as error:
        crash = RuntimeError(f"{type(error).__name__}: {error}")
        crash.__cause__ = error
        return crash
