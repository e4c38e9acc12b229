"""Runs by name: each file here holds plain functions that return a frozen `TrainConfig`; the folder is the list.

A run is a function without arguments that says that it returns a `TrainConfig`; others are helpers. Names are read from
the text of the files, so that a wrong one is answered at once: to import a run is to import torch.
"""

import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pilot.names import check_name

if TYPE_CHECKING:
    from pilot.train.config import TrainConfig

RUN = re.compile(r"^def ([a-z]\w*)\(\) -> TrainConfig:", re.MULTILINE)


def names() -> list[str]:
    """Every run there is, sorted."""
    return sorted(_modules())


def get(name: str) -> "TrainConfig":
    """The run `name`.

    Raises:
        ValueError: no such run; the nearest is suggested.
    """
    modules = _modules()
    module = importlib.import_module(f"{__name__}.{modules[check_name('run', name, sorted(modules))]}")
    return getattr(module, name)()


def _modules() -> dict[str, str]:
    """The file that each run is in."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return {name: file.stem for file in files for name in RUN.findall(file.read_text(encoding="utf-8"))}
