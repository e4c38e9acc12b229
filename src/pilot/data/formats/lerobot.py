"""Reading LeRobot data sets, v2.0 to v3.0: columns first, pictures when asked for.

Columns of large sets, and of sets that lie elsewhere, are kept on disk and mapped (`storage/column_cache.py`). How a
version lays out its files is said in `lerobot_v2.py` and `lerobot_v3.py`; everything else is the same. Pictures come
from PNG or JPEG bytes in the parquet files, from files beside them, or from mp4.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import UInt8

from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats import lerobot_v2, lerobot_v3
from pilot.data.formats.episodes import Episode, EpisodeDataset, Steps, TextTable, choose_cameras
from pilot.data.formats.lerobot_layout import EpisodeFiles
from pilot.data.formats.parquet import episode_edges, name_damaged, read_matrices, read_table, refuse_bomb
from pilot.data.formats.set_files import FETCH, check_totals, check_written, read_info
from pilot.data.formats.video import VideoFile
from pilot.data.storage.column_cache import ABOUT, fill_folder
from pilot.data.storage.files import cache_folder
from pilot.data.storage.folder import DatasetFolder
from pilot.data.storage.untrusted import decode_picture, path_inside
from pilot.names import shorten

Item = TypeVar("Item", EpisodeFiles, Episode)
MAPPED_FRAMES = 100_000  # from so many on the columns are kept on disk and mapped
FORMAT = 2  # of the cached columns
VERSIONS = {"v2": lerobot_v2, "v3": lerobot_v3}


class LeRobotDataset(EpisodeDataset):
    """Random access to the frames of one set, each with the `action_horizon` actions that follow.

    `cameras`: names without the `observation.images.` prefix, `episodes`: indices to keep; None reads all.
    `skip_bad` leaves out episodes that cannot be read and lists them in `skipped`.

    Raises `FileNotFoundError`/`ValueError` naming the file, the episode and the remedy: unfinished recordings, other
    format versions, missing, truncated or changed files, unknown cameras, other dims than declared, NaN in state or
    actions.
    """

    def __init__(
        self,
        path: str | Path,
        action_horizon: int,
        *,
        cameras: Sequence[str] | None = None,
        episodes: Sequence[int] | None = None,
        skip_bad: bool = False,
        folder: DatasetFolder | None = None,
    ) -> None:
        super().__init__(path, action_horizon, folder=folder, skip_bad=skip_bad)
        self.info, version = _read_info(self.path)
        self.fps = self.info["fps"]
        self.features: dict[str, Any] = self.info["features"]
        self._keys = _camera_keys(self.features)
        self.cameras = choose_cameras(list(self._keys), cameras, path=self.path)
        if self.folder.is_local:
            check_written(self.path, skip_bad=skip_bad)
        index = version.read_index(self.path, self.info)
        check_totals(self.path, self.info, index)
        keeps = episodes is None and (not self.folder.is_local or self.info.get("total_frames", 0) >= MAPPED_FRAMES)
        if not keeps:
            wanted = select_episodes(index, episodes, path=self.path)
            self._stored = [wanted[number] for number in self._read(wanted, version)]
            return
        keep = cache_folder(self.path) / f"columns-{self._key()}"
        if not (keep / ABOUT).exists():
            with fill_folder(keep) as new:
                self._read(index, version, keep=new)
                self._save_cache(new, {})
        self._load_cache(keep)
        known = {one.index: one for one in index}
        self._stored = [known[episode.index] for episode in self.episodes]

    def _read(self, index: list[EpisodeFiles], version: Any, *, keep: Path | None = None) -> list[int]:
        """Read the columns from the data files; return which of the episodes were read."""
        words = _Words(self.path, self.features, version)
        self.tasks, self.subtasks, self.utterances = words.tasks, words.subtasks.all, words.utterances.all
        return self._load(index, _DataFile(self, words).episode, keep=keep)

    def _key(self) -> str:
        """Return a key that changes with the files, and with what is read of them."""
        meta = [file for file in (self.path / "meta").rglob("*") if file.is_file()]
        content = [FORMAT, self.folder.stamps([*self.files(), *meta]), self.cameras, self.skip_bad]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def files(self) -> Iterable[Path]:
        """List data and pictures; `meta/` may be rewritten without a change to either."""
        return self.folder.files(*(self.path / place for place in ("data", "videos", "images")))

    def metadata(self) -> dict[str, Any]:
        return self.info

    def picture_files(self, episode: int) -> tuple[Path, ...]:
        """Return an episode's mp4 files, or the parquet file that holds its pictures."""
        stored, keys = self._stored[episode], [self._keys[camera] for camera in self.cameras]
        videos = [stored.videos[key].file for key in keys if self.features[key]["dtype"] == "video"]
        return tuple(self.path / name for name in videos or [stored.data])

    def decode(self, i: int, camera: str) -> UInt8[np.ndarray, "h w 3"]:
        """Decode the picture at row `i`, from mp4 or from the parquet file."""
        number = int(self.episode_of[i])
        stored, episode, key = self._stored[number], self.episodes[number], self._keys[camera]
        step = i - episode.start
        if self.features[key]["dtype"] != "video":
            return self._embedded_picture(stored, key, row=episode.first + step, step=step)
        try:
            return self._video(stored, key).read(stored.videos[key].first + step)
        except ValueError as error:
            raise ValueError(f"{self.path}: episode {stored.index}, frame {step}: {error}") from error

    def check_pictures(self, stored: EpisodeFiles) -> None:
        """Raise when an episode's video files are not there; with `skip_bad`, also when they are too short.

        Of files that lie elsewhere the latter shows when they are read.
        """
        for key in (self._keys[camera] for camera in self.cameras):
            if self.features[key]["dtype"] != "video":
                continue
            path, last = self.path / stored.videos[key].file, stored.videos[key].first + stored.length
            if not self.folder.has(path):
                raise FileNotFoundError(f"video {path} of episode {stored.index} is missing; {FETCH}")
            if self.skip_bad and self.folder.is_local and (frames := self._video(stored, key).count) < last:
                raise ValueError(f"video {path} has {frames} frames, episode {stored.index} needs {last}; {FETCH}")

    def _video(self, stored: EpisodeFiles, key: str) -> VideoFile:
        path, name = self.path / stored.videos[key].file, stored.videos[key].file
        return self.folder.open_cached(path, lambda: VideoFile(self._inside(name), fps=self.fps))

    def _inside(self, name: str) -> Path:
        """Return the path of a file that `meta/` names; a `ValueError` if it is not inside the set."""
        return path_inside(self.path, name, where=self.path / fmt.INFO)

    def _embedded_picture(self, stored: EpisodeFiles, key: str, *, row: int, step: int) -> UInt8[np.ndarray, "h w 3"]:
        path = self.path / stored.data
        picture = self.folder.open_cached(path, lambda: _RowGroups(self._inside(stored.data))).value(key, row)
        try:
            if (content := picture["bytes"]) is None:
                with self.folder.hold_file(path_inside(self.path, picture["path"], where=path)) as file:
                    content = file.read_bytes()
            where = f"{path}, {key} of episode {stored.index}, frame {step}"
            return decode_picture(content, where=where, remedy=FETCH)
        except (OSError, TypeError, KeyError) as error:
            raise ValueError(
                f"{path}: the picture {key} of episode {stored.index}, frame {step} is damaged; {FETCH}"
            ) from error


class _Words:
    """Tasks, subtasks and what was said in a set; `task_of` and `subtask_of` turn its numbers into places in them."""

    def __init__(self, path: Path, features: dict[str, Any], version: Any) -> None:
        tasks = version.read_tasks(path)
        self.tasks, self.task_of = list(tasks.values()), {number: i for i, number in enumerate(tasks)}
        self.subtasks, self.utterances = TextTable(), TextTable()
        older = version.read_subtasks(path) if fmt.SUBTASK_INDEX in features else {}
        self.subtask_of = {number: self.subtasks.number(text) for number, text in older.items()}


class _DataFile:
    """The parquet file that was last asked for: its columns, and where in it each episode begins."""

    def __init__(self, dataset: LeRobotDataset, words: _Words) -> None:
        self.dataset, self.words = dataset, words
        self.features = dataset.features
        vectors = (fmt.STATE_NAMES, fmt.ACTION_NAMES)
        self.state, self.action = (fmt.find_feature(self.features, names, where=dataset.path) for names in vectors)
        optional = (fmt.BOX, fmt.PERTURBED, fmt.TRAINABLE, fmt.SUBTASK_INDEX)
        self.names = [self.state, self.action, "episode_index", "task_index"]
        self.names += [name for name in optional if name in self.features]
        self._name = ""

    def episode(self, stored: EpisodeFiles) -> tuple[int, str, Steps]:
        """Read the steps of one episode."""
        if stored.data != self._name:
            self._open(stored.data)
        first, stop = self._runs.get(stored.index, (0, 0))
        if stop - first != stored.length:
            raise ValueError(
                f"{self._path}: episode {stored.index} should have {stored.length} steps there, but has "
                f"{stop - first}; the file does not belong to the list of episodes in meta/, {FETCH}"
            )
        self.dataset.check_pictures(stored)
        rows = slice(first, stop)
        steps = Steps(
            state=self._vector(self.state, rows),
            actions=self._vector(self.action, rows),
            task=self._places("task_index", rows, self.words.task_of, strict=True),
            box=self._vector(fmt.BOX, rows) if fmt.BOX in self.names else None,
            perturbed=self._columns[fmt.PERTURBED][rows, 0] if fmt.PERTURBED in self.names else None,
            trainable=self._columns[fmt.TRAINABLE][rows, 0] if fmt.TRAINABLE in self.names else None,
            first=first,
            labels=stored.labels,
            missing=tuple(name for name in stored.labels.get(fmt.MISSING, "").split(",") if name),
        )
        with name_damaged(self._path):
            self._add_words(steps, first)
        return stored.index, str(self._path), steps

    def _open(self, name: str) -> None:
        self._path = path_inside(self.dataset.path, name, where=self.dataset.path / fmt.INFO)
        if not self.dataset.folder.has(self._path):
            raise FileNotFoundError(f"{self._path} is missing, though meta/ names it; {FETCH}")
        with self.dataset.folder.columns(self._path) as file:
            self._columns = read_matrices(file, self.names, path=self._path, optional={fmt.BOX: 4})
        episode = self._columns["episode_index"][:, 0]
        self._runs = {int(episode[a]): (a, b) for a, b in pairwise(episode_edges(episode).tolist())}
        self._texts, self._said = {}, None
        if fmt.PERSISTENT in self.features:
            with self.dataset.folder.columns(self._path) as file:
                self._texts = _first_texts(file, list(self._runs.values()), path=self._path)
        if fmt.EVENTS in self.features:
            with self.dataset.folder.columns(self._path) as file:
                self._said = read_table(file, [fmt.EVENTS], path=self._path)[fmt.EVENTS]
        self._name = name

    def _vector(self, name: str, rows: slice) -> np.ndarray:
        values = self._columns[name][rows]
        declared = int(np.prod(self.features[name]["shape"]))
        if values.shape[1] != declared:
            raise ValueError(
                f"{self._path}: '{name}' has {values.shape[1]} dims, meta/info.json declares {declared}; {FETCH}"
            )
        return values.astype(np.float32)

    def _places(self, name: str, rows: slice, position_of: dict[int, int], *, strict: bool) -> np.ndarray:
        numbers, inverse = np.unique(self._columns[name][rows, 0], return_inverse=True)
        if strict and (unknown := [int(n) for n in numbers if n not in position_of]):
            raise ValueError(f"{self._path}: {name} {unknown[0]} is not in meta/; {FETCH}")
        return np.array([position_of.get(int(n), -1) for n in numbers])[inverse]

    def _add_words(self, steps: Steps, first: int) -> None:
        """Subtasks and utterances: what is true from a moment on, and what was said last."""
        if fmt.SUBTASK_INDEX in self.names:
            rows = slice(first, first + len(steps))
            steps.subtask = self._places(fmt.SUBTASK_INDEX, rows, self.words.subtask_of, strict=False)
        texts = self._texts.get(first, [])
        if found := sorted((r for r in texts if r["style"] == "subtask"), key=lambda r: r["timestamp"]):
            steps.subtask = np.full(len(steps), -1)
            for row in found:
                steps.subtask[round(row["timestamp"] * self.dataset.fps) :] = self.words.subtasks.number(row["content"])
        steps.rephrasings = tuple(r["content"] for r in texts if r["style"] == "task_aug")
        if self._said is None:
            return
        said = self._said.slice(first, len(steps))
        steps.utterance = np.full(len(steps), -1)
        lengths = pc.call_function("list_value_length", [said]).fill_null(0).to_numpy()
        for step in np.flatnonzero(lengths).tolist():
            for row in said[step].as_py():
                if row["style"] == "interjection" and row["role"] == "user":
                    steps.utterance[step:] = self.words.utterances.number(row["content"])


class _RowGroups:
    """One open parquet file; reads one column of one row group (an episode) at a time and remembers the last few."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with name_damaged(path):
            self._file = pq.ParquetFile(path, memory_map=True)
        meta = self._file.metadata
        self._starts = np.cumsum([0] + [meta.row_group(g).num_rows for g in range(meta.num_row_groups)])
        self._recent: OrderedDict[tuple[str, int], pa.ChunkedArray] = OrderedDict()

    def value(self, column: str, row: int) -> Any:
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        with name_damaged(self._path):
            if (column, group) not in self._recent:
                if len(self._recent) >= 8:
                    self._recent.popitem(last=False)
                refuse_bomb(self._file, self._path, [column], path=self._path, groups=[group])
                self._recent[column, group] = self._file.read_row_group(group, columns=[column])[column]
            return self._recent[column, group][int(row - self._starts[group])].as_py()

    def close(self) -> None:
        self._file.close()


def select_episodes(episodes: Sequence[Item], indices: Sequence[int] | None, *, path: Path) -> list[Item]:
    """Return the episodes of the set at `path` that have these indices, in their order; None: all.

    Raises:
        ValueError: an index that none has.
    """
    known = {episode.index: episode for episode in episodes}
    wanted = list(known) if indices is None else list(indices)
    if unknown := [index for index in wanted if index not in known]:
        raise ValueError(f"{path} has episodes {min(known)} to {max(known)}, not {shorten(unknown)}")
    return [known[index] for index in wanted]


def unfinished_error(path: Path) -> Exception:
    """Make the error for a folder without `meta/info.json`: an open recording, or no data set at all."""
    finished = list((path / fmt.RECORDING).glob("[0-9]*.parquet"))
    if finished or (path / "data").exists():
        return ValueError(
            f"{path} is an unfinished recording ({len(finished)} finished episodes wait to be packed); run the command "
            "that records it again to go on, or LeRobotWriter(path, robot, fps).close() to keep what is there"
        )
    return FileNotFoundError(
        f"{path} is not a LeRobot data set: it has no {fmt.INFO}; give the folder that holds meta/"
    )


def _read_info(path: Path) -> tuple[dict[str, Any], Any]:
    """`meta/info.json`, and the module that knows its version."""
    if not (path / fmt.INFO).exists():
        raise unfinished_error(path)
    info = read_info(path)
    name = str(info.get("codebase_version", "none"))
    if (version := VERSIONS.get(name.split(".")[0])) is None:
        raise ValueError(f"{path} has format {name}, this reader reads v2.0 to v3.0; convert the set to v3.0")
    return info, version


def _camera_keys(features: dict[str, Any]) -> dict[str, str]:
    """Features with colour pictures by the cameras' names."""
    pictures = [name for name, spec in features.items() if spec["dtype"] in ("image", "video") and not _is_depth(spec)]
    return {name.removeprefix(fmt.IMAGES).removeprefix("observation."): name for name in pictures}


def _is_depth(spec: dict[str, Any]) -> bool:
    info = spec.get("info") or spec.get("video_info") or {}
    return bool(info.get("is_depth_map") or info.get("video.is_depth_map"))


def _first_texts(file: Any, runs: list[tuple[int, int]], *, path: Path) -> dict[int, list[dict[str, Any]]]:
    """Return the persistent texts of each episode by its first row, the only one of its (equal) copies that is read."""
    found, start = {}, 0
    firsts = np.array([first for first, _ in runs])
    with name_damaged(path), pq.ParquetFile(file, memory_map=True, pre_buffer=True) as parquet:
        for group in range(parquet.num_row_groups):
            stop = start + parquet.metadata.row_group(group).num_rows
            if len(inside := firsts[(firsts >= start) & (firsts < stop)]):
                refuse_bomb(parquet, file, [fmt.PERSISTENT], path=path, groups=[group])
                column = parquet.read_row_group(group, columns=[fmt.PERSISTENT])[fmt.PERSISTENT]
                found |= {int(row): column[int(row - start)].as_py() or [] for row in inside}
            start = stop
    return found
