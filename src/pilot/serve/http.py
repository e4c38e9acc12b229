"""The paths of a server, and who may go in where.

    /               a websocket: the first policy; a browser: the dashboard
    /NAME           a websocket: the policy of that name; otherwise a file of the dashboard
    /live           a websocket or JSON: what people see (`serve/live.py`)
    /healthz        the process answers            /readyz    the policies are warm, and it is not stopping
    /metrics        Prometheus

A robot may name its session, in the header `X-Pilot-Session` or as `?session=`; a load balancer that always sends a
name to the same server lets the robot come back to what it was doing.
"""

import asyncio
import json
import re
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request, Response
from websockets.protocol import OPEN

from pilot.serve import live
from pilot.serve.auth import check_origin, key_of
from pilot.serve.hosted_policy import Hosted
from pilot.serve.limits import Limits, Rate
from pilot.serve.state import State

DASHBOARD = Path(__file__).parent / "dashboard"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
SAFE = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
GOODBYE_SECONDS = 1.0  # a client that is gone or stuck does not answer a goodbye
PIECE = 2**14  # bytes that are looked at in one go: a few thousand of the smallest frames
SMALL = 2**10  # bytes of a frame that costs more to look at than to carry
SESSION = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Visitor(ServerConnection):
    """A connection, and what it came for once that is known."""

    limits: ClassVar[Limits]
    knocking: ClassVar[dict["Visitor", None]]  # who has not said anything yet, the longest here first
    inside: ClassVar[set["Visitor"]]  # who was let in, until the connection is lost
    wants: Literal["nothing", "to act", "to look"] = "nothing"
    hosted: Hosted
    owner: str = ""
    session: str | None = None
    answering: asyncio.Task[Any] | None = None  # the answer that this connection waits for

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Where too many knock and say nothing, the one who has done so longest has to go."""
        super().connection_made(transport)
        most = max(self.limits.small_frames_per_second, 2 * self.limits.observations_per_second)
        self.small = Rate(most, what="small frames")
        self.knocking[self] = None
        if len(self.knocking) > self.limits.strangers:
            longest = next(iter(self.knocking))
            del self.knocking[longest]
            longest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.knocking.pop(self, None)
        self.inside.discard(self)
        if self.answering is not None:  # nobody is there to hear it: the model has others to answer
            self.answering.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """A quarter of a megabyte of the smallest frames is a second in which nobody else is heard."""
        for start in range(0, len(data), PIECE):
            if not self.transport.is_closing():
                super().data_received(data[start : start + PIECE])

    def process_event(self, event: Any) -> None:
        """Who floods us with small frames has to go: no robot needs them, and looking at them keeps us from others."""
        super().process_event(event)
        if isinstance(event, Frame) and len(event.data) < SMALL and self.state is OPEN:
            try:
                self.small.take()
            except ValueError as error:
                self.protocol.fail(CloseCode.POLICY_VIOLATION, str(error))
                self.send_data()
                self.loop.call_later(GOODBYE_SECONDS, self.transport.abort)

    async def say(self, message: str | bytes) -> None:
        """Send.

        Raises:
            TimeoutError: it is not taken in.
            ConnectionClosed: nobody is there.
        """
        async with asyncio.timeout(self.limits.send_seconds):
            await self.send(message)


def visitors(limits: Limits) -> type[Visitor]:
    """The visitors of one server; websockets makes them, and leaves no other way to tell them of it."""
    return type("LimitedVisitor", (Visitor,), {"limits": limits, "knocking": {}, "inside": set()})


class Refusal(Exception):
    """A request that is not granted: status, words for who made it, and the reason in short for our counts."""

    def __init__(self, status: HTTPStatus, words: str, *, reason: str) -> None:
        super().__init__(words)
        self.status, self.reason = status, reason


def answer(state: State, visitor: Visitor, request: Request) -> Response | None:
    """What a request gets; nothing for a websocket, which goes on with what `visitor.wants`."""
    visitor.knocking.pop(visitor, None)
    method = getattr(request, "method", "GET")  # websockets before 17 lets nothing else through
    try:
        if method not in ("GET", "HEAD"):
            raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, f"only GET, got {method:.20}", reason="method")
        headers = lower(request.headers)
        url = urlsplit(request.path)
        if headers.get("upgrade", "").lower() == "websocket":
            enter(state, visitor, headers, path=unquote(url.path), query=url.query)
            visitor.inside.add(visitor)
            return None
        response = page(state, headers, path=unquote(url.path), query=url.query)
    except Refusal as refusal:
        state.metrics.turned_away.add(reason=refusal.reason)
        response = plain(refusal.status, f"{refusal}\n")
    except ValueError as error:  # a path that is none
        response = plain(HTTPStatus.BAD_REQUEST, f"{error}\n")
    if method == "HEAD":
        response.body = b""
    return response


def lower(headers: Headers) -> dict[str, str]:
    """Names in lower case; what came twice is joined, and so matches nothing."""
    found: dict[str, str] = {}
    for name, value in headers.raw_items():
        name = name.lower()
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def enter(state: State, visitor: Visitor, headers: dict[str, str], *, path: str, query: str) -> None:
    """Let a websocket in, for a policy or to look.

    Raises:
        Refusal: not here, not now, or not this one.
    """
    guard_origin(state, headers, page=False)
    if path == "/live":
        viewers = sum(other.wants == "to look" for other in visitor.inside)
        if viewers >= state.limits.viewers:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, f"full: {viewers} people look", reason="full")
        visitor.wants = "to look"
        return
    visitor.owner = owner_of(state, headers)
    hosted = state.policy(path.strip("/"))
    if hosted is None:
        words = f"no policy {path.strip('/')!r:.80} here; there are {', '.join(state.policies)}"
        raise Refusal(HTTPStatus.NOT_FOUND, words, reason="unknown policy")
    visitor.hosted, visitor.session = hosted, session_name(headers, query)
    if not state.ready:
        raise Refusal(
            HTTPStatus.SERVICE_UNAVAILABLE, "stopping" if state.stopping else "warming up", reason="not ready"
        )
    robots = [other for other in visitor.inside if other.wants == "to act"]
    back = visitor.session is not None and visitor.session in [other.session for other in robots]  # that one makes room
    if len(robots) >= state.limits.robots and not back:
        raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, f"full: {len(robots)} robots are connected", reason="full")
    visitor.wants = "to act"


def page(state: State, headers: dict[str, str], *, path: str, query: str) -> Response:
    """What a browser, a probe or Prometheus asks for.

    Raises:
        Refusal: there is no such thing, or it needs a key.
    """
    if path == "/healthz":
        return plain(HTTPStatus.OK, "ok\n")
    if path == "/readyz":
        words = "stopping\n" if state.stopping else "ready\n" if state.ready else "warming up\n"
        return plain(HTTPStatus.OK if state.ready else HTTPStatus.SERVICE_UNAVAILABLE, words)
    if path == "/metrics":
        owner_of(state, headers)
        text = state.metrics.text(state.gauges()).encode()
        return reply(HTTPStatus.OK, text, kind="text/plain; version=0.0.4; charset=utf-8")
    if path == "/live":
        guard_origin(state, headers, page=True)
        owner_of(state, headers)
        watch = parse_qs(query).get("watch", [None])[0]
        view = live.view(state.sessions, policies=state.described(), ready=state.ready, watch=watch)
        return reply(HTTPStatus.OK, json.dumps(view).encode(), kind="application/json")
    return dashboard(path)


def dashboard(path: str) -> Response:
    """A file of the dashboard's folder, which has no folders in it."""
    file = DASHBOARD / (path.strip("/") or "index.html")
    if file not in DASHBOARD.iterdir() or file.suffix not in KINDS:
        raise Refusal(HTTPStatus.NOT_FOUND, f"nothing at {path!r:.80}; a robot connects to a websocket", reason="path")
    return reply(HTTPStatus.OK, file.read_bytes(), kind=KINDS[file.suffix])


def guard_origin(state: State, headers: dict[str, str], *, page: bool) -> None:
    try:
        check_origin(headers, keyed=bool(state.keys), page=page)
    except PermissionError as error:
        raise Refusal(HTTPStatus.FORBIDDEN, str(error), reason="origin") from error


def owner_of(state: State, headers: dict[str, str]) -> str:
    try:
        return state.keys.owner(key_of(headers))
    except PermissionError as error:
        raise Refusal(HTTPStatus.UNAUTHORIZED, str(error), reason="key") from error


def session_name(headers: dict[str, str], query: str) -> str | None:
    name = headers.get("x-pilot-session") or parse_qs(query).get("session", [None])[0]
    if name is not None and not SESSION.fullmatch(name):
        words = f"a session is named with 1 to 64 letters, digits, '-', '_' and '.', got {name!r:.80}"
        raise Refusal(HTTPStatus.BAD_REQUEST, words, reason="session")
    return name


def plain(status: HTTPStatus, words: str) -> Response:
    return reply(status, words.encode(errors="replace"), kind="text/plain; charset=utf-8")


def reply(status: HTTPStatus, body: bytes, *, kind: str) -> Response:
    headers = Headers({"Connection": "close", "Content-Length": str(len(body)), "Content-Type": kind, **SAFE})
    return Response(status.value, status.phrase, headers, body)
