"""`pilot suites`, `pilot robots`, `pilot runs`: what is known by name, for people and for programs."""

import json
import sys

import pytest

from pilot import configs
from pilot.cli.main import main
from pilot.eval.suites import all_suites
from pilot.robots import robot_names

KNOWN = {
    "suites": ("suite", lambda: list(all_suites())),
    "robots": ("robot", robot_names),
    "runs": ("run", configs.names),
}


@pytest.mark.parametrize("verb", KNOWN)
def test_lists_have_one_line_each(verb, capsys):
    key, names = KNOWN[verb]
    assert main([verb]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[0] == key
    assert [line.split()[0] for line in lines] == names()


@pytest.mark.parametrize("verb", KNOWN)
def test_programs_get_json(verb, capsys):
    key, names = KNOWN[verb]
    assert main([verb, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row[key] for row in rows] == names()


def test_runs_say_what_they_are(capsys):
    main(["runs", "--json"])
    what = {row["run"]: row["what"] for row in json.loads(capsys.readouterr().out)}
    assert what["debug"] == "The whole loop in seconds, on a handful of demonstrations."
    assert all(what.values())


def test_a_suite_whose_package_is_missing_is_listed_as_such(capsys):
    main(["suites", "--json"])
    rows = {row["suite"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["homes-l1"]["installed"] is True
    assert rows["metaworld-mt10"]["offers"] == "expert" and "installed" in rows["libero-10"]


FILES = {
    "robots": ("robot", "from dataclasses import replace\nfrom pilot.robots import load_robot\n"
               "ROBOT = replace(load_robot('ur5'), name='desk_arm')\n", ["desk_arm"]),
    "suites": ("suite", "from pilot.sims.homes import SUITES as HOMES\nSUITES = HOMES[:1]\n", ["homes-l1"]),
    "runs": ("run", "def desk() -> TrainConfig:\n    \"\"\"Pens into cups.\"\"\"\n", ["desk"]),
}  # fmt: skip


@pytest.mark.parametrize("verb", FILES)
def test_what_a_file_of_ones_own_has_is_listed(verb, tmp_path, monkeypatch, capsys):
    key, text, names = FILES[verb]
    monkeypatch.setattr(sys, "path", list(sys.path))
    file = tmp_path / f"listed_{verb}.py"
    file.write_text(text)
    assert main([verb, str(file), "--json"]) == 0
    assert [row[key] for row in json.loads(capsys.readouterr().out)] == names
    file = tmp_path / f"empty_{verb}.py"
    file.write_text("SOMETHING = 3\n")
    assert main([verb, str(file)]) == 2
    assert f"empty_{verb}.py " in capsys.readouterr().err
