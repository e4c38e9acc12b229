"""The protocol of vla-evaluation-harness, so that its benchmarks drive `pilot serve` as they are.

Its `server.url` is `ws://HOST:PORT/vla-eval`, or `…/vla-eval/NAME` for another policy than the first; `?robot=` says
which of the policy's robots the benchmark moves. A message is msgpack, `{"type", "payload", "seq", "timestamp"}`, where
an array is `{"__ndarray__": true, "data", "dtype", "shape"}` and a picture `{"__image__": true, "format", …}` with PNG,
JPEG or raw bytes. The types:

    hello           answered by a hello that says which observations are wanted; a benchmark adopts them if it can
    episode_start   begins a new session with the policy; no answer
    observation     answered by an action [ad], or by an error
    episode_end     no answer

A benchmark sends an observation for every action, and the policy plans chunks: it is asked once in `replan_steps`
observations, and the actions between are those of its last chunk. A robot that a person stops or releases does not go
on with them: the next observation is asked about.

Source: github.com/allenai/vla-evaluation-harness, `src/vla_eval/protocol`, protocol version 1.
"""

import io
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import msgpack
import numpy as np
from PIL import Image

from pilot.serve.limits import MAX_DEPTH, Limits
from pilot.serve.wire import WireError, pack, read_array, read_dtype, unpack
from pilot.version import __version__

PATH = "vla-eval"  # the first part of the path of a websocket that speaks this protocol
PROTOCOL_VERSION = 1
WANTED = {"send_wrist_image": True, "send_state": True, "quat_no_antipodal": True}
"""What benchmarks that leave it open are asked to send: all cameras, the state, and rotations as LIBERO's data has."""
FORMATS = {"png": ["PNG"], "jpeg": ["JPEG"]}

AnswerFn = Callable[[bytes], Awaitable[str | bytes]]
"""From an observation in pilot's own protocol to the reply in it: bytes, or a text that says what is wrong."""


class EvaluationDialogue:
    """One benchmark's connection: from each of its messages to the answer.

    `answer` asks the policy, `restart` begins a new session with it, and `metadata` is what the policy says of itself
    to this robot. `stop_state` says whether the robot is stopped or was released: anything that is another value then.
    """

    def __init__(
        self,
        metadata: Mapping[str, Any],
        *,
        answer: AnswerFn,
        restart: Callable[[], Awaitable[None]],
        stop_state: Callable[[], Any],
        limits: Limits,
    ) -> None:
        self.metadata, self.answer, self.restart, self.limits = metadata, answer, restart, limits
        self.stop_state = stop_state
        self.planned: list[np.ndarray] = []
        self.planned_in: Any = None  # the stop state when they were asked for
        self.executed: int | None = None  # actions of the last chunk

    async def respond(self, data: str | bytes) -> bytes | None:
        """Return the answer to a message, or None if it gets none; what is wrong with it is an answer too."""
        seq = 0
        try:
            message = read_message(data, self.limits)
            seq = message["seq"]
            match message["type"]:
                case "hello":
                    return write_message("hello", self.hello(), seq=seq)
                case "observation":
                    return write_message(
                        "action", {"actions": await self.act(read_arrays(message["payload"], self.limits))}, seq=seq
                    )
                case "episode_start" | "episode_end":
                    self.planned.clear()
                    if message["type"] == "episode_start":
                        await self.restart()
                    return None
                case "error":
                    return None
                case other:
                    raise WireError(f"unknown message type {other!r:.80}")
        except ValueError as error:
            return write_message("error", {"error": str(error)}, seq=seq)

    def hello(self) -> dict[str, Any]:
        """Return who this is and which observations it wants."""
        return {
            "harness_version": f"pilot {__version__}",
            "protocol_version": PROTOCOL_VERSION,
            "model_server": f"pilot {self.metadata.get('robot', '')}".strip(),
            "capabilities": {},
            "observation_params": WANTED,
        }

    async def act(self, payload: Any) -> np.ndarray:
        """Return the action [ad] for an observation.

        Raises:
            ValueError: the observation does not fit the robot, or the policy cannot answer it.
        """
        if not self.planned or self.planned_in != self.stop_state():
            # From before the answer: a stop while the policy computes makes whatever comes one to throw away.
            self.planned_in = self.stop_state()
            observation = translate(payload, self.metadata)
            # What a robot that stands still keeps as it was commanded last is read from there.
            executed = {} if self.executed is None else {"executed": self.executed}
            reply = await self.answer(pack(observation | executed))
            if isinstance(reply, str):
                raise ValueError(reply)
            actions = np.asarray(unpack(reply)["actions"], np.float32)
            self.planned = list(actions[: int(self.metadata.get("replan_steps", 1))])
            self.executed = 0
        self.executed = (self.executed or 0) + 1
        return self.planned.pop(0)


def translate(payload: Any, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return a benchmark's observation in pilot's words.

    Cameras are found by name where all names are the robot's, else they are taken in order: benchmarks name them as
    they like, and the main one comes first.

    Raises:
        ValueError: it has no pictures or instruction, fewer pictures than the robot has cameras, or another state.
    """
    if not isinstance(payload, dict) or not isinstance(payload.get("images"), dict) or not payload["images"]:
        got = sorted(map(str, payload)) if isinstance(payload, dict) else type(payload).__name__
        raise ValueError(f"an observation has 'images' by camera, 'task_description' and 'states', got {got}")
    prompt = payload.get("task_description")
    if not isinstance(prompt, str):
        raise ValueError(f"'task_description' is the instruction in words, got {prompt!r:.80}")
    images, cameras = payload["images"], tuple(metadata.get("cameras") or payload["images"])
    if not set(cameras) <= set(images):
        if len(images) < len(cameras):
            raise ValueError(
                f"the robot '{metadata.get('robot')}' has the cameras {', '.join(cameras)}, the benchmark sends "
                f"{', '.join(map(str, images))}; switch its other cameras on, such as send_wrist_image: true"
            )
        images = dict(zip(cameras, images.values()))
    state = payload.get("states", payload.get("state"))
    names = metadata.get("state_names")
    if names and (state is None or np.shape(state) != (len(names),)):
        got = "none; switch it on with send_state: true" if state is None else f"one of shape {list(np.shape(state))}"
        raise ValueError(f"robot '{metadata.get('robot')}' has a state of {len(names)} ({', '.join(names)}), got {got}")
    known = {"images": {camera: images[camera] for camera in cameras}, "prompt": prompt}
    if state is None:
        return known
    try:
        return known | {"state": np.asarray(state, np.float32)}
    except TypeError as error:
        raise ValueError(f"the state is a vector of numbers: {error}") from error


def read_message(data: str | bytes, limits: Limits) -> dict[str, Any]:
    """Return a message of the protocol; the arrays in its payload are still as they came (`read_arrays`).

    Raises:
        WireError: it is none.
    """
    if isinstance(data, str):
        raise WireError("got a text; messages are msgpack bytes")
    message = unpack(data, max_bytes=limits.message_bytes)
    if not isinstance(message, dict) or not {"type", "payload", "seq"} <= message.keys():
        raise WireError("a message has 'type', 'payload', 'seq' and 'timestamp'; is the client vla-evaluation-harness?")
    if type(message["seq"]) is not int:
        raise WireError(f"'seq' is a whole number, got {message['seq']!r:.80}")
    return message


def write_message(kind: str, payload: Mapping[str, Any], *, seq: int) -> bytes:
    """Return a message of the protocol as bytes."""
    message = {"type": kind, "payload": payload, "seq": seq, "timestamp": time.time()}
    return cast(bytes, msgpack.packb(message, default=_from_array, use_bin_type=True))


def _from_array(value: Any) -> dict[str, Any]:
    return {"__ndarray__": True, "data": value.tobytes(), "dtype": value.dtype.str, "shape": list(value.shape)}


def read_arrays(value: Any, limits: Limits, *, depth: int = 0) -> Any:
    """Return a payload with its arrays and pictures as arrays.

    Raises:
        WireError: one cannot be read, or is too large; or the payload is nested too deep.
    """
    if depth > MAX_DEPTH:
        raise WireError(f"an observation is nested {MAX_DEPTH} deep at most")
    if isinstance(value, list):
        return [read_arrays(item, limits, depth=depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    if "__image__" in value and value.get("format") != "raw":
        return _read_picture(value, limits)
    if "__image__" in value or "__ndarray__" in value:
        return read_array(value.get("data"), value.get("shape"), dtype=read_dtype(value.get("dtype")))
    return {key: read_arrays(item, limits, depth=depth + 1) for key, item in value.items()}


def _read_picture(value: Mapping[str, Any], limits: Limits) -> np.ndarray:
    """Decode a compressed picture, of limited size: a small file can hold a huge one."""
    data, kind = value.get("data"), value.get("format")
    if not isinstance(data, bytes) or not isinstance(kind, str) or kind not in FORMATS:
        raise WireError(f"a picture is PNG, JPEG or raw bytes, got format {kind!r:.40}")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS[kind]) as picture:
            if picture.width * picture.height > limits.picture_pixels:
                raise WireError(
                    f"a picture of {picture.width} x {picture.height} pixels, the limit is {limits.picture_pixels}"
                )
            return np.asarray(picture.convert("RGB"))
    except WireError:
        raise
    except Exception as error:  # Pillow raises whatever its decoders do
        raise WireError(f"a picture cannot be read as {kind}: {error}") from error
