"""Who sends nonsense, too much, too often or nothing at all hears of it; nobody else does, and nothing piles up."""

import contextlib
import gc
import logging
import os
import socket
import struct
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.server import ServerProtocol
from websockets.sync.client import connect

from pilot.serve.client import PolicyError
from pilot.serve.connection import READ_BYTES, IncomingConnection
from pilot.serve.limits import Limits
from pilot.serve.server import serve_in_background
from pilot.serve.wire import pack, unpack
from serve.policies import METADATA, OBSERVATION, CountingPolicy, eventually, gauge, robot

LIMITS = Limits(message_bytes=100_000, robots=8, pending_connections=8, requests_per_second=10_000.0)


@pytest.fixture(scope="module")
def port():
    with serve_in_background(CountingPolicy(), limits=LIMITS) as port:
        yield port


@pytest.fixture
def good(port):
    """A robot that notices nothing."""
    with robot(port) as client:
        assert client.infer(OBSERVATION)["seen"] == 1
        yield client
        assert client.infer(OBSERVATION)["seen"] == 2


def knock(port):
    return socket.create_connection(("127.0.0.1", port))


HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def shake_hands(port):
    """A robot's connection as a plain socket, and the first line of what the server says."""
    raw = knock(port)
    raw.sendall(HANDSHAKE)
    return raw, first_line(raw)


def first_line(raw):
    head = b""
    while b"\r\n\r\n" not in head:
        head += raw.recv(4096)
    return head.split(b"\r\n")[0]


def frame(payload, *, claimed=None):
    """A masked binary frame that claims a length."""
    length = len(payload) if claimed is None else claimed
    return b"\x82" + b"\xff" + struct.pack("!Q", length) + b"\0\0\0\0" + payload


def is_over(raw):
    """Whether the server has hung up, once all that it had said is read."""
    raw.settimeout(300)
    with contextlib.suppress(ConnectionError):
        while raw.recv(65536):
            pass
    return True


@pytest.mark.parametrize(
    "message", ["hello", b"\xc1", b"", pack([1]), pack(OBSERVATION)[:-7], b"\x80\x04\x95K."], ids=lambda m: repr(m)[:10]
)
def test_garbage_gets_a_text_and_the_connection_goes_on(port, good, message):
    with connect(f"ws://127.0.0.1:{port}") as offender:
        offender.recv()
        offender.send(message)
        assert isinstance(offender.recv(), str)
        offender.send(pack(OBSERVATION))
        assert unpack(offender.recv())["seen"] == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": np.array([0, 1, np.nan, 3, 4])}, r"'state' .* is nan at \[2\]"),
        ({"state": [0.0, 1.0, float("nan"), 3.0, 4.0]}, r"'state\.2' is nan; send finite numbers"),
        ({"state": [np.float32("inf")] * 5}, r"'state\.0' is inf; send finite numbers"),
        ({"images": {"room": 1, b"wrist": 2}}, r"names are text, got b'wrist' in 'images'"),
        ({"state": np.zeros(4)}, "state has 4 dims, robot 'homes' declares 5"),
        ({"prompt": "x" * 5000}, "5000 characters, the limit is 4000"),
        ({"prompt": "crash"}, "RuntimeError: out of luck"),
        ({"images": {"room": np.zeros((2, 2, 2, 2, 3), np.uint8)}}, "5 dimensions"),
    ],
)
def test_a_bad_observation_is_explained(port, good, changes, words):
    with robot(port) as offender:
        with pytest.raises(PolicyError, match=words):
            offender.infer({**OBSERVATION, **changes})
        offender.infer(OBSERVATION)


def test_a_message_over_the_limit_closes_only_the_offender(port, good):
    with connect(f"ws://127.0.0.1:{port}", compression=None) as offender:
        offender.recv()
        with pytest.raises(ConnectionClosed) as closed:
            offender.send(b"\0" * (LIMITS.message_bytes + 1))
            offender.recv()
        assert closed.value.rcvd.code == 1009


def test_a_message_larger_than_the_cameras_of_the_robot_need_is_not_read():
    policy = CountingPolicy()
    policy.metadata = {**METADATA, "cameras": ["front", "wrist"]}
    with serve_in_background(policy, limits=Limits(camera_bytes=50_000)) as port, robot(port) as good:
        with connect(f"ws://127.0.0.1:{port}", compression=None) as offender:
            offender.recv()
            offender.send(b"\0" * 100_000)
            assert isinstance(offender.recv(), str)  # read, and no message of the protocol
            with pytest.raises(ConnectionClosed) as closed:
                offender.send(b"\0" * (100_001))
                offender.recv()
            assert closed.value.rcvd.code == 1009
        assert good.infer(OBSERVATION)["seen"] == 1


def test_a_frame_that_claims_the_world_is_not_waited_for(port, good):
    raw, _ = shake_hands(port)
    with raw:
        raw.sendall(frame(b"", claimed=2**62))
        assert is_over(raw)


def test_a_frame_that_breaks_off_leaves_nothing(port, good):
    raw, status = shake_hands(port)
    assert b" 101 " in status
    raw.sendall(frame(b"\0" * 500, claimed=1000))
    raw.close()
    eventually(lambda: gauge(port, "pilot_robots") == 1)


def test_who_floods_us_with_small_frames_is_hung_up_on(good_of_few):
    port = good_of_few
    raw, _ = shake_hands(port)
    with raw:
        raw.sendall(b"\x89\x80\0\0\0\0" * 9)  # pings
        raw.settimeout(300)
        said = b""
        with contextlib.suppress(ConnectionError):
            while more := raw.recv(65536):
                said += more
    assert struct.pack("!H", 1008) + b"more than 8 small frames in a second" in said


def test_nothing_is_looked_at_of_what_comes_after_a_mistake(port, good, monkeypatch):
    looked_at = []
    receive = ServerProtocol.receive_data
    monkeypatch.setattr(
        ServerProtocol, "receive_data", lambda self, data: (looked_at.append(len(data)), receive(self, data))[1]
    )
    raw, _ = shake_hands(port)
    with raw, contextlib.suppress(ConnectionError):
        before = sum(looked_at)
        raw.sendall(b"\x82\xff" + struct.pack("!Q", 2**30) + bytes(4))  # a frame of one GiB, by what it says
        for _ in range(64):
            raw.sendall(bytes(2**16))
        while raw.recv(65536):
            pass
    assert 0 < sum(looked_at) - before < 2**17


@pytest.fixture
def good_of_few():
    """A server that takes few small frames, and a robot that notices nothing of those who send more."""
    with (
        serve_in_background(
            CountingPolicy(), limits=Limits(small_frames_per_second=8.0, observations_per_second=4.0)
        ) as port,
        robot(port) as client,
    ):
        assert client.infer(OBSERVATION)["seen"] == 1
        yield port
        assert client.infer(OBSERVATION)["seen"] == 2


def test_what_comes_at_once_is_looked_at_in_pieces_and_no_further_than_needed(monkeypatch):
    pieces = []

    def look(connection, piece):
        pieces.append(piece)
        connection.transport.closing = len(pieces) == 3

    monkeypatch.setattr(ServerConnection, "data_received", look)
    connection, data = IncomingConnection.__new__(IncomingConnection), bytes(range(256)) * 1024
    connection.transport, connection.protocol = Line(), protocol_of(SimpleNamespace(missing=0))
    connection.data_received(data)
    assert b"".join(pieces) == data[: 3 * READ_BYTES] and len(pieces) == 3


def test_the_rest_of_a_large_frame_is_not_cut_in_pieces(monkeypatch):
    pieces, reader = [], SimpleNamespace(missing=100_000)

    def look(connection, piece):
        pieces.append(len(piece))
        reader.missing = 0

    monkeypatch.setattr(ServerConnection, "data_received", look)
    connection = IncomingConnection.__new__(IncomingConnection)
    connection.transport, connection.protocol = Line(), protocol_of(reader)
    connection.data_received(bytes(100_000 + READ_BYTES + 5))
    assert pieces == [100_000, READ_BYTES, 5]


def protocol_of(reader):
    return SimpleNamespace(reader=reader, parser=SimpleNamespace(__name__="parse"), close_rcvd=None)


class Line:
    closing = False

    def is_closing(self):
        return self.closing


def test_an_error_does_not_quote_without_end():
    class Quoting:
        def infer(self, observation):
            raise ValueError("x" * 10_000)

    with serve_in_background(Quoting()) as port, robot(port) as client:
        with pytest.raises(PolicyError) as refused:
            client.infer({})
        assert str(refused.value) == "x" * 2000 + "…"


def test_who_leaves_before_the_answer_keeps_nobody_waiting():
    """Else robots that gave up and came back would wait for answers to what they asked before, and give up again."""
    policy = CountingPolicy()
    with serve_in_background(policy) as port, robot(port) as first, robot(port) as last, ThreadPoolExecutor(2) as pool:
        waits = pool.submit(first.infer, OBSERVATION | {"prompt": "wait"})
        assert policy.waiting.wait(60)
        for _ in range(3):
            raw, _ = shake_hands(port)
            raw.sendall(frame(pack({**OBSERVATION, "prompt": "leaves"})))
            eventually(lambda: gauge(port, "pilot_answering") == 2)
            raw.close()
            eventually(lambda: gauge(port, "pilot_answering") == 1, seconds=60)
        asks = pool.submit(last.infer, OBSERVATION)
        eventually(lambda: gauge(port, "pilot_answering") == 2)
        policy.go.set()
        assert waits.result()["seen"] == 1 and asks.result()["seen"] == 1
        assert gauge(port, "pilot_answers_total") == 2


def test_who_asks_too_often_is_told():
    limits = Limits(observations_per_second=0.001)
    with (
        serve_in_background(CountingPolicy(), limits=limits) as port,
        robot(port) as offender,
        robot(port) as other,
    ):
        offender.infer(OBSERVATION)
        with pytest.raises(PolicyError, match=r"more than 0\.001 observations in a second"):
            offender.infer(OBSERVATION)
        assert other.infer(OBSERVATION)["seen"] == 1


def test_a_thousand_connects(port, good):
    """As many as there is room for stay; the others are told that it is full, and the good robot keeps its place."""
    eventually(lambda: gauge(port, "pilot_robots") == 1)  # those of the tests before may have a second to go
    open_now, statuses = [], []
    for _ in range(1000):
        raw, status = shake_hands(port)
        statuses.append(status)
        open_now.append(raw)
        if len(open_now) > 50:
            open_now.pop(25).close()
    for raw in open_now:
        raw.close()
    assert sum(b" 101 " in status for status in statuses) >= LIMITS.robots - 1
    assert sum(b" 503 " in status for status in statuses) > 900
    eventually(lambda: gauge(port, "pilot_robots") == 1)


def test_no_more_come_in_at_once_than_there_is_room_for(port, good):
    eventually(lambda: gauge(port, "pilot_robots") == 1)
    crowd = [knock(port) for _ in range(LIMITS.pending_connections)]
    for raw in crowd:
        raw.sendall(HANDSHAKE)
    statuses = [first_line(raw) for raw in crowd]
    assert sum(b" 101 " in status for status in statuses) <= LIMITS.robots - 1
    for raw in crowd:
        raw.close()
    eventually(lambda: gauge(port, "pilot_robots") == 1)


def test_who_knocks_and_says_nothing_makes_room_for_others(port, good):
    silent = [knock(port) for _ in range(LIMITS.pending_connections + 20)]
    assert all(is_over(raw) for raw in silent[:20]), "the longest here go first"
    with robot(port) as newcomer:
        assert newcomer.infer(OBSERVATION)["seen"] == 1
    for raw in silent:
        raw.close()


def test_who_never_says_what_it_wants_is_hung_up_on():
    limits = Limits(handshake_seconds=0.2)
    with serve_in_background(CountingPolicy(), limits=limits) as port, knock(port) as silent:
        assert is_over(silent)


def test_who_is_gone_without_a_word_is_noticed():
    """A half-open connection: nobody answers the pings."""
    with serve_in_background(CountingPolicy(), limits=Limits(ping_seconds=0.2)) as port:
        raw, status = shake_hands(port)
        with raw:
            assert b" 101 " in status and is_over(raw)
        eventually(lambda: gauge(port, "pilot_robots") == 0)


def test_a_reader_that_never_reads_disturbs_nobody_and_is_dropped():
    limits = Limits(send_seconds=0.5)
    with serve_in_background(CountingPolicy(), limits=limits) as port, robot(port) as good:
        raw, _ = shake_hands(port)
        question = frame(pack({**OBSERVATION, "prompt": "large"}))
        with raw:
            raw.settimeout(300)
            with contextlib.suppress(ConnectionError):  # 4 MB come for each; somewhere the way is full
                for _ in range(50):
                    raw.sendall(question)
            assert [good.infer(OBSERVATION)["seen"] for _ in range(5)] == [1, 2, 3, 4, 5]
            eventually(lambda: gauge(port, "pilot_robots") == 1)
        assert good.infer(OBSERVATION)["seen"] == 6


def test_random_bytes_after_the_handshake(port, good):
    rng = np.random.default_rng(0)
    for _ in range(30):
        raw, _ = shake_hands(port)
        with raw, contextlib.suppress(ConnectionError):
            raw.sendall(rng.bytes(300))
    eventually(lambda: gauge(port, "pilot_robots") == 1)


def test_random_bytes_before_it(port, good):
    rng = np.random.default_rng(0)
    for length in (1, 10, 300, 100_000):
        with knock(port) as raw, contextlib.suppress(ConnectionError):
            raw.sendall(rng.bytes(length))


def come_and_go(port):
    """A robot that has a picture, an error and an answer, under a name of its own, and leaves without a word."""
    raw, status = shake_hands(port)
    with raw:
        if b" 101 " in status:
            raw.sendall(frame(b"\xc1" * 1000) + frame(pack(OBSERVATION)))
            raw.settimeout(300)
            raw.recv(10)


def test_memory_stays_flat(port):
    def settle():
        eventually(lambda: gauge(port, "pilot_robots") == 0)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    logging.disable(logging.CRITICAL)  # what the test runner keeps of our log grows
    tracemalloc.start()
    try:
        sizes = []
        for _ in range(3):
            for _ in range(60):
                come_and_go(port)
            sizes.append(settle())
    finally:
        tracemalloc.stop()
        logging.disable(logging.NOTSET)
    assert sizes[2] - sizes[1] < 300_000, f"bytes after 60, 120 and 180 robots: {sizes}"


def test_open_files_stay_few(port):
    for _ in range(20):
        come_and_go(port)
    eventually(lambda: gauge(port, "pilot_robots") == 0)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(60):
        come_and_go(port)
    eventually(lambda: gauge(port, "pilot_robots") == 0)
    after = len(os.listdir("/proc/self/fd")) if before else 0
    assert after <= before + 10
