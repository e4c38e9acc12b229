"""What a study found: every measure of every condition with an interval, and its difference from the baseline.

Conditions are tried in the same scenes. Several trainings of one condition are averaged scene by scene; the interval is
over scenes, and the rate of each training is shown beside it: two trainings are too few for an interval over trainings.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pilot.eval.stats import SIGNIFICANCE, Comparison, Interval, cluster_bootstrap, compare, correct_for_many, wilson
from pilot.eval.study.declare import Condition, Trial
from pilot.eval.study.measures import MEASURES
from pilot.eval.study.plan import StudyPlan


@dataclass(frozen=True, kw_only=True)
class ConditionResult:
    """One measure of one condition in one trial.

    `values` [n] are of the scenes, averaged over the trainings; `seeds` the mean of each training.
    """

    condition: Condition
    values: np.ndarray
    seeds: tuple[float, ...]
    is_share: bool = True  # values are 0 to 1; else numbers such as steps

    @property
    def mean(self) -> float:
        """The mean over scenes and trainings."""
        return float(self.values.mean())

    @property
    def n(self) -> int:
        """The number of scenes."""
        return len(self.values)

    @property
    def interval(self) -> Interval:
        """The 95 % interval over scenes: Wilson's for one training's successes, else a bootstrap of scenes.

        Shares that are equal in all scenes have Wilson's too, whatever the number of trainings: a bootstrap would be a
        point, and trainings that fail alike in the same scenes say no more of other scenes than one does. Of equal
        numbers of steps nothing says how far others could be off: they are a point.
        """
        alike = self.n < 2 or float(np.ptp(self.values)) == 0
        if self.is_share and (alike or (len(self.seeds) == 1 and set(self.values.tolist()) <= {0.0, 1.0})):
            return wilson(float(self.values.sum()), self.n)
        return Interval(self.mean, self.mean) if alike else cluster_bootstrap(self.values, range(self.n), seed=0)

    def against(self, baseline: "ConditionResult") -> Comparison:
        """Compare with the baseline, scene by scene."""
        return compare(self.values, baseline.values, seed=0)


def find(plan: StudyPlan, trial: Trial, measure: str) -> dict[str, ConditionResult]:
    """Return a measure of every condition of which something is done, by the condition's name, in the study's order."""
    of = MEASURES[measure].of
    by_condition: dict[str, list[np.ndarray]] = {}
    for repetition in plan.repetitions:
        for part in repetition.evaluations:
            if part.trial == trial and part.done is not None:
                values = np.array([of(record) for record in part.records], dtype=float)
                by_condition.setdefault(repetition.condition.name, []).append(values)
    return {
        condition.name: ConditionResult(
            condition=condition,
            values=np.mean(by_condition[condition.name], axis=0),
            seeds=tuple(float(values.mean()) for values in by_condition[condition.name]),
            is_share=MEASURES[measure].is_share,
        )
        for condition in plan.study.conditions
        if condition.name in by_condition
    }


def answer(findings: dict[str, ConditionResult], *, baseline: str, title: str) -> str:
    """Answer in a sentence: which conditions differ from the baseline, and which cannot be told from it.

    The exact test decides, corrected for the number of conditions: the interval is a bootstrap, which is too narrow
    where few scenes went differently, and looks at one condition alone.
    """
    if baseline not in findings:
        return "Nothing can be compared yet: the baseline has not been run."
    base = findings[baseline]
    others = {name: found.against(base) for name, found in findings.items() if name != baseline}
    sentence = f"{title}: '{baseline}' reaches {base.mean:.0%}."
    p_values = dict(zip(others, correct_for_many([change.p_value for change in others.values()]), strict=True))
    told = [name for name in others if p_values[name] < SIGNIFICANCE]
    better = [name for name in told if others[name].difference > 0]
    worse = [name for name in told if name not in better]
    same = [name for name in others if name not in told]
    for names, words in ((better, "More"), (worse, "Less"), (same, "Not told apart from it by so many episodes")):
        if names:
            described = (f"{name} ({_points(others[name], p_value=p_values[name])})" for name in names)
            sentence += f" {words}: {', '.join(described)}."
    return sentence + (f" p is corrected for {len(others)} comparisons." if len(others) > 1 else "")


def _points(change: Comparison, *, p_value: float) -> str:
    low, high = change.interval
    return f"{100 * change.difference:+.0f} points, {100 * low:+.0f} to {100 * high:+.0f}, p = {p_value:.2g}"


def mean_curve(findings: dict[str, ConditionResult]) -> tuple[Sequence[float], np.ndarray]:
    """Return places on the axis and values [conditions n] of the conditions that have a place on it."""
    placed = [found for found in findings.values() if found.condition.x is not None]
    return [float(found.condition.x or 0) for found in placed], np.array([found.values for found in placed])
