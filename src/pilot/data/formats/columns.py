"""State and actions of a LeRobot set (v2.1 or v3.0) straight from its parquet files: a few columns, no pictures.

A set is cut into parts of whole episodes, which processes read on their own. How it is cut depends on the set alone,
so that whoever adds the parts up gets the same result with any number of processes.

Axes: `n` rows, `sd` state dims, `ad` action dims.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats import lerobot_v2
from pilot.data.formats.lerobot import unfinished_error
from pilot.data.formats.parquet import episode_edges, read_matrices
from pilot.data.formats.set_files import check_written, read_info

PART_ROWS = 262_144
FLAGS = (fmt.PERTURBED, fmt.TRAINABLE)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Whole episodes, one after the other. `stops[i]` is the row at which the episode of row `i` ends.

    `first` is the number of row 0 in its set; `perturbed` marks steps executed with another action than recorded,
    `trainable` the rows that training may start a chunk at (None: all).
    """

    where: str
    first: int
    state: Float[np.ndarray, "n sd"]
    actions: Float[np.ndarray, "n ad"]
    stops: Int[np.ndarray, " n"]
    perturbed: Bool[np.ndarray, " n"] | None = None
    trainable: Bool[np.ndarray, " n"] | None = None

    def blocks(self, rows: int) -> "Iterator[Columns]":
        """Yield the same episodes in blocks of about `rows` rows, which stay in a processor's cache."""
        start = 0
        while start < len(self.stops):
            stop = int(self.stops[min(start + rows, len(self.stops)) - 1])
            own = slice(start, stop)
            yield Columns(
                where=self.where,
                first=self.first + start,
                state=self.state[own],
                actions=self.actions[own],
                stops=self.stops[own] - start,
                perturbed=None if self.perturbed is None else self.perturbed[own],
                trainable=None if self.trainable is None else self.trainable[own],
            )
            start = stop


@dataclass(frozen=True, kw_only=True)
class RowSpan:
    """Rows `start` to `stop` of a parquet file: whole episodes, which begin at `edges` (relative to `start`)."""

    file: Path
    start: int
    stop: int
    edges: tuple[int, ...]
    episodes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ColumnPart:
    """About `PART_ROWS` rows of a set; the first of them has the number `first`.

    `state`, `action`: what the set calls them; `flags`: which of `FLAGS` it has.
    """

    first: int
    pieces: tuple[RowSpan, ...]
    state: str
    action: str
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ColumnIndex:
    """The parts of a set, before their values are read."""

    info: dict[str, Any]
    parts: tuple[ColumnPart, ...]
    skipped: tuple[str, ...]

    @property
    def rows(self) -> int:
        """The number of rows in all parts together."""
        return sum(piece.stop - piece.start for part in self.parts for piece in part.pieces)


def index_columns(path: str | Path, *, skip_bad: bool = False) -> ColumnIndex:
    """Find where the episodes of a set lie.

    Raises:
        FileNotFoundError: no set there.
        ValueError: a file is damaged (with `skip_bad` it is named and left out), or the set is empty or unfinished.
    """
    path = Path(path).absolute()  # whoever reads the parts may be elsewhere
    if not (path / fmt.INFO).exists():
        raise unfinished_error(path)
    info = read_info(path)
    check_written(path, skip_bad=skip_bad)
    state, action = (
        fmt.find_feature(info["features"], names, where=path) for names in (fmt.STATE_NAMES, fmt.ACTION_NAMES)
    )
    listed = _listed_episodes(path, info)
    pieces, skipped = [], []
    for file in sorted((path / "data").glob("*/*.parquet")):
        try:
            pieces += _row_spans(file, listed)
        except ValueError as error:
            if not skip_bad:
                raise
            skipped.append(str(error))
    if not pieces:
        raise ValueError(f"{path} has no episodes to read; record some first, or fetch the data set again")
    flags = tuple(name for name in FLAGS if name in info["features"])
    parts = (
        ColumnPart(first=first, pieces=own, state=state, action=action, flags=flags)
        for first, own in _group_spans(pieces)
    )
    return ColumnIndex(info=info, parts=tuple(parts), skipped=tuple(skipped))


def read_columns(part: ColumnPart, *, skip_bad: bool = False) -> tuple[list[Columns], list[str]]:
    """Read the episodes of a part; return them and the names of those left out.

    Raises:
        ValueError: a damaged file, NaN or infinity (unless `skip_bad`); file, episode, frame and remedy are named.
    """
    first, episodes, skipped = part.first, [], []
    for piece in part.pieces:
        try:
            names, rows = [part.state, part.action, *part.flags], slice(piece.start, piece.stop)
            values = read_matrices(piece.file, names, path=piece.file, rows=rows, use_threads=False)
            episodes.append(_columns(piece, values, part, first=first, skip_bad=skip_bad, skipped=skipped))
        except ValueError as error:
            if not skip_bad:
                raise
            skipped.append(str(error))
        first += piece.stop - piece.start
    return [columns for columns in episodes if len(columns.state)], skipped


def _listed_episodes(path: Path, info: dict[str, Any]) -> Int[np.ndarray, " e"]:
    """Return the indices of a set's episodes. In sets of v2 some may be missing, because they were removed."""
    if str(info.get("codebase_version")).startswith("v2"):
        return np.array([one.index for one in lerobot_v2.read_index(path, info)])
    return np.arange(info["total_episodes"])


def _row_spans(file: Path, listed: Int[np.ndarray, " e"]) -> Iterator[RowSpan]:
    """Yield a file's episodes in spans of about `PART_ROWS` rows."""
    episode = read_matrices(file, ["episode_index"], path=file, use_threads=False)["episode_index"][:, 0]
    episode = episode[np.isin(episode, listed)]  # a pack that was interrupted may have left more
    edges = episode_edges(episode)[:-1]
    cuts = [0, *(np.flatnonzero(np.diff(edges // PART_ROWS)) + 1).tolist(), len(edges)]
    for a, b in pairwise(cuts):
        if a == b:
            continue
        start, stop = int(edges[a]), int(edges[b]) if b < len(edges) else len(episode)
        own = edges[a:b]
        numbers = tuple(episode[own].tolist())
        yield RowSpan(file=file, start=start, stop=stop, edges=tuple((own - start).tolist()), episodes=numbers)


def _group_spans(pieces: list[RowSpan]) -> Iterator[tuple[int, tuple[RowSpan, ...]]]:
    """Yield spans in groups of about `PART_ROWS` rows, each with the number of its first row."""
    group, rows, first = [], 0, 0
    for piece in pieces:
        group.append(piece)
        rows += piece.stop - piece.start
        if rows >= PART_ROWS:
            yield first, tuple(group)
            group, rows, first = [], 0, first + rows
    if group:
        yield first, tuple(group)


def _columns(
    piece: RowSpan,
    values: dict[str, np.ndarray],
    part: ColumnPart,
    *,
    first: int,
    skip_bad: bool,
    skipped: list[str],
) -> Columns:
    state, actions = (values[name].astype(np.float32, copy=False) for name in (part.state, part.action))
    flags = {name: values[name][:, 0] for name in part.flags}
    lengths = np.diff([*piece.edges, piece.stop - piece.start])
    if not (np.isfinite(state).all() and np.isfinite(actions).all()):
        finite = np.isfinite(np.concatenate([state, actions], axis=1)).all(axis=1)
        bad = _describe_not_finite(piece, np.asarray(finite), lengths)
        if not skip_bad:
            raise ValueError(f"{next(iter(bad.values()))}; repair it, or leave such episodes out with --skip-bad")
        skipped += bad.values()
        keep = ~np.repeat(np.isin(np.arange(len(lengths)), list(bad)), lengths)
        state, actions, lengths = state[keep], actions[keep], np.delete(lengths, list(bad))
        flags = {name: values[keep] for name, values in flags.items()}
    return Columns(
        where=str(piece.file),
        first=first,
        state=state,
        actions=actions,
        stops=np.repeat(np.cumsum(lengths), lengths),
        perturbed=flags.get(fmt.PERTURBED),
        trainable=flags.get(fmt.TRAINABLE),
    )


def _describe_not_finite(piece: RowSpan, finite: np.ndarray, lengths: np.ndarray) -> dict[int, str]:
    """Return a message for each episode of a span that has NaN or infinity, by its place in the span."""
    bad = np.flatnonzero(~finite)
    places, first = np.unique(np.repeat(np.arange(len(lengths)), lengths)[bad], return_index=True)
    return {
        int(place): f"{piece.file}: NaN or infinity in episode {piece.episodes[place]}, frame {frame}"
        for place, frame in zip(places, bad[first] - np.array(piece.edges)[places], strict=True)
    }
