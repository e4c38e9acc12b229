"""Server and client together: answers, errors that stay with the offender, sessions, and a calm end."""

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from pilot.serve.client import PolicyClient, PolicyError
from pilot.serve.limits import Limits
from pilot.serve.server import serve_in_background
from pilot.serve.wire import MAX_BYTES, pack, unpack
from serve.openpi_client_check import EchoPolicy

HERE = Path(__file__).parent
OBSERVATION = {
    "images": {"room": np.full((64, 64, 3), 7, np.uint8), "wrist": np.zeros((64, 64, 3), np.uint8)},
    "state": np.arange(5, dtype=np.float32),
    "prompt": "put the red cup in the sink",
}
METADATA = {"robot": "homes", "action_horizon": 3}


class CountingPolicy:
    """Answers with the state, and with how many observations this session has seen."""

    def __init__(self):
        self.metadata = METADATA
        self.seen = 0

    def session(self):
        return CountingPolicy()

    def infer(self, observation):
        self.seen += 1
        if observation["prompt"] == "crash":
            raise RuntimeError("out of luck")
        if observation["prompt"] == "wait":
            time.sleep(0.3)
        if observation["state"].shape != (5,):
            raise ValueError(f"state has {observation['state'].size} dims, robot 'homes' declares 5")
        if observation["prompt"] == "large":
            return {"actions": np.zeros((200_000, 5), np.float32)}
        return {"actions": np.tile(observation["state"], (3, 1)), "subtask": "done", "seen": self.seen}


@pytest.fixture(scope="module")
def port():
    with serve_in_background(CountingPolicy()) as port:
        yield port


def test_a_round_trip(port):
    with PolicyClient(port=port) as client:
        assert client.metadata == METADATA
        reply = client.infer(OBSERVATION)
        np.testing.assert_array_equal(reply["actions"], np.tile(OBSERVATION["state"], (3, 1)))
        assert reply["actions"].dtype == np.float32 and reply["subtask"] == "done"
        assert set(reply["server_timing"]) == {"infer_ms", "queue_ms", "total_ms"} and client.latency_ms > 0


def test_an_error_says_why_and_the_connection_goes_on(port):
    with PolicyClient(port=port) as client:
        with pytest.raises(PolicyError, match="state has 4 dims, robot 'homes' declares 5"):
            client.infer(OBSERVATION | {"state": np.zeros(4, np.float32)})
        with pytest.raises(PolicyError, match="RuntimeError: out of luck") as failure:
            client.infer(OBSERVATION | {"prompt": "crash"})
        assert "Traceback" not in str(failure.value) and ".py" not in str(failure.value)
        assert client.infer(OBSERVATION)["seen"] == 3


@pytest.mark.parametrize("message", ["hello", b"\xc1", b"", pack([1]), pack(OBSERVATION)[:-7]])
def test_garbage_gets_a_text_and_the_connection_goes_on(port, message):
    with connect(f"ws://127.0.0.1:{port}") as socket:
        socket.recv()
        socket.send(message)
        assert isinstance(socket.recv(), str)
        socket.send(pack(OBSERVATION))
        assert unpack(socket.recv())["subtask"] == "done"


def test_a_message_over_the_limit_closes_only_the_offender(port, monkeypatch):
    with PolicyClient(port=port) as good, connect(f"ws://127.0.0.1:{port}", compression=None) as bad:
        bad.recv()
        with pytest.raises(ConnectionClosed):
            bad.send(b"\0" * (MAX_BYTES + 1))
            bad.recv()
        assert good.infer(OBSERVATION)["seen"] == 1


def test_sessions_are_apart_and_reset_starts_anew(port):
    with PolicyClient(port=port) as first, PolicyClient(port=port) as second:
        assert [first.infer(OBSERVATION)["seen"] for _ in range(3)] == [1, 2, 3]
        assert second.infer(OBSERVATION)["seen"] == 1
        first.reset()
        assert first.infer(OBSERVATION)["seen"] == 1


def test_many_robots_at_once(port):
    def drive(number):
        state = np.full(5, number, np.float32)
        with PolicyClient(port=port) as client:
            return [client.infer(OBSERVATION | {"state": state})["actions"][0, 0] for _ in range(20)]

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(drive, range(16))) == [[number] * 20 for number in range(16)]


def test_a_reader_that_never_reads_disturbs_nobody(port):
    # No limit on its side: a client that hangs up on a large answer would be gone, not slow.
    never_reads = connect(f"ws://127.0.0.1:{port}", close_timeout=0.1, max_size=None, max_queue=1)
    with never_reads as slow, PolicyClient(port=port) as good:
        for _ in range(10):
            slow.send(pack(OBSERVATION | {"prompt": "large"}))
        assert [good.infer(OBSERVATION)["seen"] for _ in range(5)] == [1, 2, 3, 4, 5]


def test_health(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as reply:
        assert (reply.status, reply.read()) == (200, b"ok\n")


def test_one_robot_too_many_is_turned_away():
    with serve_in_background(CountingPolicy(), limits=Limits(robots=1)) as port, PolicyClient(port=port) as client:
        with pytest.raises(ConnectionError, match="503"):
            PolicyClient(port=port, wait_s=0)
        assert client.infer(OBSERVATION)["seen"] == 1


def test_the_answer_under_way_is_still_given_when_the_server_stops():
    with serve_in_background(CountingPolicy()) as port:
        client, replies = PolicyClient(port=port, wait_s=0), []
        waiting = threading.Thread(target=lambda: replies.append(client.infer(OBSERVATION | {"prompt": "wait"})))
        waiting.start()
        time.sleep(0.1)
    waiting.join()
    assert replies[0]["subtask"] == "done"
    with pytest.raises(ConnectionError, match="the next call connects again"):
        client.infer(OBSERVATION)
    with pytest.raises(ConnectionError, match="no policy at"):
        client.infer(OBSERVATION)


def test_a_policy_without_sessions_or_metadata_is_served_too():
    class Plain:
        def infer(self, observation):
            return {"actions": np.zeros((1, 4))}

    with serve_in_background(Plain()) as port, PolicyClient(port=port) as client:
        assert client.metadata == {} and client.infer({})["actions"].shape == (1, 4)


def test_a_policy_that_can_only_be_reset_is_reset_while_alone():
    class Resettable:
        resets = 0

        def reset(self):
            self.resets += 1

        def infer(self, observation):
            return {"resets": self.resets}

    with serve_in_background(Resettable()) as port, PolicyClient(port=port) as first:
        assert first.infer({})["resets"] == 1
        with PolicyClient(port=port) as second:
            assert second.infer({})["resets"] == 1, "a second robot does not disturb the first"


def test_no_server_is_an_error_that_names_it():
    with pytest.raises(ConnectionError, match=r"no policy at ws://127\.0\.0\.1:1 "):
        PolicyClient(port=1, wait_s=0)


def test_a_taken_port_is_an_error(port):
    with pytest.raises(OSError, match="address already in use"), serve_in_background(CountingPolicy(), port=port):
        pass


def test_ctrl_c_ends_serve_calmly():
    code = (
        "from openpi_client_check import EchoPolicy; from pilot.serve.server import serve; serve(EchoPolicy(), port=0)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert b"serving at ws://127.0.0.1:" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0 and b"Traceback" not in errors


@pytest.mark.skipif("PILOT_OPENPI_CLIENT_PYTHON" not in os.environ, reason="names no Python that has openpi-client")
def test_openpis_own_client_is_served():
    with serve_in_background(EchoPolicy()) as port:
        command = [os.environ["PILOT_OPENPI_CLIENT_PYTHON"], str(HERE / "openpi_client_check.py"), str(port)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
