"""What people see of a server, and what they can say to its robots. Plain JSON, made only while someone looks.

`GET /live` gives one view. A websocket at `/live` gets one as a text message whenever something is new, at most every
`SECONDS`, and takes these messages, each a JSON object:

    {"key": "…"}                            first, where the server has API keys
    {"watch": "1a2b3c4d"}                   whose details to send, from now on; else of who connected first
    {"session": "1a2b3c4d", "prompt": "…"}  a command: stands in place of the robot's own prompt until that changes
    {"session": "1a2b3c4d", "prompt": null} the robot's own prompt again

Every message of the server has a `kind`: `view` (below), `key` (say it), `done` (a command was taken) or `error` with
its words as `error`. Times are seconds since 1970, latencies milliseconds. Everything that robots sent is theirs: show
it as text, never as markup.
"""

import base64
import math
import time
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import numpy as np

from pilot.serve.sessions import Chunk, Picture, RobotSession, Sessions

SECONDS = 0.25
COMMAND_LETTERS = 400
ACTIONS = 200  # of a chunk that are shown
RECENT = 50  # answers of each robot that the whole server's latency is of


def view(sessions: Sessions, *, policies: list[dict[str, Any]], ready: bool, watch: str | None) -> dict[str, Any]:
    """The server, every robot in short, and one of them in full."""
    sessions.forget()
    robots = sorted(sessions, key=lambda robot: robot.since)
    watched = next((robot for robot in robots if robot.id == watch), None)
    if watch is None:
        watched = next((robot for robot in robots if robot.connection is not None), next(iter(robots), None))
    return {
        "kind": "view",
        "time": time.time(),
        "ready": ready,
        "policies": policies,
        "latency_ms": percentiles(timing for robot in robots for timing in islice(reversed(robot.latency), RECENT)),
        "robots": [in_short(robot) for robot in robots],
        "watched": None if watched is None else in_full(watched),
    }


def in_short(robot: RobotSession) -> dict[str, Any]:
    return {
        "session": robot.id,
        "policy": robot.policy,
        "robot": robot.metadata.get("robot"),
        "address": robot.address,
        "connected": robot.connection is not None,
        "since": robot.since,
        "seen": robot.seen or None,
        "observations": robot.observations,
        "errors": robot.errors,
        "prompt": robot.prompt,
        "command": robot.command,
        "subtask": robot.subtask,
    }


def in_full(robot: RobotSession) -> dict[str, Any]:
    """Beside what is said in short: pictures as JPEG in base64, subtasks (newest last), chunks, latencies, errors.

    `chunk` was sent last, `before` is the one before it. `executed` counts the actions done: as the robot said with its
    next observation, else by the clock.
    """
    hz = float(robot.metadata.get("control_hz") or 0)
    box = np.asarray(robot.box).tolist() if robot.box is not None else None
    return in_short(robot) | {
        "last_error": robot.last_error,
        "box": box,
        "history": [{"time": then, "subtask": subtask} for then, subtask in robot.history],
        "action_names": list(robot.metadata.get("action_names", [])),
        "control_hz": hz or None,
        "chunk": chunk_view(robot.chunk, hz=hz),
        "before": chunk_view(robot.before, hz=hz),
        "latency_ms": percentiles(robot.latency),
        "cameras": [camera_view(name, picture) for name, picture in robot.pictures.items()],
    }


def chunk_view(chunk: Chunk | None, *, hz: float) -> dict[str, Any] | None:
    if chunk is None:
        return None
    executed = chunk.executed_by(time.time(), control_hz=hz)
    actions = [[round(float(x), 5) if math.isfinite(x) else None for x in action] for action in chunk.actions[:ACTIONS]]
    return {"time": chunk.sent, "executed": executed, "actions": actions}


def percentiles(timings: Iterable[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """p50, p90 and p99 of each part of an answer's time in the server: `total`, `queue`, `infer`; of how many."""
    timings = list(timings)
    if not timings:
        return {}
    found: dict[str, dict[str, float]] = {}
    for name in ("total_ms", "queue_ms", "infer_ms"):
        p50, p90, p99 = np.percentile([timing[name] for timing in timings], [50, 90, 99]).round(2).tolist()
        found[name.removesuffix("_ms")] = {"p50": p50, "p90": p90, "p99": p99, "n": len(timings)}
    return found


def camera_view(name: str, picture: Picture) -> dict[str, Any]:
    height, width = picture.image.shape[:2]
    return {"name": name, "width": width, "height": height, "jpeg": base64.b64encode(picture.jpeg).decode()}


def command(sessions: Sessions, message: Mapping[str, Any]) -> RobotSession:
    """Say something to a robot; returns it.

    Raises:
        ValueError: no such robot, or no words.
    """
    robot, prompt = sessions.find(str(message.get("session"))), message.get("prompt")
    if robot is None:
        raise ValueError(f"no robot has the session {message.get('session')!r}; there are {[r.id for r in sessions]}")
    if prompt is not None and (not isinstance(prompt, str) or not 0 < len(prompt.strip()) <= COMMAND_LETTERS):
        raise ValueError(f"a command is 1 to {COMMAND_LETTERS} letters, or null to end one; got {prompt!r:.60}")
    if prompt is not None and any("\ud800" <= letter <= "\udfff" for letter in prompt):
        raise ValueError(f"a command is text, got half a letter in {prompt!r:.60}")  # JSON can say it, no model read it
    robot.obey(prompt.strip() if prompt is not None else None)
    return robot
