"""Policies behind websockets, for any number of robots, and for the people who look after them.

When a robot connects, it receives the policy's metadata for its kind of robot, which it names where a policy knows
several (`serve/http.py`). Then each observation that it sends is answered with the
policy's reply and the added key `"server_timing"`. Messages are bytes (`serve/wire.py`). A text is an error: it says
what was wrong with that one observation, and the connection goes on. openpi's public client speaks this protocol.

From a message to actions: `PolicyServer` (the network, here) → `MessageHandler` (checks and counts) → `HostedPolicy`
and its `Batcher` (one batch of many robots, in a thread of its own) → `Policy.infer_many`. Other files: `connection.py`
guards a websocket, `http.py` has the paths, `sessions.py` what is known of a robot, `viewers.py` and `live.py` the
dashboard. How to run a server for others: `docs/serving.md`.
"""

import asyncio
import contextlib
import logging
import secrets
import signal
import ssl
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

try:
    import msgpack  # noqa: F401 (serve/wire.py needs it)
    import prometheus_client  # noqa: F401 (serve/metrics.py needs it)
    from websockets.asyncio.server import Server, ServerConnection
    from websockets.asyncio.server import serve as listen
    from websockets.exceptions import ConnectionClosed
    from websockets.http11 import Request, Response
except ModuleNotFoundError as error:
    raise ImportError(f"serving needs {error.name}: pip install 'pilot[serve]'") from error

from pilot.memory import keep_freed_memory, shorten_garbage_collection
from pilot.serve import http
from pilot.serve.auth import ApiKeys, is_loopback, load_certificate, tls_context
from pilot.serve.connection import CLOSE_SECONDS, IncomingConnection, connection_class
from pilot.serve.hosted_policy import HostedPolicy, fingerprint
from pilot.serve.limits import Limits, Patience, Turnstile
from pilot.serve.logs import log_to_stderr
from pilot.serve.sessions import RobotSession
from pilot.serve.state import ServerState, to_hosted
from pilot.serve.viewers import serve_viewer
from pilot.serve.vla_eval import EvaluationDialogue
from pilot.serve.wire import OVER, host_in_url

log = logging.getLogger(__name__)

RespondFn = Callable[[str | bytes], Awaitable[str | bytes | None]]
"""From a robot's message to the answer; None if it gets none."""
SWITCH_SECONDS = 0.0005
"""How long a thread may keep the interpreter from others that want it: an answer goes from one to another twice."""
COMPUTE_SECONDS = 5.0  # how long a server that ends waits for a policy that computes, which may be warming up
REPLACED = 4001  # a websocket's close code: the robot came back on another connection


def serve(
    policies: Any,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    keys: ApiKeys | None = None,
    limits: Limits | None = None,
    certificate: Path | None = None,
    certificate_key: Path | None = None,
    max_batch: int = 16,
    watch_seconds: float | None = None,
    log_format: str = "text",
) -> None:
    """Serve policies until Ctrl-C or SIGTERM; robots that wait for an answer then still get it.

    `policies` is one policy, policies by name, or a list of `HostedPolicy`. On SIGHUP, all policies that were loaded
    from a folder are loaded again, and so is the certificate; with `watch_seconds`, also when the files of a policy
    change. Robots notice nothing of it.

    Raises:
        OSError: the address is taken, or not of this machine.
        ValueError: a policy cannot answer a dummy observation of its robot; the certificate is damaged.
    """
    keep_freed_memory()
    sys.setswitchinterval(SWITCH_SECONDS)
    log_to_stderr(log_format)
    tls = tls_context(certificate, certificate_key) if certificate else None
    server = PolicyServer(policies, keys=keys, limits=limits, tls=tls, max_batch=max_batch)

    async def reload() -> None:
        if tls is not None and certificate is not None:
            load_certificate(tls, certificate, certificate_key)
        await server.reload()

    try:
        asyncio.run(_serve_until_stopped(server, host, port=port, reload=reload, watch_seconds=watch_seconds))
    finally:
        server.close()
        server.join()


@contextlib.contextmanager
def serve_in_background(
    policies: Any,
    host: str = "127.0.0.1",
    *,
    port: int = 0,
    keys: ApiKeys | None = None,
    limits: Limits | None = None,
    tls: ssl.SSLContext | None = None,
    command_key: str | None = None,
) -> Iterator[int]:
    """Serve policies in a thread of this process, while the `with` block runs; yields the port.

    Port 0 takes a free one. Without API keys, viewers need `command_key` to command robots; one that nobody knows is
    drawn if it is not given. Usage: `with serve_in_background(policy) as port: …`.
    """
    loop = asyncio.new_event_loop()
    server = PolicyServer(policies, keys=keys, limits=limits, tls=tls, command_key=command_key)
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
    """The server's network side; `start`, `reload` and `stop` belong to one event loop."""

    def __init__(
        self,
        policies: Any,
        *,
        keys: ApiKeys | None = None,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
        max_batch: int = 16,
        command_key: str | None = None,
    ) -> None:
        self.state = ServerState(
            policies=to_hosted(policies, max_batch=max_batch),
            keys=keys or ApiKeys(),
            limits=limits or Limits(),
            command_key=command_key or secrets.token_urlsafe(12),
        )
        self.tls = tls
        limits = self.state.limits
        self._connections = connection_class(limits)
        self._turnstile = Turnstile(limits.requests_per_second, at_once=max(limits.robots, limits.requests_per_second))
        self._server: Server | None = None
        self._connection_tasks: set[asyncio.Task[Any]] = set()
        self._closing_tasks: set[asyncio.Future[None]] = set()

    async def start(self, host: str, port: int, *, on_listening: Callable[[int], None] = lambda port: None) -> int:
        """Listen, then warm up the policies; return the port.

        `/healthz` answers at once; robots are accepted when all policies are warm.
        """
        limits = self.state.limits
        self._server = await listen(
            self._handle_connection,
            host,
            port,
            process_request=self._handle_request,
            create_connection=self._connections,
            ssl=self.tls,
            ssl_handshake_timeout=limits.handshake_seconds if self.tls else None,
            compression=None,  # pixels do not compress, and a robot waits
            max_size=limits.message_bytes,
            max_queue=1,  # a client that sends without reading fills its own socket, not our memory
            open_timeout=limits.handshake_seconds,
            ping_interval=limits.ping_seconds,
            ping_timeout=limits.ping_seconds,
            close_timeout=CLOSE_SECONDS,
            logger=websockets_logger(),
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
        """Accept no new robots, finish the answers in progress, then close all connections."""
        self.state.stopping = True
        try:
            async with asyncio.timeout(self.state.limits.drain_seconds):
                while self.state.answering:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            log.warning("stopping without the %d answers in progress", self.state.answering)
            for task in self._connection_tasks:
                task.cancel()
        if self._server is not None:
            self._server.close()
            await asyncio.sleep(0)  # from here on nobody can connect
            for pending in list(self._connections.pending):
                pending.transport.abort()  # a client without a request would keep `wait_closed` waiting
            await self._server.wait_closed()
        self.close()

    def close(self) -> None:
        """End the threads that compute, once they have answered what is queued."""
        for hosted in self.state.policies.values():
            hosted.batcher.close()

    def join(self) -> None:
        """Wait for these threads, as before the process ends: torch aborts one in which they still compute."""
        for hosted in self.state.policies.values():
            hosted.batcher.join(timeout=COMPUTE_SECONDS)

    async def reload(self) -> None:
        """Load all policies again that came from a folder; one that fails to load stays as it is."""
        for hosted in self.state.policies.values():
            if hosted.load is not None:
                await self.reload_policy(hosted)

    async def reload_policy(self, hosted: HostedPolicy) -> None:
        """Load one policy again; if that fails, log why and keep the old one."""
        try:
            await hosted.reload(lambda: [robot for robot in self.state.sessions if robot.policy == hosted.name])
        except Exception as error:
            self.state.metrics.reloads.labels(hosted.name, "failed").inc()
            log.exception("reload failed, the old policy stays: %s", error, extra={"policy": hosted.name})
        else:
            self.state.metrics.reloads.labels(hosted.name, "done").inc()
            log.info("reloaded", extra={"policy": hosted.name})

    async def _handle_request(self, connection: ServerConnection, request: Request) -> Response | None:
        assert isinstance(connection, IncomingConnection)
        if request.path not in http.PROBES:
            await self._turnstile.wait(is_gone=connection.transport.is_closing)
        return http.handle_request(self.state, connection, request)

    async def _handle_connection(self, connection: ServerConnection) -> None:
        """Serve one websocket until it ends, whatever happens to it."""
        assert isinstance(connection, IncomingConnection)
        task = asyncio.current_task()
        assert task is not None
        self._connection_tasks.add(task)
        try:
            if connection.role == "viewer":
                await serve_viewer(self.state, connection)
            else:
                await self._serve_robot(connection)
        except ConnectionClosed:
            pass
        except asyncio.CancelledError:  # by `stop`, or because the client left before its answer
            connection.transport.abort()
        except TimeoutError:
            log.warning("the client did not receive its answer in time", extra={"address": address_of(connection)})
            connection.transport.abort()
        except Exception:
            log.exception("a connection failed", extra={"address": address_of(connection)})
        finally:
            self._connection_tasks.discard(task)

    async def _serve_robot(self, connection: IncomingConnection) -> None:
        """Answer one robot's observations until it leaves."""
        state, hosted = self.state, connection.hosted
        robot = self._open_session(connection)
        who = {"policy": hosted.name, "session": robot.id, "address": robot.address}
        log.info("connected, %d in all", len(state.sessions.connected()), extra=who)
        reason, patience = "done", Patience()
        try:
            respond = self._responder(connection, robot)
            if connection.dialect == "pilot":
                await connection.send_message(hosted.greeting(connection.kind))
            async for message in connection:
                reply = await self._answer(connection, respond, message)
                if state.stopping:
                    break
                await patience.pause(refused=connection.dialect == "pilot" and isinstance(reply, str))
        except ConnectionClosed as closed:
            reason = "done" if connection.close_code == OVER else str(closed)
        except asyncio.CancelledError:
            reason = "stopping" if state.stopping else "left before it was answered"
            raise
        finally:
            state.sessions.disconnect(robot, connection, over=connection.close_code == OVER)
            log.info("disconnected", extra={**who, "reason": reason})

    def _open_session(self, connection: IncomingConnection) -> RobotSession:
        """Return the robot's session; an older connection of this robot that has not ended is closed now."""
        state, hosted = self.state, connection.hosted
        robot = state.sessions.open(
            connection.session,
            owner=connection.owner,
            policy=hosted.name,
            kind=connection.kind,
            start_session=lambda: hosted.start_session(connection.kind, alone=not state.sessions.connected()),
            metadata=hosted.describe(connection.kind),
        )
        if robot.connection is not None:
            self._close_later(robot.connection.close(REPLACED, "the robot came back on another connection"))
        robot.connection = connection
        robot.disconnected = None
        robot.address = address_of(connection)
        robot.stay_stopped()
        return robot

    def _responder(self, connection: IncomingConnection, robot: RobotSession) -> RespondFn:
        """Return what answers a robot's messages, in the protocol that it speaks."""
        ask = partial(self._ask, connection, robot)
        if connection.dialect == "pilot":
            return ask
        return EvaluationDialogue(
            robot.metadata,
            answer=ask,
            restart=lambda: connection.hosted.restart(robot, alone=len(self.state.sessions.connected()) <= 1),
            stop_state=lambda: (robot.stopped, robot.released),
            limits=self.state.limits,
        ).respond

    async def _answer(
        self, connection: IncomingConnection, respond: RespondFn, message: str | bytes
    ) -> str | bytes | None:
        self.state.answering += 1
        try:
            if (reply := await respond(message)) is not None:
                await connection.send_message(reply)
            return reply
        finally:
            self.state.answering -= 1

    async def _ask(self, connection: IncomingConnection, robot: RobotSession, message: str | bytes) -> str | bytes:
        handler = self.state.handlers[connection.hosted.name]
        # A task, so that the connection can cancel it when the robot leaves before it is answered.
        connection.answer_task = asyncio.create_task(handler.answer(robot, message))
        try:
            return await connection.answer_task
        finally:
            connection.answer_task = None

    def _close_later(self, closing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(closing)
        self._closing_tasks.add(task)  # asyncio itself keeps no reference to a task
        task.add_done_callback(self._closing_tasks.discard)


def address_of(connection: IncomingConnection) -> str:
    """Return the client's address as `HOST:PORT`."""
    peer = connection.remote_address
    return f"{peer[0]}:{peer[1]}" if peer else ""


def websockets_logger() -> logging.Logger:
    """Return a silent logger: the websockets library logs a traceback for every port scan."""
    logger = logging.getLogger("pilot.serve.websockets")
    logger.setLevel(logging.CRITICAL)
    return logger


async def _serve_until_stopped(
    server: PolicyServer,
    host: str,
    *,
    port: int,
    reload: Callable[[], Awaitable[None]],
    watch_seconds: float | None,
) -> None:
    loop, stopped, hangup = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGHUP, hangup.set)
    scheme = "s" if server.tls else ""

    def print_address(port: int) -> None:
        place = host_in_url(host)
        key = "" if server.state.keys else f"#key={server.state.command_key}"
        page = f"http{scheme}://{place}:{port}/{key}"
        words = f"serving at ws{scheme}://{place}:{port}, dashboard at {page}; Ctrl-C stops"
        print(words, flush=True)  # to stdout, where programs read the port; the log is stderr

    if not server.state.keys and not is_loopback(host):
        log.warning("without API keys, whoever reaches %s may act as a robot and watch yours; give --api-keys", host)
    tasks = [asyncio.create_task(_reload_on(hangup, reload))]
    if watch_seconds is not None:
        watched = [hosted for hosted in server.state.policies.values() if hosted.folder is not None]
        tasks += [asyncio.create_task(_watch(server, hosted, seconds=watch_seconds)) for hosted in watched]
    start = asyncio.create_task(server.start(host, port, on_listening=print_address))
    stop = asyncio.create_task(stopped.wait())
    await asyncio.wait({start, stop}, return_when=asyncio.FIRST_COMPLETED)
    if start.done():
        await start  # raises what went wrong with it
        shorten_garbage_collection()
        await stop
    for task in (*tasks, start):
        task.cancel()
    await server.stop()


async def _reload_on(hangup: asyncio.Event, reload: Callable[[], Awaitable[None]]) -> None:
    while True:
        await hangup.wait()
        hangup.clear()
        try:
            await reload()
        except Exception:
            log.exception("reload failed")


async def _watch(server: PolicyServer, hosted: HostedPolicy, *, seconds: float) -> None:
    """Reload a policy when the files in its folder have changed and have then stayed the same for `seconds`."""
    assert hosted.folder is not None
    loaded = previous = fingerprint(hosted.folder)
    while True:
        await asyncio.sleep(seconds)
        try:
            present = await asyncio.to_thread(fingerprint, hosted.folder)
        except OSError as error:  # a network disk may be away for a while
            log.warning("cannot see whether the files changed: %s", error, extra={"policy": hosted.name})
            continue
        if present != loaded and present == previous:  # not in the middle of being written
            loaded = present
            await server.reload_policy(hosted)
        previous = present
