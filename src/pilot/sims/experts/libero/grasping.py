"""Where a hand that points down can close its fingers on a thing: around it, or around a piece of its rim.

Nothing is known of a thing but points on its surface. For a number of directions they are cut into slices as wide as a
finger; what stands in a slice without a gap is a piece that the fingers may close on, if they find room beside it.
"""

import itertools
from dataclasses import dataclass

import numpy as np

HALF_OPEN = 0.0395  # from the middle to a finger, open [m]
FINGER = 0.028  # of an open finger, outwards [m]
FINGER_WIDTH = 0.011  # half of it, across the grip [m]
TIP = 0.011  # how far the fingers reach below the point between them [m]
PALM = (0.105, 0.034, 0.042)  # half its length along the grip, half its width, and how high it is above the tips [m]
DEEPEST = 0.032  # from a thing's top down to the fingertips, before the palm touches it [m]
CLEAR = 0.004  # between the fingertips and what is below them [m]
WIDEST = 0.068  # that fits between the fingers with something to spare [m]
MOST_SLANT = 0.012  # of the sides that the fingers close on, over half a finger's width [m]
DIRECTIONS = 16


@dataclass(frozen=True)
class TopGrasp:
    """A way to grip from above; less `cost` is better."""

    pos: np.ndarray  # of the point between the fingertips [3]
    yaw: float  # of the direction in which the fingers close, in [0, π)
    width: float  # of what is between them [m]
    cost: float


def find_top_grasps(
    points: np.ndarray, *, others: np.ndarray, ground: float, yaw: float, depth: float = DEEPEST
) -> list[TopGrasp]:
    """Return the grasps of a thing, the best first; none if the fingers find no room.

    `points`: of the thing [n 3]; `others`: of what must not be touched [m 3]; `ground`: the height that the fingers
    stay above [m]; `yaw`: the hand's now, from which turning costs; `depth`: how far the fingers go down, at most [m].
    """
    found = []
    for angle in np.arange(DIRECTIONS) * np.pi / DIRECTIONS:
        axes = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        flat, around = points[:, :2] @ axes.T, others[:, :2] @ axes.T
        middle = (flat.min(axis=0) + flat.max(axis=0)) / 2
        turn = abs((angle - yaw + np.pi / 2) % np.pi - np.pi / 2)
        reach = (flat[:, 1].max() - flat[:, 1].min()) / 2
        for across in middle[1] + np.arange(-reach, reach + 1e-9, max(0.008, reach / 12)):
            slab = np.abs(flat[:, 1] - across) < FINGER_WIDTH
            beside = np.abs(around[:, 1] - across) < FINGER_WIDTH + 0.003
            over = np.abs(around[:, 1] - across) < PALM[1]
            own, rest = (flat[slab, 0], points[slab, 2]), (around[beside, 0], others[beside, 2])
            for low, high, top in _pieces(flat[slab, 0], points[slab, 2], depth=depth):
                centre = (low + high) / 2
                tip = max(top - depth, ground + CLEAR)
                if high - low > WIDEST or top - tip < 0.008:
                    continue
                highest = max(_highest(*own, centre, inner=HALF_OPEN - 0.002), _highest(*rest, centre, inner=0))
                under_palm = over & (np.abs(around[:, 0] - centre) < PALM[0])
                highest = max(highest, others[under_palm, 2].max(initial=-np.inf) - PALM[2])
                tip = max(tip, highest + CLEAR)  # fingers may stand on what is low enough
                if top - tip < 0.008:
                    continue
                slant = _slant(flat[slab], points[slab, 2] > top - depth, low, high, across)
                if slant > MOST_SLANT:
                    continue
                off = np.hypot(centre - middle[0], across - middle[1])
                is_rim = high - low < 0.02 and off > 0.02
                cost = 0.25 * turn + (0.3 + abs(across - middle[1]) * 5 if is_rim else off * 12)
                cost += 3 * (high - low) + 40 * slant + max(0.0, 0.02 - (top - tip)) * 20
                xy = axes.T @ np.array([centre, across])
                found.append(TopGrasp(np.array([*xy, tip + TIP]), float(angle), float(high - low), float(cost)))
    return sorted(found, key=lambda grasp: grasp.cost)


def _highest(along: np.ndarray, height: np.ndarray, centre: float, *, inner: float) -> float:
    """Return the top of what stands from `inner` away from the middle to the fingers' outer sides [m]."""
    away = np.abs(along - centre)
    return float(height[(away >= inner) & (away < HALF_OPEN + FINGER)].max(initial=-np.inf))


def _slant(flat: np.ndarray, near: np.ndarray, low: float, high: float, across: float) -> float:
    """Return by how much the two sides of a piece lean against the fingers, over half a finger's width [m]."""
    inside = near & (flat[:, 0] > low - 1e-6) & (flat[:, 0] < high + 1e-6)
    halves = [flat[inside & half, 0] for half in (flat[:, 1] < across - 1e-6, flat[:, 1] > across + 1e-6)]
    if not all(map(len, halves)):
        return np.inf
    return float(abs(halves[0].min() - halves[1].min()) + abs(halves[0].max() - halves[1].max()))


def _pieces(along: np.ndarray, height: np.ndarray, *, depth: float) -> list[tuple[float, float, float]]:
    """Return what stands up in a slice as (from, to, top): points near the top, with no gap as wide as a finger."""
    if not len(along):
        return []
    order = np.argsort(along)
    along, height = along[order], height[order]
    near = height > height.max() - depth
    along, height = along[near], height[near]
    cuts = [0, *(np.flatnonzero(np.diff(along) > 0.02) + 1), len(along)]
    parts = [slice(start, end) for start, end in itertools.pairwise(cuts)]
    return [(float(along[p][0]), float(along[p][-1]), float(height[p].max())) for p in parts]
