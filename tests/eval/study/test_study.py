"""A whole study of two conditions on debug data: planned, killed, resumed, shared, and its page."""

import gzip
import hashlib
import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from pilot.cli import main
from pilot.cli.study import configure
from pilot.data.storage.files import write_json
from pilot.eval.offline.questions import QuestionAnswer
from pilot.eval.studies import load_study
from pilot.eval.study import parts as parts_module
from pilot.eval.study.declare import Condition, Study, StudyData, Training, Trial
from pilot.eval.study.engine import run_study
from pilot.eval.study.page import command
from pilot.eval.study.parts import Asking, Collecting, Evaluating, TrainingPart
from pilot.eval.study.plan import StudyPlan, hours
from pilot.eval.study.recorded import record_evaluations, restore_evaluations
from pilot.robots.homes import ROBOT as HOMES
from pilot.train.config import TrainConfig


def debug_study(folder: Path, **changes: object) -> Study:
    """Two conditions that share their first training."""
    small = (f"data.sources.single.path={folder}", "steps=2", "batch_size=2", "optim.warmup_steps=1")
    first = Training(run="debug", changes=small)
    values: dict = {
        "question": "Does a second training help?",
        "source": "nobody's paper",
        "equal": "nothing",
        "conditions": (
            Condition(name="once", trainings=(first,)),
            Condition(name="twice", trainings=(first, Training(run="debug", changes=(*small, "seed=5")))),
        ),
        "trials": (Trial(suite="homes-l1", episodes=1),),
        "measures": ("success", "progress", "steps"),
        "data": (StudyData(path=str(folder), suite="homes-l1", first_scene=1000, scenes=2),),
    }
    return Study(**(values | changes))


def plan_of(tmp_path: Path, study: Study, **options: object) -> StudyPlan:
    return StudyPlan(study, configure, root=tmp_path / "parts", **options)


def test_a_study_runs_is_killed_goes_on_and_leaves_a_page(tmp_path, monkeypatch, capsys):
    study, out = debug_study(tmp_path / "data" / "single"), tmp_path / "once_and_twice"
    plan, trained = plan_of(tmp_path, study), []
    real = parts_module.train

    def train(config, **options):
        trained.append(config.seed)
        if len(trained) == 2:  # in the middle of the second training
            real(config, **options, until=1)
            raise KeyboardInterrupt
        return real(config, **options)

    monkeypatch.setattr(parts_module, "train", train)
    with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
        run_study(plan, budget=None, workers=1, out=out)
    first, second = (part for part in plan.parts if isinstance(part, TrainingPart))
    assert first.done and not second.done and second.seconds > 0
    assert second.asked["init_from"] == first.key
    assert [r.name for r in plan.repetitions if r.is_done] == ["once, seed 0"]

    page = run_study(plan, budget=None, workers=1, out=out)
    assert trained == [0, 5, 5], "the first training is not run again, and shared"
    assert all(part.done for part in plan.parts)
    text = page.read_text()
    assert "Does a second training help?" in text and "twice" in text and "<svg" in text
    markdown = (out / "results.md").read_text()
    assert "| once | 1 × 1 | 0.0 (0.0 – 79.3)" in markdown
    assert f"pilot train debug --out {second.folder / 'run'}" in markdown
    rows = json.loads((out / "results.json").read_text())
    assert [row["condition"] for row in rows if row["measure"] == "steps"] == ["once", "twice"]
    assert (out / "plot.svg").read_text().startswith("<svg")
    line = (out / "line.md").read_text()
    assert line.startswith("## Does a second training help?") and "1 episodes for each of 1 trainings" in line

    assert run_study(plan_of(tmp_path, study), budget=1e-9, workers=1, out=out) == page, "nothing is left to run"
    assert trained == [0, 5, 5]
    assert plan_of(tmp_path, study).rates["row of debug"] > 0
    assert all(seconds == 0 for _, seconds, _ in plan_of(tmp_path, study).schedule(None))

    for part in plan.parts:  # what was found is enough on another machine, without sets and policies
        if not isinstance(part, Evaluating):
            shutil.rmtree(part.folder)
    shutil.rmtree(tmp_path / "data")
    assert not any(repetition.parts_left for repetition in plan_of(tmp_path, study).repetitions)
    run_study(plan_of(tmp_path, study), budget=None, workers=1, out=out)
    assert trained == [0, 5, 5] and "| once | 1 × 1 | 0.0 (0.0 – 79.3)" in (out / "results.md").read_text()


def test_recorded_evaluations_are_enough_to_go_on_elsewhere(tmp_path):
    study, records = debug_study(tmp_path / "data" / "single"), tmp_path / "records"
    plan = plan_of(tmp_path, study)
    run_study(plan, budget=None, workers=1, out=tmp_path / "study")
    assert record_evaluations(plan, records) == 2 and record_evaluations(plan, records) == 0

    elsewhere = plan_of(tmp_path / "elsewhere", study)
    assert restore_evaluations(elsewhere, records) == 2 and restore_evaluations(elsewhere, records) == 0
    assert not any(repetition.parts_left for repetition in elsewhere.repetitions) and not elsewhere.rates
    run_study(elsewhere, budget=None, workers=1, out=tmp_path / "again")
    rates = [
        [row for row in json.loads((tmp_path / out / "results.json").read_text()) if row["measure"] != "ms"]
        for out in ("study", "again")
    ]
    assert rates[0] == rates[1] and rates[0]

    (shorter, _) = sorted(records.iterdir())
    whole = shorter.read_bytes()
    fewer = json.loads(gzip.decompress(whole)) | {"records": []}
    shorter.write_bytes(gzip.compress(json.dumps(fewer).encode()))
    assert record_evaluations(plan, records) == 1 and shorter.read_bytes() == whole, "more episodes replace fewer"
    part = next(part for part in elsewhere.evaluations if part.key in shorter.name)
    write_json(part.folder / "done.json", fewer)
    assert restore_evaluations(elsewhere, records) == 1 and part.done["records"], "here as well"

    (damaged, _) = sorted(records.iterdir())
    damaged.write_bytes(damaged.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"is damaged .*; fetch it again, or remove it"):
        restore_evaluations(plan_of(tmp_path / "third", study), records)


def test_a_budget_stops_before_the_part_that_would_go_over_it(tmp_path, capsys):
    plan = plan_of(tmp_path, debug_study(tmp_path / "single"))
    page = run_study(plan, budget=1e-3, workers=1, out=tmp_path / "study")
    assert "its next part takes" in capsys.readouterr().out
    assert "Not run yet." in page.read_text() and not any(part.done for part in plan.parts)


def test_a_plan_says_what_is_shared_and_what_it_can_show(tmp_path):
    study = debug_study(tmp_path / "single", trials=(Trial(suite="homes-l1", episodes=200),))
    plan = plan_of(tmp_path, study, seeds=2)
    said = plan.describe(1.0)
    assert "1 sets to collect, 4 trainings (6 without sharing), 800 episodes" in said
    assert "a difference of 14% at a success of 50 %" in said
    assert said.count("over the budget: ") == 4
    assert [r.name for r in plan.repetitions] == ["once, seed 0", "twice, seed 0", "once, seed 1", "twice, seed 1"]
    assert {part.config.seed for part in plan.parts if isinstance(part, TrainingPart)} == {0, 5, 1000, 1005}


def test_the_key_follows_what_is_learned_and_not_where_it_is_computed(tmp_path):
    def key(*changes: str, folder: str = "a", scenes: int = 2) -> str:
        path = tmp_path / folder / "single"
        training = Training(run="debug", changes=(f"data.sources.single.path={path}", *changes))
        data = StudyData(path=str(path), suite="homes-l1", first_scene=1000, scenes=scenes)
        study = debug_study(path, conditions=(Condition(name="a", trainings=(training,)),), data=(data,))
        return next(part.key for part in plan_of(tmp_path, study).parts if isinstance(part, TrainingPart))

    same = key()
    assert same == key("parallel.threads=2", "logging.log_every=7") == key(folder="b")
    assert len({same, key("steps=21"), key("seed=1"), key(scenes=3)}) == 4


def test_a_set_without_a_recipe_is_refused(tmp_path):
    study = debug_study(tmp_path / "single", data=())
    with pytest.raises(ValueError, match="no recipe for: nobody could say which scenes are in it"):
        plan_of(tmp_path, study)


@pytest.mark.parametrize(
    ("first_scene", "changes", "message"),
    [
        (9, {}, "would learn from scenes that it is tried in"),
        (10, {"changes": ("init_from=checkpoints/nano",)}, "starts from weights that the study did not make"),
        (10, {}, None),
        (9, {"sees_tests": True}, None),
    ],
)
def test_no_condition_learns_from_scenes_that_it_is_tried_in(tmp_path, first_scene, changes, message):
    path = tmp_path / "single"
    settings = (f"data.sources.single.path={path}", *changes.get("changes", ()))
    condition = Condition(
        name="a", trainings=(Training(run="debug", changes=settings),), sees_tests=changes.get("sees_tests", False)
    )
    study = debug_study(
        path,
        conditions=(condition,),
        trials=(Trial(suite="homes-l1", split="train", episodes=10),),
        data=(StudyData(path=str(path), suite="homes-l1", first_scene=first_scene, scenes=5),),
    )
    if message is None:
        assert plan_of(tmp_path, study).repetitions
    else:
        with pytest.raises(ValueError, match=message):
            plan_of(tmp_path, study)


def test_sets_are_collected_in_the_train_split_whatever_they_say(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(parts_module, "collect", lambda path, suite, **options: asked.append((suite.split, options)))
    data = StudyData(path=str(tmp_path), suite="homes-l1", first_scene=7, scenes=2, options={"kinds": ("hat",)})
    Collecting(root=tmp_path, data=data).run(workers=1)
    ((split, options),) = asked
    assert split == "train" and options["first_scene"] == 7
    with pytest.raises(ValueError, match="suite 'homes-l1' has no option kind; it has"):
        parts_module.change_suite("homes-l1", {"kind": 1}, split="train")


def test_measures_are_checked_before_anything_runs(tmp_path):
    for measures, message in (
        (("succes",), "unknown measure 'succes'; did you mean 'success'"),
        (("ms",), "a share"),
    ):
        with pytest.raises(ValueError, match=message):
            plan_of(tmp_path, debug_study(tmp_path / "single", measures=measures))


def test_policies_that_were_asked_other_numbers_of_questions_are_paired_by_question(tmp_path, monkeypatch):
    """A done part with more questions serves a study of fewer; parts of an older way to draw them serve none."""
    robot = SimpleNamespace(robot=HOMES)
    policy = SimpleNamespace(
        model=SimpleNamespace(config=SimpleNamespace(generates_text=True)),
        bundle=SimpleNamespace(loc_stride=16, robots={"homes": robot}),
    )

    def answer(policy, dataset, rows, *, robot):
        return [QuestionAnswer(question=f"question {row}", right="", said="") for row in rows]

    monkeypatch.setattr(parts_module, "load_policy", lambda path: policy)
    monkeypatch.setattr(parts_module, "open_image_text", lambda *_, **__: range(1000))
    monkeypatch.setattr("pilot.eval.offline.questions._answers", answer)
    data = StudyData(path=str(tmp_path), suite="homes-l1", first_scene=0, scenes=1, web_rows=1000)
    questions = Collecting(root=tmp_path, data=data)

    def asking(name: str, episodes: int) -> Asking:
        checkpoint = tmp_path / name
        checkpoint.mkdir(exist_ok=True)
        (checkpoint / "config.json").write_text(name)
        trial = Trial(questions=str(tmp_path), episodes=episodes)
        return Asking(root=tmp_path, condition=Condition(name=name, policy=str(checkpoint)), trial=trial,
                      policy=checkpoint, questions=questions)  # fmt: skip

    asking("before", 500).run(workers=1)
    asking("now", 40).run(workers=1)
    prompts = [[record.prompt for record in asking(name, 40).records] for name in ("before", "now")]
    assert prompts[0] == prompts[1] and len(set(prompts[0])) == 40

    part = asking("older", 40)
    asked = {name: value for name, value in part.asked.items() if name != "drawn"}
    key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:10]
    part.run(workers=1)
    part.folder.rename(tmp_path / f"ask-{key}")
    assert asking("older", 40).done is None, "what was asked in another way is asked again"


@pytest.mark.parametrize("writes", [True, False])
def test_a_set_with_fewer_questions_than_asked_for_is_done_when_all_are_asked(tmp_path, monkeypatch, writes):
    answer = SimpleNamespace(question="where is the cup", is_right=True)
    robot = SimpleNamespace(robot=HOMES)
    policy = SimpleNamespace(
        model=SimpleNamespace(config=SimpleNamespace(generates_text=writes)),
        bundle=SimpleNamespace(loc_stride=16, robots={"homes": robot}),
    )
    monkeypatch.setattr(parts_module, "load_policy", lambda path: policy)
    monkeypatch.setattr(parts_module, "open_image_text", lambda *_, **__: range(7))
    monkeypatch.setattr(
        parts_module, "measure_questions", lambda *_, rows, **__: SimpleNamespace(answers=[answer] * min(rows, 7))
    )
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "config.json").write_text("{}")
    questions = Collecting(
        root=tmp_path, data=StudyData(path=str(tmp_path), suite="homes-l1", first_scene=0, scenes=1, web_rows=10)
    )

    def asking(episodes: int) -> Asking:
        trial = Trial(questions=str(tmp_path), episodes=episodes)
        condition = Condition(name="a", policy=str(tmp_path / "policy"))
        return Asking(root=tmp_path, condition=condition, trial=trial, policy=Path(condition.policy),
                      questions=questions)  # fmt: skip

    asking(5).run(workers=1)
    assert len(asking(5).records) == 5 and asking(10).done is None, "two more can be asked"
    asking(10).run(workers=1)
    assert len(asking(10).records) == 7 and [record.success for record in asking(10).records] == [writes] * 7


def test_a_study_of_questions_alone_can_be_planned(tmp_path):
    path = str(tmp_path / "questions")
    data = StudyData(path=path, suite="homes-l1", first_scene=0, scenes=9, web_rows=50)
    study = debug_study(tmp_path / "single", trials=(Trial(questions=path, episodes=50),))
    said = plan_of(tmp_path, replace(study, data=(*study.data, data))).describe(None)
    assert "50 questions of a condition show" in said and "in the same pictures less" in said


def test_the_command_of_a_training_is_that_training(tmp_path, monkeypatch):
    """With a source of weight 0, which is in neither."""
    asked: list[TrainConfig] = []
    monkeypatch.setattr("pilot.train.early_checks.check_paths", lambda config, **_: None)
    monkeypatch.setattr("pilot.train.loop.train", lambda config, **_: asked.append(config))
    training = Training(run="nano_stage2", changes=("data.sources.web.weight=0", "steps=7"))
    data = tuple(
        StudyData(path=source.path, suite="homes-l1", first_scene=1000, scenes=2)
        for source in configure(training).data.sources
    )
    study = debug_study(tmp_path, conditions=(Condition(name="a", trainings=(training,)),), data=data)
    (part,) = (part for part in plan_of(tmp_path, study).parts if isinstance(part, TrainingPart))
    assert main.main(shlex.split(command(part))[1:]) == 0
    assert asked == [part.config] and part.config.steps == 7
    assert [source.label for source in part.config.data.sources] == ["l1_single", "l2_single", "l2_multi", "l2_verbal"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conditions": ()}, "at least one condition"),
        ({"trials": (Trial(suite="homes-l1"), Trial(suite="homes-l1"))}, "two trials are called homes-l1"),
        ({"conditions": (Condition(name="a"),)}, "'a' has either trainings or a policy"),
        ({"plot": "curve"}, "no condition has a place `x`"),
        ({"trials": (Trial(),)}, "either a suite to act in or questions"),
    ],
)
def test_a_study_that_does_not_hold_together_is_told_so(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        debug_study(tmp_path, **changes).check()


def test_the_studies_are_listed_with_their_questions(capsys):
    assert main.main(["study", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"study": "high_level", "question": "Who should decide what comes next?"} in rows
    assert main.main(["study", "--plan", "--seeds", "2"]) == 2
    assert "--plan, --seeds: of which study?" in capsys.readouterr().err
    assert main.main(["study", "high_level", "--json"]) == 2
    assert "--json is for the list of studies" in capsys.readouterr().err


def test_a_study_of_ones_own_is_planned_from_its_file(tmp_path, capsys):
    mine = tmp_path / "study_of_mine.py"
    mine.write_text(
        "from pilot.eval.study.declare import *\n"
        "STUDY = Study(question='Mine?', source='me', equal='all', trials=(Trial(suite='homes-l1'),),\n"
        "    conditions=(Condition(name='a', policy='checkpoints/nano'),\n"
        "                Condition(name='b', policy='checkpoints/nano', num_steps=1)))\n"
    )
    assert main.main(["study", str(mine), "--plan", "--episodes", "20", "--out", str(tmp_path)]) == 0
    assert "Mine? (me)" in (said := capsys.readouterr().out) and "40 episodes" in said
    assert main.main(["study", str(mine), "--only", "c"]) == 2
    assert "unknown condition 'c'; known: a, b" in capsys.readouterr().err
    with pytest.raises(ValueError, match="unknown study 'high_levels'; did you mean 'high_level'"):
        load_study("high_levels")


def test_a_second_file_is_refused_and_not_dropped(capsys):
    assert main.main(["study", "high_level", "mine.py", "--plan"]) == 2
    assert "unexpected argument 'mine.py'" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "message"), [("3", "must be a time such as 3h"), ("0h", "must be a time")])
def test_a_budget_is_a_time(text, message, capsys):
    assert main.main(["study", "high_level", "--budget", text]) == 2
    assert message in capsys.readouterr().err


def test_times_are_written_as_people_say_them():
    assert [hours(s) for s in (40, 720, 12240)] == ["40 s", "12 min", "3.4 h"]
