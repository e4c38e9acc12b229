"""The page at a server's address, in a real browser: what it shows, by keyboard alone, at a desk and on a phone."""

import contextlib
import socket
import socketserver
import threading

import numpy as np
import pytest

from pilot.serve.auth import ApiKeys
from pilot.serve.client import PolicyClient
from pilot.serve.server import serve_in_background
from serve.browser import browse, chromium

pytestmark = pytest.mark.skipif(chromium() is None, reason="no chromium on the path, and PILOT_CHROMIUM names none")

DESK, PHONE = (1280, 900), (390, 844)
COMMAND_KEY = "key-for-commands"  # of servers without API keys; they print it with their address
MARKUP = "<img src=x onerror=window.hacked=1>"


class Speaker:
    """Says what it is told, in chunks of four, and remembers what it heard."""

    def __init__(self, **metadata):
        names = {"robot": "homes", "cameras": ["room", "wrist"], "action_names": ["x", "y", "z"], "control_hz": 10.0}
        self.metadata = names | metadata
        self.heard = []

    def infer(self, observation):
        if "prompt" not in observation:
            raise ValueError("the observation has no 'prompt'")
        self.heard.append(observation["prompt"])
        chunk = np.linspace(0, 1, 12, dtype=np.float32).reshape(4, 3)
        return {"actions": chunk, "subtask": f"do: {observation['prompt']}", "box": (0.25, 0.5, 0.5, 0.75)}


def sight(prompt, **changes):
    room, wrist = np.full((48, 64, 3), 200, np.uint8), np.full((64, 64, 3), 90, np.uint8)
    return {"images": {"room": room, "wrist": wrist}, "state": np.zeros(3, np.float32), "prompt": prompt} | changes


@pytest.fixture(scope="module")
def browser():
    with browse() as page:
        yield page


@pytest.fixture
def page(browser):
    browser.size(*DESK)
    browser.said.clear()
    browser.asked.clear()
    yield browser
    browser.open("about:blank")


@contextlib.contextmanager
def acting(policy, *, prompts=("put the cup in the sink",), **options):
    """A server with one robot for each prompt, each of which has asked once."""
    with serve_in_background(policy, command_key=COMMAND_KEY, **options) as port, contextlib.ExitStack() as robots:
        clients = [robots.enter_context(PolicyClient(port=port)) for _ in prompts]
        for client, prompt in zip(clients, prompts, strict=True):
            client.infer(sight(prompt))
        yield port, clients


def shown(selector):
    return f"document.querySelector({selector!r})?.textContent"


def watched(page, port):
    page.open(f"http://127.0.0.1:{port}/#key={COMMAND_KEY}")
    page.until("!document.getElementById('robot').hidden")


def tab_to(page, selector, *, most=20):
    """Go there by Tab alone; every stop on the way can be seen to have the focus."""
    for _ in range(most):
        page.press("Tab")
        focused = "document.activeElement"
        if page.value(f"{focused} !== document.body"):
            assert page.value(f"getComputedStyle({focused}).outlineStyle") != "none", page.value(f"{focused}.outerHTML")
        if page.value(f"{focused}.matches({selector!r})"):
            return
    raise AssertionError(f"{selector} is not reached by {most} times Tab")


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_what_a_robot_does_is_on_the_page(page, size):
    with acting(Speaker()) as (port, _):
        page.size(*size)
        watched(page, port)
        assert page.value(shown("#link")) == "live"
        assert page.value(shown("#policies")) == "policy · homes · 10 Hz"
        assert page.value(shown("#prompt")) == "put the cup in the sink"
        assert page.value(shown("#subtask")) == "do: put the cup in the sink"
        assert page.value(shown("#history li span")) == "do: put the cup in the sink"
        page.until("[...document.images].length === 2 && [...document.images].every((i) => i.complete)")
        pictures = page.value("[...document.images].map((i) => [i.alt, i.naturalWidth, i.naturalHeight])")
        assert pictures == [["What the camera room sees", 64, 48], ["What the camera wrist sees", 64, 64]]
        names = page.value("[...document.querySelectorAll('#chunk figcaption b')].map((b) => b.textContent)")
        assert names == ["x", "y", "z"]
        page.until(shown("#chunk-time") + ".startsWith('4 of 4 actions executed')")  # the clock runs on
        rows = page.value("[...document.querySelectorAll('#latency tbody tr')].map((r) => r.children.length)")
        assert rows == [4, 4, 4] and "1 observation" in page.value(shown("#counts"))
        assert page.value("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out at the side"
        assert page.said == []


def test_the_box_lies_where_the_model_looks(page):
    """Of the square in which a picture of 64 x 48 is centred: 16 rows are below and above it, together."""
    with acting(Speaker()) as (port, _):
        watched(page, port)
        style = page.value("Object.fromEntries(['top', 'left', 'height', 'width'].map((k) => "
                           "[k, parseFloat(document.querySelector('.box').style[k])]))")  # fmt: skip
        assert style == pytest.approx({"top": 100 * 8 / 48, "left": 50, "height": 100 * 16 / 48, "width": 25}, abs=0.01)
        assert page.value("document.querySelectorAll('.box').length") == 1


def test_the_plots_mark_what_was_done(page):
    with acting(Speaker()) as (port, [client]):
        client.infer(sight("put the cup in the sink", executed=3))
        watched(page, port)
        points = "(part) => document.querySelector(`#chunk .${part}`).getAttribute('points').split(' ').length"
        assert page.value(f"({points})('before')") == 4, "three that were done, up to where the new chunk begins"
        page.until(f"({points})('done') === 4")
        assert page.value("document.querySelector('#chunk rect').getAttribute('width')") == "100"
        label = page.value("document.querySelector('#chunk svg').getAttribute('aria-label')")
        assert label == "x: now 0.818, at the end of the chunk 0.818"


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_a_command_by_keyboard_alone(page, size):
    policy = Speaker()
    with acting(policy) as (port, [client]):
        page.size(*size)
        watched(page, port)
        page.press("Tab")
        assert page.value("document.activeElement.matches('.skip')")
        page.press("Enter")
        page.until("location.hash === '#words'")
        if not page.value("document.activeElement.matches('#words')"):
            tab_to(page, "#words")
        page.type("put the ball in the bin")
        page.press("Enter")
        page.until(shown("#heard") + ".includes('Command sent: “put the ball in the bin”')")
        client.infer(sight("put the cup in the sink"))
        assert policy.heard[-1] == "put the ball in the bin"
        page.until(shown("#subtask") + " === 'do: put the ball in the bin'")
        assert page.value("document.activeElement.matches('#words') && document.activeElement.value === ''")
        tab_to(page, "#own")
        page.press("Enter")
        page.until(shown("#heard") + " === 'The robot follows its own prompt.'")
        client.infer(sight("put the cup in the sink"))
        assert policy.heard[-1] == "put the cup in the sink"
        page.until("document.getElementById('own').hidden")
        assert page.said == []


def test_another_robot_by_keyboard_alone(page):
    policy = Speaker()
    with acting(policy, prompts=("wash up", "dry up")) as (port, _):
        watched(page, port)
        page.until(shown("#prompt") + " === 'wash up'")
        tab_to(page, "#robots li:nth-child(2) button")
        page.press("Space")
        page.until(shown("#prompt") + " === 'dry up'")
        pressed = "[...document.querySelectorAll('#robots button')].map((b) => b.getAttribute('aria-pressed'))"
        assert page.value(pressed) == ["false", "true"]
        assert page.value("document.activeElement.matches('#robots li:nth-child(2) button')"), "the focus stays"


def test_the_focus_stays_with_its_robot_when_another_ends(page):
    with acting(Speaker(), prompts=("wash up", "dry up")) as (port, clients):
        watched(page, port)
        tab_to(page, "#robots li:nth-child(2) button")
        focused = "document.activeElement.querySelector('small')?.textContent"
        assert page.value(focused) == "do: dry up"
        clients[0].close()
        page.until("document.querySelectorAll('#robots li').length === 1")
        assert page.value(focused) == "do: dry up"


def test_when_the_chosen_robot_ends_the_next_is_shown(page):
    with acting(Speaker(), prompts=("wash up", "dry up")) as (port, clients):
        watched(page, port)
        page.value("document.querySelector('#robots li:nth-child(2) button').click()")
        page.until(shown("#prompt") + " === 'dry up'")
        clients[1].close()
        page.until(shown("#prompt") + " === 'wash up'")
        clients[0].close()
        page.until("!document.getElementById('nobody').hidden")
        assert page.value(shown("#address")) == f"ws://127.0.0.1:{port}/"


def test_it_can_be_heard(page):
    """Names for everything that can be used, landmarks, and the subtask said when it changes, once."""
    with acting(Speaker()) as (port, [client]):
        watched(page, port)
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        roles = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if "role" in node]
        assert [
            role for role, name in roles if role in {"button", "textbox", "link", "image", "table"} and not name
        ] == []
        assert {"banner", "main", "complementary"} <= {role for role, _ in roles}
        assert ("textbox", "Tell the robot what to do") in roles
        live = "document.getElementById('subtask')"
        assert page.value(f"{live}.getAttribute('aria-live')") == "polite"
        page.value(f"window.changes = 0; new MutationObserver(() => changes++).observe({live}, {{childList: true}})")
        client.infer(sight("put the cup in the sink"))
        page.until(shown("#counts") + ".includes('2 observations')")
        assert page.value("window.changes") == 0, "a view came, and the words are the same"


def test_words_of_strangers_are_text(page):
    policy = Speaker(robot=MARKUP, action_names=[MARKUP] * 3, cameras=[MARKUP])
    images = {MARKUP: np.zeros((8, 8, 3), np.uint8)}
    with acting(policy, prompts=()) as (port, _), PolicyClient(port=port) as client:
        with pytest.raises(RuntimeError):
            client.infer({"images": images, MARKUP: 1})
        client.infer(sight(MARKUP, images=images))
        watched(page, port)
        for place in ("#prompt", "#robots b", "#chunk b", "#cameras figcaption"):
            assert page.value(shown(place)) == MARKUP, place
        assert page.value(shown("#subtask")) == f"do: {MARKUP}"
        assert page.value("document.querySelectorAll('img').length") == 1
        page.value(f"document.getElementById('words').value = {MARKUP!r}")
        page.value("document.getElementById('command').requestSubmit()")
        page.until(shown("#heard") + f".includes({MARKUP!r})")
        assert page.value("window.hacked") is None


def test_nothing_is_loaded_from_elsewhere(page):
    with acting(Speaker()) as (port, _):
        watched(page, port)
        ours = (f"http://127.0.0.1:{port}/", f"ws://127.0.0.1:{port}/", "data:")
        assert page.asked and [url for url in page.asked if not url.startswith(ours)] == []


def test_it_is_dark_at_night(page):
    with acting(Speaker()) as (port, _):
        watched(page, port)
        paper = "getComputedStyle(document.body).backgroundColor"
        day = page.value(paper)
        page.size(*DESK, dark=True)
        page.until(f"{paper} !== {day!r}")
        red, green, blue = (int(x) for x in page.value(paper).removeprefix("rgb(").removesuffix(")").split(","))
        assert max(red, green, blue) < 40


class Relay(socketserver.ThreadingTCPServer):
    """An address that stays while the server behind it does not: `target` is its port, or None while it is away."""

    daemon_threads, block_on_close = True, False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), None)
        self.target, self.open = None, set()

    def finish_request(self, request, client_address):
        if self.target is None:
            return
        with socket.create_connection(("127.0.0.1", self.target)) as behind, contextlib.suppress(OSError):
            self.open |= {request, behind}
            threading.Thread(target=self.pump, args=(behind, request), daemon=True).start()
            self.pump(request, behind)

    @staticmethod
    def pump(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self):
        self.target, cut, self.open = None, self.open, set()
        for end in cut:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def again(client, prompt):
    """What a robot does that is told that its connection is lost."""
    with pytest.raises(ConnectionError, match="the next call connects again"):
        client.infer(sight(prompt))
    client.infer(sight(prompt))


def test_page_and_robots_come_back_when_the_server_does(page):
    with Relay() as relay, contextlib.ExitStack() as robots:
        threading.Thread(target=relay.serve_forever, daemon=True).start()
        port = relay.server_address[1]
        with serve_in_background(Speaker()) as relay.target:
            clients = [robots.enter_context(PolicyClient(port=port)) for _ in range(2)]
            for client, prompt in zip(clients, ("wash up", "dry up"), strict=True):
                client.infer(sight(prompt))
            watched(page, port)
            tab_to(page, "#robots li:nth-child(2) button")
            page.press("Enter")
            page.until(shown("#prompt") + " === 'dry up'")
            relay.cut()
        page.until(shown("#link") + " === 'disconnected'")
        assert page.value(shown("#prompt")) == "dry up", "what was seen last stays"
        with serve_in_background(Speaker()) as relay.target:
            again(clients[0], "wash up")
            again(clients[1], "dry up once more")
            page.until(shown("#prompt") + " === 'dry up once more'")
            assert page.value(shown("#link")) == "live"
            robots.close()
            relay.cut()
        relay.shutdown()


def test_a_key_is_asked_for_and_kept(page):
    with (
        serve_in_background(Speaker(), keys=ApiKeys(["open sesame"])) as port,
        PolicyClient(port=port, api_key="open sesame") as client,
    ):
        client.infer(sight("wash up"))
        page.open(f"http://127.0.0.1:{port}/")
        page.until("!document.getElementById('door').hidden && document.activeElement.matches('#key')")
        page.type("open barley")
        page.press("Enter")
        page.until(shown("#refused") + ".includes('does not know')")
        page.until("document.activeElement.matches('#key')")
        page.type("open sesame")
        page.press("Enter")
        page.until(shown("#prompt") + " === 'wash up'")
        page.open(f"http://127.0.0.1:{port}/")
        page.until(shown("#prompt") + " === 'wash up'")
        assert page.value("document.getElementById('door').hidden")
        page.value("sessionStorage.clear()")
