"""The page of `pilot play` and its websocket, in a thread of their own; the simulation runs in the thread that calls.

The page sends messages `{"do": WORD, …}` (`player.py`); the first is its key, `{"key": …}`. It is answered `done` or
`error`, and shown a `view` whenever one is published. The address that `pilot play` prints carries the key behind a
`#`, which a browser never sends anywhere. A request from another site's page is refused (`serve/auth.py`).
"""

import asyncio
import contextlib
import json
import queue
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

try:
    from websockets.asyncio.server import Server, ServerConnection
    from websockets.asyncio.server import serve as listen
    from websockets.exceptions import ConnectionClosed
    from websockets.http11 import Request, Response

    from pilot.serve.http import CONTENT_TYPES, DASHBOARD, make_response, normalize_headers, text_response
except ModuleNotFoundError as error:
    raise ImportError(f"playing needs {error.name}: pip install 'pilot[play]'") from error

from pilot.serve.auth import ApiKeys, check_origin
from pilot.serve.limits import RateLimit
from pilot.serve.viewers import WRONG_KEY, parse_message

PAGE = Path(__file__).parent / "page"
SHARED = ("palette.css", "dashboard.css", "tools.js")  # what the pages of a server have in common
VIEW_SECONDS = 0.1  # between two views while the robot moves
IDLE_SECONDS = 0.5  # between two views otherwise: a fine-tuning may have gone on
STEER_SECONDS = 0.6  # a key that nobody repeats for so long is taken to be released: the page may be gone
MESSAGES_PER_SECOND = 40.0
MOST_VIEWERS = 8
KEY_SECONDS = 120.0  # to type a key


class Playable(Protocol):
    """What a server shows and lets people play with: a `Player`, or a stand-in for one."""

    playing: bool

    def tick(self) -> None:
        """Run one control step."""
        ...

    def handle(self, message: dict[str, Any]) -> str | None:
        """Do what a person asks; return what to tell the person, or raise a `ValueError` that says what is wrong."""
        ...

    def view(self) -> dict[str, Any]:
        """Return all that is shown."""
        ...


class PlayServer:
    """The network side. Messages wait in `inbox` as (message, where to answer); `publish` shows a view to everyone."""

    def __init__(self, key: str) -> None:
        self.keys = ApiKeys([key])
        self.inbox: queue.Queue[tuple[dict[str, Any], asyncio.Future[dict[str, Any]]]] = queue.Queue()
        self.loop = asyncio.new_event_loop()
        self.viewers = 0
        self._view, self._number = "", 0
        self._changed = asyncio.Condition()
        self._server: Server | None = None

    def publish(self, view: dict[str, Any]) -> None:
        """Show a view to everyone who looks; any thread may call it."""
        text = json.dumps(view)

        async def show() -> None:
            self._view, self._number = text, self._number + 1
            async with self._changed:
                self._changed.notify_all()

        asyncio.run_coroutine_threadsafe(show(), self.loop)

    def answer(self, future: "asyncio.Future[dict[str, Any]]", reply: dict[str, Any]) -> None:
        """Answer one message; any thread may call it."""
        self.loop.call_soon_threadsafe(lambda: future.done() or future.set_result(reply))

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port."""
        self._server = await listen(
            self._handle, host, port, process_request=self._handle_request, compression=None,
            max_size=8192, max_queue=4, open_timeout=10, close_timeout=1,
        )  # fmt: skip
        return self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close all connections."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def _handle_request(self, connection: ServerConnection, request: Request) -> Response | None:
        headers = normalize_headers(request.headers)
        is_socket = headers.get("upgrade", "").lower() == "websocket"
        try:
            # The page itself holds no secret; the socket is for pages that this server made.
            check_origin(headers, keyed=True, page=not is_socket)
        except PermissionError as error:
            return text_response(HTTPStatus.FORBIDDEN, f"{error}\n")
        path = unquote(urlsplit(request.path).path).strip("/")
        if is_socket:
            if path != "live":
                return text_response(HTTPStatus.NOT_FOUND, "the page talks to /live\n")
            full = self.viewers >= MOST_VIEWERS
            return text_response(HTTPStatus.SERVICE_UNAVAILABLE, "too many people play here\n") if full else None
        return page_file(path)

    async def _handle(self, connection: ServerConnection) -> None:
        self.viewers += 1
        try:
            if not await self._has_key(connection):
                await connection.close(WRONG_KEY, "this is not the key of this server")
                return
            showing = asyncio.create_task(self._show(connection))
            try:
                await self._take_messages(connection)
            finally:
                showing.cancel()
                await asyncio.gather(showing, return_exceptions=True)
        except (ConnectionClosed, TimeoutError):
            pass
        finally:
            self.viewers -= 1

    async def _has_key(self, connection: ServerConnection) -> bool:
        await connection.send(json.dumps({"kind": "key"}))
        async with asyncio.timeout(KEY_SECONDS):
            message = parse_message(await connection.recv())
        try:
            self.keys.owner(str(message.get("key")) if message is not None else None)
        except PermissionError:
            return False
        return True

    async def _take_messages(self, connection: ServerConnection) -> None:
        rate = RateLimit(MESSAGES_PER_SECOND, what="messages")
        async for text in connection:
            message = parse_message(text)
            try:
                rate.take()
                if message is None:
                    raise ValueError('a message is JSON: {"do": WORD, …}')
            except ValueError as error:
                await connection.send(json.dumps({"kind": "error", "error": str(error)}))
                await asyncio.sleep(0)
                continue
            assert message is not None
            future: asyncio.Future[dict[str, Any]] = self.loop.create_future()
            self.inbox.put((message, future))
            await connection.send(json.dumps(await future))

    async def _show(self, connection: ServerConnection) -> None:
        """Send the newest view, and again whenever there is a newer one; those in between are left out."""
        seen = 0
        while True:
            async with self._changed:
                while self._number == seen:
                    await self._changed.wait()
            seen = self._number
            await connection.send(self._view)


def page_file(path: str) -> Response:
    """Return a file of the page."""
    name = path or "index.html"
    folder = DASHBOARD if name in SHARED else PAGE
    file = folder / name
    if file not in folder.iterdir() or file.suffix not in CONTENT_TYPES:
        return text_response(HTTPStatus.NOT_FOUND, f"nothing at {path!r:.80}\n")
    return make_response(HTTPStatus.OK, file.read_bytes(), content_type=CONTENT_TYPES[file.suffix])


@contextlib.contextmanager
def serving(server: PlayServer, host: str, *, port: int) -> Iterator[int]:
    """Serve in a thread of this process while the `with` block runs; yields the port."""
    thread = threading.Thread(target=server.loop.run_forever, daemon=True)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(server.start(host, port), server.loop).result()
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), server.loop).result()
        server.loop.call_soon_threadsafe(server.loop.stop)
        thread.join()
        server.loop.close()


def run_player(player: Playable, server: PlayServer, *, hz: float, until: threading.Event | None = None) -> None:
    """Let people play until Ctrl-C: take messages, run control steps at the robot's rate, publish views."""
    period, stop = 1 / hz, until or threading.Event()
    next_tick = shown_at = steered_at = 0.0
    server.publish(player.view())
    while not stop.is_set():
        now = time.monotonic()
        wait = min(max(next_tick - now, 0.0), IDLE_SECONDS) if player.playing else IDLE_SECONDS
        handled = handle_messages(player, server, wait=wait)
        now = time.monotonic()
        if "steer" in handled:
            steered_at = now
        elif steered_at and now - steered_at > STEER_SECONDS:
            steered_at = 0.0
            player.handle({"do": "steer", "axes": {}})
        if player.playing and now >= next_tick:
            next_tick = max(next_tick + period, now)  # a step that took too long is not made up for
            player.tick()
        news = bool(handled - {"steer"}) or not player.playing
        if news or now - shown_at >= VIEW_SECONDS:
            shown_at = now
            server.publish(player.view())


def handle_messages(player: Playable, server: PlayServer, *, wait: float) -> set[str]:
    """Do what people ask, waiting for the first of it for at most `wait` seconds; return the words that they said."""
    done: set[str] = set()
    with contextlib.suppress(queue.Empty):
        message, future = server.inbox.get(timeout=wait) if wait > 0 else server.inbox.get_nowait()
        while True:
            done.add(str(message.get("do")))
            try:
                reply = {"kind": "done", "words": player.handle(message)}
            except (ValueError, OSError) as error:
                reply = {"kind": "error", "error": str(error)}
            server.answer(future, reply)
            message, future = server.inbox.get_nowait()
    return done
