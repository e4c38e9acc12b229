"""What there is at a server's address beside the policies."""

import json
import socket

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from pilot.serve.auth import ApiKeys
from pilot.serve.server import serve_in_background
from serve.policies import OBSERVATION, CountingPolicy, get, robot

KEY = "a-key-for-tests"
AUTHORIZED = {"Authorization": f"Api-Key {KEY}"}


@pytest.fixture(scope="module")
def port():
    with serve_in_background({"first": CountingPolicy(), "second": CountingPolicy()}) as port:
        yield port


@pytest.fixture(scope="module")
def keyed():
    with serve_in_background(CountingPolicy(), keys=ApiKeys([KEY])) as port:
        yield port


def status(url, **headers):
    """Of a websocket that is refused, and why."""
    with pytest.raises(InvalidStatus) as refused, connect(url, additional_headers=headers):
        pass
    return refused.value.response.status_code, refused.value.response.body.decode()


def test_health_and_readiness(port, keyed):
    for at in (port, keyed):
        assert get(at, "/healthz") == (200, "ok\n")
        assert get(at, "/readyz") == (200, "ready\n")


def test_metrics_count_by_policy(port):
    with robot(port, policy="second") as client:
        client.infer(OBSERVATION)
        text = get(port, "/metrics")[1]
    lines = text.splitlines()
    assert 'pilot_answers_total{policy="second"} 1.0' in lines
    assert "pilot_ready 1.0" in lines and "pilot_robots 1.0" in lines
    assert 'pilot_batch_robots_count{policy="second"} 1.0' in lines


def test_live_is_json(port):
    with robot(port) as client:
        client.infer(OBSERVATION)
        code, text = get(port, "/live")
    view = json.loads(text)
    assert code == 200 and [policy["name"] for policy in view["policies"]] == ["first", "second"]
    assert view["watched"]["prompt"] == OBSERVATION["prompt"] and client.session not in text
    assert [camera["name"] for camera in view["watched"]["cameras"]] == ["room", "wrist"]
    assert len(view["watched"]["chunk"]["actions"]) == 3


def test_the_dashboard_is_all_that_is_served_of_the_disk(port):
    code, page = get(port, "/")
    assert code == 200 and page.startswith("<!doctype html>")
    for path in (
        "/nothing.js",
        "/../http.py",
        "/%2e%2e/http.py",
        "/..%2fhttp.py",
        "/%00",
        "//etc/passwd",
        "/dashboard/",
    ):
        assert get(port, path)[0] == 404, path


def test_pages_may_load_nothing_from_elsewhere(port):
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        head = raw.makefile("rb").read().decode().split("\r\n\r\n")[0]
    assert "Content-Security-Policy: default-src 'self'" in head and "Content-Type: text/html; charset=utf-8" in head


def exchange(port, request):
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(request)
        return raw.makefile("rb").read()


def test_only_get(port):
    assert b" 405 " in exchange(port, b"DELETE /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert exchange(port, b"HEAD /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").endswith(b"\r\n\r\n")


def test_an_unknown_policy_is_answered_with_those_that_there_are(port):
    assert status(f"ws://127.0.0.1:{port}/third") == (404, "no policy 'third' here; there are first, second\n")
    with robot(port, policy="second") as client:
        assert client.infer(OBSERVATION)["seen"] == 1


def test_a_key_is_needed_for_all_but_health(keyed):
    assert get(keyed, "/metrics")[0] == get(keyed, "/live")[0] == 401
    assert get(keyed, "/metrics", **AUTHORIZED)[0] == get(keyed, "/live", **AUTHORIZED)[0] == 200
    assert status(f"ws://127.0.0.1:{keyed}/other")[0] == 401, "who has no key learns no names"
    code, words = status(f"ws://127.0.0.1:{keyed}")
    assert code == 401 and "Authorization: Api-Key" in words
    assert status(f"ws://127.0.0.1:{keyed}", Authorization="Api-Key wrong-key") == (
        401,
        "this server does not know this API key\n",
    )
    with robot(keyed, api_key=KEY) as client:
        assert client.infer(OBSERVATION)["seen"] == 1


def test_pages_of_others_reach_nothing(port):
    assert status(f"ws://127.0.0.1:{port}", Origin="http://evil.example")[0] == 403
    assert status(f"ws://127.0.0.1:{port}/live", Origin="http://evil.example")[0] == 403
    renamed = b"GET /live HTTP/1.1\r\nHost: evil.example\r\n\r\n"
    assert b" 403 " in exchange(port, renamed)


def test_a_session_has_a_plain_name(port):
    code, words = status(f"ws://127.0.0.1:{port}/?session=a%20b")
    assert code == 400 and "got 'a b'" in words


def test_headers_that_come_twice_are_no_key(keyed):
    request = b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\n" + 2 * f"Authorization: Api-Key {KEY}\r\n".encode() + b"\r\n"
    assert b" 401 " in exchange(keyed, request)


def test_a_path_too_long_for_a_file_is_not_found(port):
    assert get(port, "/" + 300 * "a" + ".html")[0] == 404
