"""What people see of a server, and the commands that they give to its robots, as plain JSON.

`GET /live` returns one view. A websocket at `/live` sends one as a text message whenever something has changed, at most
every `SECONDS`, and takes these messages, each a JSON object:

    {"key": "…"}                            the first message, where the server has API keys; elsewhere at any time,
                                            the key that the server printed, without which commands are refused
    {"watch": "1a2b3c4d"}                   the robot to send in detail from now on; by default the first that connected
    {"session": "1a2b3c4d", "prompt": "…"}  a command: it replaces the robot's own prompt until that changes
    {"session": "1a2b3c4d", "prompt": null} return to the robot's own prompt
    {"session": "1a2b3c4d", "stop": true}   an emergency stop; without a session, of all robots
    {"session": "1a2b3c4d", "stop": false}  release the robot

Every message of the server has a `kind`: `view` (below), `key` (send your key), `role` (what your key allows), `done`
(a command was accepted) or `error` with its text as `error`. Times are in seconds since 1970, latencies in
milliseconds. Everything that robots sent is theirs: show it as text, never as markup. Views are made only while
somebody looks.
"""

import base64
import math
import time
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import numpy as np

from pilot.data.storage.untrusted import has_half_character
from pilot.serve.sessions import CameraPicture, RobotSession, SentChunk, SessionStore

SECONDS = 0.25
COMMAND_LENGTH = 400
ACTIONS = 200  # actions of a chunk that are shown
RECENT = 50  # answers of each robot that count for the latency of the whole server


def build_view(
    sessions: SessionStore, *, policies: list[dict[str, Any]], ready: bool, watch: str | None
) -> dict[str, Any]:
    """Return the server, a summary of every robot, and all about the robot `watch`."""
    sessions.drop_expired()
    robots = sorted(sessions, key=lambda robot: robot.since)
    watched = next((robot for robot in robots if robot.id == watch), None)
    connected = [robot for robot in robots if robot.connection is not None]
    if watch is None:
        watched = next(iter(connected or robots), None)
    recent = (timing for robot in connected for timing in islice(reversed(robot.latency), RECENT))
    return {
        "kind": "view",
        "time": time.time(),
        "ready": ready,
        "policies": policies,
        "latency_ms": latency_percentiles(recent),
        "robots": [summarize_robot(robot) for robot in robots],
        "watched": None if watched is None else describe_robot(watched),
    }


def summarize_robot(robot: RobotSession) -> dict[str, Any]:
    """Return what the list of robots shows of one."""
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
        "stopped": robot.stopped,
    }


def describe_robot(robot: RobotSession) -> dict[str, Any]:
    """Return the summary with pictures (JPEG in base64), subtasks (newest last), chunks, latencies and the last error.

    `chunk` was sent last, `before` is the one before it. `executed` counts the actions that the robot has executed: as
    it said with its next observation, else by the clock.
    """
    hz = float(robot.metadata.get("control_hz") or 0)
    box = np.asarray(robot.box).tolist() if robot.box is not None else None
    return summarize_robot(robot) | {
        "last_error": robot.last_error,
        "box": box,
        "history": [{"time": start, "subtask": subtask} for start, subtask in robot.history],
        "main_camera": next(iter(robot.metadata.get("cameras", [])), None),
        "action_names": list(robot.metadata.get("action_names", [])),
        "control_hz": hz or None,
        "chunk": describe_chunk(robot.chunk, hz=hz),
        "before": describe_chunk(robot.previous_chunk, hz=hz),
        "latency_ms": latency_percentiles(robot.latency),
        "cameras": [describe_camera(name, picture) for name, picture in robot.pictures.items()],
    }


def describe_chunk(chunk: SentChunk | None, *, hz: float) -> dict[str, Any] | None:
    """Return the actions of a chunk and how many of them have been executed."""
    if chunk is None:
        return None
    executed = chunk.executed_by(time.time(), control_hz=hz)
    actions = [[round(float(x), 5) if math.isfinite(x) else None for x in action] for action in chunk.actions[:ACTIONS]]
    return {"time": chunk.sent, "executed": executed, "actions": actions}


def latency_percentiles(timings: Iterable[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return p50, p90 and p99 [ms] of an answer's time in the server: `total`, `queue`, `infer`; `n` counts answers."""
    rows = [(timing["total_ms"], timing["queue_ms"], timing["infer_ms"]) for timing in timings]
    if not rows:
        return {}
    # The nearest that was measured: `np.percentile`, which interpolates, takes longer than an answer to a robot.
    ranks = [round(share * (len(rows) - 1)) for share in (0.5, 0.9, 0.99)]
    columns = np.sort(rows, axis=0)[ranks].round(2).T.tolist()
    return {
        name: {"p50": p50, "p90": p90, "p99": p99, "n": len(rows)}
        for name, (p50, p90, p99) in zip(("total", "queue", "infer"), columns)
    }


def describe_camera(name: str, picture: CameraPicture) -> dict[str, Any]:
    """Return a camera's picture as JPEG in base64."""
    height, width = picture.image.shape[:2]
    return {"name": name, "width": width, "height": height, "jpeg": base64.b64encode(picture.jpeg).decode()}


def find_robot(sessions: SessionStore, message: Mapping[str, Any]) -> RobotSession:
    """Return the robot that a viewer's message names.

    Raises:
        ValueError: there is no such robot.
    """
    robot = sessions.find(str(message.get("session")))
    if robot is None:
        raise ValueError(f"no robot has the session {message.get('session')!r}; there are {[r.id for r in sessions]}")
    return robot


def stop_robots(sessions: SessionStore, message: Mapping[str, Any]) -> list[RobotSession]:
    """Stop the robot that a viewer's message names, or all robots if it names none; return those stopped.

    Raises:
        ValueError: there is no such robot.
    """
    robots = list(sessions) if message.get("session") is None else [find_robot(sessions, message)]
    for robot in robots:
        robot.stop("a person pressed stop")
    return robots


def set_command(sessions: SessionStore, message: Mapping[str, Any]) -> RobotSession:
    """Give a robot the command in a viewer's message, and return the robot.

    Raises:
        ValueError: there is no such robot, or the command is not words.
    """
    robot, prompt = find_robot(sessions, message), message.get("prompt")
    if prompt is not None and (not isinstance(prompt, str) or not 0 < len(prompt.strip()) <= COMMAND_LENGTH):
        raise ValueError(
            f"a command has 1 to {COMMAND_LENGTH} characters, null ends the present one; got {prompt!r:.60}"
        )
    if prompt is not None and has_half_character(prompt):
        raise ValueError(f"a command must be valid text, got half a character in {prompt!r:.60}")
    robot.set_command(prompt.strip() if prompt is not None else None)
    return robot
