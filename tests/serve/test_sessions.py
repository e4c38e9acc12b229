"""A robot that comes back goes on; what people see of it is bounded."""

import numpy as np
import pytest

from pilot.serve import sessions as module
from pilot.serve.limits import Limits
from pilot.serve.sessions import HISTORY, PICTURE_SIDE, SessionStore
from serve.policies import OBSERVATION

TIMING = {"infer_ms": 3.0, "queue_ms": 1.0, "total_ms": 5.0}


@pytest.fixture
def now():
    return [1000.0]


@pytest.fixture
def sessions(now):
    return SessionStore(Limits(resume_seconds=60, robots=2), clock=lambda: now[0])


def enter(sessions, name=None, *, owner="", policy="nano", kind=None, connection=None):
    robot = sessions.open(
        name,
        owner=owner,
        policy=policy,
        start_session=lambda: (object(), 0),
        metadata={"robot": "homes", "control_hz": 10.0},
        kind=kind,
    )
    robot.connection, robot.disconnected = connection or object(), None
    return robot


def leave(sessions, robot):
    sessions.disconnect(robot, robot.connection)


def test_who_comes_back_in_time_goes_on(sessions, now):
    robot = enter(sessions, "r1")
    leave(sessions, robot)
    now[0] += 60
    assert enter(sessions, "r1") is robot
    leave(sessions, robot)
    now[0] += 60.1
    assert enter(sessions, "r1") is not robot


def test_who_is_connected_is_never_forgotten(sessions, now):
    robot = enter(sessions, "r1")
    now[0] += 10_000
    assert enter(sessions, "r1") is robot


def test_a_session_belongs_to_an_owner_a_policy_and_a_kind_of_robot(sessions):
    robot = enter(sessions, "r1", owner="a")
    assert enter(sessions, "r1", owner="b") is not robot
    assert enter(sessions, "r1", owner="a", policy="other") is not robot
    legs = enter(sessions, "r1", owner="a", kind="legs")
    assert legs is not robot and legs.id != robot.id and enter(sessions, "r1", owner="a", kind="legs") is legs
    assert enter(sessions, "r1", owner="a") is robot


def test_without_a_name_every_stay_is_new(sessions):
    assert enter(sessions) is not enter(sessions)


def test_the_end_of_an_old_connection_is_not_the_end_of_the_new_one(sessions, now):
    old = object()
    robot = enter(sessions, "r1", connection=old)
    enter(sessions, "r1", connection=(new := object()))
    sessions.disconnect(robot, old)
    assert robot.connection is new and sessions.connected() == [robot]
    now[0] += 10_000
    assert enter(sessions, "r1", connection=new) is robot


def test_no_more_of_the_gone_are_remembered_than_may_be_connected(sessions, now):
    robots = []
    for name in "abcd":
        robots.append(enter(sessions, name))
        leave(sessions, robots[-1])
        now[0] += 1
    sessions.drop_expired()
    assert list(sessions) == robots[2:]


def test_who_is_called_alike_is_told_apart(sessions):
    robots = [enter(sessions, "r1"), enter(sessions, "r1", owner="a"), enter(sessions, "r1", policy="other")]
    assert [sessions.find(robot.id) for robot in robots] == robots


def test_the_name_is_not_shown(sessions):
    robot = enter(sessions, "secret")
    assert "secret" not in robot.id and sessions.find(robot.id) is robot and sessions.find("secret") is None


def test_a_command_stands_until_the_robot_says_something_new(sessions):
    robot = enter(sessions)
    assert robot.receive(OBSERVATION)["prompt"] == OBSERVATION["prompt"]
    robot.set_command("dance")
    assert [robot.receive(OBSERVATION)["prompt"] for _ in range(3)] == ["dance"] * 3
    assert OBSERVATION["prompt"] != "dance", "the robot's own is left alone"
    assert robot.receive({**OBSERVATION, "prompt": "sit"})["prompt"] == "sit" and robot.command is None
    robot.set_command("dance")
    robot.set_command(None)
    assert robot.receive({**OBSERVATION, "prompt": "sit"})["prompt"] == "sit"


def test_a_command_before_the_first_observation_waits_for_it(sessions):
    robot = enter(sessions)
    robot.set_command("dance")
    assert robot.receive(OBSERVATION)["prompt"] == "dance"


def told(robot, rows, subtask=None):
    robot.record_reply({"actions": np.zeros((rows, 2)), "subtask": subtask}, TIMING)


def test_how_much_of_a_chunk_was_done_is_said_or_seen(sessions):
    robot = enter(sessions)
    told(robot, 10)
    assert "executed" not in robot.receive({**OBSERVATION, "executed": 4})
    told(robot, 10)
    assert robot.previous_chunk.executed == 4
    robot.receive({**OBSERVATION, "previous": {"actions": np.zeros((7, 2)), "delay": 2}})
    told(robot, 10)
    assert robot.previous_chunk.executed == 3
    robot.receive({**OBSERVATION, "executed": 99})
    assert robot.chunk.executed == 10


def test_else_the_clock_tells(sessions, monkeypatch):
    robot, clock = enter(sessions), [50.0]
    monkeypatch.setattr(module.time, "time", lambda: clock[0])
    told(robot, 10)
    assert robot.chunk.executed_by(50.35, control_hz=10) == 3 and robot.chunk.executed_by(99, control_hz=10) == 10
    clock[0] += 0.25
    robot.receive(OBSERVATION)
    assert robot.chunk.executed == 2


def test_history_has_changes_only_and_an_end(sessions):
    robot = enter(sessions)
    for subtask in ["a", "a", "b", None, "b"]:
        told(robot, 1, subtask)
    assert [subtask for _, subtask in robot.history] == ["a", "b", "b"]
    for n in range(1000):
        told(robot, 1, str(n))
    assert len(robot.history) == HISTORY and len(robot.latency) == module.LATENCIES


def test_pictures_for_people_are_few_and_small(sessions, monkeypatch):
    robot, clock = enter(sessions), [50.0]
    monkeypatch.setattr(module.time, "time", lambda: clock[0])
    large = np.zeros((1080, 1920, 3), np.uint8)
    robot.receive({"images": {"room": large, "bad": np.zeros(3), "worse": None, "flat": np.zeros((0, 4, 3), np.uint8)}})
    (picture,) = robot.pictures.values()
    assert max(picture.image.shape) <= PICTURE_SIDE and not np.shares_memory(picture.image, large)
    assert picture.jpeg.startswith(b"\xff\xd8")
    robot.receive(OBSERVATION)
    assert set(robot.pictures) == {"room"}, "too soon for the next"
    clock[0] += 0.3
    robot.receive(OBSERVATION)
    assert set(robot.pictures) == {"room", "wrist"}


@pytest.mark.parametrize("images", [None, [1], 3, {"room": "text"}])
def test_no_pictures_is_no_trouble(sessions, images):
    robot = enter(sessions)
    robot.receive({"images": images})
    assert robot.pictures == {}


def at(sessions, name, address):
    robot = enter(sessions, name)
    robot.address = address
    robot.stay_stopped()
    return robot


def test_a_stop_holds_for_each_robot_of_a_host_until_that_one_is_released(sessions):
    left, right = at(sessions, "left", "10.0.0.5:1001"), at(sessions, "right", "10.0.0.5:1002")
    for robot in (left, right):
        robot.observations = 5
        robot.stop("a person pressed stop")
    left.release()
    sessions.disconnect(right, right.connection, over=True)
    again = at(sessions, "right, next episode", "10.0.0.5:1003")
    assert left.stopped is None and again.stopped == "a person pressed stop"
    again.release()
    sessions.disconnect(again, again.connection, over=True)
    assert at(sessions, "right, third episode", "10.0.0.5:1004").stopped is None
    assert at(sessions, "elsewhere", "10.0.0.6:1001").stopped is None


def test_a_stopped_robot_that_is_away_while_another_is_released_stays_stopped(sessions):
    left, right = at(sessions, "left", "10.0.0.5:1001"), at(sessions, "right", "10.0.0.5:1002")
    for robot in (left, right):
        robot.observations = 5
        robot.stop("a person pressed stop")
    leave(sessions, right)
    left.release()
    assert at(sessions, "right", "10.0.0.5:1003") is right
    sessions.disconnect(right, right.connection, over=True)
    assert at(sessions, "right, next episode", "10.0.0.5:1004").stopped == "a person pressed stop"


def test_a_stopped_robot_that_comes_back_without_end_is_remembered_once_and_stands_still(sessions):
    robot = at(sessions, "episode", "10.0.0.5:1001")
    robot.record_reply({"actions": np.array([[7.0, 1.0]] * 3)}, TIMING)
    robot.stop("a person pressed stop")
    for number in range(5):
        sessions.disconnect(robot, robot.connection, over=True)
        robot = at(sessions, f"episode {number}", "10.0.0.5:1001")
        robot.metadata = MEANING
        assert robot.stand_still({"state": np.array([0.4])})["actions"][0] == pytest.approx([7.0, 0.4])
    assert robot.stopped_places[robot.place] == [robot]


MEANING = {
    "action_names": ["x", "elbow"], "state_names": ["elbow"], "action_units": ["m", "rad"], "action_horizon": 3,
}  # fmt: skip


def test_a_robot_stands_still_only_where_it_is_known_to_be(sessions):
    robot = enter(sessions, "r1")
    robot.metadata = MEANING
    robot.stop("a person pressed stop")
    with pytest.raises(ValueError, match="a person pressed stop"):
        robot.stand_still({"state": np.array([0.4])})
    robot.record_reply({"actions": np.array([[7.0, 1.0]] * 3)}, TIMING)
    assert robot.stand_still({"state": np.array([0.4])})["actions"] == pytest.approx(np.array([[7.0, 0.4]] * 3))


def test_a_gripper_that_holds_something_is_not_told_to_stay_as_wide_as_it_is(sessions):
    robot = enter(sessions, "r1")
    robot.metadata = MEANING | {"action_names": ["x", "hand"], "state_names": ["hand"], "grippers": ["hand"]}
    robot.stop("a person pressed stop")
    robot.record_reply({"actions": np.array([[7.0, 0.0]] * 3)}, TIMING)
    assert robot.stand_still({"state": np.array([0.4])})["actions"][0].tolist() == [7.0, 0.0]


@pytest.mark.parametrize("state", [np.zeros(0), np.array(1.0), np.zeros((1, 1)), np.zeros(2), {}, "here"], ids=repr)
def test_a_stopped_robot_that_sends_another_state_hears_of_it(sessions, state):
    """It is the robot that is wrong, not the policy; and nobody reads a place from what may be another's."""
    robot = enter(sessions, "r1")
    robot.metadata = MEANING
    robot.stop("a person pressed stop")
    robot.record_reply({"actions": np.array([[7.0, 1.0]] * 3)}, TIMING)
    with pytest.raises(ValueError, match=r"'state' .*elbow"):
        robot.stand_still({"state": state})


def test_actions_that_are_left_of_a_chunk_and_are_no_chunk_say_nothing_of_it(sessions):
    robot = enter(sessions, "r1")
    robot.record_reply({"actions": np.zeros((3, 2))}, TIMING)
    robot.receive({"previous": {"actions": np.array(1.0), "delay": 0}})
    assert robot.chunk is not None and robot.chunk.executed == 0


def test_a_robot_that_comes_back_is_told_what_holds_now(sessions):
    robot = enter(sessions, "r1")
    robot.metadata = {"control_hz": 1.0}
    assert enter(sessions, "r1").metadata["control_hz"] == 10.0
