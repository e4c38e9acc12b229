"""Benchmarks that speak vla-evaluation-harness's protocol drive a served policy; the stand-in here is such a client."""

import io
import json
import time
import urllib.request
from contextlib import contextmanager
from typing import ClassVar

import msgpack
import numpy as np
import pytest
from PIL import Image
from websockets.sync.client import connect

from pilot.robots.libero import ROBOT as LIBERO
from pilot.serve.limits import Limits
from pilot.serve.server import serve_in_background
from pilot.serve.vla_eval import read_arrays, translate
from serve.policies import robot

PICTURE = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
STATE = np.linspace(0, 0.7, 8)


class LiberoPolicy:
    """Answers with a chunk of which action `i` is 10·look + i; sessions count their looks."""

    metadata: ClassVar = {
        "robot": "libero", "cameras": list(LIBERO.cameras), "state_names": list(LIBERO.state_names),
        "action_names": list(LIBERO.action_names), "action_horizon": 6, "replan_steps": 3,
    }  # fmt: skip

    def __init__(self) -> None:
        self.looks, self.opened, self.shown = 0, [], []

    def session(self) -> "LiberoPolicy":
        self.opened.append(session := LiberoPolicy())
        session.shown = self.shown
        return session

    def infer(self, observation):
        if observation["prompt"] == "crash":
            raise ValueError("this prompt cannot be read")
        self.shown.append(observation)
        self.looks += 1
        return {"actions": np.tile(10.0 * self.looks + np.arange(6)[:, None], 7).astype(np.float32), "subtask": None}


class Benchmark:
    """A client of the protocol, version 1: hello, then episodes of observations, each answered by one action."""

    def __init__(self, socket, *, pictures: str = "png") -> None:
        self.socket, self.pictures, self.sent = socket, pictures, 0

    def send(self, kind: str, payload: dict) -> int:
        self.sent += 1
        message = {"type": kind, "payload": payload, "seq": self.sent, "timestamp": time.time()}
        self.socket.send(msgpack.packb(message, default=self.encode, use_bin_type=True))
        return self.sent

    def receive(self) -> dict:
        return msgpack.unpackb(self.socket.recv(timeout=120), object_hook=self.decode, raw=False)

    def ask(self, kind: str, payload: dict) -> dict:
        seq, answer = self.send(kind, payload), self.receive()
        assert answer["seq"] == seq and set(answer) == {"type", "payload", "seq", "timestamp"}
        return answer

    def encode(self, value):
        if self.pictures != "raw" and value.ndim == 3 and value.dtype == np.uint8:
            file = io.BytesIO()
            Image.fromarray(value).save(file, self.pictures.upper())
            return {"__image__": True, "format": self.pictures, "data": file.getvalue(), "shape": list(value.shape)}
        plain = {"data": value.tobytes(), "dtype": value.dtype.str, "shape": list(value.shape)}
        return plain | ({"__image__": True, "format": "raw"} if value.ndim == 3 else {"__ndarray__": True})

    @staticmethod
    def decode(value):
        if "__ndarray__" not in value:
            return value
        return np.frombuffer(value["data"], np.dtype(value["dtype"])).reshape(value["shape"])

    def act(self, **changes) -> np.ndarray:
        seen = {"images": {"agentview": PICTURE, "wrist": PICTURE[::-1].copy()}, "states": STATE}
        answer = self.ask("observation", seen | {"task_description": "open the drawer"} | changes)
        assert answer["type"] == "action", answer
        return answer["payload"]["actions"]


@contextmanager
def benchmark(port: int, path: str = "vla-eval", **options):
    with connect(f"ws://127.0.0.1:{port}/{path}", max_size=None, compression=None) as socket:
        yield Benchmark(socket, **options)


@pytest.fixture(scope="module")
def served():
    policy = LiberoPolicy()
    with serve_in_background({"first": policy, "other": LiberoPolicy()}) as port:
        yield port, policy


def test_a_hello_is_answered_and_says_what_is_wanted(served):
    with benchmark(served[0]) as client:
        hello = client.ask("hello", {"harness_version": "0.1", "protocol_version": 1, "benchmark": "LIBERO"})
    assert hello["type"] == "hello" and hello["payload"]["protocol_version"] == 1
    assert hello["payload"]["harness_version"].startswith("pilot ")
    wanted = hello["payload"]["observation_params"]
    assert wanted == {"send_wrist_image": True, "send_state": True, "quat_no_antipodal": True}
    assert not {"action_spec", "observation_spec"} & hello["payload"].keys(), "nothing to be warned of"


def test_each_observation_gets_one_action_and_the_policy_looks_once_per_replan_steps(served):
    port, policy = served
    with benchmark(port) as client:
        client.send("episode_start", {"task": {"name": "open the drawer", "task_id": 3}})
        actions = [client.act() for _ in range(7)]
        assert [action[0] for action in actions] == [10, 11, 12, 20, 21, 22, 30]
        assert all(action.shape == (7,) and action.dtype == np.float32 for action in actions)
        client.send("episode_end", {"metrics": {"success": True}, "steps": 7})
        client.send("episode_start", {"task": {"name": "open the drawer", "task_id": 3}})
        assert client.act()[0] == 10, "a new episode is a new session, and nothing of the old chunk is left"
    seen = policy.shown[-1]
    np.testing.assert_array_equal(seen["images"]["image"], PICTURE)
    np.testing.assert_array_equal(seen["images"]["wrist_image"], PICTURE[::-1])
    np.testing.assert_allclose(seen["state"], STATE, rtol=1e-6)
    assert seen["prompt"] == "open the drawer" and seen["state"].dtype == np.float32


class StillPolicy(LiberoPolicy):
    """Says what its actions mean, so that its robot can stand still."""

    metadata: ClassVar = LiberoPolicy.metadata | {"action_units": list(LIBERO.action_units)}


def test_a_stop_and_a_release_hold_from_the_next_action_on():
    """What is left of a chunk is from before the stop, or would stand still after the release."""
    key = "a-key-for-tests"
    with (
        serve_in_background(StillPolicy(), command_key=key) as port,
        connect(f"ws://127.0.0.1:{port}/live", max_size=None) as viewer,
        benchmark(port) as client,
    ):

        def command(**message) -> dict:
            viewer.send(json.dumps(message))
            while (answer := json.loads(viewer.recv(timeout=120)))["kind"] == "view":
                pass
            return answer

        assert [client.act()[0] for _ in range(2)] == [10, 11]
        assert command(stop=True)["kind"] == "done"
        for _ in range(2):
            assert client.act().tolist() == [0, 0, 0, 0, 0, 0, 11], (
                "no motion, and the gripper as it was commanded last"
            )
        command(key=key)
        (session,) = [robot["session"] for robot in view_of(port)["robots"]]
        assert command(session=session, stop=False)["kind"] == "done"
        assert [client.act()[0] for _ in range(2)] == [20, 21]


def view_of(port: int) -> dict:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/live") as answer:
        return json.load(answer)


@pytest.mark.parametrize("pictures", ["raw", "jpeg"])
def test_pictures_come_as_raw_bytes_or_jpeg_too(served, pictures):
    port, policy = served
    smooth = np.full((32, 32, 3), 90, np.uint8)
    with benchmark(port, pictures=pictures) as client:
        client.act(images={"agentview": smooth, "wrist": smooth})
    assert np.abs(policy.shown[-1]["images"]["image"].astype(int) - 90).max() <= 1


def test_what_does_not_fit_is_an_error_that_says_what_to_do_and_the_connection_goes_on(served):
    with benchmark(served[0], path="vla-eval/other") as client:

        def error(**changes) -> str:
            seen = {"images": {"agentview": PICTURE, "wrist": PICTURE}, "states": STATE, "task_description": "go"}
            answer = client.ask("observation", seen | changes)
            assert answer["type"] == "error"
            return answer["payload"]["error"]

        assert "sends agentview; switch its other cameras on" in error(images={"agentview": PICTURE})
        assert "state of 8 (x, y, z, rx, ry, rz, finger_left, finger_right), got one of shape [7]" in error(
            states=STATE[:7]
        )
        assert "switch it on with send_state: true" in error(states=None)
        assert "'task_description' is the instruction" in error(task_description=3)
        assert "has 'images' by camera" in error(images={})
        assert "this prompt cannot be read" in error(task_description="crash")
        assert "cannot be read as png" in error(images={"a": {"__image__": True, "format": "png", "data": b"no"}})
        assert "got format 'gif'" in error(images={"a": {"__image__": True, "format": "gif", "data": b"no"}})
        assert "got format ['png']" in error(images={"a": {"__image__": True, "format": ["png"], "data": b"no"}})
        assert "the state is a vector of numbers" in error(states=[{}] * 8)
        deep: list = []
        for _ in range(990):
            deep = [deep]
        assert "nested 16 deep at most" in error(images={"agentview": deep})
        mixed = client.ask("observation", {"images": {}, b"bytes": 1})
        assert "has 'images' by camera" in mixed["payload"]["error"]
        assert "unknown message type 'dance'" in client.ask("dance", {})["payload"]["error"]
        assert client.act()[0] == 10


def test_messages_of_others_are_answered_with_what_this_path_speaks(served):
    with connect(f"ws://127.0.0.1:{served[0]}/vla-eval") as socket:
        socket.send(msgpack.packb({"images": {}}))
        answer = msgpack.unpackb(socket.recv(timeout=120))
        assert "is the client vla-evaluation-harness?" in answer["payload"]["error"]
        socket.send("hello")
        assert "got a text" in msgpack.unpackb(socket.recv(timeout=120))["payload"]["error"]


def test_robots_of_our_own_protocol_are_served_beside_it(served):
    with robot(served[0]) as client:
        seen = {"images": {"image": PICTURE, "wrist_image": PICTURE}, "state": STATE, "prompt": "go"}
        assert client.infer(seen)["actions"].shape == (6, 7)


def test_a_small_file_of_a_huge_picture_is_refused():
    file = io.BytesIO()
    Image.new("RGB", (9000, 9000)).save(file, "PNG")
    huge = {"__image__": True, "format": "png", "data": file.getvalue(), "shape": [9000, 9000, 3]}
    with pytest.raises(ValueError, match="a picture of 9000 x 9000 pixels, the limit is"):
        read_arrays({"images": {"a": huge}}, Limits())


def test_cameras_of_the_robots_own_names_are_taken_by_name():
    images = {"wrist_image": PICTURE, "image": PICTURE + 1, "third": PICTURE}
    seen = translate({"images": images, "task_description": "go", "state": STATE}, LiberoPolicy.metadata)
    assert list(seen["images"]) == ["image", "wrist_image"] and (seen["images"]["image"] == PICTURE + 1).all()
