"""What a study is made of. A study is one file in `eval/studies` (or of your own) that defines `STUDY`.

    STUDY = Study(
        question="Does thinking before acting help?",
        conditions=(Condition(name="own", policy="checkpoints/nano"), …),
        trials=(Trial(suite="homes-l2-multi"),),
    )

Every condition is tried in the same scenes and compared there with the first one, the baseline. A condition changes a
named run of `pilot.configs` by settings, as `--set` takes them, so each of its trainings is also a command of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

EPISODES = 200  # of a trial; pairs enough to see a difference of 14 points at 50 %


@dataclass(frozen=True, kw_only=True)
class StudyData:
    """A set that studies collect themselves: demonstrations, or web rows. Always in scenes of the train split."""

    path: str  # as sources of the runs name it
    suite: str
    first_scene: int
    scenes: int
    episodes: int = 1  # per scene
    web_rows: int | None = None  # write so many rows of questions instead
    verbal: bool = False  # a supervisor says each next step
    seed: int = 0
    image_size: int | None = None  # pixels on a side; None: as the suite has them
    picture_every: int = 1  # frames from one picture to the next
    options: Mapping[str, Any] = field(default_factory=dict)  # changes to the suite

    def sees_any(self, scenes: int) -> bool:
        """Return whether one of the first `scenes` of the train split is in the set."""
        return self.first_scene < scenes


@dataclass(frozen=True, kw_only=True)
class Training:
    """A named run with changes, as `pilot train RUN --set …` takes them. A source of weight 0 is left out."""

    run: str
    changes: tuple[str, ...] = ()
    one_for_all_seeds: bool = False  # the same in every repetition, like released weights


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One row of a study: how its policy comes to be, and how it acts.

    `trainings` go one after the other, each from the policy of the one before; conditions that begin alike share what
    they have in common. Without any, `policy` is a checkpoint that is there.
    """

    name: str
    what: str = ""  # in a few words
    trainings: tuple[Training, ...] = ()
    policy: str = ""
    high_level: str = ""  # of `infer/high_level` or `eval/stand_ins.py`; "": the policy's own
    num_steps: int | None = None  # of denoising; None: the policy's own, as for `replan_steps`
    replan_steps: int | None = None
    latency_ms: float | None = None  # the world goes on, and each answer is so late; None: it waits
    executor: Literal["open-loop", "rtc", "ensemble"] | None = None  # what it does until then: `eval/episode.py`
    joining: Literal["guided", "prefix", "trained"] | None = None  # how rtc continues a chunk; None: the policy's way
    x: float | None = None  # where it stands on the axis of a curve
    sees_tests: bool = False  # an upper bound: it learns from the scenes that it is tried in
    needs: str = ""  # what it waits for, if it cannot run yet


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The scenes that every condition is tried in: the first ones of a suite, one episode each.

    With `questions` nothing acts: so many questions of that set of web rows are asked, and a right answer is a success.
    """

    suite: str = ""
    questions: str = ""
    title: str = ""  # "": that of the suite
    options: Mapping[str, Any] = field(default_factory=dict)  # changes to the suite, such as the kinds of objects
    split: Literal["test", "train"] = "test"  # "train": scenes that no set of the study has, but for an upper bound
    control: str = "none"
    replan_steps: int | None = None  # actions of a chunk, where a condition does not say; None: the policy's own
    episodes: int = EPISODES

    @property
    def name(self) -> str:
        """The trial's name in tables: the suite's, with what differs from it."""
        told = {key: value if isinstance(value, tuple) else (value,) for key, value in self.options.items()}
        changes = [f"{key}={'+'.join(map(str, values))}" for key, values in told.items()]
        changes += [self.control] if self.control != "none" else []
        if self.questions:
            return "questions"
        return f"{self.suite} ({', '.join(changes)})" if changes else self.suite


@dataclass(frozen=True, kw_only=True)
class Study:
    """A question, and what answers it. The first condition is the baseline that all others are compared with."""

    question: str
    source: str  # of the experiment: paper and figure
    conditions: tuple[Condition, ...]
    trials: tuple[Trial, ...]
    equal: str  # what is the same in all conditions
    measures: tuple[str, ...] = ("success",)  # of `findings.py`; the first is the one that is drawn
    data: tuple[StudyData, ...] = ()
    plot: Literal["bars", "curve"] = "bars"
    x_label: str = ""  # of a curve; its fits are log-linear and saturating
    notes: str = ""  # what a reader has to know: what differs from the paper's experiment

    @property
    def baseline(self) -> Condition:
        """The condition that all others are compared with."""
        return self.conditions[0]

    def check(self) -> None:
        """Check that the study holds together; what needs its runs is checked when it is planned.

        Raises:
            ValueError: names that come twice, a condition without a policy, or a curve without places on its axis.
        """
        for what, names in (("condition", [c.name for c in self.conditions]), ("trial", [t.name for t in self.trials])):
            if not names:
                raise ValueError(f"a study needs at least one {what}")
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"two {what}s are called {', '.join(twice)}; give each a name of its own")
        for condition in self.conditions:
            if bool(condition.trainings) == bool(condition.policy) and not condition.needs:
                raise ValueError(f"condition '{condition.name}' has either trainings or a policy that is there")
        for trial in self.trials:
            if bool(trial.suite) == bool(trial.questions):
                raise ValueError("a trial has either a suite to act in or questions")
        if self.plot == "curve" and all(condition.x is None for condition in self.conditions):
            raise ValueError("no condition has a place `x` on the axis of the curve")
