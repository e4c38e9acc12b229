"""One file per embodiment, each with a `ROBOT`; the folder is the list."""

import difflib
import importlib
import pkgutil

from pilot.types import Robot


def robot_names() -> list[str]:
    """The robots there are, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_robot(name: str) -> Robot:
    """The robot described in `robots/<name>.py`; an unknown name is a ValueError that suggests the nearest."""
    if name not in robot_names():
        near = difflib.get_close_matches(name, robot_names(), n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {robot_names()}"
        raise ValueError(f"unknown robot '{name}'; {hint} (a new robot is one file in {__path__[0]})")
    return importlib.import_module(f"{__name__}.{name}").ROBOT
