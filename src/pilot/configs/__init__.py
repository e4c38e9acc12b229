"""Runs by name: each file here holds plain functions that return a frozen `TrainConfig`; the folder is the list.

A run is a function without arguments whose annotation says that it returns a `TrainConfig`; others are helpers.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable

from pilot.names import choose
from pilot.train.config import TrainConfig


def names() -> list[str]:
    """Every run there is, sorted."""
    return sorted(_functions())


def get(name: str) -> TrainConfig:
    """The run `name`.

    Raises:
        ValueError: no such run; the nearest is suggested.
    """
    functions = _functions()
    return functions[choose("run", name, sorted(functions))]()


def _functions() -> dict[str, Callable[[], TrainConfig]]:
    found = {}
    for module in pkgutil.iter_modules(__path__):
        loaded = importlib.import_module(f"{__name__}.{module.name}")
        for name, function in inspect.getmembers(loaded, inspect.isfunction):
            if function.__module__ == loaded.__name__ and _makes_a_run(function):
                found[name] = function
    return found


def _makes_a_run(function: Callable) -> bool:
    signature = inspect.signature(function)
    return signature.return_annotation is TrainConfig and not signature.parameters
