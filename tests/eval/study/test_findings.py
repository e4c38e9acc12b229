"""What a study finds: which conditions are told from the baseline, and how sure each number is."""

import numpy as np

from pilot.eval.stats import wilson
from pilot.eval.study.declare import Condition
from pilot.eval.study.findings import ConditionResult, answer


def found(name: str, *, won: int = 0, lost: int = 0, n: int = 200) -> ConditionResult:
    """A condition that wins the first scenes and loses the last ones of a baseline that has the even ones."""
    values = (np.arange(n) % 2 == 0).astype(float)
    values[np.flatnonzero(values == 0)[:won]] = 1
    values[np.flatnonzero(values == 1)[::-1][:lost]] = 0
    return ConditionResult(condition=Condition(name=name), values=values, seeds=(float(values.mean()),))


def say(*others: ConditionResult) -> str:
    return answer({f.condition.name: f for f in (found("base"), *others)}, baseline="base", title="Success")


def test_the_headline_says_what_the_exact_test_says():
    few = found("few", won=4)
    change = few.against(found("base"))
    assert change.interval.low > 0 and change.p_value == 0.125, "where the bootstrap alone would tell them apart"
    said = "Not told apart from it by so many episodes: few (+2 points, +0 to +4, p = 0.12)."
    assert say(few) == f"Success: 'base' reaches 50%. {said}"
    assert "More: many (+4 points, " in say(found("many", won=8))
    assert "Less: fewer (-4 points, " in say(found("fewer", lost=8))


def test_the_headline_allows_for_the_number_of_conditions():
    assert "More: six (+3 points, " in say(found("six", won=6))
    said = say(found("six", won=6), found("same"))
    assert "Not told apart from it by so many episodes: six (+3 points, +1 to +6, p = 0.062)" in said
    assert said.endswith("p is corrected for 2 comparisons.") and "More" not in said


def test_more_trainings_do_not_make_a_rate_sure():
    """Two trainings without a success are not surer of other scenes than one is."""
    for n, value, seeds in ((200, 0.0, 1), (200, 0.0, 2), (200, 1.0, 3), (200, 0.5, 2), (1, 0.5, 2)):
        values = np.full(n, value)
        interval = ConditionResult(condition=Condition(name="a"), values=values, seeds=(value,) * seeds).interval
        assert interval == wilson(value * n, n) and interval.high - interval.low > 0.01


def test_numbers_of_steps_have_no_interval_of_a_rate():
    for n, steps in ((1, 1.0), (40, 1.0), (40, 300.0)):
        values, seeds = np.full(n, steps), (steps,)
        result = ConditionResult(condition=Condition(name="a"), values=values, seeds=seeds, is_share=False)
        assert result.interval == (steps, steps)
