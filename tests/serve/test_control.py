"""The control loop under a clock turned by hand: it never waits, and what it asks is what the robot is doing."""

import contextlib
import functools
import gc
import logging
import threading
from concurrent.futures import Future
from itertools import pairwise

import numpy as np
import pytest

from pilot import robots
from pilot.infer.executor import SETTLED, Executor, OpenLoop, TemporalEnsemble
from pilot.serve.client import PolicyClient, PolicyError
from pilot.serve.control import EXECUTORS, Controller, executor_for
from pilot.serve.server import serve_in_background

METADATA = {"replan_steps": 4, "rtc": True}
HORIZON = 20


class Clock:
    """A worker whose jobs are done so many ticks after they were handed in."""

    def __init__(self, takes=3):
        self.takes, self.now, self.flying = takes, 0, []

    def submit(self, job):
        future = Future()
        self.flying.append((self.now + self.takes, job, future))
        return future

    def tick(self):
        self.now += 1
        for due in [f for f in self.flying if f[0] <= self.now]:
            self.flying.remove(due)
            _, job, future = due
            try:
                future.set_result(job())
            except Exception as error:
                future.set_exception(error)

    def shutdown(self, wait=True, *, cancel_futures=False):
        self.flying.clear()


class Policy:
    """Answers an observation of tick `t` with actions that say t, t + 1, …; `fails` are what comes instead."""

    def __init__(self, fails=(), **metadata):
        self.metadata, self.fails = METADATA | metadata, list(fails)
        self.asked, self.connects, self.resets = [], 0, 0

    def infer(self, observation):
        self.asked.append(observation)
        if self.fails and (error := self.fails.pop(0)) is not None:
            raise error
        ticks = observation["tick"] + np.arange(HORIZON, dtype=np.float32)
        return {"actions": ticks[:, None], "subtask": f"seen at {observation['tick']}"}

    def connect(self):
        self.connects += 1
        if self.fails and (error := self.fails.pop(0)) is not None:
            raise error

    def reset(self):
        self.resets += 1

    def close(self):
        pass


class Robot:
    """What moves and looks, one tick at a time."""

    def __init__(self, policy, name="rtc", *, takes=3, pause=10):
        self.clock, self.tick, self.looked = Clock(takes), 0, []
        executor = executor_for(name, policy.metadata)
        self.controller = Controller(policy, executor, observe=self.observe, pause=pause, worker=self.clock)

    def observe(self):
        self.looked.append(self.tick)
        return {"tick": self.tick}

    def run(self, ticks, *, missed=0):
        commands = []
        for _ in range(ticks):
            self.tick += missed
            commands.append(self.controller.next(missed=missed))
            self.tick += 1
            self.clock.tick()
        return commands


def statuses(commands):
    return [(c.status, None if c.action is None else c.action.item()) for c in commands]


def test_each_tick_does_what_was_meant_for_it_while_the_next_chunk_is_on_its_way():
    policy = Policy()
    robot = Robot(policy)
    commands = robot.run(40)
    assert statuses(commands[:3]) == [("wait", None)] * 3
    assert statuses(commands[3:]) == [("run", tick) for tick in range(3, 40)]
    assert robot.looked == list(range(0, 40, 4)), "it looks only when it asks"
    assert robot.controller.reply["subtask"] == "seen at 36"


def test_a_question_says_what_the_robot_does_until_the_answer():
    policy = Policy()
    Robot(policy).run(12)
    first, second, third = policy.asked[:3]
    assert "previous" not in first, "there is nothing to go on from"
    assert second["previous"]["actions"][:, 0].tolist() == list(range(4, HORIZON)) and second["previous"]["delay"] == 3
    assert third["previous"]["actions"][0, 0] == 8
    assert [question.get("executed") for question in policy.asked] == [None, 4, 4]


@pytest.mark.parametrize("name", ["open-loop", "ensemble"])
def test_executors_that_join_nothing_say_nothing_of_the_past(name):
    policy = Policy()
    assert any(command.status == "run" for command in Robot(policy, name).run(30))
    assert len(policy.asked) > 3 and not any("previous" in question for question in policy.asked)


def test_nor_is_a_policy_told_that_cannot_join():
    policy = Policy(rtc=False)
    Robot(policy).run(12)
    assert len(policy.asked) == 3 and not any("previous" in question for question in policy.asked)


def test_open_loop_stands_while_it_asks():
    commands = Robot(Policy(), "open-loop").run(10)
    assert [c.status for c in commands] == ["wait"] * 3 + ["run"] * 4 + ["hold"] * 3


def test_missed_ticks_are_gone_for_questions_and_commands_alike():
    policy = Policy()
    robot = Robot(policy)
    commands = robot.run(3) + robot.run(10, missed=2)
    assert [c.action.item() for c in commands if c.status == "run"] == [c.tick for c in commands if c.status == "run"]
    assert robot.controller.executor.counts.missed == 20 and commands[-1].tick == 32


def test_after_a_lost_connection_it_asks_again_with_what_it_sees_then(caplog):
    lost = ConnectionError("lost the policy")
    policy = Policy(fails=[None, lost, lost, lost, None])
    robot = Robot(policy, pause=0)
    with caplog.at_level(logging.WARNING):
        commands = robot.run(60)
    assert policy.connects == 3 and len(caplog.records) == 1, "said once"
    assert robot.looked[:3] == [0, 4, 16], "no question while there is nobody to ask"
    assert [c.status for c in commands[3:]].count("run") == 57, "20 actions of the first chunk bridge it"
    assert robot.controller.error is None


def test_without_a_server_for_long_it_holds_then_stops():
    lost = ConnectionError("lost the policy")
    robot = Robot(Policy(fails=[None] + [lost] * 100))
    found = [c.status for c in robot.run(100)]
    assert found == ["wait"] * 3 + ["run"] * 17 + ["hold"] * 50 + ["stop"] * 30
    assert robot.controller.error is lost


def test_a_refused_observation_is_not_repeated_at_every_tick(caplog):
    policy = Policy(fails=[PolicyError("camera 'wrist' is missing")] * 3)
    robot = Robot(policy, takes=1, pause=10)
    commands = robot.run(40)
    assert robot.looked[:4] == [0, 10, 20, 30] and statuses(commands)[-1] == ("run", 39)
    assert [record.getMessage() for record in caplog.records] == ["PolicyError: camera 'wrist' is missing"]


def test_who_does_not_want_us_is_not_asked_at_every_tick():
    """A key that is not valid any more is said at once, over and over."""
    policy = Policy(fails=[ConnectionError("no policy at …: 401")] * 100)
    Robot(policy, takes=1, pause=10).run(42)
    assert policy.connects == 5


def test_what_a_robot_could_not_see_is_asked_for_again():
    policy = Policy()
    robot = Robot(policy)
    look = robot.controller.observe
    robot.controller.observe = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        robot.run(1)
    robot.controller.observe = look
    robot.run(1)
    assert len(robot.looked) == 1 and robot.controller.executor.counts.lost == 1


def test_reset_forgets_here_and_there_and_what_is_on_its_way():
    policy = Policy()
    robot = Robot(policy)
    robot.run(6)  # one answer is there, another on its way
    robot.controller.reset()
    assert robot.controller.reply == {}
    commands = robot.run(4)
    assert [(c.tick, c.status) for c in commands] == [(tick, "wait") for tick in range(4)]
    assert robot.looked == [0, 4, 7] and robot.controller.executor.counts.refused == 1
    assert policy.resets == 1 and "previous" not in policy.asked[-1]


def test_executors_by_name():
    assert {name: type(executor_for(name, METADATA)) for name in EXECUTORS} == {
        "rtc": Executor,
        "open-loop": OpenLoop,
        "ensemble": TemporalEnsemble,
    }
    assert executor_for("rtc", METADATA).replan_steps == 4 and executor_for("rtc", {}).replan_steps == 1
    with pytest.raises(ValueError, match="no executor 'fast'; there are rtc, open-loop, ensemble"):
        executor_for("fast", METADATA)


@pytest.mark.parametrize("robot", robots.robot_names())
def test_who_waits_stands_still(robot):
    """Positions are kept, steps are not repeated, and no gripper opens."""
    robot = robots.load_robot(robot)
    late = executor_for("rtc", {"action_units": list(robot.action_units)}).late
    steps = ["step" in unit or unit.endswith("/s") for unit in robot.action_units]
    expected = np.where(steps, 0, 0.5)
    assert late.hold(np.full(robot.action_dim, 0.5)).tolist() == expected.tolist()
    assert late.stop(np.full(robot.action_dim, 0.5)).tolist() == expected.tolist()


class Held:
    """A policy that thinks until it is told to stop."""

    metadata = METADATA

    def __init__(self):
        self.go, self.asked = threading.Event(), threading.Event()

    def infer(self, observation):
        self.asked.set()
        self.go.wait(60)
        return {"actions": np.ones((HORIZON, 2), np.float32)}


def test_over_a_real_socket_the_loop_goes_on_while_the_policy_thinks():
    held = Held()
    with serve_in_background(held) as port:
        policy = PolicyClient(port=port)
        with Controller(policy, executor_for("rtc", policy.metadata), observe=dict) as controller:
            assert gc.get_freeze_count() > 10_000  # no collection of garbage will hold up the loop
            assert controller.next().status == "wait" and held.asked.wait(60)
            assert [controller.next().status for _ in range(100)] == ["wait"] * 100
            held.go.set()
            flying, _ = controller._pending
            flying.result(60)
            # The chunk began 101 ticks ago and is of no use any more; the next one is.
            assert controller.next().status == "wait"
            controller._pending[0].result(60)
            assert controller.next().status == "run"


def test_over_a_real_socket_leaving_does_not_wait_for_an_answer():
    held = Held()
    with serve_in_background(held) as port, contextlib.ExitStack() as stack:
        stack.callback(held.go.set)
        policy = PolicyClient(port=port, timeout_s=60)
        with Controller(policy, executor_for("rtc", policy.metadata), observe=dict) as controller:
            controller.next()
            assert held.asked.wait(60)
        assert not held.go.is_set()


LIMITS = {
    "limits": {"low": [-5.0], "high": [500.0], "speed": [20.0], "acceleration": [1000.0], "on_violation": "clip"},
    "action_units": ["rad"], "action_names": ["elbow"], "state_names": ["elbow"], "control_hz": 10.0,
}  # fmt: skip


class Jumping(Policy):
    """Wants 1000 at every tick."""

    def infer(self, observation):
        return super().infer(observation) | {"actions": np.full((HORIZON, 1), 1e3, np.float32)}


class Measured(Robot):
    """Measures where its elbow is."""

    def observe(self):
        return super().observe() | {"state": np.array([7.0], np.float32)}


def test_a_jump_is_taken_at_the_allowed_speed_from_where_the_robot_is(caplog):
    with caplog.at_level(logging.WARNING):
        commands = Measured(Jumping(**LIMITS)).run(12)
    sent = [command.action.item() for command in commands if command.action is not None]
    assert sent[:3] == pytest.approx([9.0, 11.0, 13.0])  # 20 per second at 10 Hz, from 7 on
    assert commands[-1].reasons == ("range", "speed") and commands[-1].status == "run"
    assert caplog.text.count("wanted [1000.], sent [9.]") == 1


def test_commands_within_the_limits_are_left_alone():
    plain, limited = Robot(Policy()).run(30), Robot(Policy(**LIMITS)).run(30)
    assert statuses(limited) == statuses(plain)
    assert not any(command.reasons for command in limited)


def test_limits_that_stop_rather_than_clip_do_so_in_the_same_tick():
    limits = LIMITS["limits"] | {"on_violation": "stop"}
    commands = Measured(Jumping(**(LIMITS | {"limits": limits}))).run(8)
    first = next(command for command in commands if command.action is not None)
    assert first.status == "stop" and first.action.item() == 7.0 and commands[-1].action.item() == 7.0


@pytest.mark.parametrize("limits", [{}, LIMITS], ids=["without limits", "with limits"])
def test_the_emergency_stop_holds_until_it_is_released_by_hand(limits):
    robot = Robot(Policy(**limits))
    robot.run(10)
    robot.controller.stop()
    stopped = robot.run(5)
    assert {command.status for command in stopped} == {"stop"} and len({c.action.item() for c in stopped}) == 1
    robot.controller.reset()
    assert {command.status for command in robot.run(8)} <= {"wait", "stop"}
    robot.controller.release()
    assert robot.run(8)[-1].status == "run"


def largest_step(commands):
    sent = [command.action.item() for command in commands if command.action is not None]
    return max(abs(b - a) for a, b in pairwise(sent))


class Followed(Robot):
    """Measures where its elbow was sent `lag` ticks ago, and wants to go on from there."""

    def __init__(self, *, lag, **options):
        self.elbow, self.lag = [0.0], lag
        super().__init__(Onwards(**LIMITS), **options)

    def observe(self):
        return super().observe() | {"state": np.array([self.elbow[max(0, len(self.elbow) - 1 - self.lag)]])}

    def run(self, ticks, **options):
        commands = []
        for _ in range(ticks):
            commands += super().run(1, **options)
            action = commands[-1].action
            self.elbow.append(self.elbow[-1] if action is None else action.item())
        return commands


class Onwards(Policy):
    """Wants 2 more at every tick, from where the robot was measured."""

    def infer(self, observation):
        actions = observation["state"] + 2.0 * np.arange(1, HORIZON + 1)[:, None]
        return super().infer(observation) | {"actions": actions}


@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("stopped", [False, True])
def test_after_a_reset_the_robot_goes_on_within_its_limits(lag, stopped):
    robot = Followed(lag=lag, takes=6)
    commands = robot.run(20)
    if stopped:
        robot.controller.stop()
    robot.controller.reset()
    commands += robot.run(12)
    robot.controller.release()
    commands += robot.run(20)
    assert commands[-1].status == "run" and largest_step(commands) <= 2.0 + 1e-4


@pytest.mark.parametrize("takes", [0, 1, SETTLED + 2])
def test_a_robot_that_was_moved_by_hand_after_a_reset_begins_where_it_is(takes):
    robot = Followed(lag=0)
    robot.run(20)
    robot.controller.reset()
    robot.clock.takes = takes
    robot.elbow.append(-3.0)
    started = next(c for c in robot.run(3 * SETTLED) if c.action is not None)
    assert started.action.item() == pytest.approx(-1.0), "2 from where it is, not from where it was sent"


def test_after_a_reset_nothing_is_asked_while_the_robot_still_moves():
    robot = Followed(lag=6, takes=0)
    robot.run(20)
    robot.controller.reset()
    commands = robot.run(12)
    assert [command.status for command in commands[:6]] == ["wait"] * 6 and commands[-1].status == "run"


def test_a_robot_that_was_stopped_before_its_first_command_begins_where_it_is():
    robot = Followed(lag=0, takes=0)
    robot.elbow.append(-3.0)
    robot.controller.stop()
    assert {command.action for command in robot.run(3)} == {None}
    robot.controller.release()
    started = next(c for c in robot.run(5) if c.action is not None)
    assert abs(started.action.item() + 3.0) <= 2.0 + 1e-4


def test_a_robot_that_drives_is_brought_to_rest_by_a_reset_although_nobody_answers():
    limits = {"low": [-1.0], "high": [1.0], "speed": [2.0], "acceleration": [None], "on_violation": "clip"}
    policy = Policy(**(LIMITS | {"action_units": ["m/s"], "limits": limits}))
    policy.infer = lambda observation: {"actions": np.full((HORIZON, 1), 0.8)}
    robot = Robot(policy)
    assert robot.run(10)[-1].action.item() == pytest.approx(0.8)
    policy.fails = [ConnectionError("gone")] * 1000
    policy.infer = functools.partial(Policy.infer, policy)
    robot.controller.reset()
    driving = [command.action.item() for command in robot.run(60) if command.action is not None]
    assert driving[:4] == pytest.approx([0.6, 0.4, 0.2, 0.0], abs=1e-6) and not any(driving[4:])


def test_answers_that_take_longer_than_a_chunk_are_an_error_that_says_so(caplog):
    robot = Robot(Policy(), takes=HORIZON + 3)
    with caplog.at_level(logging.WARNING):
        commands = robot.run(3 * HORIZON)
    assert {command.status for command in commands} == {"wait"}
    assert isinstance(robot.controller.error, TimeoutError)
    assert f"took {HORIZON + 3} ticks, and a chunk has {HORIZON} actions" in caplog.text
