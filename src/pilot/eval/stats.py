"""95 % intervals for success rates, and for the difference between two policies.

One rate has Wilson's score interval; two policies on the same episodes the exact McNemar test and a bootstrap of the
pairs. Episodes of one task, or in one home, are alike: `cluster_bootstrap` draws whole clusters. An evaluation that
stops as soon as it knows enough needs `anytime_interval`, which stays true however often one looks. What is drawn takes
a seed: the same records give the same interval.

Axes: `n` episodes. An outcome is 0 or 1, or a fraction such as the share of objects put away.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

Outcomes = Sequence[float] | Sequence[bool] | np.ndarray
CONFIDENCE = 0.95
SIGNIFICANCE = 0.05
"""The corrected p-value (`correct_for_many`) below which a page says that one is better than the other."""
RESAMPLES = 10_000
ROUNDING = 1e-12  # means that differ by less are equal


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


def wilson(successes: float, n: int) -> Interval:
    """Return the score interval of a success rate (Wilson 1927). Unlike ±1.96 σ it is right at 0 % and at 100 %.

    Outcomes that are fractions are added up: of one mean, none vary more than 0 and 1 do.

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

    Where all pairs differ alike (mostly by nothing) a bootstrap would say that no other episode can go differently; the
    interval then allows for the share of such episodes that `n` of them could have missed (Wilson's).

    Raises:
        ValueError: Not the same episodes, or none.
    """
    first, second = outcomes(a), outcomes(b)
    if len(first) != len(second):
        raise ValueError(f"a pair is one episode run twice, but there are {len(first)} and {len(second)} episodes")
    gaps = first - second
    only_a, only_b = int((gaps > 0).sum()), int((gaps < 0).sum())
    if np.ptp(gaps) == 0:
        missed = wilson(0, len(gaps)).high
        low, high = max(-1.0, float(gaps[0]) - missed), min(1.0, float(gaps[0]) + missed)
    else:
        draws = np.random.default_rng(seed).integers(len(gaps), size=(RESAMPLES, len(gaps)))
        low, high = np.quantile(gaps[draws].mean(1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).tolist()
    return Comparison(
        difference=float(gaps.mean()),
        interval=Interval(low, high),
        p_value=sign_test(only_a, only_b),
        only_a=only_a,
        only_b=only_b,
    )


def cluster_bootstrap(values: Outcomes, clusters: Sequence[Any], *, seed: int) -> Interval:
    """Return the interval of a mean over episodes that come in clusters, such as tasks: whole clusters are drawn.

    It says what would come out with other clusters of the kind; with few of them it is wide, and too narrow below ten.
    Clusters of one mean would make it a point, as if no other cluster could differ. Such rates have Wilson's interval
    with each cluster as one episode: how far they are alike is just what nobody knows then. Values outside of 0…1 have
    no such bound, and keep the point.

    Raises:
        ValueError: not one cluster per episode, or fewer than two clusters.
    """
    array, names = outcomes(values), np.asarray(clusters)
    kinds, members = np.unique(names, return_inverse=True)
    if len(names) != len(array) or len(kinds) < 2:
        raise ValueError(f"{len(array)} episodes need as many cluster names, of 2 clusters or more, got {len(names)}")
    sums, counts = np.bincount(members, weights=array), np.bincount(members)
    if np.ptp(sums / counts) < ROUNDING and array.min() >= 0 and array.max() <= 1:
        return wilson(float(array.mean()) * len(kinds), len(kinds))
    draws = np.random.default_rng(seed).integers(len(kinds), size=(RESAMPLES, len(kinds)))
    means = sums[draws].sum(1) / counts[draws].sum(1)
    return Interval(*np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).tolist())


def interval_over_seeds(rates: Sequence[float], *, episodes: Sequence[int]) -> Interval:
    """Return the interval of a recipe's mean success over trainings that differ in their seed: Student's t, in 0…1.

    It says what another training would do, which no number of episodes of one training can say. With two or three
    seeds it is as wide as that little evidence is. `episodes` are those behind each rate: rates that are equal by
    chance have no spread, but are no surer than their episodes. So the interval also holds Wilson's of all episodes
    together, which would be enough if trainings did not differ at all.

    Raises:
        ValueError: fewer than two trainings, or not one number of episodes for each.
    """
    values = outcomes(rates)
    if len(values) < 2 or len(episodes) != len(values):
        raise ValueError(
            f"an interval over seeds needs 2 trainings or more, got {len(values)} with {len(episodes)} episode counts"
        )
    mean, n = float(values.mean()), sum(episodes)
    half = student_quantile(0.5 + CONFIDENCE / 2, dof=len(values) - 1) * float(values.std(ddof=1)) / len(values) ** 0.5
    low, high = wilson(mean * n, n)
    return Interval(max(0.0, min(low, mean - half)), min(1.0, max(high, mean + half)))


def student_quantile(probability: float, *, dof: int) -> float:
    """Return the quantile of Student's t distribution, for a probability above one half."""

    def cumulated(t: float) -> float:
        # With t = sqrt(dof) tan(u) the density is cos(u)^(dof - 1), which is smooth up to infinity.
        u = np.linspace(0.0, math.atan(t / math.sqrt(dof)), 2001)
        scale = math.exp(math.lgamma((dof + 1) / 2) - math.lgamma(dof / 2)) / math.sqrt(math.pi)
        return 0.5 + scale * float(np.trapezoid(np.cos(u) ** (dof - 1), u))

    low, high = 0.0, 1e6
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if cumulated(middle) < probability else (low, middle)
    return (low + high) / 2


def correct_for_many(p_values: Sequence[float]) -> list[float]:
    """Return p-values that allow for how many comparisons were made (Holm 1979)."""
    order, worst, corrected = sorted(range(len(p_values)), key=p_values.__getitem__), 0.0, [0.0] * len(p_values)
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, p_values[index] * (len(p_values) - rank)))
        corrected[index] = worst
    return corrected


def anytime_interval(successes: int, n: int) -> Interval:
    """Return an interval of a success rate that may be looked at after every episode, and holds at all of them at once.

    It is the set of rates that a bet on all rates equally has not beaten 20 to 1 (Robbins 1970, beta mixture), about
    half as wide again as Wilson's, which holds only for a number of episodes that was fixed before.

    Raises:
        ValueError: successes outside 0…n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"an interval needs 0 <= successes <= n, got {successes} of {n}")
    failures = n - successes
    won = math.lgamma(successes + 1) + math.lgamma(failures + 1) - math.lgamma(n + 2)  # log of the bet's mean stake
    limit = -math.log(1 - CONFIDENCE)

    def beaten(rate: float) -> bool:
        likelihood = successes * math.log(rate) if successes else 0.0
        likelihood += failures * math.log1p(-rate) if failures else 0.0
        return won - likelihood > limit

    best = successes / n if n else 0.5
    low = _bisect(beaten, outside=1e-12, inside=best) if successes else 0.0
    high = _bisect(beaten, outside=1 - 1e-12, inside=best) if failures else 1.0
    return Interval(low, high)


def _bisect(beaten: Callable[[float], bool], *, outside: float, inside: float) -> float:
    """Return where `beaten` changes between a rate outside the interval and one inside."""
    if not beaten(outside):
        return round(outside)
    for _ in range(50):
        middle = (outside + inside) / 2
        outside, inside = (middle, inside) if beaten(middle) else (outside, middle)
    return inside


def episodes_to_see(difference: float, *, rate: float, power: float = 0.8) -> int:
    """Return how many episodes each of two policies needs for a difference in success to show, run independently.

    Two-sided at 5 %, found with probability `power`; `rate` is the lower of the two success rates (Fleiss 1981, 3.14).
    The same starts for both need fewer.

    Raises:
        ValueError: rates outside 0…1, or no difference.
    """
    other = rate + difference
    if not (0 <= rate < other <= 1):
        raise ValueError(f"rates are 0 to 1 and differ, got {rate} and {other}")
    normal, middle = NormalDist(), (rate + other) / 2
    wrong, missed = normal.inv_cdf(0.5 + CONFIDENCE / 2), normal.inv_cdf(power)
    spread = rate * (1 - rate) + other * (1 - other)
    root = wrong * math.sqrt(2 * middle * (1 - middle)) + missed * math.sqrt(spread)
    return math.ceil((root / difference) ** 2)


def visible_difference(n: int, *, rate: float = 0.5, power: float = 0.8) -> float:
    """Return the smallest difference in success that `n` episodes for each of two policies show (`episodes_to_see`).

    Counted from `rate` upwards; where even 100 % is too near, the rest up to 100 % is returned.
    """
    low, high = 0.0, 1 - rate
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if episodes_to_see(middle, rate=rate, power=power) > n else (low, middle)
    return high


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
