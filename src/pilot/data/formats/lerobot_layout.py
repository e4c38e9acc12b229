"""The LeRobot v3.0 layout in one place: paths, column names, and the Arrow types of each kind of column.

    meta/info.json                                what is in the set; written last: a set without it is unfinished
    meta/stats.json, meta/tasks.parquet           statistics per feature; instruction -> number
    meta/episodes/chunk-000/file-000.parquet      one row per episode
    data/chunk-000/file-000.parquet               one row per frame, many episodes per file, one row group per episode
    videos/<feature>/chunk-000/file-000.mp4       many episodes of one camera
    recording/                                    ours: the finished episodes of a recording that is still open

Four columns beyond the standard ones are ours, and optional:
`observation.subtask_box` float32 [4]: (y0, x0, y1, x1) in [0, 1] of the subtask's object in the first camera, NaN when
there is none; `observation.perturbed` bool: the step was executed with another action than the one recorded (see
`EpisodeDataset.action_chunks`); `observation.drawable` bool: training may start a chunk at the step (idle ones are
not); and `labels` (JSON text) in the episodes' table, e.g. `{"group": "single", "home": "12"}`. The label `missing`
names the cameras that did not record the episode, with commas between; their pictures are black, and no model is shown
them.

Boxes, here and in all text that a model reads or writes, are relative to the square that the model sees, in the middle
of which `data/transforms.py` puts a picture that is not square: its own edges are then not at 0 and 1 (`pad_box`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

VERSION = "v3.0"
INFO, STATS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
RECORDING = "recording"
CHUNK_FILES = 1000  # files per chunk folder
DATA_FILE_MB, VIDEO_FILE_MB = 100, 200

STATE, ACTION, IMAGES = "observation.state", "action", "observation.images."
STATE_NAMES, ACTION_NAMES = (STATE, "state"), (ACTION, "actions")  # what sets in use call them
BOX, PERTURBED, TRAINABLE = "observation.subtask_box", "observation.perturbed", "observation.drawable"
PERSISTENT, EVENTS = "language_persistent", "language_events"
MISSING = "missing"  # a label
SUBTASK_INDEX = "subtask_index"  # how subtasks were written before the language columns
INDEX_COLUMNS = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}

_TEXT_FIELDS = [("role", pa.string()), ("content", pa.string()), ("style", pa.string())]
_TAIL_FIELDS = [("camera", pa.string()), ("tool_calls", pa.list_(pa.string()))]
PERSISTENT_TYPE = pa.list_(pa.struct([*_TEXT_FIELDS, ("timestamp", pa.float32()), *_TAIL_FIELDS]))
EVENTS_TYPE = pa.list_(pa.struct([*_TEXT_FIELDS, *_TAIL_FIELDS]))


@dataclass(frozen=True, kw_only=True)
class VideoPart:
    """The mp4 of an episode, and the number of its first frame in it."""

    file: str
    first: int


@dataclass(frozen=True, kw_only=True)
class EpisodeFiles:
    """The files that hold one episode, in any version of the format; they are relative to the set."""

    index: int
    length: int
    labels: dict[str, str]
    data: str
    videos: dict[str, VideoPart]


def find_feature(features: Mapping[str, Any], names: Sequence[str], *, where: Path) -> str:
    """Return the one of `names` that the set at `where` uses; a `ValueError` when it uses none."""
    if used := next((name for name in names if name in features), None):
        return used
    raise ValueError(f"{where / INFO}: no feature '{names[0]}' among {sorted(features)}")


def huggingface_metadata(features: dict[str, dict[str, Any]]) -> dict[bytes, bytes]:
    """Make the schema note that lets the `datasets` library see pictures as pictures."""
    described = {name: _huggingface_feature(name, spec) for name, spec in features.items() if spec["dtype"] != "video"}
    return {b"huggingface": json.dumps({"info": {"features": described}}).encode()}


def _huggingface_feature(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    dtype, shape = spec["dtype"], tuple(spec["shape"])
    if dtype == "image":
        return {"_type": "Image"}
    if dtype == "language":
        text, stamp = {"dtype": "string", "_type": "Value"}, {"dtype": "float32", "_type": "Value"}
        fields = PERSISTENT_TYPE if name == PERSISTENT else EVENTS_TYPE
        row = {field.name: stamp if field.name == "timestamp" else text for field in fields.value_type}
        return {"feature": row | {"tool_calls": {"feature": text, "_type": "List"}}, "_type": "List"}
    value = {"dtype": dtype, "_type": "Value"}
    return value if shape == (1,) else {"feature": value, "length": shape[0], "_type": "List"}
