"""A websocket that a robot or a viewer opened, guarded against clients that say nothing, send floods or hang."""

import asyncio
from collections.abc import Generator
from typing import Any, ClassVar, Literal, cast

import numpy as np
from websockets.asyncio.server import ServerConnection
from websockets.frames import CloseCode, Frame
from websockets.protocol import OPEN
from websockets.streams import StreamReader

from pilot.serve.hosted_policy import HostedPolicy
from pilot.serve.limits import LARGE_MESSAGE, Limits, RateLimit

CLOSE_SECONDS = 1.0  # how long a client may take to answer the closing of its connection; one that hangs never does
READ_BYTES = 2**9  # parsed before anything is counted: ninety of the smallest frames
SMALL_FRAME = 2**10  # bytes; a smaller frame costs more to parse than to transfer
SMALL_FRAMES_AT_ONCE = 32  # more than a robot that waits for its answers ever has on the way


class PiecewiseReader(StreamReader):
    """Collects a large frame where it will stay, as its pieces come.

    The library's reader copies the whole frame once it is complete. For 24 MiB that takes some 70 ms, because all
    memory is new, and no other robot is served meanwhile.
    """

    wanted = 0  # bytes that the parser waits for, those in the buffer included

    @property
    def missing(self) -> int:
        """The bytes of the present frame that have not come yet."""
        return max(0, self.wanted - len(self.buffer))

    def read_exact(self, n: int) -> Generator[None, None, bytearray | memoryview]:  # type: ignore[override]
        """Read `n` bytes."""
        self.wanted = n
        if n < LARGE_MESSAGE:
            data = yield from super().read_exact(n)
            self.wanted = 0
            return data
        frame, filled = np.empty(n, np.uint8).data, 0  # memory that is not there before it is written to
        while True:
            piece = self.buffer[: n - filled]
            frame[filled : filled + len(piece)] = piece
            del self.buffer[: len(piece)]
            filled += len(piece)
            self.wanted = n - filled
            if filled == n:
                return frame
            if self.eof:
                raise EOFError(f"stream ends after {filled} bytes, expected {n} bytes")
            yield


class IncomingConnection(ServerConnection):
    """A connection to this server; `role` is known once its request has been accepted."""

    limits: ClassVar[Limits]
    pending: ClassVar[dict["IncomingConnection", None]]  # without a request so far, the oldest first
    accepted: ClassVar[set["IncomingConnection"]]  # robots and viewers, until their connection is lost
    role: Literal["none", "robot", "viewer"] = "none"
    dialect: Literal["pilot", "vla-eval"] = "pilot"  # what a robot speaks
    hosted: HostedPolicy
    owner: str = ""
    session: str | None = None
    kind: str | None = None  # which of the policy's robots it is
    answer_task: asyncio.Task[Any] | None = None  # the answer that this robot waits for

    @property
    def host(self) -> str:
        """The client's address without its port; empty where the system does not say."""
        peer = self.remote_address
        return str(peer[0]) if peer else ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note a new connection; where too many are pending, drop the oldest."""
        super().connection_made(transport)
        self.protocol.reader.__class__ = PiecewiseReader  # what reads the request has this very object already
        most = max(self.limits.small_frames_per_second, 2 * self.limits.observations_per_second)
        self.small_frames = RateLimit(most, what="small frames", at_once=min(SMALL_FRAMES_AT_ONCE, most))
        self.pending[self] = None
        if len(self.pending) > self.limits.pending_connections:
            oldest = next(iter(self.pending))
            del self.pending[oldest]
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, and cancel the answer that nobody waits for any more."""
        self.pending.pop(self, None)
        self.accepted.discard(self)
        if self.answer_task is not None:
            self.answer_task.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived in pieces: 256 KB of the smallest frames at once would block all others for a second."""
        reader, start = cast("PiecewiseReader", self.protocol.reader), 0
        while start < len(data) and not self.transport.is_closing() and not self.has_failed:
            stop = start + max(READ_BYTES, reader.missing)  # the rest of a frame costs no more than one piece
            super().data_received(data[start:stop])
            start = stop
        if self.has_failed:  # it has a moment to read why
            self.transport.pause_reading()
            self.loop.call_later(CLOSE_SECONDS, self.transport.abort)

    @property
    def has_failed(self) -> bool:
        """Whether the client broke the protocol or a limit, so that nothing that it still sends is looked at."""
        parser = getattr(self.protocol.parser, "__name__", "")  # after a failure the library's own throws all away
        return parser == "discard" and self.protocol.close_rcvd is None

    def process_event(self, event: Any) -> None:
        """Handle a frame; close the connection of a client that floods the server with small ones."""
        super().process_event(event)
        if isinstance(event, Frame) and len(event.data) < SMALL_FRAME and self.state is OPEN:
            try:
                self.small_frames.take()
            except ValueError as error:
                self.protocol.fail(CloseCode.POLICY_VIOLATION, str(error))
                self.send_data()

    def limit_messages(self, size: int) -> None:
        """Refuse messages of more than `size` bytes before they are read; they take time from other robots."""
        name = "max_message_size" if hasattr(self.protocol, "max_message_size") else "max_size"  # before websockets 16
        setattr(self.protocol, name, size)

    async def send_message(self, message: str | bytes) -> None:
        """Send a message.

        Raises:
            TimeoutError: the client does not receive it within `Limits.send_seconds`.
            ConnectionClosed: the client is gone.
        """
        async with asyncio.timeout(self.limits.send_seconds):
            await self.send(message)


def connection_class(limits: Limits) -> type[IncomingConnection]:
    """Return a class for the connections of one server.

    The websockets library constructs the connections itself and passes nothing on, so what they share is in the class.
    """
    return type("LimitedConnection", (IncomingConnection,), {"limits": limits, "pending": {}, "accepted": set()})
