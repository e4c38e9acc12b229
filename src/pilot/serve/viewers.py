"""People who watch: a websocket that sends them what has changed and takes their commands (`serve/live.py`)."""

import asyncio
import json
import logging
from collections.abc import Sequence
from typing import Any

from websockets.exceptions import ConnectionClosed

from pilot.serve import live
from pilot.serve.connection import IncomingConnection
from pilot.serve.limits import Patience, RateLimit
from pilot.serve.sessions import RobotSession
from pilot.serve.state import ServerState

log = logging.getLogger(__name__)

MESSAGE_LENGTH = 4000
MESSAGES_PER_SECOND = 10.0  # of one viewer
NO_COMMANDS = "your API key may watch and stop robots, not command them"
NO_COMMANDS_WITHOUT_KEY = (
    "commands need the key that the server printed when it started: open the dashboard at the address printed with it"
)
WRONG_KEY = 4003  # a websocket's close code


async def serve_viewer(state: ServerState, connection: IncomingConnection) -> None:
    """Serve one viewer until the connection ends: one task sends views, this one handles messages."""
    state.viewers += 1
    try:
        viewer = Viewer(state, connection)
        if state.keys and not await viewer.check_key():
            await connection.close(WRONG_KEY, "this server does not know this key")
            return
        sending, patience = asyncio.create_task(viewer.send_views()), Patience()
        try:
            async for message in connection:
                reply = viewer.handle_message(message)
                await connection.send_message(json.dumps(reply))
                await patience.pause(refused=reply["kind"] == "error")
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    finally:
        state.viewers -= 1


class Viewer:
    """One person who watches robots over a websocket, and the robot that is shown in detail."""

    def __init__(self, state: ServerState, connection: IncomingConnection) -> None:
        self.state, self.connection = state, connection
        self.watch: str | None = None
        self.may_command = False
        self.rate = RateLimit(MESSAGES_PER_SECOND, what="messages")

    async def check_key(self) -> bool:
        """Ask for the API key as the first message: a page cannot send headers with a websocket."""
        await self.connection.send_message(json.dumps({"kind": "key"}))
        async with asyncio.timeout(10 * self.state.limits.handshake_seconds):  # a person types it
            message = parse_message(await self.connection.recv())
        key, address = str(message.get("key")) if message is not None else None, self.connection.host
        try:
            self.state.check_key(key, address=address, role="watch")
        except PermissionError as error:
            self.state.metrics.turned_away.labels("key").inc()
            await self.connection.send_message(json.dumps({"kind": "error", "error": str(error)}))
            return False
        self.may_command = self.state.may_command(key, address=address)
        return True

    async def send_views(self) -> None:
        """Send a view now, and another whenever it has changed; disconnect a viewer that does not receive it."""
        previous = None
        try:
            while True:
                view = self.view()
                if (new := {**view, "time": None}) != previous:
                    await self.connection.send_message(json.dumps(view))
                    previous = new
                await asyncio.sleep(live.SECONDS)
        except ConnectionClosed:
            pass
        except TimeoutError:
            self.connection.transport.abort()
        except Exception:
            log.exception("a view could not be sent", extra={"address": str(self.connection.remote_address)})
            self.connection.transport.abort()  # so that the page says "disconnected" instead of showing an old view

    def view(self) -> dict[str, Any]:
        """Return the present view."""
        state = self.state
        return live.build_view(state.sessions, policies=state.describe_policies(), ready=state.ready, watch=self.watch)

    def handle_message(self, message: str | bytes) -> dict[str, Any]:
        """Return the reply to a viewer's message: a view, `done`, or an error."""
        content = parse_message(message)
        if content is None:
            return {"kind": "error", "error": 'a message is JSON: {"watch": …} or {"session": …, "prompt": …}'}
        try:
            self.rate.take()
            if "watch" in content:
                self.watch = None if content["watch"] is None else str(content["watch"])
                return self.view()
            if "key" in content:
                self.may_command = self.state.may_command(str(content["key"]), address=self.connection.host)
                return {"kind": "role", "command": self.may_command}
            if "stop" in content and not isinstance(content["stop"], bool):
                raise ValueError(f"'stop' is true or false, got {content['stop']!r:.60}")
            if content.get("stop") is True:  # anyone who sees that it is needed may
                return self._done(
                    live.stop_robots(self.state.sessions, content), "emergency stop", what={"stopped": True}
                )
            robot = live.find_robot(self.state.sessions, content)
            if not self.may_command:
                raise ValueError(NO_COMMANDS if self.state.keys else NO_COMMANDS_WITHOUT_KEY)
            if content.get("stop") is False:
                robot.release()
                return self._done([robot], "released", what={"stopped": False})
            if "prompt" not in content:
                raise ValueError("a message to a robot says 'stop' or 'prompt'")
            live.set_command(self.state.sessions, content)
        except ValueError as error:
            return {"kind": "error", "error": str(error)}
        words = f"command: {robot.command or '(its own prompt)'}"
        return self._done([robot], words, what={"command": robot.command})

    def _done(self, robots: Sequence[RobotSession], words: str, *, what: dict[str, Any]) -> dict[str, Any]:
        """Count and log what a viewer has done to robots, and return the reply."""
        for robot in robots:
            self.state.metrics.commands.inc()
            who = {"policy": robot.policy, "session": robot.id, "address": str(self.connection.remote_address)}
            log.warning("a viewer: %s", words, extra=who)
        session = robots[0].id if len(robots) == 1 else None
        return {"kind": "done", "session": session, **what}


def parse_message(message: str | bytes) -> dict[str, Any] | None:
    """Return the JSON object in a short text message, or None if it is something else."""
    if not isinstance(message, str) or len(message) > MESSAGE_LENGTH:
        return None
    try:
        value = json.loads(message)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
