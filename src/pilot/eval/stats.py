"""95 % intervals for success rates, and for the difference between two policies.

One rate has Wilson's score interval; two policies on the same episodes the exact McNemar test and a bootstrap of the
pairs, which takes a seed: the same records give the same interval.

Axes: `n` episodes. An outcome is 0 or 1, or a fraction such as the share of objects put away.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

Outcomes = Sequence[float] | Sequence[bool] | np.ndarray
CONFIDENCE = 0.95
RESAMPLES = 10_000


class Interval(NamedTuple):
    """The range that holds the truth with `CONFIDENCE`."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`difference` is mean(a) − mean(b); `p_value` is the chance of so uneven a split were a and b equally good.

    `only_a` and `only_b` count the episodes that went better under a, and under b.
    """

    difference: float
    interval: Interval
    p_value: float
    only_a: int
    only_b: int


def wilson(successes: int, n: int) -> Interval:
    """Return the score interval of a success rate (Wilson 1927). Unlike ±1.96 σ it is right at 0 % and at 100 %.

    Raises:
        ValueError: No episodes, or successes outside 0…n.
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"an interval needs 0 <= successes <= n and n > 0, got {successes} of {n}")
    rate, z = successes / n, NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    shrink = 1 + z**2 / n
    centre = (rate + z**2 / (2 * n)) / shrink
    half = z / shrink * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    low = 0.0 if successes == 0 else centre - half  # exact at the ends, where rounding would leave 1e-17
    high = 1.0 if successes == n else centre + half
    return Interval(low, high)


def compare(a: Outcomes, b: Outcomes, *, seed: int) -> Comparison:
    """Compare two policies on the same `n` episodes, in the same order: exact McNemar test, bootstrap of the pairs.

    Raises:
        ValueError: Not the same episodes, or none.
    """
    first, second = outcomes(a), outcomes(b)
    if len(first) != len(second):
        raise ValueError(f"a pair is one episode run twice, but there are {len(first)} and {len(second)} episodes")
    gaps = first - second
    only_a, only_b = int((gaps > 0).sum()), int((gaps < 0).sum())
    draws = np.random.default_rng(seed).integers(len(gaps), size=(RESAMPLES, len(gaps)))
    low, high = np.quantile(gaps[draws].mean(1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).tolist()
    return Comparison(
        difference=float(gaps.mean()),
        interval=Interval(low, high),
        p_value=sign_test(only_a, only_b),
        only_a=only_a,
        only_b=only_b,
    )


def sign_test(wins: int, losses: int) -> float:
    """Return the two-sided exact probability of a split at least as uneven under a fair coin (McNemar's exact test)."""
    n, fewer = wins + losses, min(wins, losses)
    tail = sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n
    return min(1.0, 2 * tail)


def outcomes(values: Outcomes) -> np.ndarray:
    """Return outcomes as an array [n].

    Raises:
        ValueError: none, or some that are not finite.
    """
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise ValueError(f"outcomes are a list of at least one finite number, got an array of shape {array.shape}")
    return array
