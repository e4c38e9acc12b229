"""A robot's side of `serve/server.py`: numpy and a socket, no torch."""

import contextlib
import time
from types import TracebackType
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import ClientConnection, connect

from pilot.serve.wire import MAX_BYTES, pack, unpack


class PolicyError(RuntimeError):
    """The server could not act on an observation, and says why. The connection is still good."""


class PolicyClient:
    """`with PolicyClient(host, port) as policy: policy.infer(observation)["actions"]`.

    `metadata` is what the server said about its policy, `latency_ms` the last round trip.

    Raises:
        ConnectionError: no server answered within `wait_s` seconds.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 8000, *, wait_s: float = 30.0) -> None:
        self.url = f"{host if '://' in host else f'ws://{host}'}:{port}"
        self.wait_s = wait_s
        self.metadata: dict[str, Any] = {}
        self.latency_ms = 0.0
        self._open = contextlib.ExitStack()
        self._connection: ClientConnection | None = None
        self.reset()

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """`{"images": {camera: uint8 [h w 3]}, "state": [sd], "prompt": str}` → `{"actions": [ah ad], …}`.

        Raises:
            PolicyError: the server's words on what is wrong with this observation.
            ConnectionError: the connection was lost; the next call opens a new one, with a new session.
        """
        connection = self._connection or self.reset()
        start = time.perf_counter()
        try:
            connection.send(pack(observation))
            reply = connection.recv()
        except ConnectionClosed as closed:
            self.close()
            raise ConnectionError(f"lost the policy at {self.url}: {closed}; the next call connects again") from closed
        self.latency_ms = 1e3 * (time.perf_counter() - start)
        if isinstance(reply, str):
            raise PolicyError(reply)
        return unpack(reply)

    def reset(self) -> ClientConnection:
        """Start a new session: what the policy remembered of this robot is forgotten."""
        self.close()
        connection = self._connect()
        greeting = connection.recv()
        if not isinstance(greeting, bytes):
            raise ConnectionError(f"{self.url} is no policy server: it greets with the text {greeting[:80]!r}")
        self.metadata, self._connection = unpack(greeting), connection
        return connection

    def close(self) -> None:
        self._connection = None
        self._open.close()

    def __enter__(self) -> "PolicyClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self) -> ClientConnection:
        deadline = time.monotonic() + self.wait_s
        while True:
            try:
                return self._open.enter_context(connect(self.url, compression=None, max_size=MAX_BYTES))
            except (OSError, InvalidHandshake) as error:
                if time.monotonic() >= deadline:
                    raise ConnectionError(f"no policy at {self.url} after {self.wait_s:g} s: {error}") from error
                time.sleep(0.2)
