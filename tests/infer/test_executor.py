"""The executor under a simulated clock: what is sent belongs to its tick, whatever the policy's delays are."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from pilot.infer.executor import (
    ChunkRequest,
    Command,
    Delays,
    Executor,
    ExecutorCounts,
    LateBehavior,
    OpenLoop,
    Pace,
    TemporalEnsemble,
    zero_dims,
)
from pilot.infer.safety import MotionFilter
from pilot.types import MotionLimits

HORIZON = 50
HZ = 50


def chunk(request: ChunkRequest, *, horizon: int = HORIZON) -> np.ndarray:
    """Actions that say for which tick they are meant, and when they were seen to be right."""
    ticks = np.arange(request.tick, request.tick + horizon, dtype=np.float32)
    return np.stack((ticks, np.full(horizon, request.tick, np.float32)), axis=1)


def run(executor: Executor, delays: Callable[[], float | None], *, ticks: int) -> Iterator[tuple[Command, set[int]]]:
    """Control for so many ticks; a request is answered after `delays()` ticks, or never, at any time within a tick.

    Answers may overtake one another. Also the observation ticks of all that has been delivered so far.
    """
    flying: list[tuple[float, ChunkRequest]] = []
    delivered: set[int] = set()
    for now in range(ticks):
        for due, request in sorted((f for f in flying if f[0] <= now), key=lambda f: f[0]):
            flying.remove((due, request))
            if executor.deliver(request, chunk(request)):
                delivered.add(request.tick)
        if (request := executor.request()) is not None and (delay := delays()) is not None:
            flying.append((now + delay, request))
        yield executor.next(), delivered


@pytest.mark.parametrize("seed", range(3))
def test_no_action_is_stale_and_no_tick_is_missed_under_jitter(seed):
    """0 to 300 ms at 50 Hz. `bench/executor.py` runs an hour of it."""
    rng = np.random.default_rng(seed)
    executor = Executor(replan_steps=10)
    for tick, (command, delivered) in enumerate(run(executor, lambda: rng.uniform(0, 0.3 * HZ), ticks=4000)):
        assert command.tick == tick
        if command.status == "wait":
            assert tick <= 0.3 * HZ + 1
            continue
        assert command.status == "run"
        assert command.action.tolist() == [tick, max(delivered)]  # of this tick, by the newest chunk there is
    assert executor.counts.run + executor.counts.wait == 4000 and executor.counts.chunks > 130
    assert executor.counts.hold == executor.counts.stop == executor.counts.missed == executor.counts.refused == 0


@pytest.mark.parametrize("make", [Executor, TemporalEnsemble])
@pytest.mark.parametrize("seed", range(3))
def test_losses_stalls_and_overtaking_never_bring_back_the_past(make, seed):
    """A third of the answers is lost, a third takes up to 4 s; requests are repeated after a quarter of a second."""
    rng = np.random.default_rng(seed)
    executor = make(replan_steps=10, patience=12, late=LateBehavior(stop_after=20, latch=False))
    delays = [lambda: None, lambda: rng.uniform(0, 200), lambda: rng.uniform(0, 15)]
    newest, seen = -1.0, set()
    for tick, (command, _) in enumerate(run(executor, lambda: delays[rng.integers(3)](), ticks=2000)):
        seen.add(command.status)
        if command.status == "run":
            assert command.action[0] == pytest.approx(tick)
            assert tick - command.action[1] < HORIZON
            if make is Executor:
                assert command.action[1] >= newest
                newest = command.action[1]
        elif command.status != "wait":
            assert command.action[0] < tick, "the last command again, and said to be so"
    assert seen == {"wait", "run", "hold", "stop"}
    assert executor.counts.lost and executor.counts.refused


def test_the_same_delays_give_the_same_commands():
    def commands() -> list:
        rng = np.random.default_rng(7)
        executor = Executor(replan_steps=7, patience=12)
        ran = run(executor, lambda: rng.uniform(0, 60), ticks=1000)
        return [(c.tick, c.status, None if c.action is None else c.action.tolist()) for c, _ in ran]

    assert commands() == commands()


def test_a_chunk_goes_on_where_the_robot_is_when_it_comes():
    executor = Executor(replan_steps=5)
    first = executor.request()
    assert (first.tick, first.delay, len(first.leftover)) == (0, 0, 0)
    executor.deliver(first, chunk(first, horizon=12))
    assert [executor.next().action[0] for _ in range(5)] == [0, 1, 2, 3, 4]
    second = executor.request()
    assert second.tick == 5 and second.leftover[:, 0].tolist() == [5, 6, 7, 8, 9, 10, 11]
    assert executor.request() is None, "one at a time"
    assert [executor.next().action.tolist() for _ in range(3)] == [[5, 0], [6, 0], [7, 0]]
    executor.deliver(second, chunk(second))
    assert executor.next().action.tolist() == [8, 5]
    assert executor.request() is None, "what was seen at tick 5 is good for five ticks"
    executor.next()
    assert executor.count_executed() == 5, "of the chunk that began at tick 5"
    third = executor.request()
    assert third.tick == 10 and third.leftover[:, 0].tolist() == list(range(10, 55))


def test_a_chunk_belongs_to_the_executor_and_nobody_can_change_it():
    executor, mine = Executor(replan_steps=5), np.ones((3, 2), np.float32)
    executor.deliver(executor.request(), mine)
    mine[:] = 7
    command = executor.next()
    assert command.action.tolist() == [1, 1] and command.wanted.tolist() == [1, 1]
    with pytest.raises(ValueError, match="read-only"):
        executor.state.chunks[-1].actions[0] = 7


def test_the_delay_is_what_was_consumed_and_is_forgotten():
    """One stall raises the estimate for as long as it is in the window, not for ever."""
    delays = Delays(window=10, percentile=90, first=3)
    assert delays.expected() == 3
    for ticks in (2, 1, 2, 2, 1, 2, 1, 2, 2, 40):
        delays.add(ticks)
    assert delays.expected() == 40
    delays.percentile = 50
    assert delays.expected() == 2
    delays.percentile = 100
    for _ in range(10):
        delays.add(1)
    assert delays.expected() == 1
    with pytest.raises(ValueError, match="got 0, 95"):
        Delays(window=0)
    assert Delays(percentile=0).expected() == 1 and Delays().recent.maxlen == 20


def test_delays_are_counted_in_ticks_of_control_and_bounded_by_what_is_left():
    executor = Executor(replan_steps=5, delays=Delays(first=30))
    request = executor.request()
    for _ in range(4):
        executor.next()
    executor.deliver(request, chunk(request, horizon=10))
    assert list(executor.delays.recent) == [4]
    executor.delays = Delays(first=30)
    assert executor.request().delay == 6, "more than is left cannot be done meanwhile"


def test_a_chunk_that_would_end_too_soon_is_followed_early():
    executor = Executor(replan_steps=40, delays=Delays(first=10))
    request = executor.request()
    executor.deliver(request, chunk(request))
    executor.delays = Delays(first=15)
    asked = []
    for _ in range(40):
        asked += [r.tick for r in [executor.request()] if r]
        executor.next()
    assert asked == [35]


def test_late_is_held_and_gone_is_stopped_until_a_reset():
    late = LateBehavior(hold=zero_dims(0), stop=lambda last: 100 + 0 * last, stop_after=3)
    executor = Executor(replan_steps=2, late=late, patience=1)
    assert executor.next() == Command(0, "wait", None)
    request = executor.request()
    executor.deliver(request, chunk(request, horizon=2))
    commands = [executor.next() for _ in range(7)]
    assert [c.status for c in commands] == ["run", "run", "hold", "hold", "hold", "stop", "stop"]
    assert commands[1].action.tolist() == [2, 1]
    assert commands[2].action.tolist() == [0, 1], "steps are zero, positions stay"
    assert commands[5].action.tolist() == [100, 100]
    assert executor.request() is None, "it has stopped for good"
    executor.reset()
    assert executor.next().action.tolist() == [0, 100], "what moved by itself is brought to rest"
    assert executor.next() == Command(1, "wait", None)
    assert executor.request().tick == 2


def test_what_was_asked_before_a_reset_or_a_stop_changes_nothing():
    executor = Executor(replan_steps=2)
    before = executor.request()
    executor.reset()
    assert not executor.deliver(before, chunk(before))
    assert executor.next().status == "wait" and not executor.delays.recent
    late = executor.request()
    for _ in range(HORIZON):
        executor.next()
    assert not executor.deliver(late, chunk(late)), "all of it is past"
    assert list(executor.delays.recent) == [HORIZON]
    assert executor.counts.refused == 2


def acting(executor: Executor, *, horizon: int = HORIZON) -> Executor:
    """Give the executor its first chunk, and take the first command of it."""
    request = executor.request()
    executor.deliver(request, chunk(request, horizon=horizon))
    assert executor.next().status == "run"
    return executor


def test_missed_ticks_count_towards_the_stop():
    """The robot has been without an action for as long as they took."""
    executor = acting(Executor(replan_steps=1, late=LateBehavior(stop_after=5)), horizon=1)
    assert [executor.next(missed=3).status, executor.next().status] == ["hold", "hold"]
    assert [executor.next().status, executor.next().status] == ["stop", "stop"]
    executor = acting(Executor(replan_steps=1, late=LateBehavior(stop_after=5)), horizon=1)
    assert executor.next(missed=5).status == "stop"


@pytest.mark.parametrize("latch", [True, False])
def test_only_a_latched_stop_outlasts_the_next_chunk(latch):
    executor = acting(Executor(replan_steps=1, patience=3, late=LateBehavior(stop_after=2, latch=latch)), horizon=1)
    asked = executor.request()
    assert [executor.next().status for _ in range(4)] == ["hold", "hold", "stop", "stop"]
    assert executor.deliver(asked, chunk(asked))
    assert executor.next().status == ("stop" if latch else "run")
    assert (executor.request() is None) is latch, "a robot that is stopped for good asks for nothing"


def test_time_without_an_action_begins_anew_with_each_action():
    executor = acting(Executor(replan_steps=1, patience=1, late=LateBehavior(stop_after=2)), horizon=1)
    for _ in range(4):
        assert [executor.next().status, executor.next().status] == ["hold", "hold"]
        request = executor.request()
        executor.deliver(request, chunk(request, horizon=1))
        assert executor.next().status == "run"


@pytest.mark.parametrize("make", [Executor, OpenLoop, TemporalEnsemble])
def test_after_a_stall_of_the_control_loop_nothing_from_before_it_is_executed(make):
    executor = acting(make(replan_steps=30, late=LateBehavior(stall_after=10, stop_after=40)))
    assert executor.next(missed=9).status == "run", "a hiccup"
    executor.delays = Delays(first=100)
    before = executor.request() or ChunkRequest(tick=11, state=executor.state, leftover=np.zeros((0, 2)), delay=0)
    held = executor.next(missed=10)
    assert held.status == "hold" and executor.counts.stalls == 1
    assert not executor.deliver(before, chunk(before)), "seen before the stall"
    asked = executor.request()
    assert asked.tick == executor.state.tick and not len(asked.leftover)
    assert executor.deliver(asked, chunk(asked)) and executor.next().status == "run"


def test_a_stall_before_the_first_chunk_loses_the_question():
    executor = Executor(replan_steps=5)
    asked = executor.request()
    assert executor.next(missed=20).status == "wait"
    assert not executor.deliver(asked, chunk(asked)) and executor.request().tick == 21


def test_the_emergency_stop_ends_the_motion_even_after_a_reset():
    executor = acting(Executor(replan_steps=5, late=LateBehavior(stop=zero_dims(0), hold=zero_dims(0))))
    executor.stop()
    executor.reset()
    stopped = [executor.next() for _ in range(3)]
    assert [(c.status, c.action.tolist(), c.reasons) for c in stopped] == [("stop", [0, 0], ("stopped",))] * 3
    executor.release()
    assert executor.next().status == "hold", "there is no chunk since the reset"


def test_after_a_reset_in_full_motion_a_robot_with_limits_slows_down_within_them():
    limits = MotionLimits(low=(-10.0,), high=(10.0,), speed=(1.0,), acceleration=(3.0,))
    motion = MotionFilter(limits, units=("rad",), hz=10)
    executor = Executor(replan_steps=50, motion=motion)
    executor.place(np.zeros(1))
    request = executor.request()
    executor.deliver(request, np.arange(1, 51)[:, None] / 10)  # a tenth of a rad per tick, the highest speed
    places = [executor.next().action[0] for _ in range(10)]
    executor.reset()
    commands = [executor.next() for _ in range(6)]
    assert {command.status for command in commands} == {"wait"}
    places += [command.action[0] for command in commands if command.action is not None]
    np.testing.assert_allclose(np.diff(places)[-4:], [0.1, 0.07, 0.04, 0.01], atol=1e-6)
    assert [command.action is None for command in commands] == [False] * 3 + [True] * 3, "so slow, it is left as it is"


def test_a_robot_that_is_stopped_before_it_ever_moved_is_not_moved():
    executor = Executor(replan_steps=5)
    executor.stop()
    assert executor.next() == Command(0, "wait", None)
    request = executor.request()
    executor.deliver(request, chunk(request))
    command = executor.next()
    assert (command.status, command.action, command.wanted.tolist()) == ("stop", None, [1, 1])
    executor.release()
    assert executor.next().action.tolist() == [2, 1]


def test_missed_ticks_are_counted_and_time_goes_on():
    executor = Executor(replan_steps=5)
    request = executor.request()
    executor.deliver(request, chunk(request))
    assert executor.next().tick == 0
    command = executor.next(missed=3)
    assert (command.tick, command.action[0], executor.counts.missed) == (4, 4, 3)


@pytest.mark.parametrize("bad", [np.zeros(4), np.zeros((0, 2)), np.full((3, 2), np.nan), np.zeros((3, 3))])
def test_what_is_no_chunk_is_refused_by_name(bad):
    executor = Executor(replan_steps=1)
    request = executor.request()
    executor.deliver(request, chunk(request))
    executor.next()
    with pytest.raises(ValueError, match="chunk"):
        executor.deliver(executor.request(), bad)
    assert executor.next().status == "run"


def test_a_chunk_cannot_be_changed_by_who_made_it():
    executor = Executor(replan_steps=1)
    actions = np.zeros((4, 2), np.float32)
    executor.deliver(executor.request(), actions)
    actions += 1
    assert executor.next().action.tolist() == [0, 0]


def test_open_loop_does_a_few_steps_and_stands_while_it_waits():
    executor = OpenLoop(replan_steps=3, late=LateBehavior(stop_after=10))
    commands = list(run(executor, lambda: 2, ticks=12))
    statuses = "".join(command.status[0] for command, _ in commands)
    assert statuses == "wwrrrhhrrrhh"
    starts = [command.action[0] for command, _ in commands if command.status == "run"]
    assert starts == [0, 1, 2, 5, 6, 7], "each chunk from its first action"


def test_the_ensemble_is_the_weighted_mean_of_what_was_meant_for_the_tick():
    executor = TemporalEnsemble(replan_steps=1, decay=0.5)
    chunks = [np.array([[0.0], [1.0], [2.0]]), np.array([[10.0], [20.0]]), np.array([[100.0]])]
    sent = []
    for actions in chunks:
        executor.deliver(executor.request(), actions)
        sent.append(executor.next().action[0])
    e = np.exp(-0.5)
    assert sent == pytest.approx([0.0, (1 + 10 * e) / (1 + e), (2 + 20 * e + 100 * e**2) / (1 + e + e**2)])
    assert executor.next().status == "hold"


def test_the_pace_keeps_its_beat_and_counts_what_it_missed():
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    pace = Pace(hz=10, clock=lambda: now[0], sleep=sleep)
    assert pace.wait() == 0
    now[0] += 0.03
    assert pace.wait() == 0 and now[0] == pytest.approx(0.1), "work does not shift the next tick"
    now[0] += 0.15
    assert pace.wait() == 0 and now[0] == pytest.approx(0.25), "late, but within the tick: at once"
    assert pace.wait() == 0 and now[0] == pytest.approx(0.3)
    now[0] = 0.65
    assert pace.wait() == 2 and now[0] == pytest.approx(0.65)
    assert pace.wait() == 0 and now[0] == pytest.approx(0.7)


def test_a_failing_policy_is_asked_again():
    executor = Executor(replan_steps=5)
    for _ in range(2):
        executor.give_up(executor.request())
        executor.next()
    request = executor.request()
    assert executor.deliver(request, chunk(request))
    assert request.tick == 2 and executor.counts.lost == 2 and executor.next().action.tolist() == [2, 2]


def test_what_is_not_said_is_as_documented():
    """Held for 50 ticks, then stopped for good; asked again after 50 ticks; a chunk is expected to take one tick."""
    executor = acting(Executor(replan_steps=1), horizon=1)
    assert executor.request() is not None
    statuses = [executor.next().status for _ in range(49)]
    assert set(statuses) == {"hold"} and executor.request() is None
    assert executor.next().status == "hold" and executor.request().tick == 51 and executor.counts.lost == 1
    assert executor.next().status == "stop" and executor.request() is None
    executor = Executor(replan_steps=50)
    assert not executor.is_stopped and executor.joins_chunks
    acting(executor)
    assert executor.next(missed=9).status == "run", "nine ticks are a hiccup"
    assert executor.next(missed=10).status == "hold", "ten are a stall"
    delays = Delays()
    assert delays.expected() == 1
    for ticks in range(25):
        delays.add(ticks)
    assert list(delays.recent) == list(range(5, 25)) and delays.expected() == 24
    ensemble = TemporalEnsemble()
    assert (ensemble.replan_steps, ensemble.patience, ensemble.decay, ensemble.joins_chunks) == (1, 50, 0.01, False)
    assert not OpenLoop(replan_steps=1).joins_chunks


def test_the_ends_of_what_may_be_asked_for():
    assert Delays(window=1, percentile=100, first=0).expected() == 0
    assert Executor(replan_steps=1, patience=1).patience == 1
    for wrong in ({"window": 0}, {"percentile": -1}, {"percentile": 101}, {"first": -1}):
        with pytest.raises(ValueError, match="delays need"):
            Delays(**wrong)
    for wrong in ({"replan_steps": 0}, {"replan_steps": 1, "patience": 0}):
        with pytest.raises(ValueError, match="ticks, 1 or more"):
            Executor(**wrong)


def test_every_command_and_chunk_is_counted_once():
    executor = Executor(replan_steps=2, late=LateBehavior(stop_after=2), patience=1)
    assert (
        executor.counts
        == ExecutorCounts()
        == ExecutorCounts(run=0, hold=0, stop=0, wait=0, missed=0, chunks=0, refused=0, lost=0, stalls=0, limited=0)
    )
    executor.next()
    request = executor.request()
    executor.deliver(request, chunk(request, horizon=3))
    assert not executor.deliver(request, chunk(request, horizon=3)), "the same again"
    for _ in range(7):
        executor.next()
    executor.next(missed=2)
    assert executor.counts == ExecutorCounts(run=3, hold=2, stop=3, wait=1, missed=2, chunks=1, refused=1)


def test_a_command_is_the_same_whatever_was_wanted():
    assert Command(3, "stop", None, wanted=np.ones(2)) == Command(3, "stop", None)


def test_of_two_answers_for_one_tick_the_first_is_kept():
    executor = Executor(replan_steps=5)
    one = executor.request()
    executor.give_up(one)
    other = executor.request()
    assert one.tick == other.tick and executor.deliver(one, chunk(one)) and not executor.deliver(other, chunk(other))
    assert executor.counts.lost == 1
    executor.give_up(one)
    assert executor.counts.lost == 1, "it is no longer waited for"


def test_an_observation_from_the_end_of_a_stall_is_of_use():
    executor = acting(Executor(replan_steps=5))
    executor.skip(20)
    asked = executor.request()
    assert asked.tick == 21 and executor.deliver(asked, chunk(asked))
    assert executor.next().action.tolist() == [21, 21] and executor.counts.stalls == 1


def test_a_stall_without_a_chunk_or_a_question_costs_nothing():
    executor = Executor(replan_steps=5)
    executor.skip(100)
    assert executor.counts.stalls == 0 and executor.state.valid_from == 0


def test_what_is_left_begins_at_the_tick_and_what_was_done_ends_there():
    executor = Executor(replan_steps=5)
    assert executor.count_executed() is None and executor.leftover((), 0).shape == (0, 0)
    request = executor.request()
    executor.deliver(request, chunk(request, horizon=4))
    left = [executor.leftover(executor.state.chunks, tick)[:, 0].tolist() for tick in range(5)]
    assert left == [[0, 1, 2, 3], [1, 2, 3], [2, 3], [3], []]
    done = [executor.count_executed()]
    for _ in range(6):
        executor.next()
        done.append(executor.count_executed())
    assert done == [0, 1, 2, 3, 4, 4, 4]


def test_a_beat_that_is_kept_is_not_slept_over():
    now, slept = [0.0], []
    pace = Pace(hz=4, clock=lambda: now[0], sleep=slept.append)
    assert pace.wait() == 0 and slept == [], "the first tick is now"
    now[0] = 0.25
    assert pace.wait() == 0 and slept == [], "just in time"
    now[0] = 0.375
    assert pace.wait() == 0 and slept == [0.125]
