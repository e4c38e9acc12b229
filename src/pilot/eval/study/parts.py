"""The parts of a study's work: sets to collect, trainings, evaluations. Each is done once, for all studies.

A part has a key made of everything that it was asked for, its predecessors' keys included, and a folder by that name.
So conditions and studies that begin alike share what they have in common, and what was stopped goes on. A finished part
is not run again when pilot's code changes: the page names the commits that parts were made at, and removing a folder
makes it anew.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from pilot.data.formats.open_dataset import open_image_text
from pilot.data.storage.files import read_json, write_json
from pilot.eval.episode import Timekeeping
from pilot.eval.episode_log import fingerprint
from pilot.eval.evaluate import evaluate
from pilot.eval.offline.questions import measure_questions
from pilot.eval.provenance import commit
from pilot.eval.records import EpisodeRecord
from pilot.eval.stand_ins import study_high_level
from pilot.eval.study.declare import Condition, StudyData, Training, Trial
from pilot.eval.suites import load_suite
from pilot.infer.policy import load_policy
from pilot.models.registry import ADDED_IN
from pilot.sims.base import Suite
from pilot.sims.collect import collect, collect_web
from pilot.train.config import InitFrom, TrainConfig
from pilot.train.loop import train

EVALUATION_SEED = 0
RECORDED_FORMAT = 3
"""The format of models in the first records: fields that came later change no key where they have their default."""
SHIPPED = Path("checkpoints/study_base")
"""A policy that comes with the repository; the training with the key in its `part.json` need not be run."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A piece of work with a folder of its own under `root`."""

    root: Path
    kind: ClassVar[str]

    @property
    def asked(self) -> Any:
        """Everything that decides what comes out, as JSON."""
        raise NotImplementedError

    @property
    def amount(self) -> float:
        """How much work it is, in the unit of its kind (`plan.py` says how long one takes)."""
        raise NotImplementedError

    @property
    def unit(self) -> str:
        """What the amount counts: parts of one unit take alike."""
        raise NotImplementedError

    @property
    def parts_before(self) -> Sequence["Part"]:
        """The parts that must be done first."""
        return ()

    @cached_property
    def key(self) -> str:
        """Ten hex digits of what is asked."""
        return hashlib.sha256(json.dumps(self.asked, sort_keys=True).encode()).hexdigest()[:10]

    @property
    def folder(self) -> Path:
        """The folder with the part's result."""
        return self.root / f"{self.kind}-{self.key}"

    @property
    def done(self) -> dict[str, Any] | None:
        """The result, or None if it is not there."""
        path = self.folder / "done.json"
        return read_json(path, remedy=f"remove {self.folder} and run the study again") if path.exists() else None

    @property
    def seconds(self) -> float:
        """The time that it has taken so far, also when it was stopped in between."""
        path = self.folder / "seconds.json"
        return read_json(path, remedy=f"remove {path}") if path.exists() else 0.0

    def run(self, *, workers: int) -> None:
        """Do the work, from where it was stopped; write its result."""
        before, start = self.seconds, time.perf_counter()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "asked.json", self.asked)
        try:
            result = self.work(workers=workers)
        finally:
            write_json(self.folder / "seconds.json", before + time.perf_counter() - start)
        facts = {"commit": commit(), "unit": self.unit, "amount": self.amount}
        write_json(self.folder / "done.json", {**facts, **result})

    def work(self, *, workers: int) -> dict[str, Any]:
        """Do the work itself; return what belongs into `done.json`."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Collecting(Part):
    """A set of demonstrations or of web rows, in the folder that the runs name."""

    kind = "collect"
    data: StudyData

    @property
    def asked(self) -> Any:
        return plain(self.data)

    @property
    def recipe(self) -> Any:
        """What is in the set, wherever it lies."""
        return {name: value for name, value in plain(self.data).items() if name != "path"}

    @property
    def amount(self) -> float:
        return self.data.web_rows or self.data.scenes * self.data.episodes

    @property
    def unit(self) -> str:
        return "web row" if self.data.web_rows else f"demonstration in {self.data.suite}"

    @property
    def done(self) -> dict[str, Any] | None:
        return super().done if Path(self.data.path).exists() else None

    def work(self, *, workers: int) -> dict[str, Any]:
        data = self.data
        where: dict[str, Any] = {
            "scenes": data.scenes, "first_scene": data.first_scene, "seed": data.seed, "workers": workers,
            "image_size": data.image_size,
        }  # fmt: skip
        suite = change_suite(data.suite, data.options, split="train")
        if data.web_rows:
            collect_web(data.path, suite, rows=data.web_rows, **where)
        else:
            how: dict[str, Any] = {"verbal": data.verbal, "picture_every": data.picture_every}
            collect(data.path, suite, episodes_per_scene=data.episodes, **how, **where)
        return {"path": data.path}


@dataclass(frozen=True, kw_only=True)
class TrainingPart(Part):
    """One training of a chain; `before` is the one whose policy it starts from."""

    kind = "train"
    training: Training
    config: TrainConfig  # of the run with its changes, and the seed of this repetition
    sets: tuple[Collecting, ...]
    before: "TrainingPart | None" = None

    @property
    def asked(self) -> Any:
        config, recipes = plain(self.config), {part.data.path: part.recipe for part in self.sets}
        settings = {f.name: config[f.name] for f in fields(self.config) if not f.metadata.get("may_change")}
        settings["model"] = {
            name: value
            for name, value in config["model"].items()
            if ADDED_IN.get(name, 0) <= RECORDED_FORMAT or value != getattr(type(self.config.model), name)
        }
        # Paths say where things lie, not what they are.
        settings["init_from"] = self.before.key if self.before else _start(self.config.init_from)
        sources = [
            source | {"path": [Path(source["path"]).name, recipes.get(source["path"])]}
            for source in config["data"]["sources"]
        ]
        return settings | {"data": settings["data"] | {"sources": sources}}

    @property
    def amount(self) -> float:
        return self.config.steps * self.config.batch_size

    @property
    def unit(self) -> str:
        return f"row of {self.config.name}"

    @property
    def parts_before(self) -> Sequence[Part]:
        return (*([self.before] if self.before else []), *self.sets)

    @property
    def done(self) -> dict[str, Any] | None:
        """The result of this machine, or of the training that is shipped if it is this one; None if it is not there."""
        return super().done or self.shipped

    @cached_property
    def shipped(self) -> dict[str, Any] | None:
        """What `SHIPPED` says of itself, if it is the policy of this very training."""
        file = SHIPPED / "part.json"
        part = read_json(file, remedy=f"fetch {SHIPPED} again, or remove it") if file.exists() else None
        return part if part is not None and part["key"] == self.key else None

    @property
    def policy(self) -> Path:
        """The folder of the policy that comes out."""
        return SHIPPED if super().done is None and self.shipped else self.folder / "run" / "policy"

    def work(self, *, workers: int) -> dict[str, Any]:
        start = InitFrom(str(self.before.policy)) if self.before else self.config.init_from
        train(replace(self.config, init_from=start), out=self.folder / "run")
        return {"policy": str(self.policy)}


@dataclass(frozen=True, kw_only=True)
class Evaluating(Part):
    """One condition's policy in the scenes of one trial."""

    kind = "evaluate"
    condition: Condition
    trial: Trial
    policy: TrainingPart | Path
    endpoint: tuple[str, str] | None = None  # of a vision-language model: address and model

    @property
    def asked(self) -> Any:
        how, where = self.condition, plain(self.trial)
        policy = fingerprint(self.policy) if isinstance(self.policy, Path) else self.policy.key
        level = [how.high_level, self.endpoint] if how.high_level == "vlm" else how.high_level
        acting = {"high_level": level, "num_steps": how.num_steps, "replan_steps": self.replan_steps}
        acting |= {"latency_ms": how.latency_ms, "executor": how.executor, "joining": how.joining}
        scenes = {name: where[name] for name in ("suite", "options", "split", "control")}
        return {"policy": policy, **acting, **scenes, "seed": EVALUATION_SEED}

    @property
    def amount(self) -> float:
        return self.trial.episodes

    @property
    def unit(self) -> str:
        level = self.condition.high_level
        return f"episode in {self.trial.suite}{f' with {level}' if level else ''}"

    @property
    def parts_before(self) -> Sequence[Part]:
        return (self.policy,) if isinstance(self.policy, TrainingPart) else ()

    @property
    def replan_steps(self) -> int | None:
        """The actions of a chunk that are executed: as the condition says, or else the trial."""
        return self.condition.replan_steps or self.trial.replan_steps

    @property
    def suite(self) -> Suite:
        """The suite with the trial's changes."""
        return change_suite(self.trial.suite, self.trial.options, split=self.trial.split)

    @property
    def done(self) -> dict[str, Any] | None:
        """The result, if it has as many episodes as are asked for, or all that there are."""
        result = super().done
        if result is None:
            return None
        return result if len(result["records"]) >= self.trial.episodes or result.get("all") else None

    @property
    def records(self) -> list[EpisodeRecord]:
        """The episodes, in the order of scenes."""
        done = self.done
        assert done is not None, f"{self.folder} is not done"
        return [EpisodeRecord.from_json(row) for row in done["records"][: self.trial.episodes]]

    def work(self, *, workers: int) -> dict[str, Any]:
        how = self.condition
        policy = self.policy if isinstance(self.policy, Path) else self.policy.policy
        level = study_high_level(how.high_level, suite=self.suite, endpoint=self.endpoint)
        result = evaluate(
            str(policy),
            suite=self.suite,
            episodes=self.trial.episodes,
            seed=EVALUATION_SEED,
            control=self.trial.control,
            workers=workers,
            num_steps=how.num_steps,
            replan_steps=self.replan_steps,
            high_level=level,
            timekeeping=Timekeeping(
                clock=how.latency_ms is not None,
                latency_ms=how.latency_ms,
                executor=how.executor,
                joining=how.joining,
            ),
            out=self.folder,
        )
        return {"records": [record.to_json() for record in result.records]}


@dataclass(frozen=True, kw_only=True)
class Asking(Evaluating):
    """Questions about pictures of a set that no training has."""

    kind = "ask"
    questions: Collecting

    @property
    def asked(self) -> Any:
        policy = fingerprint(self.policy) if isinstance(self.policy, Path) else self.policy.key
        # Without `drawn`, older parts hold draws whose questions depend on their number: no pairs with these.
        return {"policy": policy, "questions": self.questions.recipe, "seed": EVALUATION_SEED, "drawn": "in one order"}

    @property
    def unit(self) -> str:
        return "question"

    @property
    def parts_before(self) -> Sequence[Part]:
        return (*super().parts_before, self.questions)

    def work(self, *, workers: int) -> dict[str, Any]:
        policy = load_policy(self.policy if isinstance(self.policy, Path) else self.policy.policy)
        camera = next(iter(policy.bundle.robots.values())).robot.cameras[0]
        rows = open_image_text(self.questions.data.path, camera=camera, loc_stride=policy.bundle.loc_stride)
        count = min(self.trial.episodes, len(rows))  # a set of web rows has about as many as were asked for
        if policy.model.config.generates_text:
            found = measure_questions(policy, rows, rows=count, seed=EVALUATION_SEED)
            records = [answer_record(k, a.question, a.is_right) for k, a in enumerate(found.answers)]
        else:
            records = [answer_record(k, "", False) for k in range(count)]
        return {"records": records, "all": count == len(rows)}


def answer_record(number: int, question: str, is_right: bool) -> dict[str, Any]:
    """Return the record of a question, as one of an episode of one step."""
    return EpisodeRecord(
        suite="questions", control="none", scene=number, episode=0, seed=EVALUATION_SEED, prompt=question,
        asked=question, success=is_right, steps=1, first_grasped=None, wrong_object=False, right_object_first=False,
        placed=int(is_right), targets=1, subtasks=(), infer_ms=0.0,
    ).to_json()  # fmt: skip


def change_suite(name: str, options: Any, *, split: str) -> Suite:
    """Return a suite with changes.

    Raises:
        ValueError: an unknown suite, or one that has no such option.
    """
    suite = load_suite(name)
    known = {f.name for f in fields(suite)}
    if wrong := set(options) - known:
        raise ValueError(f"suite '{name}' has no option {', '.join(sorted(wrong))}; it has {', '.join(sorted(known))}")
    return replace(suite, split=split, **options)


def plain(value: Any) -> Any:
    """Return a dataclass as what JSON holds."""
    return json.loads(json.dumps(asdict(value)))


def _start(init_from: InitFrom | None) -> Any:
    """Return what a chain starts from: nothing, or the fingerprint of a checkpoint that is there."""
    if init_from is None:
        return None
    here = Path(init_from.path)
    return [fingerprint(here) if here.is_dir() else init_from.path, init_from.kind, list(init_from.fresh)]
