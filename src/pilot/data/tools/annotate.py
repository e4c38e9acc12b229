"""`pilot data annotate`: subtasks written into a LeRobot set, as rows of its language column.

They come from a CSV file, from a model that looks at pictures (`annotate_with_vlm.py`), or from a person
(`annotate_by_hand.py`). Every answer is written to disk before the next question is asked, data files are rewritten
whole or not at all, and `meta/info.json` comes last: after an interruption the same command goes on.
"""

import csv
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.episodes import Episode
from pilot.data.formats.lerobot import LeRobotDataset, select_episodes, unfinished_error
from pilot.data.formats.parquet import episode_edges
from pilot.data.formats.set_files import seal_set
from pilot.data.loading.parallel import ParallelMap, serial_map
from pilot.data.storage.files import atomic_write, output_folder, read_json, write_json
from pilot.data.storage.manifest import MANIFEST, SET_ASIDE, set_manifest_aside
from pilot.locks import lock_folder

ANSWERS = "annotation"
Labels = Sequence[tuple[float, str]]  # (seconds from the episode's start, what is done from then on)
Labeller = Callable[[LeRobotDataset, Episode], Labels | None]
EPISODE_COLUMNS, TIME_COLUMNS, FRAME_COLUMNS = ("episode", "episode_index"), ("start", "seconds", "time"), ("frame",)
WORD_COLUMNS = ("subtask", "label", "text")


@dataclass(frozen=True, kw_only=True)
class AnnotationReport:
    """The number of episodes that got subtasks, and those that kept what they had."""

    written: int
    kept: tuple[int, ...] = ()

    def __str__(self) -> str:
        kept = f"; {len(self.kept)} had subtasks already and kept them (--overwrite replaces them)" if self.kept else ""
        return f"{self.written} episodes annotated{kept}"


def annotate(
    path: str | Path,
    label: Labeller,
    *,
    by: str,
    episodes: Sequence[int] | None = None,
    overwrite: bool = False,
    progress: bool = True,
    parallel_map: ParallelMap = serial_map,
) -> AnnotationReport:
    """Ask `label` for the subtasks of each episode, then write them. `by` names who answers, with all that decides
    what.

    Episodes that have subtasks are left alone unless `overwrite`. When `label` returns None, it stops there and writes
    what it has. An interrupted annotation goes on after the answers that it has; those about episodes that are not
    asked about now stay. `parallel_map` asks and writes; the bytes are the same with any.

    Raises:
        ValueError: an unknown episode, answers that do not fit it, or an annotation begun by somebody else.
        FolderInUseError: another process writes into the set, or records into it.
    """
    path = Path(path).absolute()  # whoever does the work may be elsewhere
    if not (path / fmt.INFO).exists():
        raise unfinished_error(path)
    with _alone(path):
        dataset = LeRobotDataset(path, 1)
        todo, kept = _choose(dataset, episodes, overwrite=overwrite)
        answers: dict[int, Labels] = {}
        asking = _Asking(dataset, label, by)
        found = tqdm(todo, unit="episode", desc=f"annotating {path.name}", disable=not progress)
        with closing(parallel_map(asking, [episode.index for episode in todo])) as given:
            for episode, answer in zip(found, given):
                if answer is None:
                    break
                answers[episode.index] = answer
        if answers:
            _write(path, answers, parallel_map)
        _forget(path / ANSWERS, answers)
    return AnnotationReport(written=len(answers), kept=tuple(kept))


class _Asking:
    """The subtasks of an episode: an earlier answer, or else a new one, kept on disk as soon as it is there."""

    def __init__(self, dataset: LeRobotDataset, label: Labeller, by: str) -> None:
        self.path, self.label, self.by = dataset.path, label, by
        self._dataset: LeRobotDataset | None = dataset

    def __call__(self, index: int) -> Labels | None:
        file = _answer_file(self.path / ANSWERS, index)
        if file.exists():
            return _earlier_answer(file, self.by)
        dataset = self._dataset = self._dataset or LeRobotDataset(self.path, 1)
        episode = next(episode for episode in dataset.episodes if episode.index == index)
        if (found := self.label(dataset, episode)) is None:
            return None
        checked = _check_labels(found, dataset, episode)
        write_json(file, {"by": self.by, "subtasks": [list(pair) for pair in checked]})
        return checked

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_dataset": None}  # every process opens it itself, once


class CsvLabeller:
    """Subtasks from a table with the columns `episode`, `start` (seconds) or `frame`, and `subtask`.

    `episodes` are those that the table names; `by` changes with what it says.

    Raises:
        FileNotFoundError: no such file.
        ValueError: columns or numbers are missing; the line is named.
    """

    def __init__(self, file: str | Path) -> None:
        self._rows = _read_csv(Path(file))
        self.by = f"{file} (content {hashlib.sha256(Path(file).read_bytes()).hexdigest()[:8]})"
        self.episodes = sorted(self._rows)

    def __call__(self, dataset: LeRobotDataset, episode: Episode) -> Labels:
        rows = self._rows.get(episode.index, [])
        return [(at / float(dataset.fps) if is_frame else at, words) for at, is_frame, words in rows]


def write_subtasks(path: str | Path, labels: Mapping[int, Labels], *, parallel_map: ParallelMap = serial_map) -> None:
    """Write subtasks into the set's language column, in place of those that were there; other language rows stay.

    Raises:
        FolderInUseError: another process writes into the set, or records into it.
    """
    with _alone(Path(path)):
        _write(Path(path), labels, parallel_map)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the set's lock and that of its recording, which would add episodes while the files are rewritten."""
    with output_folder(path), lock_folder(path / fmt.RECORDING):
        yield


def _write(path: Path, labels: Mapping[int, Labels], parallel_map: ParallelMap) -> None:
    info = read_json(path / fmt.INFO, remedy="give the folder of a LeRobot data set")
    features = info["features"] | {fmt.PERSISTENT: {"dtype": "language", "shape": [1], "names": None}}
    everywhere = fmt.PERSISTENT not in info["features"]
    has_manifest = (path / MANIFEST).exists() or (path / SET_ASIDE).exists()
    set_manifest_aside(path)
    rewrite = partial(_rewrite, labels=labels, features=features, everywhere=everywhere)
    for _ in parallel_map(rewrite, sorted((path / "data").rglob("*.parquet"))):
        pass
    write_json(path / fmt.INFO, info | {"features": features})
    if has_manifest:
        seal_set(path)


# --- choosing and checking --------------------------------------------------------------------------------------------


def _choose(
    dataset: LeRobotDataset, episodes: Sequence[int] | None, *, overwrite: bool
) -> tuple[list[Episode], list[int]]:
    """Return the episodes to ask about, and those that keep what they have."""
    wanted = select_episodes(dataset.episodes, episodes, path=dataset.path)
    labelled = {e.index for e in wanted if (dataset.subtask_index[e.start : e.stop] >= 0).any()}
    if overwrite:
        return wanted, []
    return [e for e in wanted if e.index not in labelled], sorted(labelled)


def _check_labels(labels: Labels, dataset: LeRobotDataset, episode: Episode) -> list[tuple[float, str]]:
    """Return the labels in order of time; the same words twice in a row are one."""
    seconds = (episode.stop - episode.start) / float(dataset.fps)
    checked: list[tuple[float, str]] = []
    for at, words in sorted(labels, key=lambda pair: pair[0]):
        words = " ".join(words.split())
        if not words or not 0 <= at < seconds:
            raise ValueError(
                f"subtask {words!r} at {at:g} s does not fit episode {episode.index} of {dataset.path}, which lasts "
                f"{seconds:g} s; give words, and times from the episode's start"
            )
        if not checked or checked[-1][1] != words:
            checked.append((float(at), words))
    return checked


def _answer_file(folder: Path, episode: int) -> Path:
    return folder / f"episode_{episode:06d}.json"


def _forget(folder: Path, written: Iterable[int]) -> None:
    """Remove the answers that are written, and the folder if there are no others."""
    for episode in written:
        _answer_file(folder, episode).unlink(missing_ok=True)
    with suppress(OSError):  # it is not there, or holds more
        folder.rmdir()


def _earlier_answer(file: Path, by: str) -> list[tuple[float, str]]:
    content = read_json(file, remedy=f"remove {file.parent} to begin again")
    if content["by"] != by:
        raise ValueError(
            f"{file.parent} holds the answers of {content['by']} to an annotation that was interrupted; go on with it, "
            f"or remove the folder to begin again with {by}"
        )
    return [(float(at), str(words)) for at, words in content["subtasks"]]


def _read_csv(file: Path) -> dict[int, list[tuple[float, bool, str]]]:
    """(seconds or frame, whether it is a frame, words) by episode."""
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist; it should be a table with columns episode, start, subtask")
    found: dict[int, list[tuple[float, bool, str]]] = {}
    with file.open(newline="", encoding="utf-8-sig") as content:
        reader = csv.DictReader(content)
        names = [name.strip().lower() for name in reader.fieldnames or []]
        reader.fieldnames = names
        episode = _column(names, EPISODE_COLUMNS, file)
        at, words = _column(names, TIME_COLUMNS + FRAME_COLUMNS, file), _column(names, WORD_COLUMNS, file)
        for number, row in enumerate(reader, 2):
            try:
                pair = float(row[at]), at in FRAME_COLUMNS, str(row[words] or "")
                found.setdefault(int(row[episode]), []).append(pair)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{file}, line {number}: {error}; it has {dict(row)}") from error
    return found


def _column(names: Iterable[str], known: Sequence[str], file: Path) -> str:
    names = list(names)
    if found := [name for name in known if name in names]:
        return found[0]
    raise ValueError(f"{file} has no column {' or '.join(known)}; its first line names {names}")


# --- rewriting data files ---------------------------------------------------------------------------------------------


def _rewrite(file: Path, *, labels: Mapping[int, Labels], features: dict[str, Any], everywhere: bool) -> None:
    """Rewrite a file with other subtasks, row group by row group; leave it alone if it has none of the episodes.

    `everywhere`: the column is new to the set, so that every file gets it.
    """
    numbers = pq.read_table(file, columns=["episode_index"])["episode_index"].to_numpy()
    if not everywhere and not np.isin(numbers, list(labels)).any():
        return
    note = fmt.huggingface_metadata(features)
    with atomic_write(file) as temporary, pq.ParquetFile(file) as source:
        writer = None
        try:
            for group in range(source.num_row_groups):
                table = _with_subtasks(source.read_row_group(group), labels)
                table = table.replace_schema_metadata({**(source.schema_arrow.metadata or {}), **note})
                writer = writer or pq.ParquetWriter(temporary, table.schema, write_statistics=False)
                writer.write_table(table, row_group_size=max(table.num_rows, 1))
        finally:
            if writer:
                writer.close()


def _with_subtasks(table: pa.Table, labels: Mapping[int, Labels]) -> pa.Table:
    numbers = table["episode_index"].to_numpy()
    place = table.column_names.index(fmt.PERSISTENT) if fmt.PERSISTENT in table.column_names else None
    pieces = []
    for start, stop in pairwise(episode_edges(numbers).tolist()):
        rows = (table[fmt.PERSISTENT][start].as_py() or []) if place is not None else []
        if (found := labels.get(int(numbers[start]))) is not None:
            rows = [row for row in rows if row["style"] != "subtask"] + [_row(at, words) for at, words in found]
        pieces.append(pa.array([rows] * (stop - start), fmt.PERSISTENT_TYPE))
    column = pa.chunked_array(pieces, fmt.PERSISTENT_TYPE)
    if place is None:
        return table.append_column(fmt.PERSISTENT, column)
    return table.set_column(place, fmt.PERSISTENT, column)


def _row(at: float, words: str) -> dict[str, Any]:
    text = {"role": "assistant", "content": words, "style": "subtask", "timestamp": at}
    return text | {"camera": None, "tool_calls": None}
