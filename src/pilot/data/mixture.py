"""Which row comes next, when sources of very different sizes are learned together.

A group of n rows — one task of one robot in one data set — is drawn with a weight of n^0.43 (pi0, 2410.24164, section
V): large groups come up more often, but do not drown the small ones. Draws depend on nothing but (seed, step), so
training resumes exactly at any step, with any number of workers or ranks.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from pilot.types import Sample

POWER = 0.43


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

    `weights` gives each source's share (all of them, or none); inside a source its groups share by n^0.43 regardless.

    Raises `ValueError` for no or empty sources, and for weights that miss a source or name an unknown one.
    """

    def __init__(self, sources: Mapping[str, Rows], *, seed: int, weights: Mapping[str, float] | None = None) -> None:
        if not sources:
            raise ValueError("a mixture needs at least one source")
        if empty := [name for name, rows in sources.items() if not len(rows)]:
            raise ValueError(f"sources {empty} have no rows; leave them out or collect data for them")
        if weights is not None and set(weights) != set(sources):
            raise ValueError(f"weights are for {sorted(weights)}, sources are {sorted(sources)}; give one per source")
        self.sources, self.seed, self.step = dict(sources), seed, 0
        self.drawn: Counter[str] = Counter()
        self._keys, self._rows, natural = [], [], []
        for name, rows in self.sources.items():
            for group, numbers in rows.groups().items():
                self._keys.append((name, group))
                self._rows.append(np.asarray(numbers))
                natural.append(len(numbers) ** POWER)
        self._probabilities = self._weigh(np.array(natural), weights)

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
        """The rows of one step, with replacement: a function of (seed, step) alone."""
        rng = np.random.default_rng((self.seed, step))
        groups = rng.choice(len(self._keys), size=batch_size, p=self._probabilities)
        places = rng.random(batch_size)
        return [
            Draw(self._keys[g][0], int(self._rows[g][int(place * len(self._rows[g]))]), (self.seed, step, position))
            for position, (g, place) in enumerate(zip(groups, places, strict=True))
        ]

    def next(self, batch_size: int) -> list[Draw]:
        """The rows of the next step; counts what was drawn."""
        draws = self.draw(self.step, batch_size)
        self.step += 1
        self.drawn.update(draw.source for draw in draws)
        return draws

    def read(self, draw: Draw) -> Sample:
        """The training sample of a draw; the same draw is always read the same."""
        return self.sources[draw.source].sample(draw.index, np.random.default_rng(draw.seed))

    def state_dict(self) -> dict[str, Any]:
        shares = [[*key, share] for key, share in self.shares.items()]
        return {"seed": self.seed, "step": self.step, "drawn": dict(self.drawn), "shares": shares}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state` was taken. Raises `ValueError` when sources, weights or seed differ from then."""
        mine = self.state_dict()
        theirs = [tuple(row) for row in state["shares"]]
        if state["seed"] != self.seed or theirs != [tuple(row) for row in mine["shares"]]:
            raise ValueError(
                f"the checkpoint drew from {theirs} with seed {state['seed']}, this run draws from {mine['shares']} "
                f"with seed {self.seed}; resume with the same data, or start a new run from its weights"
            )
        self.step, self.drawn = int(state["step"]), Counter(state["drawn"])

    def _weigh(self, natural: np.ndarray, weights: Mapping[str, float] | None) -> np.ndarray:
        if weights is None:
            return natural / natural.sum()
        if min(weights.values()) < 0 or not sum(weights.values()):
            raise ValueError(f"weights must be at least 0 and not all 0, got {dict(weights)}")
        totals = Counter()
        for (name, _), weight in zip(self._keys, natural, strict=True):
            totals[name] += weight
        share = np.array([weights[name] / totals[name] for name, _ in self._keys])
        return natural * share / sum(weights.values())
