"""Intervals against published values, and against the coverage they promise."""

import numpy as np
import pytest

from pilot.eval.stats import compare, sign_test, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # Newcombe (1998), table I: 81/263, 15/148, 0/20, 1/29
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_equals_newcombes_table(successes, n, low, high):
    interval = wilson(successes, n)
    assert interval.low == pytest.approx(low, abs=5e-5)
    assert interval.high == pytest.approx(high, abs=5e-5)


def test_wilson_is_symmetric_and_exact_at_the_ends():
    assert wilson(0, 7).low == 0.0
    assert wilson(7, 7).high == 1.0
    assert wilson(3, 10).low == pytest.approx(1 - wilson(7, 10).high)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(ValueError, match=f"got {successes} of {n}"):
        wilson(successes, n)


def test_wilson_covers_the_truth_as_often_as_it_says():
    """Averaged over rates, as Wilson's interval promises; ±1.96 σ reaches 0.90 here."""
    rng, n = np.random.default_rng(0), 40
    rates = rng.uniform(0.02, 0.98, size=4000)
    bounds = [wilson(int(k), n) for k in rng.binomial(n, rates)]
    covered = np.mean([low <= rate <= high for (low, high), rate in zip(bounds, rates)])
    assert 0.94 < covered < 0.965


def test_sign_test_counts_by_hand():
    assert sign_test(0, 0) == 1.0
    assert sign_test(5, 0) == pytest.approx(2 / 32)
    assert sign_test(1, 9) == pytest.approx(2 * 11 / 1024)
    assert sign_test(4, 4) == 1.0


def test_compare_finds_a_paired_gain_that_rates_alone_would_miss():
    hard = np.arange(60) % 3 == 0
    a, b = (~hard).astype(float), (~hard).astype(float)
    b[1:16:3] = 0  # b fails five episodes that a solves, and solves none that a fails
    result = compare(a, b, seed=0)
    assert (result.only_a, result.only_b) == (5, 0)
    assert result.difference == pytest.approx(5 / 60)
    assert result.interval.low > 0
    assert wilson(int(a.sum()), 60).low < wilson(int(b.sum()), 60).high  # unpaired, they overlap
    assert compare(a, b, seed=0) == result


def test_compare_wants_pairs():
    with pytest.raises(ValueError, match="3 and 2 episodes"):
        compare([1, 0, 1], [1, 0], seed=0)
