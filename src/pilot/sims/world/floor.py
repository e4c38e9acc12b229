"""Where a mobile base can stand, and how it gets there: obstacles as boxes seen from above, and a way around them."""

from dataclasses import dataclass

import numpy as np

CELL = 0.08  # of the grid that ways are searched on [m]
LOW, HIGH = 0.03, 1.25  # what stands between these heights is in the base's way [m]


@dataclass(frozen=True)
class Obstacles:
    """Boxes seen from above: `centres` [n 2], `halves` [n 2] in their own axes, `yaws` [n]."""

    centres: np.ndarray
    halves: np.ndarray
    yaws: np.ndarray

    def clearance(self, points: np.ndarray) -> np.ndarray:
        """Return how far each point [k 2] is from the nearest box [m]: 0 inside, infinite in an empty room."""
        if not len(self.centres):
            return np.full(len(points), np.inf)
        offset = points[:, None] - self.centres
        cos, sin = np.cos(self.yaws), np.sin(self.yaws)
        along = np.abs(offset[..., 0] * cos + offset[..., 1] * sin) - self.halves[:, 0]
        across = np.abs(offset[..., 1] * cos - offset[..., 0] * sin) - self.halves[:, 1]
        return np.hypot(np.maximum(along, 0), np.maximum(across, 0)).min(axis=1)

    def is_free(self, start: np.ndarray, end: np.ndarray, *, radius: float) -> bool:
        """Return whether a disc can go straight from `start` to `end`, both [2]."""
        steps = max(2, int(np.linalg.norm(end - start) / 0.04) + 1)
        line = start + np.linspace(0, 1, steps)[:, None] * (end - start)
        return bool(self.clearance(line).min() >= radius)


def find_way(obstacles: Obstacles, start: np.ndarray, end: np.ndarray, *, radius: float) -> list[np.ndarray] | None:
    """Return the corners [2] of a way for a disc, `end` the last; None if there is none.

    The start and the end may be nearer to an obstacle than `radius`, as they are in front of a counter.
    """
    if np.linalg.norm(end - start) < 0.02 or obstacles.is_free(start, end, radius=radius):
        return [end]
    low = np.minimum(start, end) - 2.0
    shape = np.ceil((np.maximum(start, end) + 2.0 - low) / CELL).astype(int)
    grid = low + CELL * np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    free = (obstacles.clearance(grid.reshape(-1, 2)) >= radius).reshape(shape)
    for point in (start, end):  # free what the disc covers where it stands, so that it can leave
        free |= np.linalg.norm(grid - point, axis=-1) < CELL * 1.5 + max(0.0, radius - _gap(obstacles, point))
    cost = _distances(free, _cell(end, low))
    cell = _cell(start, low)
    if not np.isfinite(cost[cell]):
        return None
    cells = [np.array(cell)]
    while cost[tuple(cells[-1])] > 0:
        around = [cells[-1] + step for step in _NEIGHBOURS]
        around = [c for c in around if np.all(c >= 0) and np.all(c < shape)]
        cells.append(min(around, key=lambda c: cost[tuple(c)]))
    points = [start, *(low + CELL * c for c in cells[1:-1]), end]
    return _straighten(obstacles, points, radius=radius)


_NEIGHBOURS = [np.array((i, j)) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]


def _gap(obstacles: Obstacles, point: np.ndarray) -> float:
    return float(obstacles.clearance(point[None])[0])


def _cell(point: np.ndarray, low: np.ndarray) -> tuple[int, ...]:
    return tuple(np.round((point - low) / CELL).astype(int))


def _distances(free: np.ndarray, goal: tuple[int, ...]) -> np.ndarray:
    """Return each free cell's way to the goal in cells, diagonals 1.4; infinite where none leads there."""
    cost = np.full(np.array(free.shape) + 2, np.inf)
    inner = cost[1:-1, 1:-1]
    inner[goal] = 0
    while True:
        best = inner.copy()
        for i, j in _NEIGHBOURS:
            length = 1.0 if i == 0 or j == 0 else 1.414
            rows, columns = (slice(1 + step, size - 1 + step) for step, size in zip((i, j), cost.shape))
            best = np.minimum(best, cost[rows, columns] + length)
        best[~free] = np.inf
        best[goal] = 0
        if np.array_equal(best, inner):
            return inner
        inner[:] = best


def _straighten(obstacles: Obstacles, points: list[np.ndarray], *, radius: float) -> list[np.ndarray]:
    """Drop the corners that a disc can pass by on a straight line."""
    way, at = [], 0
    while at < len(points) - 1:
        ahead = len(points) - 1
        while ahead > at + 1 and not obstacles.is_free(points[at], points[ahead], radius=radius):
            ahead -= 1
        way.append(points[ahead])
        at = ahead
    return way
