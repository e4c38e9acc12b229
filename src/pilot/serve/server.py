"""A policy behind a websocket, for any number of robots.

On connecting a client gets the policy's metadata; then each observation it sends is answered by the policy's reply with
the added key `"server_timing"`. Bytes are messages (`serve/wire.py`). A text is an error: it says what was wrong with
that one observation, and the connection goes on.

Every connection has a session of its own (`policy.session()`), so the clock of one robot's high level is nobody
else's. All of them share one worker thread: a model computes one thing at a time, and the network never waits for it.
`GET /healthz` on the same port answers `ok`.
"""

import asyncio
import contextlib
import logging
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as listen
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from pilot.serve.wire import MAX_BYTES, WireError, pack, unpack

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 64
DRAIN_SECONDS = 10.0
GOODBYE_SECONDS = 1.0  # a client that is gone or stuck does not answer a goodbye


def serve(policy: Any, host: str = "127.0.0.1", port: int = 8000, *, metadata: dict[str, Any] | None = None) -> None:
    """Serve `policy` until Ctrl-C or SIGTERM; robots that wait for an answer then still get it.

    `policy.infer(observation) -> dict` is all that is needed; `policy.metadata` and `policy.session()` are used where
    they exist.

    Raises:
        OSError: the address is taken or not ours.
    """
    asyncio.run(_serve_until_stopped(PolicyServer(policy, metadata=metadata), host, port))


@contextlib.contextmanager
def serve_in_background(policy: Any, host: str = "127.0.0.1", *, port: int = 0) -> Iterator[int]:
    """`with serve_in_background(policy) as port:`: the same server in a thread; port 0 takes a free one."""
    loop, server = asyncio.new_event_loop(), PolicyServer(policy)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(server.start(host, port), loop).result()
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


class PolicyServer:
    """The conversation with all clients; `start` and `stop` belong to one event loop."""

    def __init__(self, policy: Any, *, metadata: dict[str, Any] | None = None) -> None:
        self.policy = policy
        self._greeting = pack(getattr(policy, "metadata", {}) if metadata is None else metadata)
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="policy")
        self._connections = 0
        self._answering = 0
        self._stopping = False
        self._server: Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port."""
        self._server = await listen(
            self._converse,
            host,
            port,
            process_request=self._answer_http,
            compression=None,  # pixels do not shrink, and a robot waits
            max_size=MAX_BYTES,
            close_timeout=GOODBYE_SECONDS,
            max_queue=1,  # a client that sends without reading fills its own socket, not our memory
        )
        return self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Take no one new, finish the answers under way, then say goodbye."""
        self._stopping = True
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._answering and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _answer_http(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path == "/healthz":
            return connection.respond(HTTPStatus.OK, "ok\n")
        if self._stopping or self._connections >= MAX_CONNECTIONS:
            reason = "stopping" if self._stopping else f"full: {MAX_CONNECTIONS} robots are connected"
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, f"{reason}\n")
        return None

    async def _converse(self, connection: ServerConnection) -> None:
        session = self._new_session()
        self._connections += 1
        log.info("%s connected, %d in all", connection.remote_address, self._connections)
        try:
            await connection.send(self._greeting)
            async for message in connection:
                await self._reply(connection, session, message)
                if self._stopping:
                    break
        except ConnectionClosed as closed:
            log.info("%s is gone: %s", connection.remote_address, closed)
        finally:
            self._connections -= 1

    async def _reply(self, connection: ServerConnection, session: Any, message: str | bytes) -> None:
        received = time.perf_counter()
        self._answering += 1
        try:
            loop = asyncio.get_running_loop()
            reply = await loop.run_in_executor(self._worker, answer, session, message, received)
            await connection.send(reply)
        finally:
            self._answering -= 1

    def _new_session(self) -> Any:
        """State of its own for a connection. A policy that can only be reset is reset when nobody else would notice."""
        if hasattr(self.policy, "session"):
            return self.policy.session()
        if hasattr(self.policy, "reset") and self._connections == 0:
            self.policy.reset()
        return self.policy


def answer(session: Any, message: str | bytes, received: float) -> str | bytes:
    """The reply to one message: bytes, or a text that says what is wrong with it. Never raises."""
    try:
        if isinstance(message, str):
            raise WireError("got a text; an observation is sent as msgpack bytes")
        observation = unpack(message)
        if not isinstance(observation, dict):
            raise WireError(f"an observation is a dict with images, state and prompt, got {type(observation).__name__}")
        start = time.perf_counter()
        reply = session.infer(observation)
        timing = {"infer_ms": 1e3 * (time.perf_counter() - start), "queue_ms": 1e3 * (start - received)}
        return pack({**reply, "server_timing": timing})
    except ValueError as error:  # for people: it says what to do
        log.warning("refused an observation: %s", error)
        return str(error)
    except Exception as error:
        log.exception("the policy failed")
        return (
            f"the policy failed on this observation ({type(error).__name__}: {error}); the server's log has the details"
        )


async def _serve_until_stopped(server: PolicyServer, host: str, port: int) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    port = await server.start(host, port)
    print(f"serving at ws://{host}:{port}, health at http://{host}:{port}/healthz; Ctrl-C stops", flush=True)
    await stopped.wait()
    await server.stop()
