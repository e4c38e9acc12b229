"""How success grows with the number of homes: in proportion to its logarithm for ever, or up to a ceiling?

- log-linear: `a + b · ln x`
- saturating: `top − gap · exp(−x / scale)`

Both are fitted to the means, each weighed by how surely it is known. Intervals come from scenes drawn anew, the same
ones for all conditions, since all were tried in the same scenes. Of the two, the one with the smaller AIC (misfit plus
twice the number of parameters) describes the points better; how often that is so in the drawn scenes says how sure it
is. With few places on the axis, `top` is known only if the curve has bent within them.

Axes: `k` places on the axis, `n` scenes, `r` draws, `g` scales tried.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pilot.eval.stats import CONFIDENCE, Interval

DRAWS = 2000
SCALES = 80  # tried, from a third of the least place to ten times the largest


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One curve through the points: its parameters with 95 % intervals, and its AIC."""

    name: str
    parameters: dict[str, float]
    intervals: dict[str, Interval]
    aic: float

    def __call__(self, x: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        """Return the curve at these places."""
        p = self.parameters
        if self.name == "log-linear":
            return p["a"] + p["b"] * np.log(x)
        return p["top"] - p["gap"] * np.exp(-x / p["scale"])

    def describe(self) -> str:
        """Write the parameters with their intervals."""
        words = [
            f"{name} = {value:.3g} ({self.intervals[name].low:.3g} to {self.intervals[name].high:.3g})"
            for name, value in self.parameters.items()
        ]
        return f"{self.name}: {', '.join(words)}; AIC {self.aic:.1f}"


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Both fits. `saturating_share` is how often the saturating one has the smaller AIC in scenes drawn anew."""

    log_linear: Fit
    saturating: Fit
    saturating_share: float

    @property
    def better(self) -> Fit:
        """The fit with the smaller AIC."""
        return min(self.log_linear, self.saturating, key=lambda fit: fit.aic)

    def describe(self) -> str:
        """Say which fit describes the points better, and how sure that is."""
        share = self.saturating_share if self.better is self.saturating else 1 - self.saturating_share
        sure = f"in {share:.0%} of the scenes drawn anew"
        return f"{self.log_linear.describe()}\n{self.saturating.describe()}\nBetter is {self.better.name}, {sure}."


def fit_growth(x: Sequence[float], values: Float[np.ndarray, "k n"], *, seed: int) -> Growth:
    """Fit both curves to outcomes (0 to 1) of `n` scenes at `k` places.

    Raises:
        ValueError: fewer than 4 different places, which three parameters need, or a place that is not above 0.
    """
    places, outcomes = np.asarray(x, dtype=float), np.asarray(values, dtype=float)
    if len(set(places.tolist())) < 4 or places.min() <= 0 or outcomes.shape[0] != len(places):
        raise ValueError(f"a fit needs outcomes at 4 or more different places above 0, got {places.tolist()}")
    n = outcomes.shape[1]
    drawn = np.random.default_rng(seed).integers(n, size=(DRAWS, n))
    counts = np.stack([np.bincount(row, minlength=n) for row in drawn])  # [r n]
    means = np.concatenate([outcomes.mean(1)[None], counts @ outcomes.T / n])  # [1+r k], first the points themselves
    weights = 1 / _variance(means, n)
    straight = _fit_line(np.log(places), means, weights)
    bent = _fit_saturating(places, means, weights)
    fits = {
        "log-linear": _summarize("log-linear", ("a", "b"), *straight),
        "saturating": _summarize("saturating", ("top", "gap", "scale"), *bent),
    }
    share = float((_aic(bent[1], 3)[1:] < _aic(straight[1], 2)[1:]).mean())
    return Growth(log_linear=fits["log-linear"], saturating=fits["saturating"], saturating_share=share)


def _variance(means: np.ndarray, n: int) -> np.ndarray:
    """Return the variance of each mean, as of a success rate, and never 0."""
    rates = (means * n + 0.5) / (n + 1)
    return rates * (1 - rates) / n


def _fit_line(z: np.ndarray, means: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `(intercept, slope)` [r 2] and the misfit [r] of a weighted line over `z` [k] or [g 1 k]."""
    total = weights.sum(-1)
    z_mean = (weights * z).sum(-1) / total
    y_mean = (weights * means).sum(-1) / total
    centred = z - z_mean[..., None]
    slope = (weights * centred * (means - y_mean[..., None])).sum(-1) / np.maximum(
        (weights * centred**2).sum(-1), 1e-12
    )
    intercept = y_mean - slope * z_mean
    misfit = (weights * (means - intercept[..., None] - slope[..., None] * z) ** 2).sum(-1)
    return np.stack([intercept, slope], axis=-1), misfit


def _fit_saturating(x: np.ndarray, means: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `(top, gap, scale)` [r 3] and the misfit [r]; at each scale the curve is a line over exp(−x / scale)."""
    scales = np.geomspace(x.min() / 3, 10 * x.max(), SCALES)
    lines, misfits = _fit_line(np.exp(-x / scales[:, None, None]), means, weights)  # [g r 2], [g r]
    best, rows = misfits.argmin(0), np.arange(means.shape[0])
    top, slope = lines[best, rows].T
    return np.stack([top, -slope, scales[best]], axis=-1), misfits[best, rows]


def _summarize(name: str, parameters: Sequence[str], found: np.ndarray, misfit: np.ndarray) -> Fit:
    ends = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    intervals = {p: Interval(*np.quantile(found[1:, i], ends).tolist()) for i, p in enumerate(parameters)}
    values = {p: float(found[0, i]) for i, p in enumerate(parameters)}
    return Fit(name=name, parameters=values, intervals=intervals, aic=float(_aic(misfit, len(parameters))[0]))


def _aic(misfit: np.ndarray, parameters: int) -> np.ndarray:
    return misfit + 2 * parameters
