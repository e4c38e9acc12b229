"""Questions that wait together are answered together, and each gets its own answer or its own error."""

import itertools
import sys
import threading
import time
import weakref
from types import SimpleNamespace

import pytest

from pilot.serve import batching
from pilot.serve.batching import Batcher


class Model:
    """Answers `n` with `2 n`; the first batch waits for `go`. `batches` is what it was asked, batch by batch."""

    def __init__(self):
        self.batches, self.begun, self.go = [], threading.Event(), threading.Event()

    def __call__(self, sessions, observations):
        assert len(sessions) == len(observations)
        self.batches.append([observation["n"] for observation in observations])
        if len(self.batches) == 1:
            self.begun.set()
            assert self.go.wait(60)
        if any(observation["n"] == "break" for observation in observations):
            raise RuntimeError("broken")
        return [ValueError("bad") if o["n"] == "bad" else {"double": 2 * o["n"]} for o in observations]


@pytest.fixture
def model():
    return Model()


def working(model, **options):
    batcher = Batcher(model, **options)
    yield batcher
    model.go.set()
    batcher.close()


@pytest.fixture
def batcher(model):
    yield from working(model, max_batch=4)


def ask_while_busy(batcher, model, numbers, *, robots=()):
    """The first is being answered while all others are asked."""
    first = batcher.submit("s", {"n": 0})
    assert model.begun.wait(60)
    names = robots or [f"robot {i}" for i in range(len(numbers))]
    others = [batcher.submit(robot, {"n": n}) for robot, n in zip(names, numbers, strict=True)]
    return first, others


def test_who_comes_while_it_computes_is_in_the_next_batch(batcher, model):
    first, others = ask_while_busy(batcher, model, range(1, 7))
    model.go.set()
    assert [f.result(60).reply["double"] for f in (first, *others)] == [0, 2, 4, 6, 8, 10, 12]
    assert model.batches == [[0], [1, 2, 3, 4], [5, 6]]
    assert [f.result().batch_size for f in (first, *others)] == [1, 4, 4, 4, 4, 2, 2]
    assert all(f.result().queue_seconds >= 0 and f.result().infer_seconds > 0 for f in others)


def test_who_was_answered_longest_ago_comes_first(batcher, model):
    model.go.set()
    for n, robot in enumerate(("busy", "busier", "busiest")):
        batcher.submit(robot, {"n": n}).result(60)
    together = threading.Event()
    batcher.run_alone(lambda: together.wait(60))
    asked = ("busiest", "busier", "busy", "calm", "calmer")
    answers = [batcher.submit(robot, {"n": n}) for n, robot in enumerate(asked, start=4)]
    together.set()
    assert [f.result(60).reply["double"] for f in answers] == [8, 10, 12, 14, 16]
    assert model.batches[-2:] == [[5, 6, 7, 8], [4]], "busiest, the last to be answered, waits for the next batch"


def test_who_asks_twice_is_answered_in_two_batches(batcher, model):
    first, others = ask_while_busy(batcher, model, [1, 2, 3], robots=("one", "two", "one"))
    model.go.set()
    assert [f.result(60).reply["double"] for f in (first, *others)] == [0, 2, 4, 6]
    assert model.batches == [[0], [1, 2], [3]]


def test_an_error_in_a_place_is_for_that_place_alone(batcher, model):
    _, others = ask_while_busy(batcher, model, [1, "bad", 3])
    model.go.set()
    assert others[0].result(60).reply == {"double": 2} and others[2].result(60).reply == {"double": 6}
    with pytest.raises(ValueError, match="bad"):
        others[1].result(60)
    assert len(model.batches) == 2


def test_who_breaks_the_model_breaks_it_for_nobody_else(batcher, model):
    _, others = ask_while_busy(batcher, model, [1, "break", 3])
    model.go.set()
    assert others[0].result(60).reply == {"double": 2} and others[2].result(60).reply == {"double": 6}
    with pytest.raises(RuntimeError, match="broken"):
        others[1].result(60)
    assert model.batches == [[0], [1, "break", 3], [1], ["break"], [3]]


def test_a_call_comes_between_two_batches_in_its_turn(batcher, model):
    _, before = ask_while_busy(batcher, model, [1, 2])
    job = batcher.run_alone(lambda: model.batches.append("job"))
    after = batcher.submit("s", {"n": 3})
    model.go.set()
    after.result(60)
    assert job.done() and all(f.done() for f in before)
    assert model.batches == [[0], [1, 2], "job", [3]]


def test_the_error_of_a_call_is_its_own(batcher, model):
    model.go.set()
    with pytest.raises(ZeroDivisionError):
        batcher.run_alone(lambda: 1 / 0).result(60)
    assert batcher.submit("s", {"n": 1}).result(60).reply == {"double": 2}


def test_who_does_not_want_an_answer_any_more_is_not_asked_for(batcher, model):
    _, (second, third) = ask_while_busy(batcher, model, [1, 2])
    assert second.cancel()
    model.go.set()
    assert third.result(60).reply == {"double": 4} and model.batches == [[0], [2]]


class Seen(dict):
    """An observation that can be seen to go."""


def test_a_queue_of_those_who_left_does_not_grow(batcher, model):
    ask_while_busy(batcher, model, [])
    gone = []
    for n in range(20):
        observation = Seen(n=n)
        gone.append(weakref.ref(observation))
        batcher.submit(f"robot {n}", observation).cancel()
        del observation
    last = batcher.submit("s", {"n": 99})
    assert [ref() for ref in gone] == [None] * 20
    model.go.set()
    assert last.result(60).reply["double"] == 198 and model.batches == [[0], [99]]


def test_a_model_that_wants_to_end_the_program_ends_nothing(batcher, model):
    """Some libraries crash with what is no `Exception`; the thread that others wait for goes on."""
    model.go.set()
    with pytest.raises(RuntimeError, match="SystemExit: enough"):
        batcher.submit("s", {"n": Fatal()}).result(60)
    with pytest.raises(RuntimeError, match="SystemExit: enough"):
        batcher.run_alone(lambda: sys.exit("enough")).result(60)
    assert batcher.submit("s", {"n": 1}).result(60).reply == {"double": 2}


class Fatal:
    def __rmul__(self, other):
        raise SystemExit("enough")


def test_what_waits_is_answered_when_it_closes_and_nothing_after(batcher, model):
    _, others = ask_while_busy(batcher, model, [1, 2])
    batcher.close()
    with pytest.raises(RuntimeError, match="stopping"):
        batcher.submit("s", {"n": 3})
    model.go.set()
    assert [f.result(60).reply["double"] for f in others] == [2, 4]


@pytest.fixture
def patient(model):
    """Waits for everybody whom it has answered, for as long as it takes."""
    yield from working(model, linger=1e9)


def answered_together(batcher, model):
    """Three robots are in one batch."""
    _, others = ask_while_busy(batcher, model, [1, 2, 3], robots=("s", "one", "two"))
    model.go.set()
    assert [f.result(60).reply["double"] for f in others] == [2, 4, 6]


def test_who_was_answered_together_is_waited_for(patient, model):
    answered_together(patient, model)
    early = [patient.submit("one", {"n": 4}), patient.submit("s", {"n": 5})]
    time.sleep(0.05)
    assert not any(f.done() for f in early)
    late = patient.submit("two", {"n": 6})
    assert [f.result(60).reply["double"] for f in (*early, late)] == [8, 10, 12]
    assert model.batches == [[0], [1, 2, 3], [4, 5, 6]]


def test_who_does_not_come_back_keeps_nobody_waiting_for_long(batcher, model):
    answered_together(batcher, model)
    assert batcher.submit("one", {"n": 4}).result(60).reply["double"] == 8
    assert model.batches == [[0], [1, 2, 3], [4]]


@pytest.mark.parametrize("linger", [n / 10 for n in range(20)])
def test_who_stops_being_expected_at_any_moment_keeps_nobody_waiting(model, monkeypatch, linger):
    clock = itertools.count(step=0.001)  # goes on at each look, so that the time is up between any two of them
    monkeypatch.setattr(batching, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    batcher = Batcher(model, linger=linger)
    _, others = ask_while_busy(batcher, model, [1, 2])
    model.go.set()
    assert [f.result(60).reply["double"] for f in others] == [2, 4]
    batcher.close()


def test_who_is_alone_does_not_wait(patient, model):
    model.go.set()
    assert [patient.submit("s", {"n": n}).result(60).reply["double"] for n in range(3)] == [0, 2, 4]
    assert model.batches == [[0], [1], [2]]


def test_nobody_is_waited_for_when_it_closes(patient, model):
    answered_together(patient, model)
    alone = patient.submit("one", {"n": 4})
    patient.close()
    assert alone.result(60).reply["double"] == 8


def test_an_empty_batch_is_refused(model):
    with pytest.raises(ValueError, match="got max_batch=0"):
        Batcher(model, max_batch=0)


class Meeting:
    """Answers once as many batches as `parties` are computed at the same time; `batches` is what it was asked."""

    def __init__(self, parties):
        self.batches, self.barrier = [], threading.Barrier(parties)

    def __call__(self, sessions, observations):
        self.batches.append([observation["n"] for observation in observations])
        self.barrier.wait(60)
        return [{"double": 2 * observation["n"]} for observation in observations]


def test_workers_share_who_waits():
    meeting = Meeting(2)
    batcher = Batcher(meeting, workers=2)
    ready, done = threading.Event(), batcher.run_alone(lambda: ready.wait(60))
    answers = [batcher.submit(f"robot {n}", {"n": n}) for n in range(6)]
    ready.set()
    assert done.result(60)
    assert [answer.result(60).reply["double"] for answer in answers] == [0, 2, 4, 6, 8, 10]
    assert sorted(map(len, meeting.batches)) == [3, 3]
    batcher.close()


def test_no_robot_is_in_two_batches_at_once(model):
    batcher = Batcher(model, workers=2, max_batch=1)
    first = batcher.submit("a robot", {"n": 0})
    assert model.begun.wait(60)
    again, other = batcher.submit("a robot", {"n": 1}), batcher.submit("another", {"n": 2})
    assert other.result(60).reply["double"] == 4 and not again.done()
    model.go.set()
    assert first.result(60).reply["double"] == 0 and again.result(60).reply["double"] == 2
    assert model.batches == [[0], [2], [1]]
    batcher.close()


def test_a_job_waits_until_nothing_is_computed_and_nothing_overtakes_it(model):
    batcher = Batcher(model, workers=2)
    first = batcher.submit("a", {"n": 0})
    assert model.begun.wait(60)
    job, later = batcher.run_alone(lambda: len(model.batches)), batcher.submit("b", {"n": 1})
    assert not job.done() and not later.done() and model.batches == [[0]]
    model.go.set()
    assert job.result(60) == 1 and later.result(60).reply["double"] == 2 and first.result(60)
    batcher.close()
