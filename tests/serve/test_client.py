"""The robot's side, with a network that is made up: what it sends, how it comes back, where it says the time went."""

import contextlib
import socket
import ssl
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.http11 import Response
from websockets.sync.server import serve as listen

from pilot.data.transforms import resize_with_pad
from pilot.serve.auth import ApiKeys, tls_context
from pilot.serve.client import (
    SESSION_HEADER,
    Backoff,
    Latency,
    PolicyClient,
    PolicyError,
    set_send_timeout,
    shrink_pictures,
)
from pilot.serve.server import serve_in_background
from pilot.serve.wire import OVER, pack, unpack

CERTIFICATE = Path(__file__).parent / "localhost.pem"
METADATA = {"cameras": ["room", "wrist", "ceiling"], "image_sizes": {"room": [64, 64], "wrist": [32, 32]}}
OBSERVATION = {"images": {"room": np.zeros((64, 64, 3), np.uint8)}, "state": np.zeros(5, np.float32), "prompt": "go"}


class Network:
    """A server and the time it takes, both by hand: `script` says what becomes of each attempt and each message."""

    def __init__(self, *script, takes=0.05):
        self.script, self.takes = list(script), takes
        self.now, self.slept, self.dialled, self.got, self.closed = 100.0, [], [], [], []
        self.open = 0  # connections

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds

    def step(self, default):
        outcome = self.script.pop(0) if self.script else default
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    @contextlib.contextmanager
    def dial(self, address):
        self.dialled.append(address)
        greeting = self.step(pack(METADATA))
        if callable(greeting):
            greeting = greeting() or pack(METADATA)
        self.open += 1
        try:
            yield Line(self, greeting)
        finally:
            self.open -= 1

    def client(self, **options):
        backoff = Backoff(random=lambda: 1.0)
        return PolicyClient(dial=self.dial, clock=self.clock, sleep=self.sleep, backoff=backoff, **options)


class Line:
    def __init__(self, network, greeting):
        self.network, self.greeting = network, greeting

    def close(self, code):
        self.network.closed.append(code)

    def send(self, message):
        self.network.got.append(unpack(message))

    def recv(self, timeout=None):
        greeting, self.greeting = self.greeting, None
        if greeting is not None:
            return greeting
        self.network.now += self.network.takes
        timing = {"infer_ms": 30.0, "queue_ms": 5.0, "total_ms": 37.0}
        return self.network.step(pack({"actions": np.ones((2, 3)), "server_timing": timing}))


def refused(status, words=b""):
    return InvalidStatus(Response(status, "no", Headers(), words))


GONE = ConnectionClosedError(None, None)


def test_a_robot_says_which_it_is_and_notices_a_policy_of_another():
    greeting = pack(METADATA | {"robot": "homes"})
    network = Network(greeting, greeting)
    client = network.client(robot="homes")
    client.reset()
    assert [address.headers["X-Pilot-Robot"] for address in network.dialled] == ["homes"] * 2
    other = Network(greeting)
    with pytest.raises(ConnectionError, match="this policy is for robot 'homes', not for 'arm'"):
        other.client(robot="arm")
    assert not other.slept and not other.open, "it does not try again"
    unsaid = Network(pack({}))
    assert unsaid.client(robot="arm").metadata == {}, "openpi's server does not say"
    assert "X-Pilot-Robot" not in Network().client()._headers


def test_it_tries_ever_less_often_until_somebody_answers():
    network = Network(*[ConnectionRefusedError("refused")] * 7, refused(503, b"full: 64 robots are connected\n"))
    client = network.client()
    assert client.metadata == METADATA
    assert network.slept == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_it_says_once_that_it_is_trying(caplog):
    network = Network(OSError("connection refused"), OSError("connection refused"))
    network.client(wait_s=10.0)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == "no policy at ws://127.0.0.1:8000 yet (connection refused); trying for 10 s"


def test_no_two_robots_come_back_at_once():
    low, high = (Backoff(random=lambda r=r: r) for r in (0.0, 1.0))
    assert [next(waits) for waits in (low.waits(), high.waits())] == [0.05, 0.1]


def test_it_gives_up_in_time_and_says_what_the_server_said():
    network = Network(*[refused(503, b"full: 64 robots are connected\n")] * 9)
    with pytest.raises(ConnectionError, match=r"after 1 s: .*HTTP 503: full: 64 robots are connected"):
        network.client(wait_s=1.0)
    assert sum(network.slept) <= 1.0


OLD = ssl.SSLCertVerificationError("certificate has expired")


STRANGERS = ["hello", b"\xc1", pack([1, 2])]


@pytest.mark.parametrize("outcome", [refused(401, b"wrong key"), refused(404), OLD, *STRANGERS], ids=repr)
def test_what_time_does_not_heal_is_said_at_once(outcome):
    network = Network(outcome)
    with pytest.raises(ConnectionError, match=r"no policy at ws://127\.0\.0\.1:8000: "):
        network.client()
    assert network.slept == [] and network.open == 0


def test_who_closes_while_it_dials_leaves_nothing_open():
    network = Network(pack(METADATA), GONE)
    client = network.client()
    with pytest.raises(ConnectionError, match="the next call connects again"):
        client.infer(OBSERVATION)
    network.script = [client.close]  # by another thread
    with pytest.raises(ConnectionError, match="this client was closed"):
        client.connect()
    assert network.open == 0 and len(network.dialled) == 2


def test_a_lost_connection_is_an_error_and_the_next_call_resumes_the_session():
    network = Network(pack(METADATA), GONE, ConnectionRefusedError("restarting"), pack(METADATA))
    client = network.client()
    with pytest.raises(ConnectionError, match="the next call connects again"):
        client.infer(OBSERVATION)
    assert client.infer(OBSERVATION)["actions"].shape == (2, 3)
    sessions = [address.headers[SESSION_HEADER] for address in network.dialled]
    assert len(sessions) == 3 and set(sessions) == {client.session}


def test_reset_is_another_session():
    network = Network()
    client = network.client()
    first = client.session
    client.reset()
    assert client.session != first
    assert [address.headers[SESSION_HEADER] for address in network.dialled] == [first, client.session]
    assert network.closed == [OVER], "nothing of the first need be kept"
    client.close()
    assert network.closed == [OVER, OVER]


def test_a_late_answer_is_not_taken_for_the_next_one():
    network = Network(pack(METADATA), TimeoutError())
    client = network.client(timeout_s=2.0)
    with pytest.raises(ConnectionError, match="no answer within 2 s; the next call connects again"):
        client.infer(OBSERVATION)
    client.infer(OBSERVATION)
    assert len(network.dialled) == 2, "on another connection, where the late one cannot come"
    assert network.closed == [], "and the server keeps the session for it"


def test_an_answer_to_an_interrupted_question_is_not_taken_for_the_next_one():
    network = Network(pack(METADATA), KeyboardInterrupt())
    client = network.client()
    with pytest.raises(KeyboardInterrupt):
        client.infer(OBSERVATION)
    assert network.open == 0
    client.infer(OBSERVATION)
    assert len(network.dialled) == 2 and network.open == 1


@pytest.mark.parametrize("rubbish", [b"\xc1", pack([1.0, 2.0])], ids=repr)
def test_an_answer_that_is_none_is_said(rubbish):
    client = Network(pack(METADATA), rubbish).client()
    with pytest.raises(ValueError, match=r"not a whole msgpack message|an answer is a dict with actions, got a list"):
        client.infer(OBSERVATION)
    assert client.infer(OBSERVATION)["actions"].shape == (2, 3)


def test_nobody_is_written_to_for_ever():
    here, there = socket.socketpair()
    with here, there:
        set_send_timeout(here, 0.05)
        with pytest.raises(OSError, match="unavailable"):
            here.sendall(bytes(2**26))


def test_over_a_real_socket_nor_is_a_server():
    with serve_in_background(Counting()) as port, PolicyClient(port=port, timeout_s=7.5) as client:
        option = client._connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16)
        assert struct.unpack("ll", option) == (7, 500_000)


def test_the_servers_words_come_through_and_the_connection_stays():
    network = Network(pack(METADATA), "state has 4 dims, robot 'homes' declares 5")
    client = network.client()
    with pytest.raises(PolicyError, match="state has 4 dims"):
        client.infer(OBSERVATION)
    client.infer(OBSERVATION)
    assert len(network.dialled) == 1


def test_a_closed_client_stays_closed():
    network = Network()
    client = network.client()
    client.close()
    with pytest.raises(ConnectionError, match="this client was closed"):
        client.infer(OBSERVATION)


def test_key_policy_and_trust_are_said_at_the_door():
    network = Network()
    network.client(host="wss://robots.example", port=443, policy="kitchen", api_key="secret")
    plain, address = Network(), network.dialled[0]
    assert address.url == "wss://robots.example:443/kitchen"
    assert address.headers["Authorization"] == "Api-Key secret"
    assert address.tls.verify_mode == ssl.CERT_REQUIRED and address.tls.check_hostname
    plain.client()
    assert plain.dialled[0].tls is None and "Authorization" not in plain.dialled[0].headers
    assert plain.dialled[0].url == "ws://127.0.0.1:8000"


def test_where_the_time_went():
    client = Network(takes=0.05).client()
    client.infer(OBSERVATION)
    assert client.latency.seen[0] == pytest.approx(
        {"prepare": 0, "network": 13, "server": 2, "queue": 5, "model": 30, "total": 50}, abs=1e-6
    )
    assert client.latency_ms == pytest.approx(50)


def test_percentiles_of_the_last_answers():
    latency = Latency(window=100)
    assert latency.percentiles() == {} and str(latency) == "no answer yet"
    for waited in [1000.0] * 50 + list(range(1, 101)):
        latency.add(prepare=0, waited=waited, timing={"infer_ms": waited})
    assert latency.percentiles(50, 99)["model"] == pytest.approx({"p50": 50.5, "p99": 99.01})
    assert latency.percentiles()["network"] == {"p50": 0, "p95": 0, "p99": 0}
    assert str(latency) == "50 ms (prepare 0.0, network 0.0, server 0.0, queue 0.0, model 50.5), p95 95, p99 99"


def test_pictures_shrink_to_what_the_model_looks_at_pixel_by_pixel():
    rng = np.random.default_rng(0)
    room, wrist = (rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((120, 160, 3), (32, 32, 3)))
    sent = shrink_pictures({**OBSERVATION, "images": {"room": room, "wrist": wrist, "ceiling": room}}, METADATA)
    assert set(sent["images"]) == {"room", "wrist"}, "nobody looks at the ceiling"
    assert np.array_equal(sent["images"]["room"], resize_with_pad(room, 64))
    assert sent["images"]["wrist"] is wrist and sent["prompt"] == "go"
    floats = shrink_pictures({"images": {"room": room.transpose(2, 0, 1) / 255}}, METADATA)["images"]["room"]
    assert np.array_equal(floats, resize_with_pad((room / 255 * 255).astype(np.uint8), 64))


def test_small_pictures_unknown_cameras_and_other_layouts_are_sent_as_they_are():
    small = np.zeros((16, 48, 3), np.uint8)
    odd = {"images": {"room": small, "basement": small}}
    assert shrink_pictures(odd, METADATA)["images"] == odd["images"]
    assert shrink_pictures({"observation/image": small}, METADATA) == {"observation/image": small}
    large = {"images": {"room": np.zeros((100, 100, 3), np.uint8)}}
    assert shrink_pictures(large, {})["images"]["room"].shape == (100, 100, 3), "a server of others says no sizes"


def test_what_is_no_picture_is_said_before_it_is_sent():
    with pytest.raises(ValueError, match=r"a picture is uint8 \[h w 3\]"):
        shrink_pictures({"images": {"room": np.zeros((100, 100, 4), np.uint8)}}, METADATA)


class Slow:
    """Answers when it is told to."""

    metadata = METADATA

    def __init__(self):
        self.asked, self.go = threading.Event(), threading.Event()

    def infer(self, observation):
        self.asked.set()
        self.go.wait(60)
        return {"actions": np.zeros((1, 3)), "shapes": {c: list(i.shape) for c, i in observation["images"].items()}}


def test_over_a_real_socket_closing_ends_what_is_under_way():
    policy = Slow()
    with serve_in_background(policy) as port:
        client, outcome = PolicyClient(port=port), []

        def ask():
            with contextlib.suppress(ConnectionError):
                outcome.append(client.infer(OBSERVATION))

        asking = threading.Thread(target=ask)
        asking.start()
        assert policy.asked.wait(60)
        client.close()
        asking.join(60)
        assert not asking.is_alive() and outcome == []
        policy.go.set()


def test_over_a_real_socket_a_server_that_hangs_up_is_found_again():
    sessions = []

    def answer_once(socket):
        sessions.append(socket.request.headers[SESSION_HEADER])
        socket.send(pack(METADATA))
        shapes = {camera: list(image.shape) for camera, image in unpack(socket.recv())["images"].items()}
        socket.send(pack({"shapes": shapes}))

    large = {**OBSERVATION, "images": {"room": np.zeros((480, 640, 3), np.uint8)}}
    with listen(answer_once, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with PolicyClient(port=server.socket.getsockname()[1]) as client:
            assert client.infer(large)["shapes"] == {"room": [64, 64, 3]}
            with pytest.raises(ConnectionError, match="the next call connects again"):
                client.infer(large)
            assert client.infer(large)["shapes"] == {"room": [64, 64, 3]}
        server.shutdown()
    assert sessions == [client.session] * 2


class Counting:
    """Sessions that count what they are asked."""

    def __init__(self):
        self.metadata, self.seen = METADATA, 0

    def session(self):
        return Counting()

    def infer(self, observation):
        self.seen += 1
        return {"actions": np.zeros((1, 3)), "seen": self.seen}


def test_over_a_real_socket_a_lost_connection_goes_on_where_it_was():
    with serve_in_background(Counting()) as port, PolicyClient(port=port) as client:
        assert [client.infer(OBSERVATION)["seen"] for _ in range(2)] == [1, 2]
        client._open.close()  # the line is cut, and nobody said goodbye
        with pytest.raises(ConnectionError, match="the next call connects again"):
            client.infer(OBSERVATION)
        assert client.infer(OBSERVATION)["seen"] == 3
        client.reset()
        assert client.infer(OBSERVATION)["seen"] == 1


def test_over_tls_the_server_must_be_who_it_says():
    with serve_in_background(Counting(), tls=tls_context(CERTIFICATE)) as port:
        with PolicyClient("wss://127.0.0.1", port, ca=str(CERTIFICATE)) as client:
            assert client.infer(OBSERVATION)["seen"] == 1
        with pytest.raises(ConnectionError, match="certificate verify failed"):
            PolicyClient("wss://127.0.0.1", port)


def test_over_a_real_socket_a_wrong_key_is_refused_at_once():
    with serve_in_background(Counting(), keys=ApiKeys(["open sesame"])) as port:
        with PolicyClient(port=port, api_key="open sesame") as client:
            assert client.infer(OBSERVATION)["seen"] == 1
        with pytest.raises(ConnectionError, match="401: this server does not know this API key"):
            PolicyClient(port=port, api_key="open barley")
