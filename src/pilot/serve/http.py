"""The paths of a server, and who may use them.

    /               a websocket: the first policy; a browser: the dashboard
    /NAME           a websocket: the policy of that name; otherwise a file of the dashboard
    /vla-eval       a websocket of vla-evaluation-harness; /vla-eval/NAME for another policy than the first
    /live           a websocket or JSON: what people see (`serve/live.py`)
    /healthz        200 as soon as the process runs
    /readyz         200 when the policies are warm and the server is not stopping
    /metrics        metrics for Prometheus

A robot says which of a policy's robots it is, in the header `X-Pilot-Robot` or as `?robot=`; it need not where the
policy is for one. It may name its session, in the header `X-Pilot-Session` or as `?session=`. A load balancer that
sends equal names to the same server lets the robot continue its session after a lost connection.
"""

import json
import re
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from pilot.serve import live, vla_eval
from pilot.serve.auth import Role, check_origin, read_api_key
from pilot.serve.connection import IncomingConnection
from pilot.serve.hosted_policy import HostedPolicy
from pilot.serve.sessions import SessionKey, session_key
from pilot.serve.state import ServerState, TooManyWrongKeys

PROBES = ("/healthz", "/readyz")  # answered at once also while others wait to connect: a late answer costs a restart
DASHBOARD = Path(__file__).parent / "dashboard"
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
ERROR_LENGTH = 400  # what a refusal says at most: it may quote what was asked for
SESSION_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class RequestRefused(Exception):
    """A request that gets an error: its HTTP status, a text for the client, and a short reason for the metrics."""

    def __init__(self, status: HTTPStatus, text: str, *, reason: str) -> None:
        super().__init__(text)
        self.status, self.reason = status, reason


def handle_request(state: ServerState, connection: IncomingConnection, request: Request) -> Response | None:
    """Return the response to a request; None for a websocket, which goes on as `connection.role` says."""
    connection.pending.pop(connection, None)
    method = getattr(request, "method", "GET")  # websockets before 17 accepts nothing else
    try:
        if method not in ("GET", "HEAD"):
            raise RequestRefused(HTTPStatus.METHOD_NOT_ALLOWED, f"only GET, got {method:.20}", reason="method")
        headers = normalize_headers(request.headers)
        url = urlsplit(request.path)
        if headers.get("upgrade", "").lower() == "websocket":
            accept_websocket(state, connection, headers, path=unquote(url.path), query=url.query)
            connection.accepted.add(connection)
            return None
        response = get_page(state, connection, headers, path=unquote(url.path), query=url.query)
    except RequestRefused as refused:
        state.metrics.turned_away.labels(refused.reason).inc()
        response = text_response(refused.status, f"{refused}\n")
    except ValueError as error:  # not a valid URL
        response = text_response(HTTPStatus.BAD_REQUEST, f"{error}\n")
    if method == "HEAD":
        response.body = b""
    return response


def normalize_headers(headers: Headers) -> dict[str, str]:
    """Return headers with names in lower case; the values of one that came twice are joined, so that no key matches."""
    values: dict[str, str] = {}
    for name, value in headers.raw_items():
        name = name.lower()
        values[name] = f"{values[name]}, {value}" if name in values else value
    return values


def accept_websocket(
    state: ServerState, connection: IncomingConnection, headers: dict[str, str], *, path: str, query: str
) -> None:
    """Accept a websocket as a robot's or a viewer's, and note on the connection what it is.

    Raises:
        RequestRefused: it names no policy of this server, has no key, or the server is full or not ready.
    """
    require_origin(state, headers, page=False)
    if path == "/live":
        viewers = sum(other.role == "viewer" for other in connection.accepted)
        if viewers >= state.limits.viewers:
            raise RequestRefused(HTTPStatus.SERVICE_UNAVAILABLE, f"full: {viewers} viewers", reason="full")
        connection.role = "viewer"
        return
    connection.owner = authenticate(state, connection, headers, role="act")
    name = path.strip("/")
    if name == vla_eval.PATH or name.startswith(f"{vla_eval.PATH}/"):
        connection.dialect, name = "vla-eval", name.removeprefix(vla_eval.PATH).strip("/")
    hosted = state.find_policy(name)
    if hosted is None:
        text = f"no policy {name!r:.80} here; there are {', '.join(state.policies)}"
        raise RequestRefused(HTTPStatus.NOT_FOUND, text, reason="unknown policy")
    connection.hosted, connection.session = hosted, session_name(headers, query)
    connection.kind = robot_kind(hosted, headers, query)
    if not state.ready:
        raise RequestRefused(
            HTTPStatus.SERVICE_UNAVAILABLE, "stopping" if state.stopping else "warming up", reason="not ready"
        )
    robots = [other for other in connection.accepted if other.role == "robot"]
    # A robot that reconnects replaces its own old connection, so it fits even where the server is full.
    returns = connection.session is not None and key_of(connection) in map(key_of, robots)
    if len(robots) >= state.limits.robots and not returns:
        raise RequestRefused(HTTPStatus.SERVICE_UNAVAILABLE, f"full: {len(robots)} robots are connected", reason="full")
    connection.role = "robot"
    if (cameras := hosted.describe(connection.kind).get("cameras")) is not None:
        connection.limit_messages(state.limits.largest_message(len(cameras)))


def key_of(connection: IncomingConnection) -> SessionKey:
    """Return the key of the session that a robot asks for."""
    return session_key(
        owner=connection.owner, policy=connection.hosted.name, kind=connection.kind, name=connection.session
    )


def get_page(
    state: ServerState, connection: IncomingConnection, headers: dict[str, str], *, path: str, query: str
) -> Response:
    """Return what a browser, a health check or Prometheus asks for.

    Raises:
        RequestRefused: there is nothing at this path, or it needs a key.
    """
    if path == "/healthz":
        return text_response(HTTPStatus.OK, "ok\n")
    if path == "/readyz":
        text = "stopping\n" if state.stopping else "ready\n" if state.ready else "warming up\n"
        return text_response(HTTPStatus.OK if state.ready else HTTPStatus.SERVICE_UNAVAILABLE, text)
    if path == "/metrics":
        authenticate(state, connection, headers, role=None)
        text = state.metrics.to_text()
        return make_response(HTTPStatus.OK, text.encode(), content_type="text/plain; version=0.0.4; charset=utf-8")
    if path == "/live":
        require_origin(state, headers, page=True)
        authenticate(state, connection, headers, role="watch")
        watch = parse_qs(query).get("watch", [None])[0]
        view = live.build_view(state.sessions, policies=state.describe_policies(), ready=state.ready, watch=watch)
        return make_response(HTTPStatus.OK, json.dumps(view).encode(), content_type="application/json")
    return dashboard_file(path)


def dashboard_file(path: str) -> Response:
    """Return a file of the dashboard's folder, which has no subfolders.

    Raises:
        RequestRefused: there is no such file.
    """
    file = DASHBOARD / (path.strip("/") or "index.html")
    if file not in DASHBOARD.iterdir() or file.suffix not in CONTENT_TYPES:
        text = f"nothing at {path!r:.80}; a robot connects to a websocket"
        raise RequestRefused(HTTPStatus.NOT_FOUND, text, reason="path")
    return make_response(HTTPStatus.OK, file.read_bytes(), content_type=CONTENT_TYPES[file.suffix])


def require_origin(state: ServerState, headers: dict[str, str], *, page: bool) -> None:
    """Refuse a request that another site's page made a browser send (`auth.check_origin`)."""
    try:
        check_origin(headers, keyed=bool(state.keys), page=page)
    except PermissionError as error:
        raise RequestRefused(HTTPStatus.FORBIDDEN, str(error), reason="origin") from error


def authenticate(
    state: ServerState, connection: IncomingConnection, headers: dict[str, str], *, role: Role | None
) -> str:
    """Return the owner of the API key in a request; refuse one without a valid key, or whose key has not this role."""
    try:
        return state.check_key(read_api_key(headers), address=connection.host, role=role)
    except TooManyWrongKeys as error:
        raise RequestRefused(HTTPStatus.TOO_MANY_REQUESTS, str(error), reason="too many wrong keys") from error
    except PermissionError as error:
        raise RequestRefused(HTTPStatus.UNAUTHORIZED, str(error), reason="key") from error


def session_name(headers: dict[str, str], query: str) -> str | None:
    """Return the name that a robot gives its session, or None.

    Raises:
        RequestRefused: the name has other characters than it may have.
    """
    name = headers.get("x-pilot-session") or parse_qs(query).get("session", [None])[0]
    if name is not None and not SESSION_NAME.fullmatch(name):
        text = f"the name of a session has 1 to 64 letters, digits, '-', '_' and '.', got {name!r:.80}"
        raise RequestRefused(HTTPStatus.BAD_REQUEST, text, reason="session")
    return name


def robot_kind(hosted: HostedPolicy, headers: dict[str, str], query: str) -> str | None:
    """Return which of a policy's robots sends a request (`HostedPolicy.choose_robot`).

    Raises:
        RequestRefused: the policy does not know it, or knows several and none is named.
    """
    name = headers.get("x-pilot-robot") or parse_qs(query).get("robot", [None])[0]
    try:
        return hosted.choose_robot(name)
    except ValueError as error:
        raise RequestRefused(HTTPStatus.BAD_REQUEST, str(error)[:ERROR_LENGTH], reason="robot") from error


def text_response(status: HTTPStatus, text: str) -> Response:
    """Return a response of plain text."""
    return make_response(status, text.encode(errors="replace"), content_type="text/plain; charset=utf-8")


def make_response(status: HTTPStatus, body: bytes, *, content_type: str) -> Response:
    """Return a response with the headers that all responses of this server have."""
    own = {"Connection": "close", "Content-Length": str(len(body)), "Content-Type": content_type}
    return Response(status.value, status.phrase, Headers({**own, **SECURITY_HEADERS}), body)
