"""People look, and say things to robots."""

import asyncio
import contextlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from pilot.serve.auth import ApiKeys
from pilot.serve.client import PolicyError
from pilot.serve.control import Controller, executor_for
from pilot.serve.limits import Limits, RateLimit
from pilot.serve.server import serve_in_background
from pilot.serve.state import ServerState, to_hosted
from pilot.serve.viewers import Viewer, serve_viewer
from serve.policies import OBSERVATION, CountingPolicy, eventually, robot

KEY = "a-key-for-tests"


@pytest.fixture(scope="module")
def port():
    with serve_in_background(CountingPolicy(), command_key=KEY) as port:
        yield port


@contextlib.contextmanager
def command(port):
    """A viewer who may command."""
    with look(port) as viewer:
        say(viewer, key=KEY)
        assert next_of(viewer, "role") == {"kind": "role", "command": True}
        say(viewer, watch=None)  # views that came before are lost
        yield viewer


def look(port):
    return connect(f"ws://127.0.0.1:{port}/live", max_size=None)


def next_of(viewer, kind, holds=lambda message: True):
    """The next message of that kind of which it holds; a viewer gets others meanwhile."""
    while True:
        message = json.loads(viewer.recv(timeout=300))
        if message["kind"] == kind and holds(message):
            return message


def say(viewer, **message):
    viewer.send(json.dumps(message))


def session_after(viewer, *, observations):
    """The session of the only robot that is connected, once it has been answered so often."""
    view = next_of(viewer, "view", lambda view: observations in [r["observations"] for r in connected(view)])
    return connected(view)[0]["session"]


def connected(view):
    return [robot for robot in view["robots"] if robot["connected"]]


def test_what_is_new_is_shown(port):
    with robot(port) as client, look(port) as viewer:
        client.infer(OBSERVATION)
        say(viewer, watch=session_after(viewer, observations=1))
        watched = next_of(viewer, "view", lambda view: view["watched"] and view["watched"]["connected"])["watched"]
        assert watched["prompt"] == OBSERVATION["prompt"] and watched["subtask"] == "done"
        assert [entry["subtask"] for entry in watched["history"]] == ["done"]
        assert set(watched["latency_ms"]) == {"total", "queue", "infer"} and watched["latency_ms"]["total"]["n"] == 1
        assert watched["chunk"]["actions"] == [[0, 1, 2, 3, 4]] * 3 and watched["before"] is None
        client.infer({**OBSERVATION, "executed": 2})
        view = next_of(viewer, "view", lambda view: view["watched"]["observations"] == 2)
        assert view["watched"]["before"]["executed"] == 2


def test_a_command_is_heard_and_ended(port):
    with robot(port) as client, command(port) as viewer:
        assert client.infer(OBSERVATION)["heard"] == OBSERVATION["prompt"]
        session = session_after(viewer, observations=1)
        say(viewer, session=session, prompt="  dance ")
        assert next_of(viewer, "done") == {"kind": "done", "session": session, "command": "dance"}
        assert client.infer(OBSERVATION)["heard"] == "dance"
        say(viewer, session=session, prompt=None)
        assert next_of(viewer, "done")["command"] is None
        assert client.infer(OBSERVATION)["heard"] == OBSERVATION["prompt"]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("hello", "a message is JSON"),
        ("[" * 5000, "a message is JSON"),
        ('{"a": "' + "x" * 5000 + '"}', "a message is JSON"),
        ("[1]", "a message is JSON"),
        (b"\x80", "a message is JSON"),
        ('{"session": "nobody", "prompt": "dance"}', "no robot has the session 'nobody'"),
        ("{}", "no robot has the session None"),
        ('{"session": "nobody", "stop": 1}', "'stop' is true or false, got 1"),
    ],
    ids=lambda value: repr(value)[:12],
)
def test_what_is_not_understood_is_said(port, message, words):
    with look(port) as viewer:
        viewer.send(message)
        assert words in next_of(viewer, "error")["error"]
        viewer.send(message)
        next_of(viewer, "error")


def test_a_message_that_says_nothing_ends_no_command(port):
    with robot(port), command(port) as viewer:
        say(viewer, session=session_after(viewer, observations=0))
        assert "says 'stop' or 'prompt'" in next_of(viewer, "error")["error"]


@pytest.mark.parametrize("prompt", ["", "   ", "x" * 401, 3, ["dance"]])
def test_a_command_is_words(port, prompt):
    with robot(port), command(port) as viewer:
        say(viewer, session=session_after(viewer, observations=0), prompt=prompt)
        assert "a command has 1 to 400 characters" in next_of(viewer, "error")["error"]


def test_half_a_letter_is_no_word(port):
    with robot(port), command(port) as viewer:
        say(viewer, session=session_after(viewer, observations=0), prompt="go \ud800")
        assert "a command must be valid text, got half a character" in next_of(viewer, "error")["error"]


@pytest.mark.parametrize("key", [None, "not-the-key-printed", "\ud800"])
def test_without_the_key_that_the_server_printed_nobody_commands_a_robot(port, key):
    """A page from elsewhere and another user of the machine reach the server, and know nothing of that key."""
    with robot(port) as client, look(port) as viewer:
        client.infer(OBSERVATION)
        session = session_after(viewer, observations=1)
        if key is not None:
            say(viewer, key=key)
            assert next_of(viewer, "role")["command"] is False
        for message in ({"prompt": "dance"}, {"prompt": None}, {"stop": False}):
            say(viewer, session=session, **message)
            assert "commands need the key that the server printed" in next_of(viewer, "error")["error"]
        assert client.infer(OBSERVATION)["heard"] == OBSERVATION["prompt"]


@pytest.mark.parametrize(
    ("roles", "acts", "watches", "commands"),
    [(("act",), True, False, False), (("watch",), False, True, False), (("command",), False, True, True)],
)
def test_a_key_opens_what_its_roles_say(roles, acts, watches, commands):
    own = "a-key-with-some-roles"
    keys = ApiKeys({KEY: ("act",), own: roles})
    with serve_in_background(CountingPolicy(), keys=keys) as port, robot(port, api_key=KEY) as client:
        client.infer(OBSERVATION)
        if acts:
            with robot(port, api_key=own) as other:
                assert other.infer(OBSERVATION)["seen"] == 1
        else:
            with pytest.raises(ConnectionError, match="may not 'act'"):
                robot(port, api_key=own)
        with look(port) as viewer:
            viewer.recv(timeout=300)
            say(viewer, key=own)
            if not watches:
                assert "may not 'watch'" in next_of(viewer, "error")["error"]
                return
            say(viewer, session=session_after(viewer, observations=1), prompt="dance")
            if not commands:
                assert "may watch and stop robots" in next_of(viewer, "error")["error"]
                return
            assert next_of(viewer, "done")["command"] == "dance"


class ArmPolicy(CountingPolicy):
    """Wants its joint at 9 and its wheel to turn, from wherever they are."""

    limits: dict | None = None

    def __init__(self, limits=None):
        super().__init__()
        self.metadata = {
            "robot": "arm", "action_horizon": 3, "action_names": ["joint", "wheel", "hand"], "limits": limits,
            "action_units": ["rad", "rad/s", "0 to 1"], "state_names": ["joint", "speed"], "control_hz": 10.0,
        }  # fmt: skip

    def session(self):
        return self

    def infer(self, observation):
        self.seen += 1
        return {"actions": np.tile(np.array([9, 1, 0.7], np.float32), (3, 1)), "subtask": "reach"}


def test_an_emergency_stop_needs_no_key_and_holds_until_somebody_with_the_key_releases():
    policy, sight = ArmPolicy(), {"state": np.array([0.25, 3.0], np.float32), "prompt": "reach"}
    with serve_in_background(policy, command_key=KEY) as port, robot(port) as client, look(port) as viewer:
        assert client.infer(sight)["actions"][0].tolist() == pytest.approx([9, 1, 0.7])
        session = session_after(viewer, observations=1)
        say(viewer, session=session, stop=True)
        assert next_of(viewer, "done") == {"kind": "done", "session": session, "stopped": True}
        reply = client.infer(sight)
        np.testing.assert_allclose(reply["actions"], np.tile([0.25, 0, 0.7], (3, 1)))
        assert reply["stopped"] == "a person pressed stop" and policy.seen == 1, "nobody asks the policy meanwhile"
        assert next_of(viewer, "view", lambda view: view["watched"]["stopped"])["watched"]["session"] == session
        client.reset()
        assert client.infer(sight)["stopped"], "another session of the same robot"
        new = next_of(viewer, "view", lambda view: session not in [r["session"] for r in connected(view)])
        with command(port) as person:
            say(person, session=connected(new)[0]["session"], stop=False)
            assert next_of(person, "done")["stopped"] is False
        reply = client.infer(sight)
        assert reply["released"] and reply["actions"][0].tolist() == pytest.approx([9, 1, 0.7])


def test_one_button_stops_all_robots():
    sight = {"state": np.array([0.25, 3.0], np.float32), "prompt": "reach"}
    with serve_in_background(ArmPolicy()) as port, robot(port) as one, robot(port) as other, look(port) as viewer:
        one.infer(sight), other.infer(sight)
        say(viewer, stop=True)
        assert next_of(viewer, "done") == {"kind": "done", "session": None, "stopped": True}
        assert one.infer(sight)["stopped"] and other.infer(sight)["stopped"]


def test_a_controller_stops_and_goes_on_as_the_dashboard_says():
    sight = {"state": np.array([0.25, 3.0], np.float32), "prompt": "reach"}
    with serve_in_background(ArmPolicy(), command_key=KEY) as port, command(port) as person:
        client = robot(port)
        executor = executor_for("rtc", client.metadata | {"replan_steps": 1})
        with Controller(client, executor, observe=lambda: sight) as controller:

            def until(holds):
                eventually(lambda: holds(controller.next()))

            until(lambda now: now.status == "run")
            say(person, stop=True)
            until(lambda now: now.status == "stop" and now.reasons == ("stopped",) and now.action[1] == 0)
            say(person, session=connected(next_of(person, "view", connected))[0]["session"], stop=False)
            until(lambda now: now.status == "run" and now.action[1] == 1)
            say(person, stop=True)
            until(lambda now: now.status == "stop")
            controller.stop()
            say(person, session=connected(next_of(person, "view", connected))[0]["session"], stop=False)
            eventually(lambda: controller.next() and controller.reply.get("released"))
            assert controller.next().status == "stop", "who stopped it at the robot releases it there"
            controller.release()
            until(lambda now: now.status == "run")


LIMITS = {"low": [-1, -2, 0], "high": [1, 2, 1], "speed": [1, 40, 20], "acceleration": [None] * 3}


def test_no_chunk_leaves_the_server_that_is_not_within_the_robots_limits(caplog):
    sight = {"state": np.array([0.25, 3.0], np.float32), "prompt": "reach"}
    policy = ArmPolicy(LIMITS | {"on_violation": "clip"})
    with serve_in_background(policy) as port, robot(port) as client, caplog.at_level("WARNING"):
        reply = client.infer(sight)
    np.testing.assert_allclose(reply["actions"], np.tile([1, 1, 0.7], (3, 1)))
    assert reply["limited"] == ["range"]
    assert (
        "1 chunks left the robot's limits so far; the last (range) wanted [9.  1.  0.7], sent [1.  1.  0.7]"
        in caplog.text
    )


def test_a_robot_may_rather_be_stopped_than_kept_within_its_limits():
    policy = ArmPolicy(LIMITS | {"on_violation": "stop"})
    policy.metadata["state_names"] = ["joint", "speed", "hand"]
    sight = {"state": np.array([0.25, 3.0, 0.6], np.float32), "prompt": "reach"}
    with serve_in_background(policy) as port, robot(port) as client:
        reply = client.infer(sight)
    assert reply["stopped"] == "its policy left its limits: range"
    np.testing.assert_allclose(reply["actions"], np.tile([0.25, 0, 0.6], (3, 1)))


def test_a_stopped_robot_gets_no_command_for_a_hand_that_nobody_has_measured_or_commanded():
    sight = {"state": np.array([0.25, 3.0], np.float32), "prompt": "reach"}
    policy, refused = ArmPolicy(LIMITS | {"on_violation": "stop"}), pytest.raises(PolicyError, match="was stopped")
    with serve_in_background(policy) as port, robot(port) as client, refused:
        client.infer(sight)


def test_who_looks_needs_a_key_where_robots_need_one():
    with serve_in_background(CountingPolicy(), keys=ApiKeys([KEY])) as port:
        with look(port) as viewer:
            assert json.loads(viewer.recv(timeout=300)) == {"kind": "key"}
            say(viewer, key=KEY)
            assert next_of(viewer, "view")["robots"] == []
        for wrong in ({"key": "wrong-key"}, {"key": None}, {"watch": "1"}, [KEY]):
            with look(port) as viewer:
                viewer.recv(timeout=300)
                viewer.send(json.dumps(wrong))
                assert json.loads(viewer.recv(timeout=300))["kind"] == "error"
                with pytest.raises(ConnectionClosed) as closed:
                    viewer.recv(timeout=300)
                assert closed.value.rcvd.code == 4003


def test_one_viewer_too_many_is_turned_away_and_robots_are_not():
    with serve_in_background(CountingPolicy(), limits=Limits(viewers=1)) as port, look(port) as viewer:
        next_of(viewer, "view")
        with pytest.raises(Exception, match="503"), look(port):
            pass
        with robot(port) as client:
            assert client.infer(OBSERVATION)["seen"] == 1


class Page:
    """A viewer's connection that takes all in at once, and says `messages`."""

    def __init__(self, *messages, fails=None):
        self.messages, self.fails, self.heard, self.cut = list(messages), fails, [], False
        self.remote_address, self.transport = None, SimpleNamespace(abort=self.abort)

    def abort(self):
        self.cut = True

    async def send_message(self, message):
        if self.fails is not None:
            raise self.fails
        self.heard.append(json.loads(message))

    async def __aiter__(self):
        for message in self.messages:
            yield message


@pytest.fixture
def state():
    state = ServerState(policies=to_hosted(CountingPolicy(), max_batch=1))
    yield state
    for hosted in state.policies.values():
        hosted.batcher.close()


def test_what_cannot_be_shown_is_logged_and_the_viewer_is_cut_off(state, monkeypatch, caplog):
    monkeypatch.setattr("pilot.serve.live.build_view", lambda *args, **more: {"box": object()})
    page = Page()
    asyncio.run(Viewer(state, page).send_views())
    assert page.cut and "a view could not be sent" in caplog.text and "not JSON serializable" in caplog.text


def test_who_talks_too_much_is_told(state):
    viewer = Viewer(state, Page())
    viewer.rate = RateLimit(3.0, what="messages", clock=lambda: 0.0)
    kinds = [viewer.handle_message('{"watch": null}')["kind"] for _ in range(4)]
    assert kinds == ["view"] * 3 + ["error"]
    assert "more than 3 messages in a second" in viewer.handle_message('{"watch": null}')["error"]


def test_who_talks_without_a_pause_lets_others_speak(state):
    async def visit():
        others = asyncio.create_task(count())
        await serve_viewer(state, Page(*["nonsense"] * 100))
        others.cancel()

    turns = []

    async def count():
        while True:
            turns.append(1)
            await asyncio.sleep(0)

    asyncio.run(visit())
    assert len(turns) >= 100


def test_half_a_letter_is_no_key():
    with serve_in_background(CountingPolicy(), keys=ApiKeys([KEY])) as port, look(port) as viewer:
        say(viewer, key="\ud800")
        assert next_of(viewer, "error")["error"] == "this server does not know this API key"
