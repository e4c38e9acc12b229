"""A study as parts in order: what is shared, how long it takes, what so many episodes can show.

The order is stated: all conditions with the first seed, then all with the second. A part that two conditions need is
done once, before the first of them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pilot.data.storage.files import read_json
from pilot.eval.policies import fetch_policy
from pilot.eval.stats import visible_difference
from pilot.eval.study.declare import Condition, Study, Training, Trial
from pilot.eval.study.measures import check_measures
from pilot.eval.study.parts import Asking, Collecting, Evaluating, Part, TrainingPart
from pilot.models.bundle import empty_model
from pilot.models.pi import Pi
from pilot.train.config import TrainConfig
from pilot.train.freezing import choose_learning
from pilot.train.plan.flops import full_row, per_row
from pilot.train.sources import without_empty_sources

Configure = Callable[[Training], TrainConfig]
"""From a named run and its changes to a config (`cli/study.py`)."""

SEED_STEP = 1000  # from the seed of a training to that of its repetition
CPU_FLOPS = 5e10  # operations per second of two cores, as nano trained; until a part has been measured on this machine
SECONDS = {"demonstration": 0.2, "web row": 0.01, "episode": 3.0, "row": 0.02, "question": 0.05}
"""Likewise, by the unit's first word."""


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """A condition with one seed: its parts in order, and the evaluation of each trial."""

    condition: Condition
    seed: int
    evaluations: tuple[Evaluating, ...]

    @property
    def name(self) -> str:
        """What lists call it."""
        return f"{self.condition.name}, seed {self.seed}" if self.condition.trainings else self.condition.name

    @property
    def is_done(self) -> bool:
        """Whether all of its trials have been evaluated."""
        return all(part.done for part in self.evaluations)

    @property
    def parts(self) -> list[Part]:
        """All parts, in order."""
        return in_order(self.evaluations)

    @property
    def parts_left(self) -> list[Part]:
        """The parts that still have to run, in order. A finished evaluation needs neither its policy nor its sets."""
        return in_order(self.evaluations, skip_done=True)


class StudyPlan:
    """Everything that a study does, in order.

    Raises:
        ValueError: a run or a setting is unknown, a set has no recipe, or a condition would learn from scenes that it
            is tried in.
    """

    def __init__(
        self,
        study: Study,
        configure: Configure,
        *,
        root: Path,
        seeds: int = 1,
        endpoint: tuple[str, str] | None = None,
    ) -> None:
        check_measures(study)
        self.study, self.configure, self.root, self.endpoint = study, configure, root, endpoint
        self.sets = {data.path: Collecting(root=root, data=data) for data in study.data}
        waiting = {c.name: c.needs for c in study.conditions if c.needs}
        if endpoint is None:
            asks = {c.name for c in study.conditions if c.high_level == "vlm"}
            waiting |= dict.fromkeys(asks, "an endpoint: --vlm URL --vlm-model NAME")
        self.waiting = waiting
        self.repetitions = [
            self._repeat(condition, seed)
            for seed in range(seeds)
            for condition in study.conditions
            if condition.name not in waiting and (condition.trainings or seed == 0)
        ]
        self.rates = measured_rates(root)

    @property
    def evaluations(self) -> list[Evaluating]:
        """The evaluations of all repetitions, in order."""
        return [part for repetition in self.repetitions for part in repetition.evaluations]

    @property
    def parts(self) -> list[Part]:
        """All parts in order, each once."""
        return in_order(self.evaluations)

    def seconds_left(self, part: Part) -> float:
        """Return how long a part will take from where it is; 0 if it is done."""
        if part.done is not None:
            return 0.0
        return max(part.amount * self.seconds_per_unit(part) - part.seconds, 1.0)

    def seconds_per_unit(self, part: Part) -> float:
        """Return how long one of a part's units takes: as measured on this machine, or else a guess."""
        if (measured := self.rates.get(part.unit)) is not None:
            return measured
        if isinstance(part, TrainingPart) and (flops := flops_per_row(part.config)):
            return flops / CPU_FLOPS
        return next(seconds for word, seconds in SECONDS.items() if part.unit.startswith(word))

    def schedule(self, budget: float | None) -> Iterator[tuple[Repetition, float, bool]]:
        """Yield each repetition with the seconds that it adds, and whether the budget holds until its end."""
        planned: set[str] = set()
        total = 0.0
        for repetition in self.repetitions:
            new = [part for part in repetition.parts_left if part.key not in planned]
            planned |= {part.key for part in new}
            seconds = sum(self.seconds_left(part) for part in new)
            total += seconds
            yield repetition, seconds, budget is None or total <= budget

    def describe(self, budget: float | None) -> str:
        """Return what the study is about to do, for a terminal."""
        study, parts = self.study, self.parts
        counts = {kind: [p for p in parts if isinstance(p, kind)] for kind in (Collecting, TrainingPart, Evaluating)}
        asked = sum(len(r.condition.trainings) for r in self.repetitions)
        episodes = sum(part.amount for part in counts[Evaluating] if not isinstance(part, Asking))
        rows = list(self.schedule(budget))
        lines = [
            f"{study.question} ({study.source})",
            f"{len(study.conditions)} conditions: {len(counts[Collecting])} sets to collect, "
            f"{len(counts[TrainingPart])} trainings ({asked} without sharing), {episodes:.0f} episodes; "
            f"{hours(sum(seconds for _, seconds, _ in rows))} left to run here.",
            f"Equal in all: {study.equal}.",
            self.effect(),
            "",
            *(f"{hours(seconds):>10}  {'' if fits else 'over the budget: '}{r.name}{' (done)' if r.is_done else ''}"
              for r, seconds, fits in rows),
            *(f"{'–':>10}  {name}: waits for {what}" for name, what in self.waiting.items()),
        ]  # fmt: skip
        return "\n".join(lines)

    def effect(self) -> str:
        """Return which difference so many episodes can show, or so many questions where nothing acts."""
        acting = [trial for trial in self.study.trials if trial.suite]
        n = min(trial.episodes for trial in acting or self.study.trials)
        units, places = ("episodes", "scenes") if acting else ("questions", "pictures")
        return (
            f"{n} {units} of a condition show, with 80 % power, a difference of {visible_difference(n, rate=0.5):.0%} "
            f"at a success of 50 %, and of {visible_difference(n, rate=0.8):.0%} at 80 %; in the same {places} less."
        )

    def _repeat(self, condition: Condition, seed: int) -> Repetition:
        trainings: list[TrainingPart] = []
        for training in condition.trainings:
            config = self.configure(training)
            if not training.one_for_all_seeds:
                config = replace(config, seed=config.seed + SEED_STEP * seed)
            config = without_empty_sources(config)
            sets = tuple(self._set_of(source.path, config) for source in config.data.sources)
            before = trainings[-1] if trainings else None
            trainings.append(
                TrainingPart(root=self.root, training=training, config=config, sets=sets, before=before)
            )  # fmt: skip
        for trial in self.study.trials:
            check_scenes(condition, trial, trainings)
        policy = trainings[-1] if trainings else Path(fetch_policy(condition.policy))
        evaluations = tuple(self._evaluate(condition, trial, policy) for trial in self.study.trials)
        return Repetition(condition=condition, seed=seed, evaluations=evaluations)

    def _evaluate(self, condition: Condition, trial: Trial, policy: TrainingPart | Path) -> Evaluating:
        if not trial.questions:
            return Evaluating(
                root=self.root, condition=condition, trial=trial, policy=policy, endpoint=self.endpoint
            )  # fmt: skip
        if trial.questions not in self.sets:
            raise ValueError(f"trial '{trial.name}' asks questions of {trial.questions}, which the study does not have")
        return Asking(
            root=self.root, condition=condition, trial=trial, policy=policy, questions=self.sets[trial.questions]
        )  # fmt: skip

    def _set_of(self, path: str, config: TrainConfig) -> Collecting:
        if path not in self.sets:
            raise ValueError(
                f"run '{config.name}' learns from {path}, which the study has no recipe for: nobody could say which "
                f"scenes are in it; it has {', '.join(self.sets) or 'none at all'}"
            )
        return self.sets[path]


def in_order(parts: Iterable[Part], *, skip_done: bool = False) -> list[Part]:
    """Return parts, each once and behind all that it needs.

    `skip_done`: without parts that have a result, and without what is needed for those alone.
    """
    found: dict[str, Part] = {}
    for part in parts:
        if skip_done and part.done is not None:
            continue
        found |= {before.key: before for before in in_order(part.parts_before, skip_done=skip_done)}
        found[part.key] = part
    return list(found.values())


def check_scenes(condition: Condition, trial: Trial, trainings: Sequence[TrainingPart]) -> None:
    """Check that a condition learns from no scene that it is tried in. Sets hold scenes of the train split alone.

    Raises:
        ValueError: it would, and is not declared as an upper bound; or nobody can know.
    """
    if trial.questions and any(part.data.path == trial.questions for t in trainings for part in t.sets):
        raise ValueError(f"condition '{condition.name}' would learn from the questions that it is asked")
    if trial.split == "test" or condition.sees_tests:
        return
    if not trainings or trainings[0].config.init_from is not None:
        raise ValueError(
            f"condition '{condition.name}' starts from weights that the study did not make, so trial '{trial.name}' in "
            "scenes of the train split may hold scenes that they learned from; try it in the test split"
        )
    seen = [part.data for training in trainings for part in training.sets if part.data.sees_any(trial.episodes)]
    if seen:
        raise ValueError(
            f"condition '{condition.name}' would learn from scenes that it is tried in ({seen[0].path}); let its sets "
            f"begin at scene {trial.episodes}, or declare it as an upper bound: sees_tests=True"
        )


def flops_per_row(config: TrainConfig) -> float:
    """Return the floating-point operations of a row in training; 0 for a model that is not counted."""
    model = empty_model(config.model)
    if not isinstance(model, Pi):
        return 0.0
    learning = choose_learning(model, freeze=config.freeze, lora=config.lora)
    return sum(per_row(learning, config, full_row(config)).values())


def measured_rates(root: Path) -> dict[str, float]:
    """Return the seconds of one unit of each kind that parts under `root` have taken."""
    spent: dict[str, tuple[float, float]] = {}
    for part in (done_part(folder) for folder in sorted(root.glob("*-*"))):
        if part is not None:
            unit, amount, seconds = part
            before = spent.get(unit, (0.0, 0.0))
            spent[unit] = (before[0] + amount, before[1] + seconds)
    return {unit: seconds / amount for unit, (amount, seconds) in spent.items() if amount}


def done_part(folder: Path) -> tuple[str, float, float] | None:
    """Return unit, amount and seconds of a finished part; None of one that is not."""
    if not (folder / "done.json").exists():
        return None
    done = read_json(folder / "done.json", remedy=f"remove {folder}")
    return done["unit"], done["amount"], read_json(folder / "seconds.json", remedy=f"remove {folder}")


def hours(seconds: float) -> str:
    """Write a time as a plan does: `40 s`, `12 min`, `3.4 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5940 else f"{seconds / 3600:.1f} h"
