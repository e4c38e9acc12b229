"""The executor with a filter of motions: what it sends stays within the limits, and its stops hold."""

import numpy as np
import pytest

from pilot.infer.executor import Executor
from pilot.infer.safety import MotionFilter
from pilot.types import MotionLimits


def moving(**changes) -> Executor:
    """Two joints that may go at 1 per tick, which may change by 0.5 per tick; 10 ticks a second."""
    values = {"low": (-9.0,) * 2, "high": (9.0,) * 2, "speed": (10.0,) * 2, "acceleration": (50.0,) * 2}
    motion = MotionFilter(MotionLimits(**(values | changes)), units=("rad", "rad"), hz=10)
    executor = Executor(replan_steps=50, motion=motion)
    executor.place(np.zeros(2))
    return executor


def send(executor: Executor, *actions: float) -> Executor:
    executor.deliver(executor.request(), np.repeat(np.array(actions)[:, None], 2, axis=1))
    return executor


def test_commands_stay_within_the_limits_from_where_the_robot_is():
    executor = send(moving(), *[5.0] * 6)
    sent = [executor.next() for _ in range(5)]
    assert [command.action[0] for command in sent] == pytest.approx([0.5, 1.5, 2.5, 3.5, 4.5])
    assert sent[0].reasons == ("speed", "acceleration") and sent[0].wanted.tolist() == [5, 5]
    assert sent[2].reasons == ("speed",) and sent[2].status == "run"
    assert executor.counts.limited == 5
    assert send(moving(), 0.4).next().reasons == () and executor.motion is not None


def test_after_missed_ticks_the_robot_starts_from_rest():
    executor = send(moving(), *[8.0] * 20)
    executor.next(), executor.next()
    after = executor.next(missed=3), executor.next()
    assert [command.action[0] for command in after] == pytest.approx([2.0, 3.0])


def test_the_filter_is_told_of_ticks_that_were_missed_and_of_no_others():
    executor, told = moving(), []
    apply = executor.motion.apply
    executor.motion.apply = lambda action, missed: told.append(missed) or apply(action, missed=missed)
    send(executor, *[0.1] * 20)
    executor.next(), executor.next(missed=3), executor.skip(1), executor.next(missed=1), executor.next()
    assert told == [0, 3, 2, 0]


def test_a_filter_that_stops_stops_the_executor_until_it_is_released():
    executor = send(moving(on_violation="stop"), *[5.0] * 9)
    assert executor.next().status == "stop" and executor.next().status == "stop"
    assert not executor.is_stopped, "the robot's own limits did it"
    executor.release()
    assert not executor.motion.is_stopped
    executor.stop()
    assert executor.motion.is_stopped and executor.is_stopped
    executor.release()
    assert not executor.motion.is_stopped and not executor.is_stopped


def test_a_first_chunk_with_other_dims_than_the_robot_is_refused():
    executor = moving()
    with pytest.raises(ValueError, match="this chunk has 3 dims, the robot has been commanded with 2"):
        executor.deliver(executor.request(), np.zeros((4, 3)))


def test_without_limits_a_place_means_nothing():
    executor = Executor(replan_steps=5)
    executor.place(np.zeros(2))
    assert send(executor, 1e6).next().action.tolist() == [1e6, 1e6]


def test_a_stop_commands_nothing_where_nobody_knows_where_the_robot_is():
    executor = moving(on_violation="stop")
    executor.place(np.array([0.0, np.nan]))
    stopped = send(executor, *[9.5] * 9).next()
    assert (stopped.status, stopped.action, stopped.reasons) == ("stop", None, ("range", "speed", "acceleration"))
    executor.release()
    executor.place(np.array([8.0, 8.0]))
    executor.motion.limits = moving().motion.limits
    assert executor.next().action == pytest.approx([8.5, 8.5]), "counts from where it is, not from the stop"
