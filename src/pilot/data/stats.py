"""Normalisation statistics with true quantiles, from columns only: pictures are never decoded for them.

Quantiles come from a mergeable sketch (KLL, 1603.05346): sorted buffers of which every second row moves up a level with
twice the weight. Exact up to 65,536 rows; beyond, ranks are off by less than about 0.01 %, whatever the values' scale.

Axes: `n` rows, `d` dims of the vector.
"""

import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from jaxtyping import Float

from pilot.data.files import read_json, write_json
from pilot.data.lerobot import LeRobotDataset
from pilot.types import NormStats, Robot

BUFFER_ROWS = 65_536
BLOCK_ROWS = 8_192
FILE = "norm_stats.json"
FORMAT = 1


class RunningStats:
    """Statistics of a stream of vectors in bounded memory. Two of them merge into one."""

    def __init__(self, dims: int, *, buffer_rows: int = BUFFER_ROWS) -> None:
        self.count, self._buffer_rows = 0, buffer_rows
        self._mean, self._squares = np.zeros(dims), np.zeros(dims)
        self.min, self.max = np.full(dims, np.inf), np.full(dims, -np.inf)
        self._levels: list[list[np.ndarray]] = [[]]  # rows of level k stand for 2**k rows each
        self._offset = 0

    def update(self, values: Float[np.ndarray, "n d"]) -> None:
        """Adds rows. NaN or infinity is a `ValueError`."""
        if not len(values):
            return
        if not np.isfinite(values).all():
            raise ValueError(
                f"statistics of NaN or infinity, in dims {np.argwhere(~np.isfinite(values))[:5, 1].tolist()}"
            )
        mean = values.mean(0, dtype=np.float64)
        self._add_moments(len(values), mean, ((values - mean) ** 2).sum(0, dtype=np.float64))
        self.min, self.max = np.minimum(self.min, values.min(0)), np.maximum(self.max, values.max(0))
        self._add_rows(0, values)

    def merge(self, other: "RunningStats") -> None:
        """Takes in what `other` has seen."""
        self._add_moments(other.count, other._mean, other._squares)
        self.min, self.max = np.minimum(self.min, other.min), np.maximum(self.max, other.max)
        for level, pieces in enumerate(other._levels):
            for rows in pieces:
                self._add_rows(level, rows)

    def quantile(self, q: float) -> Float[np.ndarray, " d"]:
        """Per dim, interpolated between neighbours as `numpy.quantile` does."""
        rows = [np.concatenate(pieces) for pieces in self._levels if pieces]
        weights = np.concatenate([np.full(len(np.concatenate(p)), 2.0**k) for k, p in enumerate(self._levels) if p])
        values = np.concatenate(rows)
        order = np.argsort(values, axis=0)
        result = np.empty(values.shape[1])
        for dim in range(values.shape[1]):
            weight = weights[order[:, dim]]
            rank = np.cumsum(weight) - (weight + 1) / 2
            result[dim] = np.interp(q * (self.count - 1), rank, values[order[:, dim], dim])
        return result

    def result(self) -> NormStats:
        """Raises `ValueError` when nothing was added."""
        if not self.count:
            raise ValueError("no rows to compute statistics of; the data set is empty or every step is padding")
        std = np.sqrt(self._squares / self.count)
        return NormStats(mean=self._mean.copy(), std=std, q01=self.quantile(0.01), q99=self.quantile(0.99))

    def _add_moments(self, count: int, mean: np.ndarray, squares: np.ndarray) -> None:
        total = self.count + count
        if not total:
            return
        delta = mean - self._mean
        self._mean = self._mean + delta * (count / total)
        self._squares = self._squares + squares + delta**2 * (self.count * count / total)
        self.count = total

    def _add_rows(self, level: int, rows: np.ndarray) -> None:
        while len(self._levels) <= level:
            self._levels.append([])
        self._levels[level].append(np.array(rows))
        if sum(map(len, self._levels[level])) > self._buffer_rows:
            self._compact(level)

    def _compact(self, level: int) -> None:
        """Every second of the sorted rows goes one level up; starting now at the first, now at the second, no bias."""
        rows = np.sort(np.concatenate(self._levels[level]), axis=0)
        even = len(rows) // 2 * 2
        self._levels[level] = [rows[even:]] if even < len(rows) else []
        self._offset = 1 - self._offset
        self._add_rows(level + 1, rows[self._offset : even : 2])


def compute_norm_stats(datasets: Sequence[LeRobotDataset], robot: Robot) -> dict[str, NormStats]:
    """`{"state", "actions"}` over all rows; actions as the model learns them, relative where `robot.delta_mask` says.

    Every row contributes its whole chunk of actions, without padded steps. Constant and rare dims are warned about by
    name and get a range that does not blow small movements up.
    """
    state, actions = RunningStats(robot.state_dim), RunningStats(robot.action_dim)
    mask = np.array(robot.delta_mask)
    for dataset in datasets:
        for start in range(0, len(dataset), BLOCK_ROWS):
            rows = np.arange(start, min(start + BLOCK_ROWS, len(dataset)))
            state.update(dataset.state[rows])
            chunks, is_pad = dataset.windows(rows)
            chunks[..., mask] -= dataset.state[rows][:, None, : len(mask)][..., mask]
            actions.update(chunks[~is_pad])
    return {"state": floored(state, robot.state_names), "actions": floored(actions, robot.action_names)}


def floored(stats: RunningStats, names: Sequence[str]) -> NormStats:
    """The statistics with a usable range in every dim.

    A dim that moves in less than 1 % of the rows takes its extremes for quantiles; one that never moves takes a range
    and deviation of 1 in its own unit.
    """
    result = stats.result()
    flat = result.q99 - result.q01 < 1e-6 * np.maximum(1.0, np.abs(result.q01))
    constant = stats.max - stats.min < 1e-6 * np.maximum(1.0, np.abs(stats.max))
    rare = flat & ~constant
    for kind, dims in (("constant", constant), ("rarely moving", rare)):
        if found := [name for name, is_one in zip(names, dims, strict=True) if is_one]:
            warnings.warn(f"{kind} dims: {found}", stacklevel=2)
    q01 = np.where(rare, stats.min, np.where(constant, result.mean - 0.5, result.q01))
    q99 = np.where(rare, stats.max, np.where(constant, result.mean + 0.5, result.q99))
    return NormStats(mean=result.mean, std=np.where(constant, 1.0, result.std), q01=q01, q99=q99)


def save_norm_stats(path: str | Path, stats: dict[str, NormStats]) -> None:
    """Writes JSON, atomically; `path` may be a folder, then `norm_stats.json` in it."""
    content = {name: {k: v.tolist() for k, v in asdict(value).items()} for name, value in stats.items()}
    write_json(_file(path), {"format": FORMAT, "norm_stats": content})


def load_norm_stats(path: str | Path) -> dict[str, NormStats]:
    """The inverse of `save_norm_stats`. Raises `FileNotFoundError` that says which command makes the file."""
    file = _file(path)
    content = read_json(file, remedy="make it with: pilot data stats DATASET")
    try:
        stats = {k: {name: np.array(v) for name, v in d.items()} for k, d in content["norm_stats"].items()}
        return {name: NormStats(**value) for name, value in stats.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file} is not a norm stats file ({error!r}); make it with: pilot data stats DATASET"
        ) from error


def _file(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix == ".json" else path / FILE
