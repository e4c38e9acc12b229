"""Recording a LeRobot v3.0 data set, episode by episode, without losing finished episodes.

Parquet and mp4 files cannot be read before they are closed, and v3.0 puts many episodes into each. So every finished
episode first becomes files of its own under `recording/`; `close` packs them into the layout and writes
`meta/info.json` last. Whatever interrupts a recording, finished episodes stay: open the path again to go on.
It says then what was kept.
"""

import io
import json
import os
import shutil
import warnings
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import UInt8
from PIL import Image

from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.packing import pack_episodes
from pilot.data.formats.set_files import seal_set
from pilot.data.formats.video import Encoding, copy_video, encode_video
from pilot.data.storage.files import atomic_write, read_json
from pilot.data.storage.manifest import set_manifest_aside
from pilot.locks import LOCK, release_lock, take_lock
from pilot.types import Robot

Text = tuple[Any, str, str, str]  # (seconds or frame, style, role, content)


def encode_png(picture: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Encode a picture as PNG, fast and without loss (compression level 1)."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="png", compress_level=1)
    return buffer.getvalue()


def read_finished(path: Path, *, robot: Robot, fps: float) -> dict[str, Any] | None:
    """Return what `meta/info.json` says of the set that a recording would go on with; None if there is none.

    Raises:
        ValueError: the set has another robot, or another rate.
    """
    if not (path / fmt.INFO).exists():
        return None
    info = read_json(path / fmt.INFO, remedy="record into another folder")
    got = (info["robot_type"], info["fps"])
    if got != (robot.name, fps):
        raise ValueError(f"{path} holds robot '{got[0]}' at {got[1]} fps, not '{robot.name}' at {fps}")
    return info


class LeRobotWriter:
    """Writes one data set. Use as a context manager, or call `close`.

    `path` may be new, hold an open recording (goes on after its finished episodes), or hold a closed set (appends).
    `image_format`: "image" embeds PNG in the parquet files, "video" makes one mp4 per camera and file. `origin`: what
    the set is made from, for its manifest (`storage/manifest.py`).

    Warns when the last recording there did not end: at most the episode that was open is lost.
    Raises `ValueError` when `path` holds a set of another robot, rate or image format, and `FolderInUseError` while
    another writer records there.
    """

    def __init__(
        self,
        path: str | Path,
        robot: Robot,
        fps: float,
        *,
        image_format: str = "image",
        origin: Mapping[str, Any] | None = None,
    ) -> None:
        if image_format not in ("image", "video"):
            raise ValueError(f"image_format is '{image_format}'; choose 'image' (PNG) or 'video' (mp4)")
        if not fps > 0:
            raise ValueError(f"a set has more than 0 frames per second, got fps={fps}")
        self.path, self.robot, self.fps, self.image_format = Path(path), robot, fps, image_format
        self.origin = origin
        self._recording = self.path / fmt.RECORDING
        read_finished(self.path, robot=robot, fps=fps)  # refused before anything is made in it
        interrupted = self._recording.exists()
        self._unlock = weakref.finalize(self, release_lock, take_lock(self._recording / LOCK))
        packed = read_finished(self.path, robot=robot, fps=fps)
        self._packed = packed["total_episodes"] if packed else 0
        self._features: dict[str, Any] | None = packed["features"] if packed else None
        self._resume(interrupted)

    def __enter__(self) -> "LeRobotWriter":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self.close()
        self._unlock()

    @property
    def episodes(self) -> int:
        """Count the finished episodes: those packed and those of the open recording."""
        return self._packed + len(self._journal())

    def add_episode(
        self,
        frames: Mapping[str, Any],
        *,
        task: str,
        persistent: Iterable[Text] = (),
        events: Iterable[Text] = (),
        labels: Mapping[str, Any] | None = None,
    ) -> int:
        """Write one finished episode to disk, and return its index.

        `frames` maps column names to arrays of `t` steps: `observation.state` [t sd], `action` [t ad],
        `observation.images.<camera>` uint8 [t h w 3], and any other numeric column [t] or [t n], except
        those of the format itself (`timestamp`, `index` and the like). Pictures may also be a
        list of `t` PNG or JPEG byte strings when `image_format` is "image", or the path of an mp4 of `t` frames, which
        is not encoded again, when it is "video".
        `persistent`: (seconds, style, role, content), true from then on, e.g. (1.2, "subtask", "assistant", "done").
        `events`: (frame, style, role, content), said at that frame, e.g. (12, "interjection", "user", "now the cup").
        """
        length = self._check(frames)
        columns, features = {}, {}
        for name, values in frames.items():
            features[name] = self._feature(name, values)
            if features[name]["dtype"] != "video":
                columns[name] = _column(values, features[name])
        columns |= self._time_columns(length) | _text_columns(length, persistent, events)
        self._agree(features | _standard_features())
        index = self.episodes
        for name in (n for n, spec in features.items() if spec["dtype"] == "video"):
            self._add_video(self._recording / f"{index:06d}.{name}.mp4", frames[name])
        note = {"task": task, "labels": dict(labels or {}), "features": self._features}
        table = pa.table(columns).replace_schema_metadata({b"pilot": json.dumps(note).encode()})
        with atomic_write(self._recording / f"{index:06d}.parquet") as temporary:
            pq.write_table(table, temporary)
        return index

    def adopt(self, other: Path) -> int:
        """Take in the one episode that another writer has finished, but not packed, at `other`; return its index."""
        (table,) = (other / fmt.RECORDING).glob("[0-9]*.parquet")
        self._agree(json.loads(pq.read_schema(table).metadata[b"pilot"])["features"])
        index = self.episodes
        for file in [*table.parent.glob(f"{table.stem}.*.mp4"), table]:  # the table last: with it the episode is there
            os.replace(file, self._recording / f"{index:06d}{file.name.removeprefix(table.stem)}")
        shutil.rmtree(other)
        return index

    def truncate(self, episodes: int) -> None:
        """Drop the episodes from index `episodes` on; only those of the open recording can be dropped."""
        if episodes < self._packed:
            raise ValueError(f"{self.path}: {self._packed} episodes are packed already; cannot go back to {episodes}")
        for file in self._journal():
            if int(file.stem) >= episodes:
                file.unlink()

    def close(self) -> None:
        """Pack the open recording into the v3.0 layout; the set is whole once `meta/info.json` is there."""
        try:
            self._pack()
        finally:
            self._unlock()

    def _pack(self) -> None:
        journal = self._journal()
        if not journal and not self._packed:
            raise ValueError(f"{self.path}: no episode was recorded; there is no data set to close")
        set_manifest_aside(self.path)
        if journal:
            pack_episodes(self.path, journal, features=self._features or {}, fps=self.fps, robot=self.robot.name)
        seal_set(self.path, origin=self.origin)
        shutil.rmtree(self._recording, ignore_errors=True)
        self._packed = self.episodes if not journal else self._packed + len(journal)

    def _add_video(self, path: Path, pictures: Any) -> None:
        if isinstance(pictures, Path):
            copy_video(path, pictures, fps=self.fps)
        else:
            encode_video(path, pictures, fps=self.fps)

    def _resume(self, interrupted: bool) -> None:
        """Forgets journal files that were packed before an interruption, and half-written ones."""
        if interrupted:
            warnings.warn(
                f"{self.path}: the last recording was interrupted; {self.episodes} finished episodes are kept, an "
                "episode that was open then is lost",
                stacklevel=3,
            )
        for file in list(self._recording.glob(".*.tmp")):
            file.unlink()
        for file in self._journal():
            if int(file.stem) < self._packed:
                file.unlink()
        if self._features is None and (journal := self._journal()):
            self._features = json.loads(pq.read_schema(journal[0]).metadata[b"pilot"])["features"]

    def _journal(self) -> list[Path]:
        return sorted(self._recording.glob("[0-9]*.parquet"))

    def _check(self, frames: Mapping[str, Any]) -> int:
        lengths = {name: _length(values) for name, values in frames.items()}
        if fmt.STATE not in frames or fmt.ACTION not in frames:
            raise ValueError(f"an episode needs '{fmt.STATE}' and '{fmt.ACTION}', got {sorted(frames)}")
        if taken := {*fmt.INDEX_COLUMNS, fmt.PERSISTENT, fmt.EVENTS} & set(frames):
            raise ValueError(f"columns {sorted(taken)} are filled in by the writer; leave yours out, or rename them")
        if len(set(lengths.values())) != 1 or not lengths[fmt.STATE]:
            raise ValueError(f"the columns of an episode differ in length, or are empty: {lengths}")
        for name, dims in ((fmt.STATE, self.robot.state_dim), (fmt.ACTION, self.robot.action_dim)):
            values = np.asarray(frames[name])
            if values.shape[1:] != (dims,):
                raise ValueError(f"'{name}' has shape {values.shape}; robot '{self.robot.name}' declares {dims} dims")
            if not np.isfinite(values).all():
                raise ValueError(
                    f"'{name}' holds NaN or infinity at step {int(np.argwhere(~np.isfinite(values))[0, 0])}"
                )
        if missing := {fmt.IMAGES + camera for camera in self.robot.cameras} - set(frames):
            raise ValueError(f"pictures are missing: {sorted(missing)}; robot '{self.robot.name}' declares them")
        return lengths[fmt.STATE]

    def _feature(self, name: str, values: Any) -> dict[str, Any]:
        if name.startswith(fmt.IMAGES):
            return self._picture_feature(name, values)
        array = np.asarray(values)
        if array.ndim > 2 or array.dtype.kind not in "fiub":
            raise ValueError(
                f"column '{name}' has dtype {array.dtype} and shape {array.shape}; give numbers [t] or [t n]"
            )
        names = {fmt.STATE: self.robot.state_names, fmt.ACTION: self.robot.action_names}.get(name)
        shape = list(array.shape[1:]) or [1]
        return {"dtype": str(array.dtype), "shape": shape, "names": list(names) if names else None}

    def _picture_feature(self, name: str, values: Any) -> dict[str, Any]:
        if isinstance(values, Path) and self.image_format != "video":
            raise ValueError(
                f"'{name}' is an mp4, which a set of embedded pictures cannot hold; take image_format='video'"
            )
        spec = {"dtype": self.image_format, "shape": _picture_shape(values), "names": ["height", "width", "channels"]}
        if self.image_format != "video":
            return spec
        codec, pix_fmt = "h264", "yuv420p"
        if isinstance(values, Path) and (encoding := Encoding.of(values)).in_order:
            codec, pix_fmt = encoding.codec, encoding.pix_fmt
        return spec | {"info": {"video.codec": codec, "video.pix_fmt": pix_fmt}}

    def _agree(self, features: dict[str, Any]) -> None:
        self._features = self._features or features
        for name in sorted(set(features) | set(self._features)):
            mine, other = _core(self._features.get(name)), _core(features.get(name))
            if mine != other:
                raise ValueError(
                    f"{self.path}: feature '{name}' is {other} in this episode, but {mine} in earlier ones"
                )

    def _time_columns(self, length: int) -> dict[str, pa.Array]:
        frame = np.arange(length)
        return {"timestamp": pa.array((frame / self.fps).astype(np.float32)), "frame_index": pa.array(frame)}


def _core(feature: dict[str, Any] | None) -> tuple | None:
    return (feature["dtype"], tuple(feature["shape"])) if feature else None


def _standard_features() -> dict[str, Any]:
    index = {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in fmt.INDEX_COLUMNS.items()}
    return index | {name: {"dtype": "language", "shape": [1], "names": None} for name in (fmt.PERSISTENT, fmt.EVENTS)}


def _length(values: Any) -> int:
    return Encoding.of(values).frames if isinstance(values, Path) else len(values)


def _picture_shape(values: Any) -> list[int]:
    if isinstance(values, Path):
        encoding = Encoding.of(values)
        return [encoding.height, encoding.width, 3]
    if isinstance(values[0], bytes):
        with Image.open(io.BytesIO(values[0])) as picture:
            return [picture.height, picture.width, 3]
    if values.dtype != np.uint8 or len(values.shape) != 4 or values.shape[3] != 3:
        raise ValueError(f"pictures must be uint8 [t h w 3], got {values.dtype} {values.shape}")
    return list(values.shape[1:])


def _column(values: Any, feature: dict[str, Any]) -> pa.Array:
    if feature["dtype"] == "image":
        pictures = values if isinstance(values[0], bytes) else [encode_png(picture) for picture in values]
        paths = [f"frame-{number:06d}.png" for number in range(len(pictures))]
        return pa.StructArray.from_arrays([pa.array(pictures, pa.binary()), pa.array(paths)], ["bytes", "path"])
    array = np.ascontiguousarray(values)
    flat = pa.array(array.reshape(-1))
    return flat if feature["shape"] == [1] else pa.FixedSizeListArray.from_arrays(flat, array.shape[1])


def _text_columns(length: int, persistent: Iterable[Text], events: Iterable[Text]) -> dict[str, pa.Array]:
    blank = {"camera": None, "tool_calls": None}
    rows = [{"timestamp": t, "style": s, "role": r, "content": c} | blank for t, s, r, c in persistent]
    said: list[list[dict[str, Any]]] = [[] for _ in range(length)]
    for frame, style, role, content in events:
        if not 0 <= frame < length:
            raise ValueError(f"event '{content}' is at frame {frame}, outside an episode of {length} frames")
        said[frame].append({"style": style, "role": role, "content": content} | blank)
    return {fmt.PERSISTENT: pa.array([rows] * length, fmt.PERSISTENT_TYPE), fmt.EVENTS: pa.array(said, fmt.EVENTS_TYPE)}
