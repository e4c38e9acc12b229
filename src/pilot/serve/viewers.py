"""People who look: a websocket that tells them what is new, and takes what they say to robots (`serve/live.py`)."""

import asyncio
import json
import logging
from typing import Any

from websockets.exceptions import ConnectionClosed

from pilot.serve import live
from pilot.serve.http import Visitor
from pilot.serve.limits import Rate
from pilot.serve.state import State

log = logging.getLogger(__name__)

MESSAGE_LETTERS = 4000
MESSAGES_PER_SECOND = 10.0  # of one person
NO_KEY = 4003  # a websocket's code


async def show(state: State, visitor: Visitor) -> None:
    """A viewer's whole stay: one task says what is new, this one listens."""
    state.viewers += 1
    try:
        viewer = Viewer(state, visitor)
        if state.keys and not await viewer.has_key():
            await visitor.close(NO_KEY, "not a key of this server")
            return
        showing = asyncio.create_task(viewer.keep_showing())
        try:
            async for message in visitor:
                await visitor.say(json.dumps(viewer.listen(message)))
                await asyncio.sleep(0)  # what it sends faster than we read does not keep us from others
        finally:
            showing.cancel()
            await asyncio.gather(showing, return_exceptions=True)
    finally:
        state.viewers -= 1


class Viewer:
    def __init__(self, state: State, visitor: Visitor) -> None:
        self.state, self.visitor = state, visitor
        self.watch: str | None = None
        self.rate = Rate(MESSAGES_PER_SECOND, what="messages")

    async def has_key(self) -> bool:
        """Pages cannot send headers with a websocket, so the key is the first message."""
        await self.visitor.say(json.dumps({"kind": "key"}))
        async with asyncio.timeout(10 * self.state.limits.handshake_seconds):  # a person types it
            message = parsed(await self.visitor.recv())
        try:
            self.state.keys.owner(str(message.get("key")) if message is not None else None)
        except PermissionError as error:
            self.state.metrics.turned_away.add(reason="key")
            await self.visitor.say(json.dumps({"kind": "error", "error": str(error)}))
            return False
        return True

    async def keep_showing(self) -> None:
        """A view at once, then whenever it differs from the last; a stuck viewer is cut off."""
        before = None
        try:
            while True:
                view = self.view()
                if (new := {**view, "time": None}) != before:
                    await self.visitor.say(json.dumps(view))
                    before = new
                await asyncio.sleep(live.SECONDS)
        except ConnectionClosed:
            pass
        except TimeoutError:
            self.visitor.transport.abort()
        except Exception:
            log.exception("cannot be shown", extra={"address": str(self.visitor.remote_address)})
            self.visitor.transport.abort()  # the page says that we are away, instead of showing what was

    def view(self) -> dict[str, Any]:
        state = self.state
        return live.view(state.sessions, policies=state.described(), ready=state.ready, watch=self.watch)

    def listen(self, message: str | bytes) -> dict[str, Any]:
        """What to say to a message."""
        said = parsed(message)
        if said is None:
            return {"kind": "error", "error": 'a message is JSON: {"watch": …} or {"session": …, "prompt": …}'}
        try:
            self.rate.take()
            if "watch" in said:
                self.watch = None if said["watch"] is None else str(said["watch"])
                return self.view()
            robot = live.command(self.state.sessions, said)
        except ValueError as error:
            return {"kind": "error", "error": str(error)}
        self.state.metrics.commands.add()
        who = {"policy": robot.policy, "session": robot.id, "address": str(self.visitor.remote_address)}
        log.info("a person says: %s", robot.command or "(as the robot itself says)", extra=who)
        return {"kind": "done", "session": robot.id, "command": robot.command}


def parsed(message: str | bytes) -> dict[str, Any] | None:
    """A short JSON object in a text message; nothing if it is not one."""
    if not isinstance(message, str) or len(message) > MESSAGE_LETTERS:
        return None
    try:
        value = json.loads(message)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
