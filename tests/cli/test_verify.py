"""`--verify` replays a checkpoint's record before it is evaluated or converted, and stops if its answers differ."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from pilot.cli import main
from pilot.data.tools.verify import accept
from pilot.eval import evaluate

NANO = Path(__file__).parents[2] / "checkpoints" / "nano"


@pytest.fixture
def changed(tmp_path):
    """nano with another weight, and a manifest that says that it was meant."""
    folder = tmp_path / "changed"
    shutil.copytree(NANO, folder)
    weights = load_file(folder / "model.safetensors")
    weights["action_out.weight"] *= 1.5
    save_file(weights, folder / "model.safetensors")
    accept(folder)
    return folder


@pytest.fixture(autouse=True)
def no_episodes(monkeypatch):
    monkeypatch.setattr(evaluate, "evaluate_table", lambda *args, **options: [])


def test_who_acts_as_recorded_goes_on(tmp_path, capsys):
    assert main.main(["eval", str(NANO), "--suite", "homes-l1", "--verify"]) == 0
    assert main.main(["convert", str(NANO), str(tmp_path / "half"), "--dtype", "bfloat16", "--verify"]) == 0
    assert capsys.readouterr().out.count(f"{NANO} acts as when it was written") == 2
    assert json.loads((tmp_path / "half" / "config.json").read_text())


@pytest.mark.parametrize("command", ["eval {} --suite homes-l1", "convert {} {}-half"])
def test_who_acts_otherwise_is_stopped(command, changed, capsys):
    assert main.main([*command.replace("{}", str(changed)).split(), "--verify"]) == 2
    assert "record" in capsys.readouterr().err and not Path(f"{changed}-half").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("eval expert --suite homes-l1 --verify", "the expert has no record"),
        (f"convert {NANO} half --from lerobot --verify", "which checkpoints of pilot have; this one is lerobot"),
    ],
)
def test_what_has_no_record_cannot_be_verified(command, message, capsys):
    assert main.main(command.split()) == 2
    assert message in capsys.readouterr().err
