"""Runs are found by name, in a file of one's own, or by an entry point; what is not a run is called so."""

import importlib.metadata
import sys

import pytest

from pilot import configs, extensions
from pilot.cli import main
from pilot.train.config import TrainConfig

DESK = '''"""A desk."""

from dataclasses import replace

from pilot import configs
from pilot.train.config import TrainConfig


def {name}() -> TrainConfig:
    return replace(configs.get("debug"), name="{name}")


def with_arguments(steps: int = 3) -> TrainConfig:
    return replace(configs.get("debug"), steps=steps)


def something_else() -> int:
    return 3
'''


@pytest.fixture
def file(tmp_path, monkeypatch, request):
    """A file with runs, whose name no other test's file has."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = tmp_path / f"desk_{abs(hash(request.node.name))}.py"
    path.write_text(DESK.format(name="desk"))
    yield path
    sys.modules.pop(path.stem, None)


def test_a_run_of_ones_own_is_found_by_its_file(file, capsys):
    assert configs.get(f"{file}:desk").name == "desk"
    assert main.main(["train", f"{file}:desk", "--show"]) == 0
    assert "name" in capsys.readouterr().out


def test_a_run_that_a_docstring_shows_is_none(file):
    text = file.read_text().replace("A desk.", "A desk. Another:\n\ndef other() -> TrainConfig:\n    ...\n")
    file.write_text(text)
    assert list(configs.runs_in(file)) == ["desk"] and configs.get(str(file)).name == "desk"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (":with_arguments", r"takes arguments; a run is a function without any: declare it as `def with_arguments\(\)"),
        (":something_else", "returns a int; a run returns a TrainConfig"),
        (":deks", r"\.py declares no run deks; did you mean 'desk'"),
    ],
)
def test_what_is_not_a_run_is_called_so(file, name, message):
    with pytest.raises(ValueError, match=message):
        configs.get(f"{file}{name}")


def test_the_only_run_of_a_file_needs_no_name(file):
    assert configs.get(str(file)).name == "desk"
    file.write_text(file.read_text() + "\n\ndef table() -> TrainConfig:\n    return desk()\n")
    with pytest.raises(ValueError, match=r"say which run of .*\.py you mean, .*\.py:NAME; it declares desk, table"):
        configs.get(str(file))
    file.write_text("")
    with pytest.raises(ValueError, match="it declares none"):
        configs.get(str(file))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"mine\.py does not exist"):
        configs.get(f"{tmp_path}/mine.py:desk")


def test_a_run_is_found_by_an_entry_point(file, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(file.parent)])
    entry = importlib.metadata.EntryPoint(name="my_desk", value=f"{file.stem}:desk", group="pilot.runs")
    monkeypatch.setattr(extensions, "entry_points", lambda group: {"my_desk": entry} if group == "pilot.runs" else {})
    assert configs.get("my_desk").name == "desk" and "my_desk" in configs.names()
    with pytest.raises(ValueError, match="unknown run 'my_dsek'; did you mean 'my_desk'"):
        configs.get("my_dsek")


def test_a_function_that_is_not_declared_as_a_run_is_not_unknown(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def mine():\n    return 3\n")
    monkeypatch.setattr(configs, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"'mine' in .*mine\.py is not declared as a run; .* `def mine\(\) -> Tr"):
        configs.get("mine")


def test_runs_are_given_as_they_are():
    assert isinstance(configs.get("debug"), TrainConfig) and "debug" in configs.names()
