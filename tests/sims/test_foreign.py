"""A simulator that pilot has never heard of: evaluation and collection work in it, from its file alone."""

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from pilot.cli import main
from pilot.data.formats.lerobot import LeRobotDataset
from pilot.eval.evaluate import evaluate, evaluate_table
from pilot.eval.suites import check_control, load_suite

FILE = Path(__file__).with_name("foreign.py")


@pytest.fixture(scope="module")
def dots():
    return load_suite(str(FILE))


class GoesRight:
    """A policy that always goes to the lower right, and remembers its pictures."""

    metadata: ClassVar[dict[str, Any]] = {"replan_steps": 2, "fingerprint": "right"}

    def __init__(self) -> None:
        self.pictures = []

    def session(self, *, replan_steps: int) -> "GoesRight":
        return self

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        self.pictures.append(observation["images"]["top"])
        return {"actions": np.tile([0.1, -0.1], (4, 1)), "subtask": None, "timing": {}}


def test_the_expert_is_evaluated_in_one_process_and_in_two(dots, tmp_path):
    serial = evaluate("expert", suite=dots, episodes=6, workers=1, progress=False)
    parallel = evaluate("expert", suite=dots, episodes=6, workers=2, out=tmp_path, progress=False)
    assert serial.rate == parallel.rate == 1.0 and [r.scene for r in parallel.records] == list(range(6))
    assert serial.records[0].placed == serial.records[0].targets == 1
    assert len((tmp_path / "episodes.jsonl").read_text().splitlines()) == 6


def test_a_policy_is_evaluated_beside_the_controls(dots):
    policy = GoesRight()
    plain, blank, shuffled = evaluate_table(
        policy, suites=[dots], controls=["none", "blank_images", "shuffled_prompts"], episodes=12, progress=False
    )
    right = ["lower right" in record.prompt for record in plain.records]
    assert [record.success for record in plain.records] == right and 0 < sum(right) < 12
    assert blank.successes == shuffled.successes == plain.successes, "it neither looks nor listens"
    assert all(record.asked != record.prompt for record in shuffled.records)
    assert {picture.std() == 0 for picture in policy.pictures} == {True, False}, "some pictures were blanked"
    assert plain.to_json()["replan_steps"] == 2


def test_what_the_suite_does_not_offer_is_refused_by_name(dots, tmp_path, capsys):
    with pytest.raises(ValueError, match="suite 'dots' knows no subtasks, so there is no control 'oracle' in it"):
        check_control("oracle", dots)
    for option, lacking in (("--verbal", "a supervisor's words"), ("--web 4", "questions about its pictures")):
        assert main.main(f"collect {tmp_path / 'out'} --suite {FILE} {option}".split()) == 2
        assert f"suite 'dots' does not offer {lacking}" in capsys.readouterr().err
    assert main.main(f"collect {tmp_path / 'out'} --suite {FILE} --level 2".split()) == 2
    assert "suite 'dots' has no option --level" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_it_keeps_the_contract(capsys):
    assert main.main(["check", str(FILE)]) == 0
    assert "sim dots\n  ok" in capsys.readouterr().out


def test_the_command_line_collects_and_evaluates_in_it(tmp_path, capsys):
    out = tmp_path / "set"
    assert main.main(f"collect {out} --suite {FILE} --scenes 3 --episodes 2 --workers 2".split()) == 0
    dataset = LeRobotDataset(out, 4)
    assert len(dataset.episodes) == 6 and dataset.actions.shape[1] == 2 and tuple(dataset.cameras) == ("top",)
    assert dataset.episodes[5].labels == {"group": "dots", "square": 2, "episode": 1}
    assert (dataset.subtask_index < 0).all()
    assert json.loads((out / "collect.json").read_text())["squares"] == 3
    assert main.main(f"eval expert --suite {FILE} --episodes 4 --out {tmp_path / 'eval'}".split()) == 0
    assert "| dots | none | 4/4 = 100.0% |" in capsys.readouterr().out
