"""Server and client together: answers, errors, sessions that are taken up again, several policies, a calm end."""

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from pilot.serve.client import PolicyError
from pilot.serve.limits import Limits
from pilot.serve.server import PolicyServer, _watch, serve_in_background
from pilot.serve.wire import pack, unpack
from serve.openpi_client_check import EchoPolicy
from serve.policies import METADATA, OBSERVATION, CountingPolicy, eventually, gauge, get, robot

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def port():
    with serve_in_background({"first": CountingPolicy(), "second": CountingPolicy()}) as port:
        yield port


def test_a_round_trip(port):
    with robot(port) as client:
        assert client.metadata == METADATA
        reply = client.infer(OBSERVATION)
        np.testing.assert_array_equal(reply["actions"], np.tile(OBSERVATION["state"], (3, 1)))
        assert reply["actions"].dtype == np.float32 and reply["subtask"] == "done"
        assert set(reply["server_timing"]) == {"infer_ms", "queue_ms", "total_ms"} and client.latency_ms > 0


def test_an_error_says_why_and_the_connection_goes_on(port):
    with robot(port) as client:
        with pytest.raises(PolicyError, match="state has 4 dims, robot 'homes' declares 5"):
            client.infer(OBSERVATION | {"state": np.zeros(4, np.float32)})
        with pytest.raises(PolicyError, match="RuntimeError: out of luck") as failure:
            client.infer(OBSERVATION | {"prompt": "crash"})
        assert "Traceback" not in str(failure.value) and ".py" not in str(failure.value)
        assert client.infer(OBSERVATION)["seen"] == 3


def test_sessions_are_apart_and_reset_starts_anew(port):
    with robot(port) as first, robot(port) as second:
        assert [first.infer(OBSERVATION)["seen"] for _ in range(3)] == [1, 2, 3]
        assert second.infer(OBSERVATION)["seen"] == 1
        first.reset()
        assert first.infer(OBSERVATION)["seen"] == 1


def test_policies_have_names_and_the_first_needs_none(port):
    """Answers are counted by policy."""

    def answers(name):
        lines = get(port, "/metrics")[1].splitlines()
        return sum(
            float(line.split()[-1]) for line in lines if line.startswith(f'pilot_answers_total{{policy="{name}"')
        )

    before = answers("first"), answers("second")
    with robot(port, policy="second") as second, robot(port, policy="first") as first:
        second.infer(OBSERVATION)
        first.infer(OBSERVATION)
    with robot(port) as unnamed:
        unnamed.infer(OBSERVATION)
    assert (answers("first"), answers("second")) == (before[0] + 2, before[1] + 1)
    with pytest.raises(ConnectionError, match="no policy 'third' here; there are first, second"):
        robot(port, policy="third")


@contextlib.contextmanager
def converse(port, session):
    with connect(f"ws://127.0.0.1:{port}", additional_headers={"X-Pilot-Session": session}) as socket:
        socket.recv()
        yield socket


def ask(socket):
    socket.send(pack(OBSERVATION))
    return unpack(socket.recv())["seen"]


def test_who_comes_back_under_its_name_goes_on(port):
    with converse(port, "r1") as socket:
        assert [ask(socket), ask(socket)] == [1, 2]
    with converse(port, "r1") as socket:
        assert ask(socket) == 3
    with connect(f"ws://127.0.0.1:{port}/?session=r1") as socket:
        socket.recv()
        assert ask(socket) == 4
    with converse(port, "r2") as socket:
        assert ask(socket) == 1


def test_a_new_connection_takes_the_place_of_one_that_hangs(port):
    with converse(port, "r3") as old:
        assert ask(old) == 1
        with converse(port, "r3") as new:
            assert ask(new) == 2
            with pytest.raises(ConnectionClosed) as closed:
                old.recv()
            assert closed.value.rcvd.code == 4001
            assert ask(new) == 3


def test_many_robots_at_once(port):
    def drive(number):
        state = np.full(5, number, np.float32)
        with robot(port) as client:
            return [client.infer(OBSERVATION | {"state": state})["actions"][0, 0] for _ in range(20)]

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(drive, range(16))) == [[number] * 20 for number in range(16)]


class BatchingPolicy(CountingPolicy):
    """Says how many it answers together."""

    def infer_many(self, sessions, observations, *, errors="raise"):
        replies = [session.infer(observation) for session, observation in zip(sessions, observations)]
        return [{**reply, "together": len(replies)} for reply in replies]


def test_those_who_wait_are_answered_together():
    policy = BatchingPolicy()
    with serve_in_background(policy) as port, ThreadPoolExecutor(5) as pool:
        clients = [robot(port) for _ in range(5)]
        first = pool.submit(clients[0].infer, OBSERVATION | {"prompt": "wait"})
        assert policy.waiting.wait(60)
        others = [pool.submit(client.infer, OBSERVATION) for client in clients[1:]]
        eventually(lambda: gauge(port, "pilot_answering") == 5)
        policy.go.set()
        assert first.result()["together"] == 1
        assert sorted(other.result()["together"] for other in others) == [4, 4, 4, 4]
        for client in clients:
            client.close()


def test_one_robot_too_many_is_turned_away():
    with serve_in_background(CountingPolicy(), limits=Limits(robots=1)) as port, robot(port) as client:
        with pytest.raises(ConnectionError, match=r"503.*full: 1 robots"):
            robot(port, wait_s=0)
        assert client.infer(OBSERVATION)["seen"] == 1


def test_a_full_server_lets_a_robot_come_back_and_not_another_of_its_name():
    policies = {"first": CountingPolicy(), "other": CountingPolicy()}
    with (
        serve_in_background(policies, limits=Limits(robots=1)) as port,
        connect(f"ws://127.0.0.1:{port}/first?session=r1") as old,
    ):
        old.recv()
        with pytest.raises(InvalidStatus, match="503"), connect(f"ws://127.0.0.1:{port}/other?session=r1"):
            pass
        with connect(f"ws://127.0.0.1:{port}/first?session=r1") as new:
            assert unpack(new.recv())["robot"] == "homes"


def test_the_answer_under_way_is_still_given_when_the_server_stops():
    """Meanwhile nobody new is taken, and a load balancer can see it."""
    policy, seen = CountingPolicy(), []

    def release(port):
        eventually(lambda: get(port, "/readyz") == (503, "stopping\n"))
        with pytest.raises(ConnectionError, match="503"):
            robot(port, wait_s=0)
        seen.append(get(port, "/healthz"))
        policy.go.set()

    with ThreadPoolExecutor(2) as pool:
        with serve_in_background(policy) as port:
            client = robot(port, wait_s=0)
            answer = pool.submit(client.infer, OBSERVATION | {"prompt": "wait"})
            assert policy.waiting.wait(60)
            released = pool.submit(release, port)
        released.result()
        assert answer.result()["subtask"] == "done" and seen == [(200, "ok\n")]
    with pytest.raises(ConnectionError, match="the next call connects again"):
        client.infer(OBSERVATION)
    with pytest.raises(ConnectionError, match="no policy at"):
        client.infer(OBSERVATION)


def test_a_stuck_policy_does_not_hold_up_the_end_for_ever():
    policy = CountingPolicy()
    with ThreadPoolExecutor(1) as pool:
        with serve_in_background(policy, limits=Limits(drain_seconds=0.2)) as port:
            client = robot(port, wait_s=0)
            answer = pool.submit(client.infer, OBSERVATION | {"prompt": "wait"})
            assert policy.waiting.wait(60)
        with pytest.raises(ConnectionError):
            answer.result()
        policy.go.set()


def test_who_never_said_what_it_wants_is_not_waited_for_at_the_end():
    async def begin_and_stop():
        server = PolicyServer(CountingPolicy(), limits=Limits(handshake_seconds=1e6))
        port = await server.start("127.0.0.1", 0)
        _, silent = await asyncio.open_connection("127.0.0.1", port)
        while not server._connections.pending:
            await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await server.stop()
        silent.close()

    asyncio.run(begin_and_stop())


def test_who_comes_in_a_crowd_waits_for_its_turn_and_probes_do_not():
    limits = Limits(requests_per_second=0.01, robots=1, handshake_seconds=0.5)
    with (
        serve_in_background(CountingPolicy(), limits=limits) as port,
        robot(port) as client,
        socket.create_connection(("127.0.0.1", port), 60) as second,
    ):
        second.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert get(port, "/healthz") == (200, "ok\n") and client.infer(OBSERVATION)["seen"] == 1
        assert second.recv(1000) == b"", "its turn would come in 100 s, and it may wait for half a second"


def test_a_policy_without_sessions_or_metadata_is_served_too():
    class Plain:
        def infer(self, observation):
            return {"actions": np.zeros((1, 4))}

    with serve_in_background(Plain()) as port, robot(port) as client:
        assert client.metadata == {} and client.infer({})["actions"].shape == (1, 4)


def test_a_policy_that_can_only_be_reset_is_reset_while_alone():
    class Resettable:
        resets = 0

        def reset(self):
            self.resets += 1

        def infer(self, observation):
            return {"resets": self.resets}

    with serve_in_background(Resettable()) as port, robot(port) as first:
        assert first.infer({})["resets"] == 1
        with robot(port) as second:
            assert second.infer({})["resets"] == 1, "a second robot does not disturb the first"


class Resettable:
    """Says in `met` whether it was computing when it was reset; `prompt` "wait" is computed until `go`."""

    def __init__(self):
        self.met, self.computing, self.waiting, self.go = [], False, threading.Event(), threading.Event()

    def reset(self):
        self.met.append(self.computing)

    def infer(self, observation):
        if observation.get("prompt") == "wait":
            self.computing = True
            self.waiting.set()
            assert self.go.wait(60)
            self.computing = False
        return {"resets": len(self.met)}


def test_a_policy_is_not_reset_while_it_computes():
    policy = Resettable()
    with serve_in_background(policy) as port:
        with connect(f"ws://127.0.0.1:{port}") as leaves:
            leaves.recv()
            leaves.send(pack({"prompt": "wait"}))
            assert policy.waiting.wait(60)
        eventually(lambda: gauge(port, "pilot_robots") == 0)
        with robot(port) as next_one:
            policy.go.set()
            assert next_one.infer({})["resets"] == 2
    assert policy.met == [False, False]


def test_a_reset_that_fails_is_logged(caplog):
    class Broken(Resettable):
        def reset(self):
            raise RuntimeError("stuck")

    with serve_in_background(Broken()) as port, robot(port) as client:
        assert client.infer({})["resets"] == 0
    assert "reset for a new robot failed: stuck" in caplog.text


def test_no_server_is_an_error_that_names_it():
    with pytest.raises(ConnectionError, match=r"no policy at ws://127\.0\.0\.1:1 "):
        robot(1, wait_s=0)


def test_a_taken_port_is_an_error(port):
    with pytest.raises(OSError, match="address already in use"), serve_in_background(CountingPolicy(), port=port):
        pass


def test_over_tls():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(HERE / "localhost.pem")
    with serve_in_background(CountingPolicy(), tls=context) as port:
        with robot(port, host="wss://127.0.0.1", ca=str(HERE / "localhost.pem")) as client:
            assert client.infer(OBSERVATION)["seen"] == 1
        with pytest.raises(ConnectionError, match="certificate"):
            robot(port, host="wss://127.0.0.1", wait_s=0)
        with pytest.raises(ConnectionError):
            robot(port, host="ws://127.0.0.1", wait_s=0)


# --- processes ------------------------------------------------------------------------------------------------------

SERVING = """
import sys
from pathlib import Path
import numpy as np
from pilot.serve.hosted_policy import HostedPolicy
from pilot.serve.server import serve

folder = Path(sys.argv[1])

class Policy:
    def __init__(self):
        self.number = int((folder / "number").read_text())
    def infer(self, observation):
        return {"number": self.number}

watch = float(sys.argv[2]) if len(sys.argv) > 2 else None
serve([HostedPolicy("numbered", Policy(), load=Policy, folder=folder)], port=0, watch_seconds=watch, log_format="json")
"""


def start(folder, *arguments):
    """A server in a process of its own, and its port."""
    (folder / "number").write_text("1")
    command = [sys.executable, "-c", SERVING, str(folder), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said = process.stdout.readline()
    assert said.startswith("serving at ws://127.0.0.1:"), process.communicate()
    return process, int(said.split(",")[0].rsplit(":")[-1])


def end(process):
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0 and "Traceback" not in errors
    return errors


def test_ctrl_c_ends_serve_calmly(tmp_path):
    process, port = start(tmp_path)
    with robot(port) as client:
        assert client.infer({})["number"] == 1
    errors = end(process)
    assert all(line.startswith('{"time": "20') for line in errors.splitlines())
    assert '"message": "connected, 1 in all", "policy": "numbered"' in errors


FREEZING = """
import gc
from pilot.serve.server import serve

class Policy:
    metadata = {"cameras": ["room"], "state_names": ["x"]}
    def infer(self, observation):
        return {"frozen": gc.get_freeze_count()}

serve(Policy(), port=0)
"""


def test_collections_of_garbage_leave_out_what_a_warm_server_holds():
    process = subprocess.Popen(
        [sys.executable, "-c", FREEZING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        port = int(process.stdout.readline().split(",")[0].rsplit(":")[-1])
        with robot(port) as client:
            eventually(lambda: client.infer({})["frozen"] > 10_000)
        end(process)
    finally:
        process.kill()


WARMING = """
import threading
from pilot.serve.server import serve

class Policy:
    metadata = {{"cameras": ["room"], "state_names": ["x"]}}
    def session(self):
        return self
    def infer(self, observation):
        print("warming up", flush=True)
        threading.Event().wait({seconds})
        print("warm", flush=True)

serve(Policy(), port=0)
"""


def start_warming(*, seconds):
    """A server in a process of its own, whose policy has just begun to warm up."""
    command = [sys.executable, "-c", WARMING.format(seconds=seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("serving at") and process.stdout.readline() == "warming up\n"
    return process


def test_ctrl_c_while_a_policy_warms_up_waits_for_its_thread():
    """Torch aborts a process that ends while a thread computes."""
    process = start_warming(seconds=1)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and out == "warm\n" and "Traceback" not in errors


def test_ctrl_c_ends_serve_while_it_warms_up():
    process = start_warming(seconds=None)  # for ever
    try:
        end(process)
    finally:
        process.kill()


def test_a_hangup_signal_loads_anew(tmp_path):
    process, port = start(tmp_path)
    with robot(port) as client:
        assert client.infer({})["number"] == 1
        (tmp_path / "number").write_text("2")
        process.send_signal(signal.SIGHUP)
        eventually(lambda: client.infer({})["number"] == 2)
    assert "reloaded" in end(process)


def test_changed_files_load_anew_where_that_is_wanted(tmp_path):
    process, port = start(tmp_path, "0.05")
    with robot(port) as client:
        assert client.infer({})["number"] == 1
        (tmp_path / "new").write_text("22")
        (tmp_path / "new").rename(tmp_path / "number")
        eventually(lambda: client.infer({})["number"] == 22)
    end(process)


def test_files_that_cannot_be_read_for_a_while_are_looked_at_again(monkeypatch, caplog):
    """They were as 1, then the disk was away, then they were as 2."""
    found = iter([1, 1, OSError("stale file handle"), 2, 2, 2])

    def fingerprint(folder):
        if isinstance(now := next(found), OSError):
            raise now
        return {"file": (now, now)}

    class Server:
        async def reload_policy(self, hosted):
            raise asyncio.CancelledError

    monkeypatch.setattr("pilot.serve.server.fingerprint", fingerprint)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(_watch(Server(), SimpleNamespace(name="p", folder=HERE), seconds=0.0))
    assert "cannot see whether the files changed: stale file handle" in caplog.text


@pytest.mark.parametrize("package", ["websockets", "msgpack"])
def test_what_is_not_installed_is_named_with_its_extra(package):
    code = f"import sys; sys.modules['{package}'] = None; import pilot.serve.server"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"ImportError: serving needs {package}" in result.stderr and "pip install 'pilot[serve]'" in result.stderr


@pytest.mark.skipif("PILOT_OPENPI_CLIENT_PYTHON" not in os.environ, reason="names no Python that has openpi-client")
def test_openpis_own_client_is_served():
    with serve_in_background(EchoPolicy()) as port:
        command = [os.environ["PILOT_OPENPI_CLIENT_PYTHON"], str(HERE / "openpi_client_check.py"), str(port)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
