"""A robot's side of `serve/server.py`: numpy, Pillow and a socket, no torch.

`PolicyClient` asks and waits; `serve/control.py` asks with it in the background while a robot keeps moving.

A client has a session: what the server remembers of this robot, such as the subtask it is at. When a connection is lost
the next one resumes it, `reset` starts another. Pictures larger than the model's are scaled before they are sent, by
the function that the model's own pipeline scales with: the same pixels arrive, only sooner.

Axes: `h w` pixels, `sd` state dims, `ah` action horizon, `ad` action dims.
"""

import contextlib
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
from pilot.serve.wire import MAX_BYTES, OVER, WireError, pack, unpack

SESSION_HEADER = "X-Pilot-Session"
GOODBYE_SECONDS = 1.0
CLOSED = "this client was closed"
TOO_MANY, ITS_OWN = 429, 500  # HTTP: who has too many guests may take us later, and who has troubles of its own


class PolicyError(RuntimeError):
    """The server could not act on an observation, and says why. The connection is still good."""


class Stranger(ConnectionError):
    """Somebody answers, but it is no policy server."""


class Connection(Protocol):
    """An open conversation; raises `websockets.exceptions.ConnectionClosed` once it is over."""

    def send(self, message: bytes, /) -> None: ...
    def recv(self, timeout: float | None = None) -> str | bytes: ...
    def close(self, code: int, /) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a policy is served, and what it wants to know of us. Over `wss://`, `tls` says whom to trust."""

    url: str
    headers: Mapping[str, str]
    tls: ssl.SSLContext | None
    timeout_s: float


Dial = Callable[[Address], contextlib.AbstractContextManager[Connection]]


@contextlib.contextmanager
def websocket(address: Address) -> Iterator[Connection]:
    """The real thing; anything else that talks like it will do, in tests."""
    with connect(
        address.url,
        additional_headers=dict(address.headers),
        ssl=address.tls,
        open_timeout=address.timeout_s,
        close_timeout=GOODBYE_SECONDS,
        compression=None,  # pixels do not shrink, and a robot waits
        max_size=MAX_BYTES,
    ) as connection:
        set_send_timeout(connection.socket, address.timeout_s)
        yield connection


def set_send_timeout(line: socket.socket, seconds: float) -> None:
    """Whoever reads nothing for so long is gone: a question is larger than what the system takes in for it, and where a
    cable was pulled or a server hangs, sending would last for ever."""
    windows = sys.platform == "win32"
    value = int(1e3 * seconds) if windows else struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """How long to wait between attempts to connect: ever longer, and each client otherwise, lest all come at once."""

    first_s: float = 0.1
    most_s: float = 5.0
    random: Callable[[], float] = field(default=random.random, repr=False)

    def waits(self) -> Iterator[float]:
        wait = self.first_s
        while True:
            yield wait * (0.5 + 0.5 * self.random())
            wait = min(2 * wait, self.most_s)


class Latency:
    """Where the time of the last `window` answers went, in ms.

    `prepare`: scaling and packing, here. `network`: there and back, and unpacking. `server`: reading and writing there.
    `queue`: waiting for other robots. `model`: thinking. `total`: their sum.
    """

    PARTS = ("prepare", "network", "server", "queue", "model", "total")

    def __init__(self, window: int = 1000) -> None:
        self.seen: deque[dict[str, float]] = deque(maxlen=window)

    def add(self, *, prepare: float, waited: float, timing: Mapping[str, Any]) -> None:
        """One answer: ms here, ms between question and answer, and what the server says of that (`server_timing`)."""
        queue, model = (float(timing.get(key, 0.0)) for key in ("queue_ms", "infer_ms"))
        there = float(timing.get("total_ms", queue + model))  # servers of others do not say it
        parts = {"prepare": prepare, "network": max(0.0, waited - there), "server": max(0.0, there - queue - model)}
        self.seen.append(parts | {"queue": queue, "model": model, "total": prepare + waited})

    def percentiles(self, *percents: float) -> dict[str, dict[str, float]]:
        """`{"total": {"p50": …, "p95": …, "p99": …}, "network": …}`; nothing before the first answer."""
        if not (seen := list(self.seen)):
            return {}
        percents = percents or (50, 95, 99)
        found = {part: np.percentile([parts[part] for parts in seen], percents) for part in self.PARTS}
        return {part: {f"p{p:g}": float(v) for p, v in zip(percents, values)} for part, values in found.items()}

    def __str__(self) -> str:
        if not (found := self.percentiles()):
            return "no answer yet"
        parts = ", ".join(f"{part} {found[part]['p50']:.1f}" for part in self.PARTS[:-1])
        total = found["total"]
        return f"{total['p50']:.0f} ms ({parts}), p95 {total['p95']:.0f}, p99 {total['p99']:.0f}"


class PolicyClient:
    """`with PolicyClient(host, port) as policy: policy.infer(observation)["actions"]`.

    `host` may say `wss://…`; the certificate is then checked, against those that `ca` (a file) holds or the system's.
    `policy` asks for one by name where several are served. `metadata` is what the server said about its policy, and
    `latency` where the time goes.

    A client belongs to one thread at a time, but any may `close` it, which ends what is under way.

    Raises:
        ConnectionError: no server answered within `wait_s` seconds, or it does not want us.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8000,
        *,
        policy: str = "",
        api_key: str | None = None,
        ca: str | None = None,
        wait_s: float = 30.0,
        timeout_s: float = 10.0,
        backoff: Backoff | None = None,
        dial: Dial = websocket,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], Any] | None = None,
    ) -> None:
        keep_freed_memory()  # pictures are as large as what a process gives back each time
        self.url = f"{host if '://' in host else f'ws://{host}'}:{port}" + (f"/{policy}" if policy else "")
        self.wait_s, self.timeout_s = wait_s, timeout_s
        self.metadata: dict[str, Any] = {}
        self.latency = Latency()
        self._tls = ssl.create_default_context(cafile=ca) if self.url.startswith("wss://") else None
        self._key = {"Authorization": f"Api-Key {api_key}"} if api_key else {}
        self._backoff, self._dial, self._clock = backoff or Backoff(), dial, clock
        self._closed = threading.Event()
        self._sleep = sleep or self._closed.wait
        self._open = contextlib.ExitStack()
        self._connection: Connection | None = None
        self.reset()

    @property
    def latency_ms(self) -> float:
        """The last round trip with all that we did for it; 0 before the first."""
        return self.latency.seen[-1]["total"] if self.latency.seen else 0.0

    def infer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """`{"images": {camera: uint8 [h w 3]}, "state": [sd], "prompt": str}` → `{"actions": [ah ad], …}`.

        Raises:
            PolicyError: the server's words on what is wrong with this observation.
            ConnectionError: the connection was lost, or no answer came within `timeout_s`. The next call opens a new
                one. The question is not repeated: by then the robot has to look again.
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
        """Open a connection for this session, unless there is one."""
        if self._connection is not None:
            return
        deadline = self._clock() + self.wait_s
        for wait in self._backoff.waits():
            try:
                self._connection = self._greeted()
                if not self._closed.is_set():
                    return
                raise ConnectionAbortedError(CLOSED)
            except (OSError, InvalidHandshake, ConnectionClosed) as error:
                self._drop()
                if is_final(error) or self._closed.is_set():
                    raise ConnectionError(f"no policy at {self.url}: {refusal(error)}") from error
                if self._clock() + wait > deadline:
                    told = f"no policy at {self.url} after {self.wait_s:g} s: {refusal(error)}"
                    raise ConnectionError(told) from error
            except BaseException:
                self._drop()
                raise
            self._sleep(wait)

    def reset(self) -> None:
        """Start a new session: what the policy remembered of this robot is forgotten."""
        self._drop(over=True)
        self.session = secrets.token_hex(8)
        self.connect()

    def close(self) -> None:
        """The end: what waits for an answer gets a ConnectionError, and so does what asks from now on."""
        self._closed.set()
        self._drop(over=True)

    def __enter__(self) -> "PolicyClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _greeted(self) -> Connection:
        """A connection whose server has introduced itself."""
        if self._closed.is_set():
            raise ConnectionAbortedError(CLOSED)
        headers = {SESSION_HEADER: self.session, **self._key}
        address = Address(url=self.url, headers=headers, tls=self._tls, timeout_s=self.timeout_s)
        opening = contextlib.ExitStack()
        connection = opening.enter_context(self._dial(address))
        self._open = opening  # from here on `close` ends it
        if self._closed.is_set():  # while we dialled
            raise ConnectionAbortedError(CLOSED)
        self.metadata = introduction(connection.recv(self.timeout_s))
        return connection

    def _exchange(self, message: bytes) -> str | bytes:
        connection = self._connection
        if connection is None:  # by another thread, since it was opened
            raise ConnectionAbortedError(CLOSED)
        try:
            connection.send(message)
            return connection.recv(self.timeout_s)
        except (ConnectionClosed, OSError) as error:  # TimeoutError is an OSError
            self._drop()  # an answer that comes late must not be taken for that of the next question
            late = isinstance(error, TimeoutError)
            why = f"no answer within {self.timeout_s:g} s" if late else f"lost the policy at {self.url}: {error}"
            raise ConnectionError(f"{why}; the next call connects again") from error
        except BaseException:  # interrupted: the answer is still on its way
            self._drop()
            raise

    def _drop(self, *, over: bool = False) -> None:
        """Hang up; `over` tells the server that it need not wait for us."""
        connection, opened = self._connection, self._open
        self._connection, self._open = None, contextlib.ExitStack()
        with opened:
            if connection is not None and over:
                connection.close(OVER)


def introduction(greeting: str | bytes) -> dict[str, Any]:
    """What a server says of its policy when we come.

    Raises:
        Stranger: that is no policy server.
    """
    if not isinstance(greeting, bytes):
        raise Stranger(f"this is no policy server: it greets with the text {greeting[:80]!r}")
    try:
        metadata = unpack(greeting)
    except WireError as error:
        raise Stranger(f"this is no policy server: {error}") from error
    if not isinstance(metadata, dict):
        raise Stranger(f"this is no policy server: it greets with a {type(metadata).__name__}")
    return metadata


def is_final(error: Exception) -> bool:
    """Whether trying again cannot help: a wrong key, an unknown policy, a certificate that nobody vouches for, …"""
    if isinstance(error, InvalidStatus):
        return error.response.status_code != TOO_MANY and error.response.status_code < ITS_OWN
    return isinstance(error, ssl.SSLCertVerificationError | Stranger)


def refusal(error: Exception) -> str:
    """Why we were not let in, in the server's words where it has any."""
    if isinstance(error, InvalidStatus) and (said := error.response.body):
        return f"{error}: {said.decode(errors='replace').strip()[:300]}"
    return str(error)


def shrink_pictures(observation: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The observation with its pictures as large as the model's (`metadata["image_sizes"]`), where they are larger.

    A picture of a camera that the model is not shown stays at home. Nothing else changes, and nothing at all where the
    server does not say how large, or the observation is in another layout.

    Raises:
        ValueError: a camera's picture is none; the words are those of the pipeline.
    """
    images, sizes = observation.get("images"), metadata.get("image_sizes")
    if not isinstance(images, Mapping) or sizes is None:
        return dict(observation)
    unseen = set(metadata.get("cameras", ())) - set(sizes)
    kept = {camera: image for camera, image in images.items() if camera not in unseen}
    return {**observation, "images": {camera: _shrunk(image, sizes.get(camera)) for camera, image in kept.items()}}


def _shrunk(image: Any, size: Any) -> Any:
    if size is None or np.size(image) <= np.prod(size) * 3:
        return image
    return resize_with_pad(picture(image), tuple(size))
