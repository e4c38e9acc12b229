"""Normalisation statistics with true quantiles, from columns only: pictures are never decoded for them.

Quantiles come from a mergeable sketch (KLL, 1603.05346): sorted buffers of which every second row moves up a level with
twice the weight. Exact up to 65,536 rows; beyond, ranks are off by less than about 0.01 %, whatever the values' scale.

Actions count as they are learned: relative where `robot.delta_mask` says, every step of the chunk that starts at each
row, without padding. From `MAX_CHUNK_ROWS` such steps on, each row gives fewer: evenly spaced ones, other ones from row
to row, so that every step of the chunk counts alike.

Axes: `n` rows, `d` dims of the vector, `sd` state dims, `ad` action dims.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float

from pilot.data.formats.columns import ColumnPart, Columns, index_columns, read_columns
from pilot.data.loading.parallel import ParallelMap, serial_map
from pilot.data.storage.files import read_json, write_json
from pilot.types import Adapter, NormStats, Robot, require_adapter

BUFFER_ROWS = 65_536
BLOCK_ROWS = 32_768
MAX_CHUNK_ROWS = 2_000_000
FLAT, RARE_CLIP = 1e-6, 5.0
NORMAL_RANGE = 4.652  # what lies between q01 and q99 of a normal distribution, in standard deviations
FILE = "norm_stats.json"
FORMAT = 1


class RunningStats:
    """Statistics of a stream of vectors in bounded memory. Two of them merge into one."""

    def __init__(self, dims: int, *, buffer_rows: int = BUFFER_ROWS) -> None:
        self.count, self._buffer_rows = 0, buffer_rows
        self._mean, self._squares = np.zeros(dims), np.zeros(dims)
        self.min, self.max = np.full(dims, np.inf), np.full(dims, -np.inf)
        self._levels: list[list[np.ndarray]] = [[]]  # rows of level k, as [d n], stand for 2**k rows each
        self._offset = 0

    def update(self, values: Float[np.ndarray, "n d"]) -> None:
        """Add rows. NaN or infinity is a `ValueError`."""
        if not np.isfinite(values).all():
            raise ValueError(
                f"statistics of NaN or infinity, in dims {np.argwhere(~np.isfinite(values))[:5, 1].tolist()}"
            )
        for start in range(0, len(values), BLOCK_ROWS):
            self._update(np.array(values[start : start + BLOCK_ROWS].T, order="C"))

    def _update(self, columns: Float[np.ndarray, "d n"]) -> None:
        mean = columns.mean(1, dtype=np.float64)
        centred = columns - mean[:, None].astype(columns.dtype)
        squares = np.einsum("dn,dn->d", centred, centred).astype(np.float64)
        self._add_moments(columns.shape[1], mean, squares)
        self.min, self.max = np.minimum(self.min, columns.min(1)), np.maximum(self.max, columns.max(1))
        self._add(0, columns)

    def merge(self, other: "RunningStats") -> None:
        """Add what `other` has seen."""
        self._add_moments(other.count, other._mean, other._squares)
        self.min, self.max = np.minimum(self.min, other.min), np.maximum(self.max, other.max)
        for level, pieces in enumerate(other._levels):
            for columns in pieces:
                self._add(level, columns)

    @property
    def dims(self) -> int:
        """The number of columns that are described."""
        return len(self._mean)

    def select(self, start: int, stop: int) -> "RunningStats":
        """Return the statistics of some of the dims."""
        own, part = slice(start, stop), RunningStats(stop - start, buffer_rows=self._buffer_rows)
        part.count, part._offset = self.count, self._offset
        part._mean, part._squares = self._mean[own], self._squares[own]
        part.min, part.max = self.min[own], self.max[own]
        part._levels = [[columns[own] for columns in level] for level in self._levels]
        return part

    def quantiles(self, *shares: float) -> Float[np.ndarray, "q d"]:
        """Compute quantiles per dim, interpolated between neighbours as `numpy.quantile` does."""
        weights = np.repeat(2.0 ** np.arange(len(self._levels)), [self._rows(k) for k in range(len(self._levels))])
        pieces = [piece for level in self._levels for piece in level]
        values = [self._interpolate(np.concatenate(rows), weights, shares) for rows in zip(*pieces, strict=True)]
        return np.array(values).T

    def _interpolate(self, values: np.ndarray, weights: np.ndarray, shares: Sequence[float]) -> np.ndarray:
        order = np.argsort(values)
        weight = weights[order]
        # A value that stands for several rows has the rank in the middle of theirs.
        rank = np.cumsum(weight) - (weight + 1) / 2
        return np.interp(np.array(shares) * (self.count - 1), rank, values[order])

    def result(self) -> NormStats:
        """Compute the statistics; a `ValueError` when nothing was added."""
        if not self.count:
            raise ValueError("no rows to compute statistics of; the data set is empty or every step is padding")
        q01, q99 = self.quantiles(0.01, 0.99)
        return NormStats(mean=self._mean.copy(), std=np.sqrt(self._squares / self.count), q01=q01, q99=q99)

    def _add_moments(self, count: int, mean: np.ndarray, squares: np.ndarray) -> None:
        total = self.count + count
        if not total:
            return
        delta = mean - self._mean
        self._mean = self._mean + delta * (count / total)
        # Chan's update for merging two means: sums of squares about the mean lose no digits, however many rows.
        self._squares = self._squares + squares + delta**2 * (self.count * count / total)
        self.count = total

    def _rows(self, level: int) -> int:
        return sum(piece.shape[1] for piece in self._levels[level])

    def _add(self, level: int, columns: np.ndarray) -> None:
        while len(self._levels) <= level:
            self._levels.append([])
        self._levels[level].append(columns)
        if self._rows(level) > self._buffer_rows:
            self._compact(level)

    def _compact(self, level: int) -> None:
        """Move every second of the sorted rows one level up, from the first or the second in turn, so without bias."""
        columns = np.concatenate(self._levels[level], axis=1)
        columns.sort(axis=1)
        even = columns.shape[1] // 2 * 2
        self._levels[level] = [columns[:, even:].copy()] if even < columns.shape[1] else []
        # Always taking the first of each pair would push every quantile down.
        self._offset = 1 - self._offset
        self._add(level + 1, columns[:, self._offset : even : 2].copy())


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The way in which a robot's rows count (see the head of the file).

    `sampled_steps` of the `action_horizon` are taken per row.
    """

    robot: Robot
    adapter: Adapter
    action_horizon: int
    sampled_steps: int
    skip_bad: bool = False

    @classmethod
    def of(cls, robot: Robot, *, adapter: Adapter, action_horizon: int, rows: int, skip_bad: bool = False) -> "Recipe":
        """Return a recipe that looks at as many steps of each chunk as `rows` rows leave time for."""
        # Millions of rows times fifty steps add time and nothing to the quantiles: large sets take some steps of each
        # chunk.
        steps = int(np.clip(MAX_CHUNK_ROWS // max(rows, 1), 1, action_horizon))
        return cls(
            robot=robot, adapter=adapter, action_horizon=action_horizon, sampled_steps=steps, skip_bad=skip_bad
        )  # fmt: skip


class RobotStats:
    """Running statistics of a robot's state and actions, and the names of what was skipped."""

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self.state, self.actions = RunningStats(robot.state_dim), RunningStats(robot.action_dim)
        self.skipped: list[str] = []

    def add(self, columns: Columns, recipe: Recipe) -> None:
        """Add whole episodes.

        Raises:
            ValueError: their dims are not the robot's.
        """
        check_dims(columns.where, recipe.robot, state=columns.state, actions=columns.actions)
        for block in columns.blocks(BLOCK_ROWS):
            self._add(block, recipe)

    def _add(self, columns: Columns, recipe: Recipe) -> None:
        state = recipe.adapter.state(columns.state).astype(np.float32, copy=False)
        actions = recipe.adapter.actions(columns.actions).astype(np.float32, copy=False)
        rows = np.arange(len(state)) if columns.trainable is None else np.flatnonzero(columns.trainable)
        self.state.update(state if columns.trainable is None else state[rows])
        base = np.zeros_like(actions)
        relative = np.flatnonzero(recipe.robot.delta_mask)
        base[:, relative] = state[:, relative]
        stops, horizon = columns.stops[rows], recipe.action_horizon
        broken = None if columns.perturbed is None else np.concatenate([[0], np.cumsum(columns.perturbed)])
        for number in range(recipe.sampled_steps):
            steps = rows + (columns.first + rows + number * horizon // recipe.sampled_steps) % horizon
            whole = steps < stops
            if broken is not None:
                whole &= broken[np.minimum(steps, stops - 1)] == broken[rows]
            self.actions.update(np.take(actions, steps[whole], axis=0) - np.take(base, rows[whole], axis=0))

    def merge(self, other: "RobotStats") -> None:
        """Add what another process has seen."""
        self.state.merge(other.state)
        self.actions.merge(other.actions)
        self.skipped += other.skipped

    def result(self) -> dict[str, NormStats]:
        """Compute `{"state", "actions"}`, with a usable range in every dim; odd dims are warned about by name."""
        return merge_stats([self])


def check_dims(where: object, robot: Robot, *, state: np.ndarray, actions: np.ndarray, remedy: str = "") -> None:
    """Check columns [n d] of a data set against what a robot declares.

    Raises:
        ValueError: other dims; `remedy` says what else than the robot's file may be wrong.
    """
    for what, got, want in (
        ("state", state.shape[1], robot.state_dim),
        ("action", actions.shape[1], robot.action_dim),
    ):
        if got != want:
            raise ValueError(
                f"{where} has {got} {what} dims, robot '{robot.name}' declares {want}; see "
                f"robots/{robot.name}.py{remedy}"
            )


class ColumnDataset(Protocol):
    """A data set with its columns in memory (`LeRobotDataset` is one)."""

    path: Path
    action_horizon: int
    state: Float[np.ndarray, "n sd"]
    actions: Float[np.ndarray, "n ad"]
    perturbed: Bool[np.ndarray, " n"] | None
    trainable: Bool[np.ndarray, " n"] | None
    episodes: list[Any]  # each with `start` and `stop`, its rows

    def __len__(self) -> int: ...


def compute_norm_stats(
    datasets: Sequence[ColumnDataset], robot: Robot, *, adapter: Adapter | None = None
) -> dict[str, NormStats]:
    """Compute `{"state", "actions"}` over all rows of data sets in memory.

    Constant and rare dims are warned about by name and get a range that does not blow small movements up.
    """
    return compute_robot_stats(datasets, robot, adapter=adapter).result()


def compute_robot_stats(
    datasets: Sequence[ColumnDataset], robot: Robot, *, adapter: Adapter | None = None
) -> RobotStats:
    """Compute running statistics over all rows of data sets in memory."""
    rows = sum(len(dataset) for dataset in datasets)
    total, first = RobotStats(robot), 0
    for dataset in datasets:
        recipe = Recipe.of(
            robot, adapter=require_adapter(robot, adapter), action_horizon=dataset.action_horizon, rows=rows
        )
        total.add(loaded_columns(dataset, first), recipe)
        first += len(dataset)
    return total


def loaded_columns(dataset: ColumnDataset, first: int) -> Columns:
    """Return all episodes of a data set as columns; its first row has the number `first`."""
    lengths = np.array([episode.stop - episode.start for episode in dataset.episodes])
    return Columns(
        where=str(dataset.path),
        first=first,
        state=dataset.state,
        actions=dataset.actions,
        stops=np.repeat(np.cumsum(lengths), lengths),
        perturbed=dataset.perturbed,
        trainable=dataset.trainable,
    )


def compute_file_stats(
    paths: Sequence[str | Path],
    robot: Robot,
    *,
    action_horizon: int,
    adapter: Adapter | None = None,
    parallel_map: ParallelMap = serial_map,
    skip_bad: bool = False,
) -> RobotStats:
    """Compute statistics over LeRobot sets on disk, of any size, read part by part.

    The same to the bit whoever reads the parts (`parallel_map`).

    Raises:
        FileNotFoundError, ValueError: as `pilot.data.formats.columns`; or dims that are not the robot's.
    """
    indexes = [index_columns(path, skip_bad=skip_bad) for path in paths]
    recipe = Recipe.of(
        robot,
        adapter=require_adapter(robot, adapter),
        action_horizon=action_horizon,
        rows=sum(index.rows for index in indexes),
        skip_bad=skip_bad,
    )
    parts = [part for index in indexes for part in index.parts]
    total = RobotStats(robot)
    total.skipped = [message for index in indexes for message in index.skipped]
    for stats in parallel_map(partial(compute_part_stats, recipe=recipe), parts):
        total.merge(stats)
    return total


def compute_part_stats(part: ColumnPart, *, recipe: Recipe) -> RobotStats:
    """Compute the statistics of one part: one process's share of the work."""
    stats = RobotStats(recipe.robot)
    episodes, stats.skipped = read_columns(part, skip_bad=recipe.skip_bad)
    for columns in episodes:
        stats.add(columns, recipe)
    return stats


def widen_flat_dims(stats: RunningStats, names: Sequence[str]) -> NormStats:
    """Return the statistics with a usable range in every dim; odd dims are warned about by name.

    A dim that moves in less than 1 % of the rows takes its extremes for quantiles, one that never moves a range of 1 in
    and a deviation of 1 in its own unit; the deviation of a rare one is at least what belongs to its range. Values far
    outside of such a made-up range are clipped, so that one odd reading does not drown a batch.
    """
    result = stats.result()
    flat = result.q99 - result.q01 < FLAT * np.maximum(1.0, np.abs(result.q01))
    constant = stats.max - stats.min < FLAT * np.maximum(1.0, np.abs(stats.max))
    rare = flat & ~constant
    for kind, dims in (("constant", constant), ("rarely moving", rare)):
        if odd := [name for name, is_one in zip(names, dims, strict=True) if is_one]:
            warnings.warn(f"{kind} dims: {odd}", stacklevel=2)
    q01 = np.where(rare, stats.min, np.where(constant, result.mean - 0.5, result.q01))
    q99 = np.where(rare, stats.max, np.where(constant, result.mean + 0.5, result.q99))
    std = np.where(rare, np.maximum(result.std, (q99 - q01) / NORMAL_RANGE), np.where(constant, 1.0, result.std))
    clip = np.where(flat, RARE_CLIP, np.inf) if flat.any() else None
    return NormStats(mean=result.mean, std=std, q01=q01, q99=q99, clip=clip)


def merge_stats(robots: Sequence[RobotStats]) -> dict[str, NormStats]:
    """Merge the statistics of several robots dim by dim; a dim that a robot lacks is that of the others."""
    longest = max(robots, key=lambda stats: (stats.robot.action_dim, stats.robot.state_dim)).robot
    state_names = max((stats.robot.state_names for stats in robots), key=len)
    return {
        "state": _merge_running([stats.state for stats in robots], state_names),
        "actions": _merge_running([stats.actions for stats in robots], longest.action_names),
    }


def _merge_running(parts: Sequence[RunningStats], names: Sequence[str]) -> NormStats:
    edges = sorted({0, *(part.dims for part in parts)})
    spans = []
    for start, stop in pairwise(edges):
        total = RunningStats(stop - start)
        for part in parts:
            if part.dims >= stop:
                total.merge(part.select(start, stop))
        spans.append(widen_flat_dims(total, names[start:stop]))
    return concatenate_stats(spans)


def concatenate_stats(spans: Sequence[NormStats]) -> NormStats:
    """Concatenate the statistics of vectors that stand side by side."""
    clips = [np.full(len(span.mean), np.inf) if span.clip is None else span.clip for span in spans]
    clip = None if all(span.clip is None for span in spans) else np.concatenate(clips)
    whole = {name: np.concatenate([getattr(span, name) for span in spans]) for name in ("mean", "std", "q01", "q99")}
    return NormStats(**whole, clip=clip)


def select_dims(stats: dict[str, NormStats], robot: Robot) -> dict[str, NormStats]:
    """Return the dims of `robot` out of statistics that may have more."""
    return {
        name: _first_dims(stats[name], n) for name, n in (("state", robot.state_dim), ("actions", robot.action_dim))
    }


def _first_dims(stats: NormStats, dims: int) -> NormStats:
    clip = None if stats.clip is None else stats.clip[:dims]
    mean, std, q01, q99 = (values[:dims] for values in (stats.mean, stats.std, stats.q01, stats.q99))
    step_mean, step_std = (None if one is None else one[:, :dims] for one in (stats.step_mean, stats.step_std))
    return NormStats(mean=mean, std=std, q01=q01, q99=q99, clip=clip, step_mean=step_mean, step_std=step_std)


def save_norm_stats(path: str | Path, stats: dict[str, NormStats]) -> None:
    """Write the statistics as JSON, atomically; `path` may be a folder, then `norm_stats.json` in it."""
    content = {name: _to_json(value) for name, value in stats.items()}
    write_json(_file(path), {"format": FORMAT, "norm_stats": content})


def load_norm_stats(path: str | Path) -> dict[str, NormStats]:
    """Read what `save_norm_stats` has written; openpi's files too.

    Raises `FileNotFoundError` that says which command makes the file, `ValueError` for another kind of file.
    """
    file = _file(path)
    content = read_json(file, remedy="make it with: pilot data stats DATASET")
    try:
        stats = {name: _from_json(values) for name, values in content["norm_stats"].items()}
        for name, one in stats.items():
            check_sense(name, one)
        return stats
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{file} is not a norm stats file ({error!r}); make it with: pilot data stats DATASET"
        ) from error


FAR = 30.0
"""Deviations between mean and quantile that no data has: a quantile at 1 % lies within 9.95 of them (Cantelli)."""


def check_sense(name: str, stats: NormStats) -> None:
    """Raise `ValueError` for statistics that no data has: lengths differ, not finite, or out of order."""
    columns = {column: getattr(stats, column) for column in ("mean", "std", "q01", "q99")}
    if len(shapes := {values.shape for values in columns.values()}) > 1 or len(next(iter(shapes))) != 1:
        raise ValueError(f"the columns of '{name}' differ in length")
    for column, values in columns.items():
        if (bad := np.flatnonzero(~np.isfinite(values))).size:
            raise ValueError(f"{column} of '{name}' is {values[bad[0]]} in dim {bad[0]}")
    mean, std, q01, q99 = columns.values()
    far = FAR * std + 1e-6 * (1 + np.abs(mean))
    wrong = {
        "a std below 0": std < 0,
        "a q01 above its q99": q01 > q99,
        "a q01 or q99 that its mean and std do not allow": (np.abs(q01 - mean) > far) | (np.abs(q99 - mean) > far),
    }
    if stats.clip is not None:
        wrong["a clip that is not above 0"] = ~(stats.clip > 0)
    for what, dims in wrong.items():
        if (bad := np.flatnonzero(dims)).size:
            raise ValueError(f"'{name}' has {what} in dim {bad[0]}")


def _to_json(stats: NormStats) -> dict[str, list[float | None]]:
    arrays = {item.name: getattr(stats, item.name) for item in fields(stats)}
    given = {name: values.tolist() for name, values in arrays.items() if values is not None}
    if "clip" in given:
        given["clip"] = [limit if np.isfinite(limit) else None for limit in given["clip"]]  # JSON has no infinity
    return given


def _from_json(values: dict[str, list[float | None]]) -> NormStats:
    arrays = {name: np.array([np.inf if x is None else x for x in column]) for name, column in values.items()}
    return NormStats(**arrays)


def _file(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix == ".json" else path / FILE
