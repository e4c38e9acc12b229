"""Runs by name: each file here holds plain functions that return a frozen `TrainConfig`; the folder is the list.

A run is a function without arguments that is declared to return a `TrainConfig`: `def pi05_desk() -> TrainConfig:`.
Other functions are helpers. Runs of your own are found by `path/to/file.py:pi05_desk`, or by an entry point of the
group `pilot.runs` (`pilot.extensions`).

Names are read from the text of the files, and configs are free of torch: a wrong name or setting is answered at once.
"""

import ast
import importlib
import re
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING

from pilot.extensions import Extension, ExtensionPoint, is_file_reference
from pilot.names import suggest_names

if TYPE_CHECKING:
    from pilot.train.config import TrainConfig

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Return the names of all runs: those of this folder, and entry points."""
    return RUNS.names()


def get(reference: str) -> "TrainConfig":
    """Return the run that `reference` names: `nano_stage1`, `path/to/file.py:pi05_desk` or an entry point.

    The name after the colon may be left out where the file declares one run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no run has that name (the nearest is suggested), or what has the name is not a run.
    """
    if is_file_reference(reference):
        reference = _complete(reference)
    elif reference not in names():
        _refuse_undeclared(reference)
    function = RUNS.load(reference).value
    if function.__code__.co_argcount or function.__code__.co_kwonlyargcount:
        raise ValueError(
            f"'{reference}' takes arguments; a run is a function without any: declare it as "
            f"`def {function.__name__}() -> TrainConfig:`"
        )
    config = function()
    from pilot.train.config import TrainConfig

    if not isinstance(config, TrainConfig):
        raise ValueError(f"'{reference}' returns a {type(config).__name__}; a run returns a TrainConfig")
    return config


def summaries() -> dict[str, str]:
    """Return the first line of each run's docstring, by name; it is read from the text of the files."""
    found = {name: what for file in sorted(FOLDER.glob("*.py")) for name, what in runs_in(file).items()}
    return {name: found.get(name, "declared as an entry point") for name in names()}


def runs_in(file: Path) -> dict[str, str]:
    """Return the first line of the docstring of each run that a file declares, by name; the file is not imported.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist; give the path of a Python file")
    functions = [node for node in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)]
    return {node.name: (ast.get_docstring(node) or "").partition("\n")[0] for node in functions if _is_run(node)}


def _is_run(function: ast.FunctionDef) -> bool:
    match function.returns:
        case ast.Name(id="TrainConfig") | ast.Constant(value="TrainConfig"):
            return not function.name.startswith("_") and not any(ast.iter_child_nodes(function.args))
    return False


def _complete(reference: str) -> str:
    """Return a reference to a file with the name of its run, which may be left out where the file declares one.

    Raises:
        ValueError: the file does not declare that run, or several and the reference names none.
    """
    file, _, name = reference.partition(".py:")
    file = Path(reference if not name else f"{file}.py")
    declared = runs_in(file)
    if not name and len(declared) == 1:
        return f"{file}:{next(iter(declared))}"
    if not name:
        listed = f"it declares {', '.join(declared)}" if declared else "it declares none: `def NAME() -> TrainConfig:`"
        raise ValueError(f"say which run of {file} you mean, {file}:NAME; {listed}")
    if name not in declared and not re.search(rf"^(def )?{re.escape(name)}\b", file.read_text("utf-8"), re.MULTILINE):
        raise ValueError(f"{file} declares no run {name}; {suggest_names(name, declared)}")
    return reference


@cache
def _runs_of(folder: Path) -> dict[str, str]:
    """Return the file that each run of a folder is in; the files of pilot's own are read once."""
    return {name: file.stem for file in sorted(folder.glob("*.py")) for name in runs_in(file)}


def _load_own(name: str) -> Extension:
    module = importlib.import_module(f"{__name__}.{_runs_of(FOLDER)[name]}")
    return Extension(getattr(module, name), module)


def _refuse_undeclared(name: str) -> None:
    """Raise `ValueError` if a file of this folder has a function of that name which is not declared as a run."""
    definition = re.compile(rf"^def {re.escape(name)}\(", re.MULTILINE)
    for file in sorted(FOLDER.glob("*.py")):
        if file != Path(__file__) and definition.search(file.read_text(encoding="utf-8")):
            raise ValueError(
                f"'{name}' in {file} is not declared as a run; if it is one, write `def {name}() -> TrainConfig:`"
            )


RUNS = ExtensionPoint(
    kind="run",
    group="pilot.runs",
    own_names=lambda: sorted(_runs_of(FOLDER)),
    load_own=_load_own,
    instance_of=FunctionType,
)
