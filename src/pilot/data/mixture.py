"""Which row comes next, when sources of very different sizes are learned together.

A group of n rows — one task of one robot in one data set — is drawn with a weight of n^0.43 (pi0, 2410.24164, section
V): large groups come up more often, but do not drown the small ones. Inside a group every row comes once before any
comes twice, in an order that is drawn anew for each such epoch.

Nothing is remembered: the n-th row of a run is a function of (seed, n), so training resumes exactly at any step, with
any number of workers or ranks. Three pieces make that possible. Row n falls to the group in whose share of [0, 1) the
point n·φ mod 1 lies (the golden ratio fills the interval evenly: any stretch of rows holds every group in its share).
How often a group has come up before row n is then a sum that needs no loop (`count_before`). And the order of an epoch
is a permutation that is computed, not stored (`pilot.data.loading.shuffle`).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from pilot.data.loading.shuffle import ShuffledOrder
from pilot.names import check_name
from pilot.types import Sample

POWER = 0.43
CIRCLE = 2**48  # points of the circle that rows walk around
STRIDE = 173_961_102_589_771  # the golden ratio's part of it, odd: every point is met before any is met again
DrawMode = Literal["rows", "windows"]
LOSSES = ("text", "fast", "flow")  # what rows of demonstrations can teach


@runtime_checkable
class RowSource(Protocol):
    """A source of training rows."""

    def __len__(self) -> int: ...

    def groups(self) -> dict[str, Int[np.ndarray, " n"]]:
        """Return row numbers by task; every group is weighed on its own."""
        ...

    def sample(self, i: int, rng: np.random.Generator) -> Sample:
        """Return row `i`; what it is used for (which words, which objective) may be drawn from `rng`."""
        ...


@runtime_checkable
class FileRowSource(RowSource, Protocol):
    """A source whose rows lie in files, side by side."""

    def files_of(self, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Return a number for the file of each row."""
        ...


@runtime_checkable
class WindowRowSource(FileRowSource, Protocol):
    """A source that reads neighbouring rows more cheaply than single ones."""

    def read_windows(self, lanes: int) -> int:
        """Prepare for rows that come by windows, from `lanes` places of the set in turn; return how many windows are
        open in each."""
        ...

    def find_windows(self, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Return a number for the window of each row."""
        ...


class Draw(NamedTuple):
    """One row of a batch: where from, and the seed of everything drawn when it is read: (run, step, place)."""

    source: str
    index: int
    seed: tuple[int, int, int]


class Mixture:
    """Draws rows from named sources.

    `weights` gives each source's share (all of them, or none); inside a source its groups share by n^`power`
    regardless. A power of 1 draws every row of a source alike.

    `draws`: "windows" takes rows of sources with video from a few windows of neighbouring rows at a time, which costs
    much less decoding (`loading/windows.py`). `streams`: how many shares sources are cut into (`loading/shuffle.py`);
    batches are multiples of it.

    Raises `ValueError` for no sources, one without rows to draw, and weights that miss a source or name an unknown one.
    """

    def __init__(
        self,
        sources: Mapping[str, RowSource],
        *,
        seed: int,
        weights: Mapping[str, float] | None = None,
        power: float = POWER,
        draws: DrawMode = "rows",
        streams: int = 1,
    ) -> None:
        if not sources:
            raise ValueError("a mixture needs at least one source")
        groups_of = {name: rows.groups() for name, rows in sources.items()}
        if empty := [name for name, groups in groups_of.items() if not any(map(len, groups.values()))]:
            raise ValueError(
                f"sources {empty} have no rows to draw; collect data for them or leave them out, or see what left them "
                "none: first_seconds, data.held_out, or steps that the set marks as not trainable"
            )
        if weights is not None and set(weights) != set(sources):
            raise ValueError(f"weights are for {sorted(weights)}, sources are {sorted(sources)}; give one per source")
        if streams < 1:
            raise ValueError(f"a mixture has at least one stream, not {streams}")
        self.sources, self.seed, self.draws, self.streams = dict(sources), seed, draws, streams
        self._keys, self._orders, natural = [], [], []
        for name, rows in self.sources.items():
            groups = groups_of[name]
            by_windows = rows if draws == "windows" and isinstance(rows, WindowRowSource) else None
            at_once = by_windows.read_windows(len(groups) * streams) if by_windows else 1
            for group, numbers in groups.items():
                order = ShuffledOrder(
                    np.asarray(numbers),
                    key=(seed, len(self._keys)),
                    streams=streams,
                    files=rows.files_of(numbers) if streams > 1 and isinstance(rows, FileRowSource) else None,
                    windows=by_windows.find_windows(numbers) if by_windows else None,
                    open_windows=at_once,
                )
                self._keys.append((name, group))
                self._orders.append(order)
                natural.append(len(numbers) ** power)
        self._probabilities = self._weigh(np.array(natural), weights)
        self._edges = _edges_of(self._probabilities)
        self._counted: dict[tuple[int, int], int] = {}  # how often groups came up: saves counting anew at each step
        self._counted_to = (0, 0, 1)
        self._start = int(np.random.default_rng(seed).integers(CIRCLE))

    @property
    def shares(self) -> dict[tuple[str, str], float]:
        """Return the expected share of every (source, group); they sum to 1."""
        return dict(zip(self._keys, self._probabilities.tolist(), strict=True))

    def draw(self, step: int, batch_size: int, *, rank: int = 0, ranks: int = 1) -> list[Draw]:
        """Draw the rows of one step: a function of (seed, step, batch_size) alone; of those every `ranks`-th from
        `rank` on.

        `batch_size` is a multiple of the streams.
        """
        assert batch_size % self.streams == 0, (batch_size, self.streams)
        first = step * batch_size
        own_streams = self.streams % ranks == 0  # then other ranks have other streams, which need not be counted
        places = range(rank, batch_size, ranks) if own_streams else range(batch_size)
        points = [(self._start + (first + place) * STRIDE) % CIRCLE for place in places]
        groups = np.searchsorted(self._edges, points, side="right") - 1
        # The next step of the same rank goes on from what the last one counted; after a jump it is computed.
        seen = self._counted if self._counted_to == (first, rank, ranks) else {}
        draws = []
        for place, group in zip(places, groups.tolist()):
            stream = place % self.streams
            if (group, stream) not in seen:
                seen[group, stream] = self._count_seen(group, stream, first // self.streams)
            if place % ranks == rank:
                # Other ranks' rows are only counted: the order inside a group has to go on over them.
                index = self._orders[group].row(stream, seen[group, stream])
                draws.append(Draw(self._keys[group][0], index, (self.seed, step, place)))
            seen[group, stream] += 1
        self._counted, self._counted_to = seen, (first + batch_size, rank, ranks)
        return draws

    def read(self, draw: Draw) -> Sample:
        """Read the training sample of a draw; the same draw is always read the same."""
        return self.sources[draw.source].sample(draw.index, np.random.default_rng(draw.seed))

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must agree with; where it was is the step alone."""
        shares = [[*key, share] for key, share in self.shares.items()]
        return {"seed": self.seed, "shares": shares, "draws": self.draws, "streams": self.streams}

    def check(self, state: Mapping[str, Any]) -> None:
        """Raise a `ValueError` when sources, weights or seed differ from when `state` was taken."""
        mine, theirs = self.state_dict(), {"draws": "rows", "streams": 1} | dict(state)
        for name in ("draws", "streams"):
            if theirs[name] != mine[name]:
                raise ValueError(
                    f"the checkpoint has {name} {theirs[name]!r}, this run {mine[name]!r}; resume with the same"
                )
        if theirs["seed"] == self.seed and self._has_shares(theirs["shares"]):
            return
        raise ValueError(
            f"the checkpoint drew from {_by_source(theirs)} with seed {theirs['seed']}, this run draws from "
            f"{_by_source(mine)} with seed {self.seed}; resume with the same data, or start a new run from its weights"
        )

    def _has_shares(self, shares: Sequence[Sequence[Any]]) -> bool:
        """Return whether shares, as `state_dict` gives them, are those of this mixture, but for rounding."""
        keys = [(source, group) for source, group, _ in shares]
        if keys != self._keys:
            return False
        # Powers may differ in their last bit from machine to machine, which moves an edge by a point of the circle at
        # most; one row more in a group of a million moves it by millions.
        theirs = _edges_of([share for _, _, share in shares])
        return all(abs(one - other) <= 1 for one, other in zip(theirs, self._edges, strict=True))

    def _count_seen(self, group: int, stream: int, before: int) -> int:
        """Count how often `group` comes up in the first `before` rows of a stream."""
        low, high = self._edges[group], self._edges[group + 1]
        start, stride = (self._start + stream * STRIDE) % CIRCLE, self.streams * STRIDE % CIRCLE
        walk = {"start": start, "stride": stride, "circle": CIRCLE}
        return count_before(high, before, **walk) - count_before(low, before, **walk)

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


def _edges_of(shares: Sequence[float] | Float[np.ndarray, " n"]) -> list[int]:
    """Return where on the circle each share begins, and its end: whole numbers, so that counts of rows are exact."""
    return [0, *np.rint(np.cumsum(shares) * CIRCLE).astype(np.int64).tolist()[:-1], CIRCLE]


def _by_source(state: Mapping[str, Any]) -> dict[str, float]:
    shares: dict[str, float] = {}
    for source, _, share in state["shares"]:
        shares[source] = round(shares.get(source, 0.0) + share, 6)
    return shares


def count_before(edge: int, rows: int, *, start: int, stride: int, circle: int) -> int:
    """Count how many of the points (start + n·stride) mod circle, n < rows, lie below `edge`.

    A point lies below `edge` where the walk's whole turns, counted from 0 and from `edge`, differ: two sums of
    floor((a·n + b) / m), which Euclid's algorithm adds up in some fifty steps.
    """
    return _floor_sum(rows, circle, stride, start) - _floor_sum(rows, circle, stride, start - edge)


def _floor_sum(n: int, m: int, a: int, b: int) -> int:
    """Compute Σ floor((a·i + b) / m) over i < n, exactly; `b` may be negative."""
    total = 0
    while n > 0:
        (whole_a, a), (whole_b, b) = divmod(a, m), divmod(b, m)
        total += whole_a * n * (n - 1) // 2 + whole_b * n
        # Swap the roles of slope and modulus, as in Euclid's algorithm: the sum gets shorter each time.
        top = a * n + b
        if top < m:
            break
        n, b, m, a = top // m, top % m, a, m
    return total


def check_teaches(source: str, teaches: Iterable[str]) -> None:
    """Raise a `ValueError` for a loss that robot rows cannot teach."""
    for loss in teaches:
        check_name("loss", loss, LOSSES, note=f" (source '{source}' teaches it)")
