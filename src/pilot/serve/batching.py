"""Many robots, one model: while it computes for some, the others queue up, and are the next batch.

Nobody waits for a batch to fill: a robot that is alone is answered at once, and the busier the server, the larger the
batches. One thread computes, so a model does one thing at a time, and whatever else is to be done to it (`call`)
happens between two batches.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

Reply = Mapping[str, Any]
Infer = Callable[[Sequence[Any], Sequence[Mapping[str, Any]]], Sequence[Reply | Exception]]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A reply, seconds in the queue, seconds in the model, and how many robots shared them."""

    reply: Reply
    queued: float
    took: float
    batch: int


@dataclass(frozen=True, kw_only=True)
class _Question:
    session: Any
    observation: Mapping[str, Any]
    asked: float
    answer: Future[Answer]


@dataclass(frozen=True, kw_only=True)
class _Job:
    run: Callable[[], Any]
    done: Future[Any]


class Batcher:
    """`ask(session, observation)` from any thread: a future of the `Answer`, or of the error that is its own alone.

    `infer` answers several at once; it gives an exception in the place of one that cannot be answered. If it raises,
    each question of that batch is asked again on its own, so that one who breaks the model breaks it for nobody else.
    """

    def __init__(self, infer: Infer, *, max_batch: int = 16, name: str = "policy") -> None:
        if max_batch < 1:
            raise ValueError(f"a batch holds 1 or more, got {max_batch}")
        self.infer, self.max_batch = infer, max_batch
        self._waiting: deque[_Question | _Job] = deque()
        self._changed, self._closing = threading.Condition(), False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def ask(self, session: Any, observation: Mapping[str, Any]) -> Future[Answer]:
        question = _Question(session=session, observation=observation, asked=time.perf_counter(), answer=Future())
        self._put(question)
        return question.answer

    def call(self, run: Callable[[], Any]) -> Future[Any]:
        """Do something to the model when it is not computing."""
        job = _Job(run=run, done=Future())
        self._put(job)
        return job.done

    def close(self) -> None:
        """Answer what waits, then end the thread. Does not wait for it."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def _put(self, item: "_Question | _Job") -> None:
        with self._changed:
            if self._closing:
                raise RuntimeError("the server is stopping")
            self._waiting.append(item)
            self._changed.notify()

    def _work(self) -> None:
        while (work := self._take()) is not None:
            if isinstance(work, _Job):
                _settle(work.done, work.run)
            else:
                self._answer([question for question in work if question.answer.set_running_or_notify_cancel()])

    def _take(self) -> "list[_Question] | _Job | None":
        """What comes next, once something does: a job, or the questions that wait before the next job."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if not self._waiting:
                return None
            first = self._waiting.popleft()
            if isinstance(first, _Job):
                return first
            questions = [first]
            while self._waiting and len(questions) < self.max_batch:
                if not isinstance(following := self._waiting[0], _Question):
                    break
                questions.append(following)
                self._waiting.popleft()
            return questions

    def _answer(self, questions: list[_Question]) -> None:
        if not questions:
            return
        start = time.perf_counter()
        try:
            replies = self.infer([q.session for q in questions], [q.observation for q in questions])
            assert len(replies) == len(questions), (len(replies), len(questions))
        except Exception as error:
            if len(questions) == 1:
                questions[0].answer.set_exception(error)
                return
            for question in questions:
                self._answer([question])
            return
        took = time.perf_counter() - start
        for question, reply in zip(questions, replies):
            if isinstance(reply, Exception):
                question.answer.set_exception(reply)
            else:
                queued = start - question.asked
                question.answer.set_result(Answer(reply=reply, queued=queued, took=took, batch=len(questions)))


def _settle(done: Future[Any], run: Callable[[], Any]) -> None:
    if not done.set_running_or_notify_cancel():
        return
    try:
        done.set_result(run())
    except Exception as error:
        done.set_exception(error)
