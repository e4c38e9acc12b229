"""Which row comes next, when sources of very different sizes are learned together.

A group of n rows — one task of one robot in one data set — is drawn with a weight of n^0.43 (pi0, 2410.24164, section
V): large groups come up more often, but do not drown the small ones. Inside a group every row comes once before any
comes twice, in an order that is drawn anew for each such epoch.

Nothing is remembered: the n-th row of a run is a function of (seed, n), so training resumes exactly at any step, with
any number of workers or ranks. Three pieces make that possible. Row n falls to the group in whose share of [0, 1) the
point n·φ mod 1 lies (the golden ratio fills the interval evenly: any stretch of rows holds every group in its share).
How often a group has come up before row n is then a sum that needs no loop (`count_before`). And the order of an epoch
is a permutation that is computed place by place (`shuffled`), not stored.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from pilot.types import Sample

POWER = 0.43
CIRCLE = 2**48  # points of the circle that rows walk around
STRIDE = 173_961_102_589_771  # the golden ratio's part of it, odd: every point is met before any is met again


@runtime_checkable
class Rows(Protocol):
    """A source of training rows."""

    def __len__(self) -> int: ...

    def groups(self) -> dict[str, Int[np.ndarray, " n"]]:
        """Row numbers by task; every group is weighed on its own."""
        ...

    def sample(self, i: int, rng: np.random.Generator) -> Sample:
        """Row `i`; what it is used for (which words, which objective) may be drawn from `rng`."""
        ...


class Draw(NamedTuple):
    """One row of a batch: where from, and the seed of everything drawn when it is read."""

    source: str
    index: int
    seed: tuple[int, int, int]


class Mixture:
    """Draws rows from named sources.

    `weights` gives each source's share (all of them, or none); inside a source its groups share by n^`power`
    regardless. A power of 1 draws every row of a source alike.

    Raises `ValueError` for no or empty sources, and for weights that miss a source or name an unknown one.
    """

    def __init__(
        self,
        sources: Mapping[str, Rows],
        *,
        seed: int,
        weights: Mapping[str, float] | None = None,
        power: float = POWER,
    ) -> None:
        if not sources:
            raise ValueError("a mixture needs at least one source")
        if empty := [name for name, rows in sources.items() if not len(rows)]:
            raise ValueError(f"sources {empty} have no rows; leave them out or collect data for them")
        if weights is not None and set(weights) != set(sources):
            raise ValueError(f"weights are for {sorted(weights)}, sources are {sorted(sources)}; give one per source")
        self.sources, self.seed = dict(sources), seed
        self._keys, self._rows, natural = [], [], []
        for name, rows in self.sources.items():
            for group, numbers in rows.groups().items():
                self._keys.append((name, group))
                self._rows.append(np.asarray(numbers))
                natural.append(len(numbers) ** power)
        self._probabilities = self._weigh(np.array(natural), weights)
        self._edges = [0, *np.rint(np.cumsum(self._probabilities) * CIRCLE).astype(np.int64).tolist()[:-1], CIRCLE]
        self._counted: dict[int, int] = {}  # how often groups came up so far: saves counting anew from step to step
        self._counted_to = 0
        self._start = int(np.random.default_rng(seed).integers(CIRCLE))

    @property
    def shares(self) -> dict[tuple[str, str], float]:
        """The expected share of every (source, group); they sum to 1."""
        return dict(zip(self._keys, self._probabilities.tolist(), strict=True))

    def source_shares(self) -> dict[str, float]:
        """The expected share of every source."""
        result = dict.fromkeys(self.sources, 0.0)
        for (name, _), share in self.shares.items():
            result[name] += share
        return result

    def draw(self, step: int, batch_size: int) -> list[Draw]:
        """The rows of one step: a function of (seed, step, batch_size) alone."""
        first = step * batch_size
        points = [(self._start + n * STRIDE) % CIRCLE for n in range(first, first + batch_size)]
        groups = np.searchsorted(self._edges, points, side="right") - 1
        seen = self._counted if first == self._counted_to else {}
        draws = []
        for position, group in enumerate(groups.tolist()):
            if group not in seen:
                seen[group] = self._seen(group, first)
            draws.append(Draw(self._keys[group][0], self._row(group, seen[group]), (self.seed, step, position)))
            seen[group] += 1
        self._counted, self._counted_to = seen, first + batch_size
        return draws

    def read(self, draw: Draw) -> Sample:
        """The training sample of a draw; the same draw is always read the same."""
        return self.sources[draw.source].sample(draw.index, np.random.default_rng(draw.seed))

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must agree with; where it was is the step alone."""
        return {"seed": self.seed, "shares": [[*key, share] for key, share in self.shares.items()]}

    def check(self, state: Mapping[str, Any]) -> None:
        """Raises `ValueError` when sources, weights or seed differ from when `state` was taken."""
        mine, theirs = self.state_dict(), state
        if [list(row) for row in theirs["shares"]] == mine["shares"] and theirs["seed"] == self.seed:
            return
        raise ValueError(
            f"the checkpoint drew from {_by_source(theirs)} with seed {theirs['seed']}, this run draws from "
            f"{_by_source(mine)} with seed {self.seed}; resume with the same data, or start a new run from its weights"
        )

    def _seen(self, group: int, before: int) -> int:
        """How often `group` comes up in the rows before row `before`."""
        low, high = self._edges[group], self._edges[group + 1]
        walk = {"start": self._start, "stride": STRIDE, "circle": CIRCLE}
        return count_before(high, before, **walk) - count_before(low, before, **walk)

    def _row(self, group: int, number: int) -> int:
        """The row that the group gives when it comes up for the `number`-th time."""
        rows = self._rows[group]
        epoch, place = divmod(number, len(rows))
        return int(rows[shuffled(place, len(rows), key=(self.seed, group, epoch))])

    def _weigh(self, natural: np.ndarray, weights: Mapping[str, float] | None) -> np.ndarray:
        if weights is None:
            return natural / natural.sum()
        if min(weights.values()) < 0 or not sum(weights.values()):
            raise ValueError(f"weights must be at least 0 and not all 0, got {dict(weights)}")
        totals = dict.fromkeys(self.sources, 0.0)
        for (name, _), weight in zip(self._keys, natural, strict=True):
            totals[name] += weight
        share = np.array([weights[name] / totals[name] for name, _ in self._keys])
        return natural * share / sum(weights.values())


def _by_source(state: Mapping[str, Any]) -> dict[str, float]:
    shares: dict[str, float] = {}
    for source, _, share in state["shares"]:
        shares[source] = round(shares.get(source, 0.0) + share, 6)
    return shares


def count_before(edge: int, rows: int, *, start: int, stride: int, circle: int) -> int:
    """How many of the points (start + n·stride) mod circle, n < rows, lie below `edge`.

    A point lies below `edge` where the walk's whole turns, counted from 0 and from `edge`, differ: two sums of
    floor((a·n + b) / m), which Euclid's algorithm adds up in some fifty steps.
    """
    return _floor_sum(rows, circle, stride, start) - _floor_sum(rows, circle, stride, start - edge)


def _floor_sum(n: int, m: int, a: int, b: int) -> int:
    """Σ floor((a·i + b) / m) over i < n, exactly; `b` may be negative."""
    total = 0
    while n > 0:
        (whole_a, a), (whole_b, b) = divmod(a, m), divmod(b, m)
        total += whole_a * n * (n - 1) // 2 + whole_b * n
        top = a * n + b
        if top < m:
            break
        n, b, m, a = top // m, top % m, a, m
    return total


def shuffled(place: int, size: int, *, key: tuple[int, int, int]) -> int:
    """Where `place` goes in a random permutation of 0 … size−1 that `key` chooses.

    A Feistel network of four rounds over the next power of four, walked until it lands below `size`.
    """
    half = max(1, (size - 1).bit_length() + 1 >> 1)
    low = (1 << half) - 1
    seed = hash_64(hash_64(hash_64(key[0]) + key[1]) + key[2])
    while True:
        left, right = place >> half, place & low
        for turn in range(4):
            left, right = right, left ^ hash_64(seed + (turn << 56) + right) & low
        place = left << half | right
        if place < size:
            return place


def hash_64(x: int) -> int:
    """SplitMix64's mixing of 64 bits (Steele et al. 2014)."""
    x = (x + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    x = (x ^ x >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return x ^ x >> 31
