"""The page's server: who may play, what is shown, and that a key that nobody holds any more is let go."""

import contextlib
import json
import threading
import urllib.error
import urllib.request

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from pilot.play.server import PlayServer, run_player, serving

KEY = "a-key-for-tests"
PATIENCE = 20.0


class Counter:
    """Something to play with: it counts its steps."""

    def __init__(self):
        self.playing, self.steps, self.axes = False, 0, {}

    def tick(self):
        self.steps += 1

    def handle(self, message):
        match message.get("do"):
            case "play":
                self.playing = True
            case "pause":
                self.playing = False
            case "steer":
                self.axes = message["axes"]
            case other:
                raise ValueError(f"nobody knows how to do {other!r}")
        return "as you wish"

    def view(self):
        return {"kind": "view", "steps": self.steps, "playing": self.playing, "axes": self.axes}


@contextlib.contextmanager
def playing(hz=50.0):
    """A server with a counter; the loop runs in a thread, which is fine for what draws no pictures."""
    player, server, stop = Counter(), PlayServer(KEY), threading.Event()
    with serving(server, "127.0.0.1", port=0) as port:
        loop = threading.Thread(target=run_player, args=(player, server), kwargs={"hz": hz, "until": stop})
        loop.start()
        try:
            yield player, port
        finally:
            stop.set()
            loop.join()


def open_socket(port, **options):
    return connect(f"ws://127.0.0.1:{port}/live", **options)


def hear(socket, kind, *, until=lambda message: True):
    """The next message of this kind that is wanted."""
    while True:
        message = json.loads(socket.recv(PATIENCE))
        if message["kind"] == kind and until(message):
            return message


@contextlib.contextmanager
def admitted(port):
    with open_socket(port) as socket:
        assert hear(socket, "key")
        socket.send(json.dumps({"key": KEY}))
        yield socket


def test_a_person_with_the_key_plays():
    with playing() as (player, port), admitted(port) as socket:
        assert hear(socket, "view")["steps"] == 0
        socket.send(json.dumps({"do": "play"}))
        assert hear(socket, "done")["words"] == "as you wish"
        assert hear(socket, "view", until=lambda view: view["steps"] > 3)["playing"]
        socket.send(json.dumps({"do": "pause"}))
        hear(socket, "view", until=lambda view: not view["playing"])
        assert player.steps > 3


def test_a_wrong_key_is_turned_away():
    with playing() as (_, port), open_socket(port) as socket:
        hear(socket, "key")
        socket.send(json.dumps({"key": "guessed-guess"}))
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(PATIENCE)
        assert closed.value.rcvd.code == 4003


def test_pages_of_other_sites_are_turned_away():
    with playing() as (_, port):
        with pytest.raises(InvalidStatus) as refused:
            open_socket(port, origin="http://evil.example")
        assert refused.value.response.status_code == 403
        with open_socket(port, origin=f"http://127.0.0.1:{port}") as socket:
            hear(socket, "key")


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
        return answer.headers["Content-Type"], answer.headers["Content-Security-Policy"], answer.read().decode()


def test_the_page_and_nothing_else_is_served():
    with playing() as (_, port):
        for path, kind, part in (
            ("/", "text/html", "pilot play"),
            ("/play.js", "text/javascript", "tools.js"),
            ("/tools.js", "text/javascript", "export function"),
            ("/palette.css", "text/css", "--paper"),
        ):
            found, policy, text = get(port, path)
            assert found.startswith(kind) and part in text and "default-src 'self'" in policy
            assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text, (
                "no link leads out"
            )
        for path in ("/../server.py", "/..%2fserver.py", "/dashboard.js", "/play", "/live"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                get(port, path)
            assert refused.value.code == 404


def test_what_cannot_be_done_is_said_and_the_connection_goes_on():
    with playing() as (_, port), admitted(port) as socket:
        socket.send("no JSON")
        assert "a message is JSON" in hear(socket, "error")["error"]
        socket.send(json.dumps({"do": "fly"}))
        assert "nobody knows how to do 'fly'" in hear(socket, "error")["error"]
        socket.send(json.dumps({"do": "play"}))
        assert hear(socket, "done")


def test_a_flood_of_messages_is_refused():
    with playing() as (_, port), admitted(port) as socket:
        for _ in range(80):
            socket.send(json.dumps({"do": "pause"}))
        assert "messages" in hear(socket, "error")["error"]


def test_a_key_that_nobody_repeats_is_released():
    with playing() as (player, port), admitted(port) as socket:
        socket.send(json.dumps({"do": "steer", "axes": {"x": 1}}))
        hear(socket, "done")
        assert player.axes == {"x": 1}
        hear(socket, "view", until=lambda view: view["axes"] == {"x": 1})
        hear(socket, "view", until=lambda view: view["axes"] == {})
