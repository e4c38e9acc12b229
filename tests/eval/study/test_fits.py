"""The fits of growth: parameters come back with intervals that hold them, and the right curve wins."""

import numpy as np
import pytest

from pilot.eval.study.fits import fit_growth

HOMES = [1, 3, 12, 22, 53, 82, 104]


def outcomes(rates: np.ndarray, *, n: int, seed: int) -> np.ndarray:
    """Successes [k n] in the same scenes: a hard scene is hard for all."""
    hard = np.random.default_rng(seed).random(n)
    return (hard[None] < np.asarray(rates)[:, None]).astype(float)


def test_a_straight_line_over_the_logarithm_is_found():
    rates = 0.15 + 0.12 * np.log(HOMES)
    growth = fit_growth(HOMES, outcomes(rates, n=2000, seed=0), seed=0)
    assert growth.better is growth.log_linear and growth.saturating_share < 0.1
    fit = growth.log_linear
    assert fit.parameters["b"] == pytest.approx(0.12, abs=0.01)
    for name, truth in (("a", 0.15), ("b", 0.12)):
        low, high = fit.intervals[name]
        assert low < truth < high and high - low < 0.1
    assert fit(np.array([1.0, np.e])) == pytest.approx([fit.parameters["a"], sum(fit.parameters.values())])


def test_a_ceiling_is_found():
    rates = 0.8 - 0.6 * np.exp(-np.array(HOMES) / 15)
    growth = fit_growth(HOMES, outcomes(rates, n=2000, seed=1), seed=0)
    assert growth.better is growth.saturating and growth.saturating_share > 0.9
    fit = growth.saturating
    for name, truth in (("top", 0.8), ("gap", 0.6), ("scale", 15)):
        assert fit.intervals[name].low < truth < fit.intervals[name].high, name
    assert fit.intervals["top"].high - fit.intervals["top"].low < 0.1
    assert fit(np.array([1e6])) == pytest.approx([fit.parameters["top"]])


def test_few_scenes_do_not_decide():
    rates = 0.5 + 0.05 * np.log(HOMES)
    growth = fit_growth(HOMES, outcomes(rates, n=40, seed=2), seed=0)
    assert 0.02 < growth.saturating_share < 0.98
    assert f"Better is {growth.better.name}, in " in growth.describe()


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    held = 0
    for seed in range(40):
        growth = fit_growth(HOMES, outcomes(0.2 + 0.1 * np.log(HOMES), n=100, seed=seed), seed=seed)
        low, high = growth.log_linear.intervals["b"]
        held += low < 0.1 < high
    assert 34 <= held <= 40


@pytest.mark.parametrize("places", [[1, 3, 12], [1, 1, 3, 12], [0, 1, 3, 12]])
def test_too_few_places_are_refused(places):
    with pytest.raises(ValueError, match="4 or more different places above 0"):
        fit_growth(places, np.ones((len(places), 10)), seed=0)
