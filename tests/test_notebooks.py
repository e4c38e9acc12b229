"""The notebooks run from top to bottom, at a size that takes seconds."""

import json
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CHECKPOINT = str(ROOT / "checkpoints" / "nano")


def run(notebook: Path, **parameters: object) -> dict:
    """Run the cells of a notebook; `parameters` replace what its cells of that tag say. Returns its names."""
    scope: dict = {}
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), notebook.name, "exec"), scope)
            if "parameters" in cell["metadata"].get("tags", ()):
                scope |= {name: value for name, value in parameters.items() if name in scope}
    return scope


@pytest.fixture(autouse=True)
def no_window(monkeypatch, no_shape_checks):
    monkeypatch.setattr(plt, "show", lambda: None)
    with matplotlib.rc_context({"backend": "agg"}):
        yield
    plt.close("all")


def test_look_at_a_data_set(tmp_path, capsys):
    scope = run(NOTEBOOKS[0], folder=str(tmp_path / "homes"), scenes=1, episodes=1, checkpoint=CHECKPOINT)
    printed = capsys.readouterr().out
    assert f"task:    {scope['frame']['task']}" in printed
    assert "prefix: <bos>Task:" in printed and "fast: " in printed
    assert abs(scope["row"].actions).max() <= 2.0


def test_train_and_watch(tmp_path):
    scope = run(NOTEBOOKS[1], folder=str(tmp_path), run="debug", scenes=1, episodes=1, steps=3)
    assert [line["step"] for line in scope["lines"] if "loss/flow" in line] == [1, 2, 3]
    assert scope["flow"].shape == (11, scope["config"].model.action_horizon, 4)
    assert scope["seen"].weights.sum() <= 1.0 + 1e-5


def test_two_levels_and_real_time(capsys):
    scope = run(NOTEBOOKS[2], checkpoint=CHECKPOINT, turns=2)
    assert scope["names"][-1] in scope["session"].history[0].words
    assert scope["jump"]["continuing"] < scope["jump"]["alone"]
    assert "acted on" in capsys.readouterr().out
