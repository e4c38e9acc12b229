"""Reading RLDS data sets (Open X-Embodiment, DROID, Bridge) from their own files, without TensorFlow.

`features.json` says what an episode holds, `dataset_info.json` which record files there are, and each record is one
episode. What of that is state, action, camera and instruction, and what a gripper value means, differs from set to set:
a `RldsLayout` says it, one per file in `pilot.datasets`. The first reading goes over all records once, checks them, and
keeps the columns and the place of every record; later readings map those into memory.

Axes: `t` steps of an episode, `sd` state dims, `ad` action dims, `r` records, `h w` pixels.
"""

import hashlib
import inspect
import json
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from tqdm import tqdm

from pilot.data.formats.episodes import COLUMNS, EpisodeDataset, SkippedEpisode, Steps, TextTable, choose_cameras
from pilot.data.formats.tfrecord import Example, RecordFile
from pilot.data.loading.parallel import ParallelMap, serial_map
from pilot.data.storage.column_cache import ABOUT, fill_folder
from pilot.data.storage.files import cache_folder, read_json
from pilot.data.storage.folder import DatasetFolder
from pilot.data.storage.untrusted import decode_picture, fill_template, path_inside

FEATURES, INFO = "features.json", "dataset_info.json"
FETCH = "fetch the data set again"
FORMAT = 3  # of the cached columns
OPEN_RECORDS = 8


@dataclass(frozen=True, kw_only=True)
class Feature:
    """A leaf of `features.json`: dtype, shape and coding of its values; `ragged` ones have a length per step."""

    kind: str  # "tensor", "image", "text", "classLabel"
    dtype: str = "string"
    shape: tuple[int, ...] = ()
    encoding: str = "none"
    ragged: bool = False


@dataclass(frozen=True, kw_only=True)
class RobotColumns:
    """State and actions of an episode, in the robot's units. Row 0 is step `first` of the record.

    `trainable`: which steps a training row may start at; None is all. `missing`: cameras that did not record it.
    """

    state: Float[np.ndarray, "t sd"]
    actions: Float[np.ndarray, "t ad"]
    first: int = 0
    trainable: Bool[np.ndarray, " t"] | None = None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RldsLayout:
    """The features by which a data set says what its robot saw and did.

    `cameras`: features under `steps/` by the robot's names of cameras. `instruction`: features with wordings of the
    task (the first that is not empty is the task, others are its rephrasings; an episode with none is left out).
    `columns` turns an episode's features into the robot's state and actions, or returns None to leave it out, such as
    a failed one.
    """

    fps: float
    cameras: Mapping[str, str]
    instruction: tuple[str, ...]
    columns: "Callable[[EpisodeFeatures], RobotColumns | None]"

    @property
    def source(self) -> str:
        """The text of the file that `columns` is in."""
        return Path(inspect.getfile(self.columns)).read_text()

    @property
    def digest(self) -> str:
        """A short text that changes with all that the layout says."""
        content = json.dumps([self.fps, dict(self.cameras), self.instruction, self.source])
        return hashlib.sha256(content.encode()).hexdigest()[:16]


class RldsRecord(NamedTuple):
    """The place of an episode: the number of its record file, offset and length in it, and the episode's own number."""

    file: int
    offset: int
    length: int
    index: int


class EpisodeFeatures:
    """The features of one episode as arrays: `features["observation/state"]` is [t ...]; `metadata(name)` one value."""

    def __init__(self, example: Example, features: Mapping[str, Feature]) -> None:
        self.example, self.features = example, features

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a numeric feature of the steps, [t ...]; raise `ValueError` for a ragged one."""
        return self._array(f"steps/{name}")

    def metadata(self, name: str) -> Any:
        """Return a feature of the episode: text, or a number."""
        path = f"episode_metadata/{name}"
        if self._feature(path).kind == "text":
            return _text(self.example.blobs(path)[0])
        return self._array(path)[0]

    def texts(self, name: str) -> list[str]:
        """Return a text feature of the steps."""
        self._feature(f"steps/{name}")
        return [_text(blob) for blob in self.example.blobs(f"steps/{name}")]

    def _feature(self, path: str) -> Feature:
        if path not in self.features:
            raise ValueError(f"{self.example.where} has no feature '{path}'; it has {sorted(self.features)}")
        return self.features[path]

    def _array(self, path: str) -> np.ndarray:
        feature = self._feature(path)
        if feature.ragged or feature.kind in ("image", "text"):
            raise ValueError(f"{self.example.where}: '{path}' ({feature.kind}) is no column of numbers")
        if feature.encoding != "none":
            return np.stack([_decode_tensor(blob, feature) for blob in self.example.blobs(path)])
        try:
            return self.example.numbers(path).reshape(-1, *feature.shape).astype(feature.dtype)
        except ValueError as error:
            raise ValueError(
                f"{self.example.where}: '{path}' does not have the shape {feature.shape} that {FEATURES} declares"
            ) from error


class RecordFiles:
    """The record files of a set, and the last few records that were read."""

    def __init__(self, files: list[Path], folder: DatasetFolder) -> None:
        self.files, self.folder = files, folder
        self._recent: OrderedDict[RldsRecord, Example] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_recent": OrderedDict()}  # they lie in maps, which do not travel

    def file(self, number: int) -> RecordFile:
        """Open the record file of this number; the last few stay open."""
        file = self.files[number]
        return self.folder.open_cached(file, lambda: RecordFile(file))

    def read(self, record: RldsRecord, *, check: bool) -> Example:
        """Return a record's features."""
        if record in self._recent and not check:
            self._recent.move_to_end(record)
            return self._recent[record]
        where = f"{self.files[record.file]}, episode {record.index}"
        try:
            message = self.file(record.file).read(record.offset, record.length, check=check)
        except ValueError as error:
            raise ValueError(f"episode {record.index}: {error}, or leave the episode out with --skip-bad") from error
        example = self._recent[record] = Example(message, where=where)
        if len(self._recent) > OPEN_RECORDS:
            self._recent.popitem(last=False)
        return example


@dataclass(frozen=True, kw_only=True)
class _Read:
    """An episode as its record says it; the task as words, which the set numbers later."""

    record: RldsRecord
    steps: Steps
    task: str

    @property
    def index(self) -> int:
        return self.record.index


class _Shard:
    """The first reading of one record file: a `_Read` or `SkippedEpisode` per episode that the layout does not leave
    out."""

    def __init__(
        self,
        records: RecordFiles,
        features: Mapping[str, Feature],
        layout: RldsLayout,
        lengths: Sequence[int],
        *,
        skip_bad: bool,
        check: bool,
    ) -> None:
        self.records, self.features, self.layout, self.lengths = records, features, layout, lengths
        self.skip_bad, self.check = skip_bad, check

    def __call__(self, number: int) -> "list[_Read | SkippedEpisode]":
        first, declared = sum(self.lengths[:number]), self.lengths[number]
        try:
            places = self._places(number)
        except (ValueError, OSError) as error:
            if not self.skip_bad:
                raise
            return [SkippedEpisode(episode=first + i, reason=str(error)) for i in range(declared)]
        episodes = [self._episode(RldsRecord(number, at, length, first + i)) for i, (at, length) in enumerate(places)]
        return [episode for episode in episodes if episode is not None]

    def _places(self, number: int) -> list[list[int]]:
        places = self.records.file(number).places().tolist()
        if len(places) != self.lengths[number]:
            name, want = self.records.files[number], self.lengths[number]
            raise ValueError(f"{name} has {len(places)} records, {INFO} says {want}; {FETCH}")
        return places

    def _episode(self, record: RldsRecord) -> "_Read | SkippedEpisode | None":
        try:
            features = EpisodeFeatures(self.records.read(record, check=self.check), self.features)
            texts = [words for name in self.layout.instruction for words in features.texts(name)[:1] if words.strip()]
            columns = self.layout.columns(features)
        except (ValueError, OSError) as error:
            if not self.skip_bad:
                raise
            return SkippedEpisode(episode=record.index, reason=str(error))
        if columns is None or not texts:
            return None
        steps = Steps(
            state=columns.state.astype(np.float32),
            actions=columns.actions.astype(np.float32),
            task=np.zeros(len(columns.state), np.int64),
            trainable=columns.trainable,
            first=columns.first,
            missing=columns.missing,
            rephrasings=tuple(dict.fromkeys(texts[1:])),
        )
        return _Read(record=record, steps=steps, task=texts[0])


class RldsDataset(EpisodeDataset):
    """Random access to the frames of one RLDS set, as `LeRobotDataset` gives them.

    `path` holds `features.json`, or one version folder that does. `cameras`: of the layout's; None reads all.
    `skip_bad` leaves out episodes that cannot be read and lists them in `skipped`. `check=False` does not compare the
    check sums of records at the first reading: it then reads only the columns, not the pictures.
    `parallel_map` does the first reading, a record file at a time.

    Raises `FileNotFoundError`/`ValueError` naming the file, the episode and the remedy.
    """

    def __init__(
        self,
        path: str | Path,
        action_horizon: int,
        *,
        layout: RldsLayout,
        split: str = "train",
        cameras: Sequence[str] | None = None,
        episodes: Sequence[int] | None = None,
        skip_bad: bool = False,
        check: bool = True,
        progress: bool = False,
        parallel_map: ParallelMap = serial_map,
        folder: DatasetFolder | None = None,
    ) -> None:
        super().__init__(version_folder(Path(path).absolute()), action_horizon, folder=folder, skip_bad=skip_bad)
        self.layout, self.split, self.fps = layout, split, layout.fps
        self.features = read_features(self.path / FEATURES)
        self.info = read_json(self.path / INFO, remedy=FETCH)
        self._records = RecordFiles(shard_files(self.path, self.info, split), self.folder)
        self.cameras = choose_cameras(list(layout.cameras), cameras, path=self.path)
        self._check_cameras()
        keep = cache_folder(self.path) / f"columns-{self._key()}"
        if not (keep / ABOUT).exists():
            with fill_folder(keep) as new:
                self._read(new, check=check, progress=progress, parallel_map=parallel_map)
        self.records = [RldsRecord(*row) for row in self._load_cache(keep)["records"]]
        if episodes is not None:
            self._select(episodes)

    def files(self) -> Iterable[Path]:
        return [file for file in self._records.files if self.folder.has(file)]

    def metadata(self) -> dict[str, Any]:
        return self.info

    def fingerprint(self) -> str:
        """Return a text that also changes when the layout takes other pictures of the same files."""
        features = {camera: self.layout.cameras[camera] for camera in self.cameras}
        shown = [[episode.first, episode.missing] for episode in self.episodes]
        content = json.dumps([super().fingerprint(), features, shown], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def picture_files(self, episode: int) -> tuple[Path, ...]:
        """Return an episode's record file."""
        return (self._records.files[self.records[episode].file],)

    def decode(self, i: int, camera: str) -> UInt8[np.ndarray, "h w 3"]:
        """Decode the picture at row `i`, from its record."""
        number = int(self.episode_of[i])
        record, episode = self.records[number], self.episodes[number]
        step, name = i - episode.start, f"steps/{self.layout.cameras[camera]}"
        try:
            blobs = self._records.read(record, check=False).blobs(name)
            where = f"{episode.where}, {name} of episode {episode.index}, frame {step}"
            return decode_picture(blobs[episode.first + step], where=where, remedy=FETCH)
        except IndexError as error:
            raise ValueError(
                f"{episode.where}: the picture {name} of episode {episode.index}, frame {step} is damaged; {FETCH}"
            ) from error

    def _select(self, episodes: Sequence[int]) -> None:
        """Keep only these episodes, in this order."""
        known = {episode.index: number for number, episode in enumerate(self.episodes)}
        if unknown := [i for i in episodes if i not in known]:
            raise ValueError(f"{self.path} has no episodes {unknown[:5]} to read; it has {len(known)}")
        old, start = [self.episodes[known[i]] for i in episodes], 0
        columns = {"state": self.state, "actions": self.actions, "task": self.task_index, "trainable": self.trainable}
        self._cache_folder = None
        rows = np.concatenate([np.arange(episode.start, episode.stop) for episode in old])
        self.records = [self.records[known[i]] for i in episodes]
        self.episodes = []
        for episode in old:
            stop = start + episode.stop - episode.start
            self.episodes.append(replace(episode, start=start, stop=stop))
            start = stop
        self._set_columns(
            dict.fromkeys(COLUMNS) | {name: v if v is None else np.asarray(v[rows]) for name, v in columns.items()}
        )

    def _check_cameras(self) -> None:
        for camera in self.cameras:
            name = f"steps/{self.layout.cameras[camera]}"
            if name not in self.features or self.features[name].kind != "image":
                images = [name for name, feature in self.features.items() if feature.kind == "image"]
                raise ValueError(
                    f"{self.path / FEATURES}: camera '{camera}' should be the image '{name}', images are {images}; "
                    "correct the set's entry in pilot/datasets"
                )

    def _key(self) -> str:
        """Return a key that changes with the record files and with the code of the layout."""
        layout = [self.layout.instruction, self.layout.source]
        content = json.dumps([FORMAT, super().fingerprint(), self.split, self.skip_bad, *layout])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def _read(self, keep: Path, *, check: bool, progress: bool, parallel_map: ParallelMap) -> None:
        """Write all columns, from all records, to the folder `keep`."""
        tasks, records = TextTable(), []
        self.tasks = tasks.all
        lengths = _shard_lengths(self.info, self.split)
        work = _Shard(self._records, self.features, self.layout, lengths, skip_bad=self.skip_bad, check=check)

        def read_episodes() -> Iterator[_Read]:
            words = f"reading {self.path.parent.name}"
            with tqdm(total=sum(lengths), desc=words, unit="episode", disable=not progress) as bar:
                for episodes, length in zip(parallel_map(work, range(len(lengths))), lengths):
                    self.skipped += [episode for episode in episodes if isinstance(episode, SkippedEpisode)]
                    yield from (episode for episode in episodes if isinstance(episode, _Read))
                    bar.update(length)

        def add_task_number(read: _Read) -> tuple[int, str, Steps]:
            records.append(read.record)
            read.steps.task = np.full(len(read.steps), tasks.number(read.task))
            return read.index, str(self._records.files[read.record.file]), read.steps

        numbers = self._load(read_episodes(), add_task_number, keep=keep)
        self._save_cache(keep, {"records": [records[number] for number in numbers]})


def version_folder(path: Path) -> Path:
    """Return `path`, or the one version folder in it that holds `features.json`."""
    if (path / FEATURES).exists():
        return path
    versions = sorted(file.parent for file in path.glob(f"*/{FEATURES}"))
    if not versions:
        raise FileNotFoundError(f"{path} is not an RLDS data set: it has no {FEATURES}; give the folder that holds it")
    if len(versions) > 1:
        raise ValueError(f"{path} holds several versions: {[v.name for v in versions]}; give one of these folders")
    return versions[0]


def read_features(file: Path) -> dict[str, Feature]:
    """Read the leaves of `features.json` by path, such as "steps/observation/image"."""
    content = read_json(file, remedy=FETCH)
    features = dict(_leaves(content, path="", ragged=False, file=file))
    if not any(name.startswith("steps/") for name in features):
        raise ValueError(f"{file} describes no steps, but {sorted(features)}; this is not an RLDS data set")
    return features


def _leaves(node: dict[str, Any], *, path: str, ragged: bool, file: Path) -> Iterator[tuple[str, Feature]]:
    if "featuresDict" in node:
        for name, child in node["featuresDict"]["features"].items():
            yield from _leaves(child, path=f"{path}/{name}" if path else name, ragged=ragged, file=file)
    elif "sequence" in node:
        is_steps = node["pythonClassName"].endswith("dataset_feature.Dataset")
        yield from _leaves(node["sequence"]["feature"], path=path, ragged=ragged or not is_steps, file=file)
    else:
        kind = next((kind for kind in ("tensor", "image", "text", "classLabel") if kind in node), "other")
        content = node.get(kind) or {}
        yield (
            path,
            Feature(
                kind=kind,
                dtype="int64" if kind == "classLabel" else content.get("dtype", "string"),
                shape=tuple(int(n) for n in content.get("shape", {}).get("dimensions", ())),
                encoding=content.get("encoding", "none"),
                ragged=ragged,
            ),
        )


def shard_files(path: Path, info: dict[str, Any], split: str) -> list[Path]:
    """List the record files of a split, as `dataset_info.json` names them; they need not be there."""
    lengths = _shard_lengths(info, split)
    template = _split(info, split).get("filepathTemplate") or "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    names = {"DATASET": info["name"], "SPLIT": split, "FILEFORMAT": info.get("fileFormat", "tfrecord")}
    if names["FILEFORMAT"] != "tfrecord":
        raise ValueError(f"{path / INFO}: records are in '{names['FILEFORMAT']}' files, this reader reads 'tfrecord'")
    count = len(lengths)
    shards = [{"SHARD_X_OF_Y": f"{i:05d}-of-{count:05d}", "SHARD_INDEX": f"{i:05d}"} for i in range(count)]
    where, total = path / INFO, {"NUM_SHARDS": f"{count:05d}"}
    return [
        path_inside(path, fill_template(template, names | shard | total, where=where), where=where) for shard in shards
    ]


def _split(info: dict[str, Any], split: str) -> dict[str, Any]:
    known = {row["name"]: row for row in info.get("splits", [])}
    if split not in known:
        raise ValueError(f"data set '{info.get('name')}' has splits {sorted(known)}, not '{split}'")
    return known[split]


def _shard_lengths(info: dict[str, Any], split: str) -> list[int]:
    return [int(length) for length in _split(info, split)["shardLengths"]]


def _text(blob: memoryview) -> str:
    return bytes(blob).decode("utf-8", errors="replace")


def _decode_tensor(blob: memoryview, feature: Feature) -> np.ndarray:
    """Decode a tensor that is stored as bytes, plain or zlib."""
    content = zlib.decompress(blob) if feature.encoding == "zlib" else bytes(blob)
    return np.frombuffer(content, feature.dtype).reshape(feature.shape)
