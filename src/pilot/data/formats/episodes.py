"""Demonstrations of a robot, whatever files they lie in: rows by number, each with the actions that follow.

The low-dimensional columns of a whole set are numpy arrays, of a large set mapped from files that the first reading
writes (`storage/column_cache.py`). So a training row is an index, a slice of actions, and one picture per camera. A
reader of a format subclasses `EpisodeDataset`: it gives the `Steps` of each episode and says how a picture is decoded.

Axes: `n` rows of the set, `e` episodes, `t` steps of an episode, `sd` state dims, `ah` action horizon, `ad` action
dims, `h w` pixels.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from pilot.data.formats.left_out import report_left_out, warn_of_left_out
from pilot.data.storage.column_cache import ABOUT, ColumnWriter, map_columns
from pilot.data.storage.files import read_json, write_json
from pilot.data.storage.folder import DatasetFolder
from pilot.names import suggest_names

Stored = TypeVar("Stored")
COLUMNS = ("state", "actions", "task", "subtask", "utterance", "box", "perturbed", "trainable")  # of `Steps`


@runtime_checkable
class PictureSource(Protocol):
    """Decoded pictures by row: `storage.frame_cache.FrameCache` or `loading.windows.WindowCache`."""

    def read(self, i: int, camera: str) -> UInt8[np.ndarray, "h w 3"]:
        """Return the picture of a camera at row `i`; a `LookupError` if it does not hold that row."""
        ...


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One episode. Rows `start` to `stop` of the set are its frames; `where` is the file to name in errors."""

    index: int
    start: int
    stop: int
    task: str
    where: str
    first: int = 0  # where in its file its frames begin
    labels: dict[str, str] = field(default_factory=dict)
    rephrasings: tuple[str, ...] = ()  # of the task; a prompt may be any of them
    missing: tuple[str, ...] = ()  # cameras of the set that did not record this episode


@dataclass(frozen=True, kw_only=True)
class SkippedEpisode:
    """An episode that `skip_bad` left out, and why."""

    episode: int
    reason: str


@dataclass(kw_only=True)
class Steps:
    """The columns of one episode. Texts are numbered in the set's lists of them (-1: none).

    `first` is where in its file the episode's frames begin. `trainable`: which steps a training row may start at
    (see `pilot.datasets.droid`); None is all.
    """

    state: Float[np.ndarray, "t sd"]
    actions: Float[np.ndarray, "t ad"]
    task: Int[np.ndarray, " t"]
    subtask: Int[np.ndarray, " t"] | None = None
    utterance: Int[np.ndarray, " t"] | None = None
    box: Float[np.ndarray, "t 4"] | None = None
    perturbed: Bool[np.ndarray, " t"] | None = None
    trainable: Bool[np.ndarray, " t"] | None = None
    first: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    rephrasings: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.state)


class TextTable:
    """A list of different texts that grows; the number of a text is its place in `all`."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        """Return the number of a text, which is new if the text is."""
        if text not in self._numbers:
            self._numbers[text] = len(self.all)
            self.all.append(text)
        return self._numbers[text]


class EpisodeDataset:
    """Random access to the frames of one set, each with the `action_horizon` actions that follow.

    `skipped` lists what `skip_bad` left out. `frames` may be set to a source of pictures decoded before. `folder`: its
    files, for a set that lies elsewhere; `path` is then its place in `folder`.
    """

    action_horizon: int
    fps: float
    cameras: tuple[str, ...]

    def __init__(
        self, path: str | Path, action_horizon: int, *, folder: DatasetFolder | None = None, skip_bad: bool = False
    ) -> None:
        self.path, self.action_horizon, self.skip_bad = Path(path), action_horizon, skip_bad
        self.folder = folder or DatasetFolder(self.path)
        self.tasks, self.subtasks, self.utterances = [], [], []
        self.episodes: list[Episode] = []
        self.skipped: list[SkippedEpisode] = []
        self._found_bad = 0  # of those, what was found only when its pictures were read
        self.frames: PictureSource | None = None
        self._cache_folder: Path | None = None  # where the columns are mapped from

    def decode(self, i: int, camera: str) -> UInt8[np.ndarray, "h w 3"]:
        """Decode the picture at row `i` from the set's own files. Subclasses say how."""
        raise NotImplementedError

    def files(self) -> Iterable[Path]:
        """List the files by which one state of the set is told from another."""
        raise NotImplementedError

    def metadata(self) -> dict[str, Any]:
        """Return what the set says about itself, as JSON."""
        raise NotImplementedError

    def picture_files(self, episode: int) -> tuple[Path, ...]:
        """Return the files that the pictures of `episodes[episode]` lie in."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.state)

    def frame(self, i: int) -> dict[str, Any]:
        """Return `row(i)` plus `"images": {camera: uint8 [h w 3]}`, of the cameras that recorded it."""
        return self.row(i) | {"images": self.pictures(i)}

    def readable_frame(self, i: int, rng: np.random.Generator) -> dict[str, Any]:
        """Return `frame(i)`; with `skip_bad`, where its pictures cannot be decoded, another row, drawn from `rng`.

        The episode is then in `skipped`. The same `i` and generator always give the same row.
        """
        for _ in range(100):
            if (images := self.readable_pictures(i)) is not None:
                return self.row(i) | {"images": images}
            i = int(rng.choice(self.trainable_rows()))
        raise ValueError(f"{self.path}: 100 rows drawn in a row cannot be decoded; the last: {self.skipped[-1].reason}")

    def row(self, i: int) -> dict[str, Any]:
        """Return row `i` without pictures.

        `state` [sd], `actions` [ah ad], `action_is_pad` [ah], `task`, `rephrasings` (of the task), `subtask` (None when
        not annotated), `box` ((y0, x0, y1, x1) of the subtask or None), `utterance` (the last thing said in this
        episode, or None), `episode_index`, `frame_index`.
        """
        actions, is_pad = self.action_chunks(np.array([i]))
        episode, subtask, utterance = self.episodes[self.episode_of[i]], self.subtask_index[i], self.utterance_index[i]
        return {
            "state": self.state[i],
            "actions": actions[0],
            "action_is_pad": is_pad[0],
            "task": self.tasks[self.task_index[i]],
            "rephrasings": episode.rephrasings,
            "subtask": self.subtasks[subtask] if subtask >= 0 else None,
            "box": self.box(i),
            "utterance": self.utterances[utterance] if utterance >= 0 else None,
            "episode_index": episode.index,
            "frame_index": i - episode.start,
        }

    def box(self, i: int) -> tuple[float, ...] | None:
        """Return the subtask's box at row `i`, None where there is none."""
        if self.boxes is None or np.isnan(self.boxes[i, 0]):
            return None
        return tuple(self.boxes[i].tolist())

    def action_chunks(
        self, rows: Int[np.ndarray, " n"]
    ) -> tuple[Float[np.ndarray, "n ah ad"], Bool[np.ndarray, "n ah"]]:
        """Return the `action_horizon` actions from each row on, and which of them are padding.

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

    def trainable_rows(self) -> Int[np.ndarray, " n"]:
        """Return the rows that training may draw: all, unless the set names idle ones."""
        return np.arange(len(self)) if self.trainable is None else np.flatnonzero(self.trainable)

    def pictures(self, i: int) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
        """Return the pictures at row `i` by the cameras that recorded it."""
        missing = self.episodes[self.episode_of[i]].missing
        return {camera: self.picture(i, camera) for camera in self.cameras if camera not in missing}

    def readable_pictures(self, i: int) -> dict[str, UInt8[np.ndarray, "h w 3"]] | None:
        """Return `pictures(i)`; with `skip_bad` None, where they cannot be decoded.

        The episode is then in `skipped`, and a warning counts those that were found so.
        """
        try:
            return self.pictures(i)
        except (ValueError, OSError) as error:
            if not self.skip_bad:
                raise
            if self.skip_episode(int(self.episode_of[i]), str(error)):
                self._found_bad += 1
                warn_of_left_out(self.path, "episodes", self._found_bad, last=self.skipped[-1].reason)
            return None

    def skip_episode(self, number: int, reason: str) -> bool:
        """List `episodes[number]` as one with pictures that cannot be read, once; return whether that is new."""
        return self._skip_once(self.episodes[number].index, reason)

    def picture(self, i: int, camera: str) -> UInt8[np.ndarray, "h w 3"]:
        """Return the picture of one camera at row `i`: from `frames` if there is a cache, else decoded now."""
        if camera in (episode := self.episodes[self.episode_of[i]]).missing:
            raise ValueError(f"{self.path}: camera '{camera}' did not record episode {episode.index}")
        with self.folder.lock:  # training reads in one thread while validation reads in another
            if self.frames is not None:
                with suppress(LookupError):
                    return self.frames.read(i, camera)
            return self.decode(i, camera)

    def fingerprint(self) -> str:
        """Return a text that changes when the set on disk changes, or another choice of episodes is read."""
        stamps = self.folder.stamps(self.files())
        content = json.dumps([self.metadata(), stamps, [e.index for e in self.episodes]], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def skip_report(self) -> str:
        """Return what was left out, with reasons; empty when nothing was."""
        return report_left_out(self.path, "episodes", [f"episode {s.episode}: {s.reason}" for s in self.skipped])

    def _load(
        self,
        stored: Iterable[Stored],
        load: "Callable[[Stored], tuple[int, str, Steps] | None]",
        *,
        keep: Path | None = None,
    ) -> list[int]:
        """Fills the columns from `load(one)` → (episode index, file, steps), in order; which of `stored` were kept.

        Where `load` returns None nothing is kept. What cannot be read raises, or with `skip_bad` goes into `skipped`.
        With a folder `keep` the columns are written there and mapped; `_save_cache` then says that they are whole.
        """
        kept, start, columns = [], 0, ColumnWriter(keep, blank=blank) if keep else ColumnLists()
        for number, one in enumerate(stored):
            try:
                if (loaded := load(one)) is None:
                    continue
                index, where, steps = loaded
                check_steps(steps, where=where, episode=index)
            except (ValueError, OSError) as error:
                if not self.skip_bad:
                    raise
                self._skip_once(getattr(one, "index", number), str(error))
                continue
            task, stop = self.tasks[steps.task[0]], start + len(steps)
            self.episodes.append(
                Episode(
                    index=index, start=start, stop=stop, task=task, where=where, first=steps.first,
                    labels=steps.labels, rephrasings=steps.rephrasings, missing=steps.missing,
                )
            )  # fmt: skip
            kept.append(number)
            columns.add({name: getattr(steps, name) for name in COLUMNS}, len(steps))
            start = stop
        if not kept:
            reason = f"; the first of {len(self.skipped)} skipped: {self.skipped[0].reason}" if self.skipped else ""
            raise ValueError(f"{self.path} has no episodes to read{reason or '; record some first'}")
        if isinstance(columns, ColumnLists):
            self._set_columns(columns.all())
        else:
            columns.close()
        return kept

    def _save_cache(self, keep: Path, more: Mapping[str, Any]) -> None:
        """Says that the columns in `keep` are whole, and what else the set is made of."""
        about = {
            "tasks": self.tasks,
            "subtasks": self.subtasks,
            "utterances": self.utterances,
            "episodes": [asdict(episode) for episode in self.episodes],
            "skipped": [asdict(skip) for skip in self.skipped],
        }
        write_json(keep / ABOUT, about | dict(more))

    def _load_cache(self, keep: Path) -> dict[str, Any]:
        """Takes up what is kept in a folder; what was noted there."""
        about = read_json(keep / ABOUT, remedy=f"remove {keep}")
        self.tasks, self.subtasks, self.utterances = about["tasks"], about["subtasks"], about["utterances"]
        for row in about["episodes"]:
            row |= {name: tuple(row[name]) for name in ("rephrasings", "missing")}
        self.episodes = [Episode(**row) for row in about["episodes"]]
        self.skipped = [SkippedEpisode(**row) for row in about["skipped"]]
        self._cache_folder = keep
        self._set_columns(map_columns(keep, COLUMNS))
        return about

    def __getstate__(self) -> dict[str, Any]:
        """Maps do not travel to worker processes: of columns that are kept on disk, only where they are."""
        if self._cache_folder is None:
            return self.__dict__
        made = {"episode_of", "starts", "_stops", "subtask_index", "utterance_index"}
        maps = {name for name, value in self.__dict__.items() if isinstance(value, np.memmap)}
        return {name: value for name, value in self.__dict__.items() if name not in made | maps}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        if self._cache_folder is not None:
            self._set_columns(map_columns(self._cache_folder, COLUMNS))
            self.__dict__ |= state  # what was changed since, such as which rows may be drawn

    def _set_columns(self, columns: Mapping[str, Any]) -> None:
        """Arrays, or None, by the names in `COLUMNS`, for the episodes that are there already."""
        lengths = [episode.stop - episode.start for episode in self.episodes]
        none = np.broadcast_to(np.int64(-1), sum(lengths))
        self.state: Float[np.ndarray, "n sd"] = columns["state"]
        self.actions: Float[np.ndarray, "n ad"] = columns["actions"]
        self.task_index: Int[np.ndarray, " n"] = columns["task"]
        self.subtask_index = none if columns["subtask"] is None else columns["subtask"]
        self.utterance_index = none if columns["utterance"] is None else columns["utterance"]
        self.boxes, self.perturbed, self.trainable = (columns[name] for name in ("box", "perturbed", "trainable"))
        self.starts: Int[np.ndarray, " e"] = np.cumsum([0, *lengths])[:-1]  # the first row of each episode
        self.episode_of = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        self._stops = np.repeat(np.cumsum(lengths, dtype=np.int32), lengths)

    def _skip_once(self, episode: int, reason: str) -> bool:
        is_new = all(skip.episode != episode for skip in self.skipped)
        if is_new:
            self.skipped.append(SkippedEpisode(episode=episode, reason=reason))
        return is_new


class ColumnLists:
    """Columns of episodes in memory, one after the other."""

    def __init__(self) -> None:
        self._pieces: list[tuple[Mapping[str, np.ndarray | None], int]] = []

    def add(self, piece: Mapping[str, np.ndarray | None], rows: int) -> None:
        """Append the columns of an episode of `rows` rows; None stands for a column that it lacks."""
        self._pieces.append((piece, rows))

    def all(self) -> dict[str, np.ndarray | None]:
        """Return the columns joined; None where no episode has a column."""
        return {name: self._column(name) for name in COLUMNS}

    def _column(self, name: str) -> np.ndarray | None:
        if all(piece[name] is None for piece, _ in self._pieces):
            return None
        parts = [np.full(rows, blank(name)) if (own := piece[name]) is None else own for piece, rows in self._pieces]
        if len(widths := {part.shape[1:] for part in parts}) > 1:
            raise ValueError(f"episodes differ in dims of '{name}': {sorted(map(list, widths))}")
        return np.concatenate(parts)


def blank(name: str) -> Any:
    """Return what a column holds for an episode that has none of its own, where others have."""
    return True if name == "trainable" else -1


def check_steps(steps: Steps, *, where: str, episode: int) -> None:
    """Raise a `ValueError` for an episode without steps, or with NaN or infinity in state or actions."""
    if not len(steps):
        raise ValueError(f"{where}: episode {episode} has no steps; leave it out with episodes=[...] or --skip-bad")
    for name, values in (("state", steps.state), ("actions", steps.actions)):
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if bad.size:
            raise ValueError(
                f"{where}: NaN or infinity in the {name} of episode {episode}, frame {bad[0]}; repair it, or leave the "
                "episode out with episodes=[...] or --skip-bad"
            )


def choose_cameras(known: Sequence[str], wanted: Sequence[str] | None, *, path: Path) -> tuple[str, ...]:
    """Return `wanted`, or all cameras that are known. An unknown one is a `ValueError` that suggests the nearest."""
    for camera in wanted or ():
        if camera not in known:
            raise ValueError(f"{path} has no camera '{camera}'; {suggest_names(camera, known, listed='it has')}")
    return tuple(known if wanted is None else wanted)
