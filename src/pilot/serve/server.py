"""Policies behind websockets, for any number of robots, and for the people who look after them.

On connecting a robot gets the policy's metadata; then each observation it sends is answered by the policy's reply with
the added key `"server_timing"`. Bytes are messages (`serve/wire.py`). A text is an error: it says what was wrong with
that one observation, and the connection goes on. openpi's public client speaks this.

Every robot has a session of its own (`serve/sessions.py`); a model answers many at once (`serve/batching.py`), in a
thread that the network never waits for. What else there is at the same address: `serve/http.py`. How to run it for
others: `docs/serving.md`.
"""

import asyncio
import contextlib
import logging
import signal
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

try:
    import msgpack  # noqa: F401 (serve/wire.py needs it)
    from websockets.asyncio.server import Server, ServerConnection
    from websockets.asyncio.server import serve as listen
    from websockets.exceptions import ConnectionClosed
except ModuleNotFoundError as error:
    raise ImportError(f"serving needs {error.name}: pip install 'pilot[serve]'") from error

from pilot.memory import keep_freed_memory
from pilot.serve import http
from pilot.serve.auth import Keys, load_certificate, tls_context
from pilot.serve.hosted_policy import Hosted, fingerprint
from pilot.serve.http import GOODBYE_SECONDS, Visitor, visitors
from pilot.serve.limits import Limits
from pilot.serve.logs import log_to_stderr
from pilot.serve.sessions import RobotSession
from pilot.serve.state import State, hosted_by_name
from pilot.serve.viewers import show
from pilot.serve.wire import OVER

log = logging.getLogger(__name__)

RETURNED = 4001  # a websocket's code: the robot came back on another connection


def serve(
    policies: Any,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    keys: Keys | None = None,
    limits: Limits | None = None,
    certificate: Path | None = None,
    certificate_key: Path | None = None,
    max_batch: int = 16,
    watch_seconds: float | None = None,
    log_format: str = "text",
) -> None:
    """Serve until Ctrl-C or SIGTERM; robots that wait for an answer then still get it.

    `policies` is one policy, or policies by name, or a list of `Hosted`. On SIGHUP those that know how are loaded anew,
    and with `watch_seconds` also when their files change; robots notice nothing. The certificate is read again as well.

    Raises:
        OSError: the address is taken or not ours.
        ValueError: a policy cannot answer a made-up observation of its robot; the certificate is none.
    """
    keep_freed_memory()
    log_to_stderr(log_format)
    tls = tls_context(certificate, certificate_key) if certificate else None
    server = PolicyServer(policies, keys=keys, limits=limits, tls=tls, max_batch=max_batch)

    async def reload() -> None:
        if tls is not None and certificate is not None:
            load_certificate(tls, certificate, certificate_key)
        await server.reload()

    asyncio.run(_serve_until_stopped(server, host, port=port, reload=reload, watch_seconds=watch_seconds))


@contextlib.contextmanager
def serve_in_background(
    policies: Any,
    host: str = "127.0.0.1",
    *,
    port: int = 0,
    keys: Keys | None = None,
    limits: Limits | None = None,
    tls: ssl.SSLContext | None = None,
) -> Iterator[int]:
    """`with serve_in_background(policy) as port:`: the same server in a thread; port 0 takes a free one."""
    loop, server = asyncio.new_event_loop(), PolicyServer(policies, keys=keys, limits=limits, tls=tls)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(server.start(host, port), loop).result()
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class PolicyServer:
    """The network's side; `start`, `reload` and `stop` belong to one event loop."""

    def __init__(
        self,
        policies: Any,
        *,
        keys: Keys | None = None,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
        max_batch: int = 16,
    ) -> None:
        self.state = State(
            policies=hosted_by_name(policies, max_batch=max_batch), keys=keys or Keys(), limits=limits or Limits()
        )
        self.tls = tls
        self._visitors = visitors(self.state.limits)
        self._server: Server | None = None
        self._visits: set[asyncio.Task[Any]] = set()
        self._goodbyes: set[asyncio.Future[None]] = set()

    async def start(self, host: str, port: int, *, on_listening: Callable[[int], None] = lambda port: None) -> int:
        """Listen, then warm up: health is answered at once, robots are taken when all is ready. Returns the port."""
        limits = self.state.limits
        self._server = await listen(
            self._visit,
            host,
            port,
            process_request=self._answer_http,
            create_connection=self._visitors,
            ssl=self.tls,
            ssl_handshake_timeout=limits.handshake_seconds if self.tls else None,
            compression=None,  # pixels do not shrink, and a robot waits
            max_size=limits.message_bytes,
            max_queue=1,  # a client that sends without reading fills its own socket, not our memory
            open_timeout=limits.handshake_seconds,
            ping_interval=limits.ping_seconds,
            ping_timeout=limits.ping_seconds,
            close_timeout=GOODBYE_SECONDS,
            logger=quiet(),
        )
        port = self._server.sockets[0].getsockname()[1]
        on_listening(port)
        try:
            for hosted in self.state.policies.values():
                await hosted.warm_up()
                log.info("ready", extra={"policy": hosted.name})
        except Exception:
            self._server.close()
            raise
        return port

    async def stop(self) -> None:
        """Take no one new, finish the answers under way, then say goodbye."""
        self.state.stopping = True
        try:
            async with asyncio.timeout(self.state.limits.drain_seconds):
                while self.state.answering:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            log.warning("%d answers are not given any more", self.state.answering)
            for visit in self._visits:
                visit.cancel()
        if self._server is not None:
            self._server.close()
            await asyncio.sleep(0)  # from here on nobody comes
            for stranger in list(self._visitors.knocking):
                stranger.transport.abort()  # who has not said what it wants is not waited for
            await self._server.wait_closed()
        self.close()

    def close(self) -> None:
        """End the threads that compute, once they have answered what waits."""
        for hosted in self.state.policies.values():
            hosted.batcher.close()

    async def reload(self) -> None:
        """Load every policy anew that knows how; one that cannot be stays as it is."""
        for hosted in self.state.policies.values():
            if hosted.load is not None:
                await self.reload_one(hosted)

    async def reload_one(self, hosted: Hosted) -> None:
        try:
            await hosted.reload(lambda: [robot for robot in self.state.sessions if robot.policy == hosted.name])
        except Exception as error:
            self.state.metrics.reloads.add(policy=hosted.name, result="failed")
            log.exception("not loaded anew, the old policy stays: %s", error, extra={"policy": hosted.name})
        else:
            self.state.metrics.reloads.add(policy=hosted.name, result="done")
            log.info("loaded anew", extra={"policy": hosted.name})

    def _answer_http(self, visitor: ServerConnection, request: http.Request) -> http.Response | None:
        assert isinstance(visitor, Visitor)
        return http.answer(self.state, visitor, request)

    async def _visit(self, visitor: ServerConnection) -> None:
        assert isinstance(visitor, Visitor)
        visit = asyncio.current_task()
        assert visit is not None
        self._visits.add(visit)
        try:
            await (show(self.state, visitor) if visitor.wants == "to look" else self._converse(visitor))
        except ConnectionClosed:
            pass
        except asyncio.CancelledError:  # by `stop`, or because nobody is there for the answer
            visitor.transport.abort()
        except TimeoutError:
            log.warning("took nothing in for too long", extra={"address": address(visitor)})
            visitor.transport.abort()
        except Exception:
            log.exception("a conversation failed", extra={"address": address(visitor)})
        finally:
            self._visits.discard(visit)

    async def _converse(self, visitor: Visitor) -> None:
        """A robot's whole stay."""
        state, hosted = self.state, visitor.hosted
        robot = self._seat(visitor)
        who = {"policy": hosted.name, "session": robot.id, "address": robot.address}
        log.info("connected, %d in all", len(state.sessions.connected()), extra=who)
        reason = "done"
        try:
            await visitor.say(hosted.greeting)
            async for message in visitor:
                await self._reply(visitor, robot, message)
                if state.stopping:
                    break
        except ConnectionClosed as closed:
            reason = "done" if visitor.close_code == OVER else str(closed)
        except asyncio.CancelledError:
            reason = "stopping" if state.stopping else "left before it was answered"
            raise
        finally:
            state.sessions.leave(robot, visitor, over=visitor.close_code == OVER)
            log.info("gone", extra={**who, "reason": reason})

    def _seat(self, visitor: Visitor) -> RobotSession:
        """The robot's session; a connection that it had before and that has not ended by itself ends now."""
        state, hosted = self.state, visitor.hosted
        robot = state.sessions.open(
            visitor.session,
            owner=visitor.owner,
            policy=hosted.name,
            begin=lambda: hosted.begin(alone=not state.sessions.connected()),
            metadata=hosted.metadata,
        )
        if robot.connection is not None:
            self._later(robot.connection.close(RETURNED, "the robot came back on another connection"))
        robot.connection, robot.left, robot.address = visitor, None, address(visitor)
        return robot

    async def _reply(self, visitor: Visitor, robot: RobotSession, message: str | bytes) -> None:
        self.state.answering += 1
        try:
            conversation = self.state.conversations[visitor.hosted.name]
            visitor.answering = asyncio.create_task(conversation.answer(robot, message))
            await visitor.say(await visitor.answering)
        finally:
            self.state.answering -= 1
            visitor.answering = None

    def _later(self, goodbye: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(goodbye)
        self._goodbyes.add(task)
        task.add_done_callback(self._goodbyes.discard)


def address(visitor: Visitor) -> str:
    peer = visitor.remote_address
    return f"{peer[0]}:{peer[1]}" if peer else ""


def quiet() -> logging.Logger:
    """What websockets says of every stranger that does not speak HTTP is for debugging only."""
    logger = logging.getLogger("pilot.serve.websockets")
    logger.setLevel(logging.CRITICAL)
    return logger


async def _serve_until_stopped(
    server: PolicyServer, host: str, *, port: int, reload: Callable[[], Awaitable[None]], watch_seconds: float | None
) -> None:
    loop, stopped, changed = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGHUP, changed.set)
    scheme = "s" if server.tls else ""

    def say(port: int) -> None:
        print(
            f"serving at ws{scheme}://{host}:{port}, to look at: http{scheme}://{host}:{port}/; Ctrl-C stops",
            flush=True,
        )

    tasks = [asyncio.create_task(_reload_when(changed, reload))]
    if watch_seconds is not None:
        watched = [hosted for hosted in server.state.policies.values() if hosted.folder is not None]
        tasks += [asyncio.create_task(_watch(server, hosted, seconds=watch_seconds)) for hosted in watched]
    start, stop = asyncio.create_task(server.start(host, port, on_listening=say)), asyncio.create_task(stopped.wait())
    await asyncio.wait({start, stop}, return_when=asyncio.FIRST_COMPLETED)
    if start.done():
        await start
        await stop
    for task in (*tasks, start):
        task.cancel()
    await server.stop()


async def _reload_when(changed: asyncio.Event, reload: Callable[[], Awaitable[None]]) -> None:
    while True:
        await changed.wait()
        changed.clear()
        try:
            await reload()
        except Exception:
            log.exception("not loaded anew")


async def _watch(server: PolicyServer, hosted: Hosted, *, seconds: float) -> None:
    """Load a policy anew when the files in its folder have changed, and have then been left alone for a while."""
    assert hosted.folder is not None
    loaded = before = fingerprint(hosted.folder)
    while True:
        await asyncio.sleep(seconds)
        try:
            now = await asyncio.to_thread(fingerprint, hosted.folder)
        except OSError as error:  # a disk of the network may be away for a while
            log.warning("cannot see whether it changed: %s", error, extra={"policy": hosted.name})
            continue
        if now != loaded and now == before:
            loaded = now
            await server.reload_one(hosted)
        before = now
