"""Intervals against published values, and against the coverage they promise."""

import numpy as np
import pytest

from pilot.eval.stats import (
    anytime_interval,
    cluster_bootstrap,
    compare,
    correct_for_many,
    episodes_to_see,
    interval_over_seeds,
    sign_test,
    student_quantile,
    visible_difference,
    wilson,
)


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


def test_clusters_that_agree_within_themselves_widen_the_interval():
    tasks = np.repeat(np.arange(10), 20)
    by_task = np.repeat([1.0, 0, 1, 1, 0, 1, 0, 1, 1, 0], 20)
    alike = cluster_bootstrap(by_task, tasks, seed=0)
    mixed = cluster_bootstrap(np.random.default_rng(0).permutation(by_task), tasks, seed=0)
    assert alike.low < 0.35 and alike.high > 0.85
    assert mixed.high - mixed.low < 0.2
    assert cluster_bootstrap(by_task, tasks, seed=0) == alike
    with pytest.raises(ValueError, match="2 clusters or more"):
        cluster_bootstrap([1.0, 0.0], ["a", "a"], seed=0)


def test_an_interval_of_clusters_weighs_them_by_their_episodes():
    low, high = cluster_bootstrap([1.0] * 9 + [0.0], [0] * 9 + [1], seed=0)
    assert (low, high) == (0.0, 1.0), "either cluster alone can be drawn"
    light = cluster_bootstrap([1.0] * 90 + [0.0] * 10, [k // 10 for k in range(100)], seed=0)
    heavy = cluster_bootstrap([1.0] * 9 + [0.0] * 91, [*range(9), *[9] * 91], seed=0)
    assert light.high == 1.0 and light.low > 0.6 and heavy.low < 0.1


def test_an_anytime_interval_holds_at_every_look():
    """Wilson's, looked at after every episode, misses the truth at some of 300 looks in a third of the runs."""
    rng, misses, wilsons = np.random.default_rng(0), 0, 0
    for _ in range(300):
        successes = np.cumsum(rng.random(300) < 0.7)
        looks = [(int(s), n) for n, s in enumerate(successes, 1)]
        misses += any(not a.low <= 0.7 <= a.high for a in (anytime_interval(*look) for look in looks[::7]))
        wilsons += any(not w.low <= 0.7 <= w.high for w in (wilson(*look) for look in looks[::7]))
    assert misses / 300 < 0.05 < wilsons / 300


def test_an_anytime_interval_is_wider_than_wilsons_and_narrows():
    for n in (10, 100, 1000):
        ours, fixed = anytime_interval(n // 2, n), wilson(n // 2, n)
        assert ours.low < fixed.low and ours.high > fixed.high
    assert anytime_interval(0, 0) == (0.0, 1.0)
    assert anytime_interval(20, 20).high == 1.0 and 0.7 < anytime_interval(20, 20).low < 0.9
    assert anytime_interval(0, 20) == pytest.approx((0.0, 1 - anytime_interval(20, 20).low))


@pytest.mark.parametrize(("rate", "difference", "n"), [(0.96, 0.01, 5301), (0.95, 0.02, 1506), (0.75, 0.05, 1094)])
def test_how_many_episodes_a_difference_needs(rate, difference, n):
    assert episodes_to_see(difference, rate=rate) == pytest.approx(n, abs=2)


def test_the_difference_that_episodes_show_is_the_inverse():
    seen = visible_difference(200, rate=0.5)
    assert episodes_to_see(seen, rate=0.5) <= 200 < episodes_to_see(seen * 0.98, rate=0.5)
    with pytest.raises(ValueError, match="rates are 0 to 1"):
        episodes_to_see(0.0, rate=0.5)


def test_an_interval_over_seeds_is_that_of_a_table_of_students_t():
    assert student_quantile(0.975, dof=1) == pytest.approx(12.706, abs=2e-3)
    assert student_quantile(0.975, dof=4) == pytest.approx(2.776, abs=1e-3)
    assert student_quantile(0.975, dof=1000) == pytest.approx(1.962, abs=1e-3)
    low, high = interval_over_seeds([0.5, 0.6, 0.7], episodes=[100] * 3)
    assert (low, high) == pytest.approx((0.6 - 4.3027 * 0.1 / 3**0.5, 0.6 + 4.3027 * 0.1 / 3**0.5), abs=1e-4)
    assert interval_over_seeds([0.1, 0.9], episodes=[100, 100]) == (0.0, 1.0)
    for rates, episodes in (([0.5], [100]), ([0.5, 0.6], [100])):
        with pytest.raises(ValueError, match=f"needs 2 trainings or more, got {len(rates)} with 1 episode counts"):
            interval_over_seeds(rates, episodes=episodes)


def test_no_interval_of_a_rate_is_a_point():
    """Equal trainings, tasks or pairs say that nothing differed here, not that nothing can."""
    assert interval_over_seeds([0.6, 0.6], episodes=[100, 100]) == wilson(120, 200)
    assert interval_over_seeds([0.0, 0.0], episodes=[50, 150]) == wilson(0, 200)
    low, high = interval_over_seeds([0.6, 0.601], episodes=[1000, 1000])
    assert low <= wilson(1201, 2000).low and high >= wilson(1201, 2000).high, "nearly equal ones neither"
    tasks = [k // 20 for k in range(200)]
    assert cluster_bootstrap(np.zeros(200), tasks, seed=0) == wilson(0, 10), "another task may well be solved"
    assert cluster_bootstrap(np.tile([0.1, 0.3], 100), tasks, seed=0) == pytest.approx(wilson(2, 10))
    assert cluster_bootstrap([300.0] * 4, range(4), seed=0) == (300.0, 300.0), "of steps there is no bound"
    same = compare([1, 0, 1, 0], [1, 0, 1, 0], seed=0)
    assert same.interval == (-wilson(0, 4).high, wilson(0, 4).high) and same.p_value == 1
    assert compare([1] * 9, [0] * 9, seed=0).interval == pytest.approx((wilson(9, 9).low, 1.0))


def test_an_interval_over_equal_seeds_covers_the_truth_where_trainings_do_not_differ():
    rng, n = np.random.default_rng(0), 50
    rates = rng.uniform(0.05, 0.95, size=300)
    drawn = rng.binomial(n, rates, size=(2, len(rates))).T / n
    equal = [(rate, pair) for rate, pair in zip(rates, drawn) if abs(pair[0] - pair[1]) <= 0.02]
    bounds = [(rate, interval_over_seeds(list(pair), episodes=[n, n])) for rate, pair in equal]
    assert len(equal) > 30 and np.mean([low <= rate <= high for rate, (low, high) in bounds]) > 0.9


def test_many_comparisons_ask_for_smaller_p_values():
    assert correct_for_many([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert correct_for_many([0.9, 0.8]) == [1.0, 1.0] and correct_for_many([]) == []
