"""Things of a user's own are found by a path or by an entry point, and what is wrong with them is named."""

import importlib.metadata
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from pilot import extensions
from pilot.extensions import Extension, ExtensionPoint, import_file, is_file_reference

POINT = ExtensionPoint(
    kind="lamp",
    group="pilot.lamps",
    own_names=lambda: ["desk", "ceiling"],
    load_own=lambda name: Extension(name, sys.modules[__name__]),
    attribute="LAMP",
    instance_of=str,
)


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch):
    """What a test imports is forgotten after it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    extensions.entry_points.cache_clear()
    yield
    extensions.entry_points.cache_clear()
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(file: Path, text: str) -> str:
    file.write_text(text)
    return str(file)


def declare(monkeypatch, value: str) -> None:
    entry = importlib.metadata.EntryPoint(name="street", value=value, group=POINT.group)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry] if group == POINT.group else [])


def test_a_name_of_the_package_is_found_there():
    assert POINT.load("desk").value == "desk"
    assert POINT.names() == ["ceiling", "desk"]


def test_a_path_is_found_by_the_attribute_or_by_the_name_after_the_colon(tmp_path):
    file = write(tmp_path / "my_lamp.py", "LAMP = 'mine'\nSMALL = 'small'\n")
    found = POINT.load(file)
    assert found.value == "mine" and found.module.__name__ == "my_lamp"
    assert POINT.load(f"{file}:SMALL").value == "small"


def test_paths_are_told_from_names():
    assert is_file_reference("a/b.py") and is_file_reference("b.py:NAME")
    assert not is_file_reference("ur5") and not is_file_reference("b.pyc") and not is_file_reference("b:NAME")


@pytest.mark.parametrize("value", ["my_lamps", "my_lamps:TALL"])
def test_an_entry_point_is_a_module_or_an_object(tmp_path, monkeypatch, value):
    write(tmp_path / "my_lamps.py", "LAMP = 'module'\nTALL = 'object'\n")
    monkeypatch.syspath_prepend(tmp_path)
    declare(monkeypatch, value)
    assert POINT.names() == ["ceiling", "desk", "street"]
    found = POINT.load("street")
    assert found.value == ("object" if ":" in value else "module") and found.module.__name__ == "my_lamps"


def test_a_wrong_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"unknown lamp 'ceilin'; did you mean 'ceiling'.*path/to/file.py"):
        POINT.load("ceilin")


def test_a_missing_file_and_a_missing_attribute_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.py does not exist"):
        POINT.load(str(tmp_path / "nowhere.py"))
    file = write(tmp_path / "no_lamp.py", "LAMPE = 'typo'\n")
    with pytest.raises(ValueError, match="defines no LAMP, which a lamp needs; did you mean 'LAMPE'"):
        POINT.load(file)
    with pytest.raises(ValueError, match="defines no SMALL"):
        POINT.load(f"{file}:SMALL")


def test_another_type_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is a int; a lamp is a str"):
        POINT.load(write(tmp_path / "number_lamp.py", "LAMP = 3\n"))


def test_a_file_called_like_another_module_is_refused(tmp_path):
    with pytest.raises(ValueError, match="another module is called 'json'"):
        POINT.load(write(tmp_path / "json.py", "LAMP = 'mine'\n"))


def test_a_file_of_pilot_is_the_module_that_it_is():
    from pilot.robots import ur5

    assert import_file(Path(ur5.__file__)) is ur5


def test_what_a_file_defines_travels_to_processes_that_start_here(tmp_path):
    """As `multiprocessing` does, which hands `sys.path` on: a robot's adapter goes to the loader's workers."""
    module = import_file(Path(write(tmp_path / "shining.py", "def shine():\n    return 'bright'\n")))
    code = f"import sys, pickle; sys.path = {sys.path!r}; print(pickle.loads({pickle.dumps(module.shine)!r})())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "bright", result.stderr
