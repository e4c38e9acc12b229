"""Reading a LeRobot v3.0 data set: columns in memory, pictures when asked for.

All low-dimensional columns of a whole set fit in memory as numpy arrays (a million 14-dim frames are 120 MB), so a
training row is an index, a slice of actions, and one picture per camera. Pictures come from PNG bytes embedded in the
parquet files or from mp4, or, pre-decoded, from a `FrameCache`.
"""

import hashlib
import io
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from pilot.data import lerobot_format as fmt
from pilot.data.feature_stats import matrix
from pilot.data.files import read_json
from pilot.data.packing import read_episodes, read_tasks
from pilot.data.video import VideoFile

OPEN_FILES = 64  # video and parquet files a process keeps open


@runtime_checkable
class PictureSource(Protocol):
    """Decoded pictures by row (`pilot.data.frames.FrameCache`)."""

    def read(self, i: int, camera: str) -> UInt8[np.ndarray, "h w 3"]: ...


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One episode. Rows `start` to `stop` of the loaded columns are its frames."""

    index: int
    start: int
    stop: int
    task: str
    labels: dict[str, str]
    meta: dict[str, Any]  # its row of the episodes' table: which files hold its frames

    @property
    def group(self) -> str:
        """What mixtures count by: the label "group", such as "single" or "multi"."""
        return self.labels.get("group", "all")


class LeRobotDataset:
    """Random access to the frames of one set, each with the `action_horizon` actions that follow.

    `cameras`: names without the `observation.images.` prefix, `episodes`: indices to keep; None reads all.

    Raises `FileNotFoundError`/`ValueError` naming the file, the episode and the remedy: unfinished recordings, other
    format versions, missing or truncated files, unknown cameras, NaN in state or actions.
    """

    def __init__(
        self,
        path: str | Path,
        action_horizon: int,
        *,
        cameras: Sequence[str] | None = None,
        episodes: Sequence[int] | None = None,
    ) -> None:
        self.path, self.action_horizon = Path(path), action_horizon
        self.info = _read_info(self.path)
        self.fps: float = self.info["fps"]
        self.features: dict[str, Any] = self.info["features"]
        self.cameras = _choose_cameras(self.features, cameras, self.path)
        self.tasks = read_tasks(self.path)
        columns = self._load_columns(episodes)
        self.state: Float[np.ndarray, "n sd"] = matrix(columns[fmt.STATE]).astype(np.float32, copy=False)
        self.actions: Float[np.ndarray, "n ad"] = matrix(columns[fmt.ACTION]).astype(np.float32, copy=False)
        self.frame_index: Int[np.ndarray, " n"] = columns["frame_index"].to_numpy()
        self.task_index: Int[np.ndarray, " n"] = columns["task_index"].to_numpy()
        self.boxes = matrix(columns[fmt.BOX]) if fmt.BOX in self.features else None
        self.perturbed = columns[fmt.PERTURBED].to_numpy() if fmt.PERTURBED in self.features else None
        self.episode_of = np.repeat(np.arange(len(self.episodes)), [e.stop - e.start for e in self.episodes])
        self._stops = np.array([e.stop for e in self.episodes])[self.episode_of]
        self.subtasks, self.subtask_index = self._subtasks(columns)
        self.utterances, self.utterance_index = self._utterances(columns)
        self._check_finite()
        self.frames: PictureSource | None = None
        self._files: OrderedDict[Any, Any] = OrderedDict()

    def __len__(self) -> int:
        return len(self.state)

    def frame(self, i: int) -> dict[str, Any]:
        """Row `i` with its pictures: `row(i)` plus `"images": {camera: uint8 [h w 3]}`."""
        return self.row(i) | {"images": {camera: self.picture(i, camera) for camera in self.cameras}}

    def row(self, i: int) -> dict[str, Any]:
        """Row `i` without pictures.

        `state` [sd], `actions` [ah ad], `action_is_pad` [ah], `task`, `subtask` (None when not annotated), `box`
        ((y0, x0, y1, x1) of the subtask or None), `utterance` (the last thing said in this episode, or None),
        `episode_index`, `frame_index`.
        """
        actions, is_pad = self.windows(np.array([i]))
        subtask, utterance = self.subtask_index[i], self.utterance_index[i]
        return {
            "state": self.state[i],
            "actions": actions[0],
            "action_is_pad": is_pad[0],
            "task": self.tasks[self.task_index[i]],
            "subtask": self.subtasks[subtask] if subtask >= 0 else None,
            "box": self.box(i),
            "utterance": self.utterances[utterance] if utterance >= 0 else None,
            "episode_index": self.episodes[self.episode_of[i]].index,
            "frame_index": int(self.frame_index[i]),
        }

    def box(self, i: int) -> tuple[float, ...] | None:
        """The subtask's box at row `i`."""
        if self.boxes is None or np.isnan(self.boxes[i, 0]):
            return None
        return tuple(self.boxes[i].tolist())

    def windows(self, rows: Int[np.ndarray, " n"]) -> tuple[Float[np.ndarray, "n ah ad"], Bool[np.ndarray, "n ah"]]:
        """The `action_horizon` actions from each row on, and which of them are padding.

        Past the episode's end the last action is repeated and marked as padding. So is every step after the first
        perturbed one: recorded actions are the expert's answer to the state it saw, and after a step at which something
        else was executed they answer another state than the chunk's own actions would have led to. The perturbed step's
        own action is good: it answers a state that the chunk reaches.
        """
        steps = rows[:, None] + np.arange(self.action_horizon)
        stops = self._stops[rows][:, None]
        is_pad = steps >= stops
        steps = np.minimum(steps, stops - 1)
        if self.perturbed is not None:
            perturbed = self.perturbed[steps] & ~is_pad
            is_pad |= np.cumsum(perturbed, axis=1) - perturbed > 0
        return self.actions[steps], is_pad

    def groups(self) -> dict[str, Int[np.ndarray, " n"]]:
        """Rows by the episodes' group label."""
        names = np.array([e.group for e in self.episodes])[self.episode_of]
        return {str(name): np.flatnonzero(names == name) for name in np.unique(names)}

    def fingerprint(self) -> str:
        """Changes when the set on disk changes, or another choice of episodes is read."""
        files = sorted(p for folder in ("data", "videos") for p in (self.path / folder).rglob("*") if p.is_file())
        sizes = [(str(p.relative_to(self.path)), p.stat().st_size) for p in files]
        content = json.dumps([self.info, sizes, [e.index for e in self.episodes]], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def picture(self, i: int, camera: str) -> UInt8[np.ndarray, "h w 3"]:
        """The picture of one camera at row `i`: from `frames` if there is a cache, else decoded now."""
        if self.frames is not None:
            return self.frames.read(i, camera)
        episode, number = self.episodes[self.episode_of[i]], int(self.frame_index[i])
        key = fmt.IMAGES + camera if fmt.IMAGES + camera in self.features else f"observation.{camera}"
        if self.features[key]["dtype"] == "video":
            return self._video_picture(episode, key, number)
        return self._embedded_picture(episode, key, number)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": OrderedDict()}  # open files do not travel to worker processes

    def _video_picture(self, episode: Episode, key: str, number: int) -> UInt8[np.ndarray, "h w 3"]:
        place = {name: episode.meta[f"videos/{key}/{name}"] for name in ("chunk_index", "file_index", "from_timestamp")}
        start = round(place.pop("from_timestamp") * self.fps)
        path = self.path / self.info["video_path"].format(video_key=key, **place)
        try:
            return self._opened(path, lambda: VideoFile(path, fps=round(self.fps))).read(start + number)
        except ValueError as error:
            raise ValueError(f"episode {episode.index}, frame {number}: {error}") from error

    def _embedded_picture(self, episode: Episode, key: str, number: int) -> UInt8[np.ndarray, "h w 3"]:
        path = self.path / _data_file(self.info, episode.meta)
        file: _RowGroups = self._opened(path, lambda: _RowGroups(path))
        png = file.value(key, episode.meta["dataset_from_index"] + number)
        try:
            return np.asarray(Image.open(io.BytesIO(png["bytes"])).convert("RGB"))
        except (OSError, TypeError) as error:
            raise ValueError(
                f"{path}: the picture {key} of episode {episode.index}, frame {number} is damaged"
            ) from error

    def _opened(self, path: Path, opener: Any) -> Any:
        if path in self._files:
            self._files.move_to_end(path)
            return self._files[path]
        if len(self._files) >= OPEN_FILES:
            self._files.popitem(last=False)[1].close()
        return self._files.setdefault(path, opener())

    def _load_columns(self, chosen: Sequence[int] | None) -> pa.Table:
        """Reads the low-dimensional columns; sets `self.episodes` to the chosen ones, in order."""
        rows = read_episodes(self.path, self.info["total_episodes"]).to_pylist()
        known = {row["episode_index"]: row for row in rows}
        keep = sorted(known) if chosen is None else list(chosen)
        if unknown := [i for i in keep if i not in known]:
            raise ValueError(f"{self.path} has episodes 0 to {len(rows) - 1}, not {unknown[:5]}")
        names = [n for n, spec in self.features.items() if spec["dtype"] not in ("image", "video")]
        tables, pieces = {}, []
        self.episodes, start = [], 0
        for index in keep:
            meta = known[index]
            file = _data_file(self.info, meta)
            if file not in tables:
                tables[file] = _read_data(self.path / file, names)
            piece = self._slice(tables[file], meta, file)
            labels = json.loads(meta.get("labels") or "{}")
            stop = start + meta["length"]
            self.episodes.append(
                Episode(index=index, start=start, stop=stop, task=meta["tasks"][0], labels=labels, meta=meta)
            )
            pieces.append(piece)
            start = stop
        if not pieces:
            raise ValueError(f"{self.path} has no episodes to read; record some first")
        return pa.concat_tables(pieces).combine_chunks()

    def _slice(self, table: pa.Table, meta: dict[str, Any], file: str) -> pa.Table:
        first = table["index"][0].as_py()
        piece = table.slice(meta["dataset_from_index"] - first, meta["length"])
        found = piece["episode_index"].to_numpy()
        if len(found) != meta["length"] or (found != meta["episode_index"]).any():
            raise ValueError(
                f"{self.path / file}: episode {meta['episode_index']} should be at rows from "
                f"{meta['dataset_from_index']}, but is not; the file does not belong to meta/episodes, fetch both again"
            )
        return piece

    def _subtasks(self, columns: pa.Table) -> tuple[list[str], Int[np.ndarray, " n"]]:
        """Subtask texts, and per frame the number of the one that is active (-1: none yet)."""
        texts: dict[str, int] = {}
        active = np.full(len(self), -1)
        if fmt.PERSISTENT not in self.features:
            return [], active
        for e in self.episodes:
            rows = [r for r in columns[fmt.PERSISTENT][e.start].as_py() or [] if r["style"] == "subtask"]
            for row in sorted(rows, key=lambda r: r["timestamp"]):
                first = e.start + round(row["timestamp"] * self.fps)
                active[first : e.stop] = texts.setdefault(row["content"], len(texts))
        return list(texts), active

    def _utterances(self, columns: pa.Table) -> tuple[list[str], Int[np.ndarray, " n"]]:
        """What a person said while it happened, and per frame the number of the last thing said (-1: nothing)."""
        texts: dict[str, int] = {}
        last = np.full(len(self), -1)
        if fmt.EVENTS not in self.features:
            return [], last
        said = columns[fmt.EVENTS]
        lengths = pc.call_function("list_value_length", [said]).fill_null(0).to_numpy()
        for i in np.flatnonzero(lengths):
            rows = [r for r in said[int(i)].as_py() if r["style"] == "interjection" and r["role"] == "user"]
            for row in rows:
                last[i : self._stops[i]] = texts.setdefault(row["content"], len(texts))
        return list(texts), last

    def _check_finite(self) -> None:
        for name, values in (("state", self.state), ("action", self.actions)):
            bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
            if bad.size:
                e = self.episodes[self.episode_of[bad[0]]]
                raise ValueError(
                    f"{self.path / _data_file(self.info, e.meta)}: NaN or infinity in the {name} of episode {e.index}, "
                    f"frame {self.frame_index[bad[0]]}; repair it or leave the episode out with episodes=[...]"
                )


class _RowGroups:
    """One open parquet file; reads one column of one row group (an episode) at a time and remembers the last few."""

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path, memory_map=True)
        meta = self._file.metadata
        self._starts = np.cumsum([0] + [meta.row_group(g).num_rows for g in range(meta.num_row_groups)])
        self._first = self._file.read_row_group(0, columns=["index"])["index"][0].as_py()
        self._recent: OrderedDict[tuple[str, int], pa.ChunkedArray] = OrderedDict()

    def value(self, column: str, index: int) -> Any:
        row = index - self._first
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        if (column, group) not in self._recent:
            if len(self._recent) >= 8:
                self._recent.popitem(last=False)
            self._recent[column, group] = self._file.read_row_group(group, columns=[column])[column]
        return self._recent[column, group][int(row - self._starts[group])].as_py()

    def close(self) -> None:
        self._file.close()


def unfinished_error(path: Path) -> Exception:
    """What to say about a folder without `meta/info.json`: an open recording, or no data set at all."""
    finished = list((path / fmt.RECORDING).glob("[0-9]*.parquet"))
    if finished or (path / "data").exists():
        return ValueError(
            f"{path} is an unfinished recording ({len(finished)} finished episodes wait to be packed); run the command "
            "that records it again to go on, or LeRobotWriter(path, robot, fps).close() to keep what is there"
        )
    return FileNotFoundError(
        f"{path} is not a LeRobot data set: it has no {fmt.INFO}; give the folder that holds meta/"
    )


def _read_info(path: Path) -> dict[str, Any]:
    if not (path / fmt.INFO).exists():
        raise unfinished_error(path)
    info = read_json(path / fmt.INFO, remedy="fetch the data set again")
    version = str(info.get("codebase_version", "none"))
    if version.split(".")[0] != fmt.VERSION.split(".")[0]:
        raise ValueError(f"{path} has format {version}, this reader reads {fmt.VERSION}; convert the set to v3.0")
    for name in (fmt.STATE, fmt.ACTION):
        if name not in info["features"]:
            raise ValueError(f"{path / fmt.INFO}: no feature '{name}' among {sorted(info['features'])}")
    return info


def _choose_cameras(features: dict[str, Any], wanted: Sequence[str] | None, path: Path) -> tuple[str, ...]:
    pictures = [name for name, spec in features.items() if spec["dtype"] in ("image", "video")]
    known = [name.removeprefix(fmt.IMAGES).removeprefix("observation.") for name in pictures]
    for camera in wanted or ():
        if camera not in known:
            near = get_close_matches(camera, known, n=1) or known
            raise ValueError(
                f"{path} has no camera '{camera}'; it has {known}. Did you mean '{near[0] if near else '-'}'?"
            )
    return tuple(known if wanted is None else wanted)


def _data_file(info: dict[str, Any], meta: dict[str, Any]) -> str:
    return info["data_path"].format(chunk_index=meta["data/chunk_index"], file_index=meta["data/file_index"])


def _read_data(path: Path, names: list[str]) -> pa.Table:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing, though meta/episodes names it; fetch the data set again")
    try:
        return pq.read_table(path, columns=names)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}); it is truncated or damaged, fetch it again") from error
