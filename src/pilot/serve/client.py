"""The robot's side of `serve/server.py`: numpy, Pillow and a socket, no torch.

`PolicyClient` sends an observation and waits for the actions; `serve/control.py` uses it in the background while a
robot keeps moving.

A client has a session: what the server remembers of this robot, such as its present subtask. When a connection is lost,
the next one resumes the session; `reset` starts a new one. Pictures larger than the model's input are resized before
they are sent, by the function that the model's own pipeline uses: the same pixels arrive, only sooner.

Axes: `h w` pixels, `sd` state dims, `ah` action horizon, `ad` action dims.
"""

import contextlib
import logging
import random
import secrets
import socket
import ssl
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import connect

from pilot.data.transforms import picture, resize_with_pad
from pilot.memory import keep_freed_memory
from pilot.serve.wire import MAX_BYTES, OVER, WireError, host_in_url, pack, unpack

LOG = logging.getLogger(__name__)
SESSION_HEADER = "X-Pilot-Session"
ROBOT_HEADER = "X-Pilot-Robot"
GOODBYE_SECONDS = 1.0
CLOSED = "this client was closed"
TOO_MANY_REQUESTS, SERVER_ERROR = 429, 500  # HTTP status of a server that may accept us later; 500 and above as well


class PolicyError(RuntimeError):
    """The server could not act on an observation, and says why; the connection stays open."""


class NotAPolicyServer(ConnectionError):
    """Something answers at this address, but it is not a policy server."""


class WrongRobot(ConnectionError):
    """The policy at this address is for another robot than this client's."""


class Connection(Protocol):
    """An open websocket; its methods raise `websockets.exceptions.ConnectionClosed` once it has ended."""

    def send(self, message: bytes, /) -> None:
        """Send one message."""
        ...

    def recv(self, timeout: float | None = None) -> str | bytes:
        """Wait for the next message, at most `timeout` seconds."""
        ...

    def close(self, code: int, /) -> None:
        """Close with a code that tells the other side why."""
        ...


@dataclass(frozen=True, kw_only=True)
class Address:
    """The address of a served policy, and the headers to send; over `wss://`, `tls` holds the trusted certificates."""

    url: str
    headers: Mapping[str, str]
    tls: ssl.SSLContext | None
    timeout_s: float


Dial = Callable[[Address], contextlib.AbstractContextManager[Connection]]


@contextlib.contextmanager
def websocket(address: Address) -> Iterator[Connection]:
    """Open a websocket to a server; the default of `PolicyClient(dial=…)`, which tests replace."""
    with connect(
        address.url,
        additional_headers=dict(address.headers),
        ssl=address.tls,
        open_timeout=address.timeout_s,
        close_timeout=GOODBYE_SECONDS,
        compression=None,  # pixels do not compress, and a robot waits
        max_size=MAX_BYTES,
    ) as connection:
        set_send_timeout(connection.socket, address.timeout_s)
        yield connection


def set_send_timeout(line: socket.socket, seconds: float) -> None:
    """Let a blocked `send` on this socket fail after `seconds`.

    An observation is larger than the system's send buffer. Without a timeout, sending would block for ever where a
    cable was pulled or the server hangs.
    """
    windows = sys.platform == "win32"
    value = int(1e3 * seconds) if windows else struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Pauses between attempts to connect: each twice as long, and random, so that clients do not all come at once."""

    first_s: float = 0.1
    most_s: float = 5.0
    random: Callable[[], float] = field(default=random.random, repr=False)

    def waits(self) -> Iterator[float]:
        """Yield the pauses in seconds, without end."""
        wait = self.first_s
        while True:
            yield wait * (0.5 + 0.5 * self.random())
            wait = min(2 * wait, self.most_s)


class Latency:
    """The parts of the time that the last `window` answers took, in ms.

    `prepare`: resizing and packing, here. `network`: there and back, and unpacking. `server`: unpacking and packing
    there. `queue`: waiting for other robots. `model`: computing. `total`: their sum.
    """

    PARTS = ("prepare", "network", "server", "queue", "model", "total")

    def __init__(self, window: int = 1000) -> None:
        self.seen: deque[dict[str, float]] = deque(maxlen=window)

    def add(self, *, prepare: float, waited: float, timing: Mapping[str, Any]) -> None:
        """Add one answer: ms spent here, ms between sending and receiving, and the reply's `server_timing`."""
        queue, model = (float(timing.get(key, 0.0)) for key in ("queue_ms", "infer_ms"))
        server = float(timing.get("total_ms", queue + model))  # openpi's server does not send it
        parts = {"prepare": prepare, "network": max(0.0, waited - server), "server": max(0.0, server - queue - model)}
        self.seen.append(parts | {"queue": queue, "model": model, "total": prepare + waited})

    def percentiles(self, *percents: float) -> dict[str, dict[str, float]]:
        """Return percentiles of each part: `{"total": {"p50": …, "p95": …, "p99": …}, "network": …}`.

        The dict is empty before the first answer.
        """
        if not (seen := list(self.seen)):
            return {}
        percents = percents or (50, 95, 99)
        values = {part: np.percentile([parts[part] for parts in seen], percents) for part in self.PARTS}
        return {part: {f"p{p:g}": float(v) for p, v in zip(percents, row)} for part, row in values.items()}

    def __str__(self) -> str:
        if not (percentiles := self.percentiles()):
            return "no answer yet"
        parts = ", ".join(f"{part} {percentiles[part]['p50']:.1f}" for part in self.PARTS[:-1])
        total = percentiles["total"]
        return f"{total['p50']:.0f} ms ({parts}), p95 {total['p95']:.0f}, p99 {total['p99']:.0f}"


class PolicyClient:
    """A policy elsewhere: `with PolicyClient(host, port) as policy: policy.infer(observation)["actions"]`.

    `host` may begin with `wss://`; the certificate is then checked, against those in the file `ca` or the system's own.
    `policy` names one where several are served, and `robot` says which of its robots this is, where it knows several
    (π0 is one model for many). `metadata` is what the server says of its policy, and `latency` shows
    where the time goes.

    A client belongs to one thread at a time, but any thread may `close` it, which ends a call in progress.

    Raises:
        ConnectionError: no server answered within `wait_s` seconds, or it refused this client.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8000,
        *,
        policy: str = "",
        robot: str = "",
        api_key: str | None = None,
        ca: str | None = None,
        wait_s: float = 30.0,
        timeout_s: float = 10.0,
        backoff: Backoff | None = None,
        dial: Dial = websocket,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], Any] | None = None,
    ) -> None:
        keep_freed_memory()  # else the memory of each picture goes back to the system, and costs new pages every time
        self.url = f"{host if '://' in host else f'ws://{host_in_url(host)}'}:{port}" + (f"/{policy}" if policy else "")
        self.wait_s, self.timeout_s = wait_s, timeout_s
        self.metadata: dict[str, Any] = {}
        self.latency = Latency()
        self._tls = ssl.create_default_context(cafile=ca) if self.url.startswith("wss://") else None
        self.robot = robot
        self._headers = {"Authorization": f"Api-Key {api_key}"} if api_key else {}
        self._headers |= {ROBOT_HEADER: robot} if robot else {}
        self._backoff = backoff or Backoff()
        self._dial = dial
        self._clock = clock
        self._closed = threading.Event()
        self._sleep = sleep or self._closed.wait
        self._open = contextlib.ExitStack()
        self._connection: Connection | None = None
        self.reset()

    @property
    def latency_ms(self) -> float:
        """The duration of the last `infer` in ms, with all that was done for it here; 0 before the first."""
        return self.latency.seen[-1]["total"] if self.latency.seen else 0.0

    def infer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """Send an observation and return the policy's reply.

        `{"images": {camera: uint8 [h w 3]}, "state": [sd], "prompt": str}` → `{"actions": [ah ad], …}`.

        Raises:
            PolicyError: the observation is wrong; the server says how.
            ConnectionError: the connection was lost, or no answer came within `timeout_s`. The next call opens a new
                one. The observation is not sent again: by then the robot must look again.
        """
        self.connect()
        start = self._clock()
        message = pack(shrink_pictures(observation, self.metadata))
        sent = self._clock()
        reply = self._exchange(message)
        if isinstance(reply, str):
            raise PolicyError(reply)
        answer, waited = unpack(reply), self._clock() - sent
        if not isinstance(answer, dict):
            raise WireError(f"an answer is a dict with actions, got a {type(answer).__name__}")
        self.latency.add(prepare=1e3 * (sent - start), waited=1e3 * waited, timing=answer.get("server_timing", {}))
        return answer

    def connect(self) -> None:
        """Open a connection for this session, unless there is one; try again until `wait_s` have passed.

        Raises:
            ConnectionError: no server answered in time, or it refused this client.
        """
        if self._connection is not None:
            return
        deadline, is_said = self._clock() + self.wait_s, False
        for wait in self._backoff.waits():
            try:
                self._connection = self._open_connection()
                if not self._closed.is_set():
                    return
                raise ConnectionAbortedError(CLOSED)
            except (OSError, InvalidHandshake, ConnectionClosed) as error:
                self._disconnect()
                if is_final(error) or self._closed.is_set():
                    raise ConnectionError(f"no policy at {self.url}: {describe_refusal(error)}") from error
                if self._clock() + wait > deadline:
                    raise ConnectionError(
                        f"no policy at {self.url} after {self.wait_s:g} s: {describe_refusal(error)}"
                    ) from error
                if not is_said:
                    is_said = True
                    LOG.warning(
                        "no policy at %s yet (%s); trying for %g s", self.url, describe_refusal(error), self.wait_s
                    )
            except BaseException:
                self._disconnect()
                raise
            self._sleep(wait)

    def reset(self) -> None:
        """Start a new session: the policy forgets what it remembered of this robot."""
        self._disconnect(over=True)
        self.session = secrets.token_hex(8)
        self.connect()

    def close(self) -> None:
        """Close the connection for good: a call in progress raises a ConnectionError, and so does any later one."""
        self._closed.set()
        self._disconnect(over=True)

    def __enter__(self) -> "PolicyClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_connection(self) -> Connection:
        """Open a connection and read the server's greeting."""
        if self._closed.is_set():
            raise ConnectionAbortedError(CLOSED)
        headers = {SESSION_HEADER: self.session, **self._headers}
        address = Address(url=self.url, headers=headers, tls=self._tls, timeout_s=self.timeout_s)
        opening = contextlib.ExitStack()
        connection = opening.enter_context(self._dial(address))
        self._open = opening  # from here on `close` ends it
        if self._closed.is_set():  # while it was being opened
            raise ConnectionAbortedError(CLOSED)
        self.metadata = read_greeting(connection.recv(self.timeout_s))
        if self.robot and (other := self.metadata.get("robot", self.robot)) != self.robot:
            raise WrongRobot(f"this policy is for robot '{other}', not for '{self.robot}'")
        return connection

    def _exchange(self, message: bytes) -> str | bytes:
        connection = self._connection
        if connection is None:  # another thread has closed it
            raise ConnectionAbortedError(CLOSED)
        try:
            connection.send(message)
            return connection.recv(self.timeout_s)
        except (ConnectionClosed, OSError) as error:  # TimeoutError is an OSError
            self._disconnect()  # a late answer must not be taken for that of the next observation
            late = isinstance(error, TimeoutError)
            why = f"no answer within {self.timeout_s:g} s" if late else f"lost the policy at {self.url}: {error}"
            raise ConnectionError(f"{why}; the next call connects again") from error
        except BaseException:  # interrupted: the answer is still on its way
            self._disconnect()
            raise

    def _disconnect(self, *, over: bool = False) -> None:
        """End the connection; `over` tells the server that this session will not be resumed."""
        connection, opened = self._connection, self._open
        self._connection, self._open = None, contextlib.ExitStack()
        with opened:
            if connection is not None and over:
                connection.close(OVER)


def read_greeting(greeting: str | bytes) -> dict[str, Any]:
    """Return the metadata in a server's first message.

    Raises:
        NotAPolicyServer: the message is something else.
    """
    if not isinstance(greeting, bytes):
        raise NotAPolicyServer(f"this is not a policy server: its first message is the text {greeting[:80]!r}")
    try:
        metadata = unpack(greeting)
    except WireError as error:
        raise NotAPolicyServer(f"this is not a policy server: {error}") from error
    if not isinstance(metadata, dict):
        raise NotAPolicyServer(f"this is not a policy server: its first message is a {type(metadata).__name__}")
    return metadata


def is_final(error: Exception) -> bool:
    """Return whether trying again cannot help: a wrong key, an unknown policy or robot, an untrusted certificate, …"""
    if isinstance(error, InvalidStatus):
        return error.response.status_code != TOO_MANY_REQUESTS and error.response.status_code < SERVER_ERROR
    return isinstance(error, ssl.SSLCertVerificationError | NotAPolicyServer | WrongRobot)


def describe_refusal(error: Exception) -> str:
    """Return why the connection failed, with the text that the server gave."""
    if isinstance(error, InvalidStatus) and (text := error.response.body):
        return f"{error}: {text.decode(errors='replace').strip()[:300]}"
    return str(error)


def shrink_pictures(observation: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the observation with pictures no larger than the model's input (`metadata["image_sizes"]`).

    Pictures of cameras that the model does not see are left out. Nothing changes where the server gives no sizes, or
    the observation has another layout.

    Raises:
        ValueError: a camera's picture is not a picture; the message is the pipeline's.
    """
    images, sizes = observation.get("images"), metadata.get("image_sizes")
    if not isinstance(images, Mapping) or sizes is None:
        return dict(observation)
    unused = set(metadata.get("cameras", ())) - set(sizes)
    sent = {camera: image for camera, image in images.items() if camera not in unused}
    return {**observation, "images": {camera: _shrink(image, sizes.get(camera)) for camera, image in sent.items()}}


def _shrink(image: Any, size: Any) -> Any:
    if size is None or np.size(image) <= np.prod(size) * 3:
        return image
    return resize_with_pad(picture(image), tuple(size))
