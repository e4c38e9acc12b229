"""Every study of the package can be planned: its runs exist and fit each other, its trials and measures are known."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from pilot import configs
from pilot.cli.study import configure
from pilot.contracts import run as contract
from pilot.data.storage.files import write_json
from pilot.eval.stand_ins import study_high_level
from pilot.eval.studies import STUDIES, load_study
from pilot.eval.studies.environments import EPISODES
from pilot.eval.study import parts
from pilot.eval.study.measures import MEASURES
from pilot.eval.study.parts import Asking, TrainingPart, change_suite
from pilot.eval.study.plan import StudyPlan, flops_per_row
from pilot.models.bundle import empty_model, load_bundle
from pilot.models.pi_config import PiConfig
from pilot.train.freezing import choose_learning
from pilot.train.start import OF_THE_RUN

NAMES = STUDIES.names()


def plan(name: str, folder, **options: object) -> StudyPlan:
    return StudyPlan(load_study(name), configure, root=folder, endpoint=("http://localhost:1/v1", "any"), **options)


@pytest.mark.parametrize("name", NAMES)
def test_its_conditions_fit(name, tmp_path):
    """Each training teaches what it asks for, and each starts from a model of its own shape."""
    trainings = {part.key: part for part in plan(name, tmp_path).parts if isinstance(part, TrainingPart)}
    for part in trainings.values():
        contract.check_losses(lambda part=part: part.config)
        contract.check_schedule(lambda part=part: part.config)
        choose_learning(empty_model(part.config.model), freeze=part.config.freeze)
    for repetition in plan(name, tmp_path).repetitions:
        chain = [part.config for part in repetition.parts if isinstance(part, TrainingPart)]
        for one, following in pairwise(config.model for config in chain):
            if isinstance(one, PiConfig):
                same = {field: getattr(following, field) for field in OF_THE_RUN}
                assert replace(one, **same) == following, repetition.name
        assert len({config.data.action_tokenizer for config in chain}) <= 1, repetition.name


@pytest.mark.parametrize("name", NAMES)
def test_its_trials_and_measures_are_known(name):
    study = load_study(name)
    assert set(study.measures) <= set(MEASURES) and study.question.endswith("?")
    for trial in (trial for trial in study.trials if trial.suite):
        suite = change_suite(trial.suite, trial.options, split=trial.split)
        assert suite.prompt(0) if not suite.name.startswith("rooms") else suite.title
        for condition in study.conditions:
            study_high_level(condition.high_level, suite=suite, endpoint=("http://localhost:1/v1", "any"))


def test_two_seeds_of_every_study_share_what_they_can(tmp_path):
    for name, trained, declared in (("sources", 30, 56), ("high_level_data", 18, 64)):
        two = plan(name, tmp_path, seeds=2)
        assert sum(isinstance(part, TrainingPart) for part in two.parts) == trained
        assert sum(len(r.condition.trainings) for r in two.repetitions) == declared


def test_what_stands_in_for_released_weights_is_one_for_all_seeds(tmp_path):
    first, second = [r for r in plan("sources", tmp_path, seeds=2).repetitions if r.condition.name == "full"]
    keys = [[part.key for part in r.parts if isinstance(part, TrainingPart)] for r in (first, second)]
    assert len(keys[0]) == len(keys[1]) == 4
    assert [a == b for a, b in zip(*keys, strict=True)] == [True, True, False, False]


def test_a_shipped_base_is_not_trained_again(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "SHIPPED", tmp_path / "shipped")
    repetition = plan("sources", tmp_path).repetitions[0]
    vision, base, words, _ = (part for part in repetition.parts if isinstance(part, TrainingPart))
    parts.SHIPPED.mkdir()
    write_json(
        parts.SHIPPED / "part.json", {"key": base.key, "commit": "abc", "unit": base.unit, "amount": base.amount}
    )
    again = plan("sources", tmp_path).repetitions[0]
    left = [part.key for part in again.parts_left]
    assert words.key in left and vision.key not in left and base.key not in left
    bases = [part.policy for part in again.parts if isinstance(part, TrainingPart) and part.key == base.key]
    assert bases == [parts.SHIPPED]
    # A shipped policy of another recipe is not used.
    changed = plan("sources", tmp_path).repetitions[0]
    write_json(parts.SHIPPED / "part.json", {"key": "0" * 10, "commit": "abc", "unit": base.unit, "amount": 1})
    assert base.key in [part.key for part in changed.parts_left]


def test_the_shipped_base_is_that_of_the_studies(tmp_path):
    """A change to its recipe needs a new one: `checkpoints/study_base/README.md`."""
    (base,) = {p.key for p in plan("sources", tmp_path).parts if p.unit == "row of study_base"}
    shipped = Path(__file__).parents[3] / parts.SHIPPED
    assert json.loads((shipped / "part.json").read_text())["key"] == base
    assert load_bundle(shipped, weights=False).model.config == configs.get("study_base").model


def test_environments_have_about_as_many_demonstrations_each_and_the_same_first_homes():
    counts = [homes * episodes for homes, episodes in EPISODES.items()]
    assert max(counts) / min(counts) < 1.08
    study = load_study("environments")
    assert {c.x for c in study.conditions if c.x} == set(EPISODES) == {1, 3, 12, 22, 53, 82, 104}
    (upper,) = (c for c in study.conditions if c.sees_tests)
    assert upper.name == "the test homes"


def test_questions_are_asked_of_pictures_that_no_training_has(tmp_path):
    asking = [part for part in plan("training", tmp_path).parts if isinstance(part, Asking)]
    assert len(asking) == len(load_study("training").conditions)
    sets = {data.path for part in plan("training", tmp_path).parts if isinstance(part, TrainingPart)
            for data in (collected.data for collected in part.sets)}  # fmt: skip
    assert asking[0].questions.data.path not in sets


def test_a_frozen_tower_makes_a_row_cheaper():
    frozen, free = configs.get("study_words"), replace(configs.get("study_words"), freeze=())
    assert flops_per_row(frozen) < 0.9 * flops_per_row(free)
    assert flops_per_row(configs.get("act_nano")) == 0


def test_all_recorded_evaluations_belong_to_a_study(tmp_path):
    """Their names are made of all that was asked: a change of these would lose days of work."""
    keys = {part.key for name in NAMES for part in plan(name, tmp_path).evaluations}
    recorded = {file.name.split("-")[1].split(".")[0] for file in Path("docs/study_records").iterdir()}
    assert recorded and not recorded - keys
