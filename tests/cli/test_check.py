"""`pilot check`: a file of one's own is judged by the code that judges pilot's own."""

import json
import sys

import pytest

from pilot.cli import main

ARM = """
from dataclasses import replace
from pilot.robots import load_robot

ROBOT = replace(load_robot("ur5"), name="my_arm")
BROKEN = replace(ROBOT, state_units=())
"""


@pytest.fixture
def arm_file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    file = tmp_path / "arm_to_check.py"
    file.write_text(ARM)
    yield file
    sys.modules.pop("arm_to_check", None)


def test_each_rule_is_said_to_be_kept(arm_file, capsys):
    assert main.main(["check", f"{arm_file}:ROBOT"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("robot ROBOT\n  ok ") and "ok      Actions come back from the pipeline" in out
    assert "BROKEN" not in out and "checks passed" in out


def test_a_broken_rule_is_named_and_the_others_are_checked(arm_file, capsys):
    assert main.main(["check", str(arm_file)]) == 2
    out, err = capsys.readouterr()
    assert "robot ROBOT" in out and "FAILED  Each dim" in out and "state_units has 0 units for 7 dims" in out
    assert "1 of 16 checks failed" in err
    assert main.main(["check", str(arm_file), "--json"]) == 2
    results = json.loads(capsys.readouterr().out)
    assert [result["name"] for result in results if result["error"]] == ["BROKEN"] and len(results) == 16


def test_a_file_without_anything_to_check_is_refused(tmp_path, monkeypatch, arm_file, capsys):
    assert main.main(["check", f"{arm_file}:ROBOTT"]) == 2
    assert "defines no ROBOTT that there is a contract for" in capsys.readouterr().err
    assert main.main(["check", "ur5"]) == 2
    assert "is not a Python file" in capsys.readouterr().err
