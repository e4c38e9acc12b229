"""`pilot push` and `pilot pull`: what is on the hub is what was here, with a card of measured numbers."""

import json
import re
import shutil
from pathlib import Path

import pytest
from data import hub_server
from data.bodies import record_robot

from pilot.cli import main
from pilot.robots import load_robot

NANO = Path(__file__).parents[2] / "checkpoints" / "nano"
RESULT = {
    "suite": "homes-l1", "control": "none", "policy": "x", "episodes": 200, "successes": 150, "success": 0.75,
    "interval95": [0.6857, 0.8048],
}  # fmt: skip


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_for_tests")
    with hub_server.instead_of_the_real_one(tmp_path / "cache", monkeypatch) as served:
        yield served


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    folder = tmp_path / "nano"
    shutil.copytree(NANO, folder, ignore=shutil.ignore_patterns("README.md"))
    (folder / "notes.txt").write_text("not part of a checkpoint")
    (folder / ".secret").write_text("neither")
    return folder


def test_a_checkpoint_goes_to_the_hub_and_comes_back(hub, checkpoint, tmp_path, capsys):
    (tmp_path / "results.json").write_text(json.dumps([RESULT]))
    command = ["push", str(checkpoint), "me/nano", "--license", "apache-2.0", "--private"]
    assert main.main([*command, "--results", str(tmp_path / "results.json")]) == 0
    assert "me/nano" in capsys.readouterr().out and hub.private == {"me/nano"}
    uploaded = hub.commits[hub.repos["me/nano"]["main"]]
    assert "notes.txt" not in uploaded and ".secret" not in uploaded
    assert uploaded["model.safetensors"] == (NANO / "model.safetensors").read_bytes()
    card = uploaded["README.md"].decode()
    assert '\nlicense: "apache-2.0"\n' in card and '"robot:homes"' in card
    assert "| homes-l1 | none | 75.0% | 68.6% – 80.5% | 200 |" in card
    assert "| `homes` | room, wrist | x, y, z, suction, holding | x, y, z, suction | 10 Hz |" in card
    assert "**nano_expert**, 1600 steps: `l1_single` (18%)" in card
    assert re.search(r"with 1\.\d+ million weights", card) and 'load_policy("hf://me/nano")' in card
    assert main.main(["pull", "me/nano", str(tmp_path / "back")]) == 0
    back = {str(p.relative_to(tmp_path / "back")) for p in (tmp_path / "back").rglob("*") if p.is_file()}
    assert back == set(uploaded)
    assert (tmp_path / "back" / "config.json").read_bytes() == (NANO / "config.json").read_bytes()
    assert main.main(["pull", "me/nano", str(tmp_path / "back")]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_a_data_set_has_a_card_of_its_own(hub, tmp_path, capsys):
    folder = record_robot(tmp_path / "disc", load_robot("pusht"), seed=0)
    assert main.main(["push", str(folder), "hf://datasets/me/disc", "--license", "cc-by-4.0", "--notes", "Tests."]) == 0
    uploaded = hub.commits[hub.repos["me/disc"]["main"]]
    card = uploaded["README.md"].decode()
    assert "robot `pusht`" in card and "| `action` | float32 | [2] |" in card and "Tests." in card and "LeRobot" in card
    assert main.main(["pull", "datasets/me/disc", str(tmp_path / "back")]) == 0
    assert {"meta/info.json", "README.md"} <= set(uploaded)
    assert (tmp_path / "back" / "meta" / "info.json").read_bytes() == (folder / "meta" / "info.json").read_bytes()
    assert main.main(["push", str(folder), "me/disc", "--license", "x", "--results", str(folder)]) == 2
    assert "--results are of a checkpoint" in capsys.readouterr().err


def test_a_card_that_somebody_wrote_is_kept(hub, checkpoint):
    (checkpoint / "README.md").write_text("mine")
    assert main.main(["push", str(checkpoint), "me/nano", "--license", "mit"]) == 0
    assert hub.commits[hub.repos["me/nano"]["main"]]["README.md"] == b"mine"


def test_a_dry_run_asks_nobody(hub, checkpoint, capsys):
    assert main.main(["push", str(checkpoint), "me/nano", "--license", "mit", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "No evaluation came with this checkpoint" in out and '"config.json"' in out and not hub.asked


def test_mistakes_are_one_line(hub, checkpoint, tmp_path, capsys, monkeypatch):
    (tmp_path / "bad.json").write_text('[{"suite": "homes-l1"}]')
    for arguments, words in (
        (["push", str(checkpoint), "nano", "--license", "mit"], "write owner/name"),
        (["push", str(checkpoint), "me/nano"], "--license"),
        (["push", str(tmp_path), "me/nano", "--license", "mit"], "is neither a checkpoint"),
        (
            ["push", str(checkpoint), "me/x", "--license", "mit", "--results", str(tmp_path / "bad.json")],
            "has no control",
        ),
        (["pull", "me/none", str(tmp_path / "new")], "no model 'me/none' on the hub"),
    ):
        assert main.main(arguments) == 2
        err = capsys.readouterr().err
        assert words in err and err.count("\n") == 1, err
    hub.read_only = True
    assert main.main(["push", str(checkpoint), "me/nano", "--license", "mit"]) == 2
    assert "hf auth login" in capsys.readouterr().err
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main.main(["push", str(checkpoint), "me/nano", "--license", "mit"]) == 2
    err = capsys.readouterr().err
    assert "does not answer" in err and err.count("\n") == 1
