"""One file per embodiment, each with a `ROBOT`; the folder is the list.

A file may also hold `ADAPTERS`, by name: conventions that models were pre-trained in (`Robot.adapter`), and
`from_openpi`, which reads what openpi's client for this robot sends.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from pilot.names import choose
from pilot.types import Adapter, Robot


def robot_names() -> list[str]:
    """The robots there are, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_robot(name: str) -> Robot:
    """The robot described in `robots/<name>.py`; an unknown name is a ValueError that suggests the nearest."""
    return _module(name).ROBOT


def load_adapter(robot: Robot) -> Adapter:
    """The convention that `robot.adapter` names, one that changes nothing if it names none."""
    if not robot.adapter:
        return Adapter()
    known = getattr(_module(robot.name), "ADAPTERS", {})
    if robot.adapter not in known:
        raise ValueError(f"robot '{robot.name}' has no adapter '{robot.adapter}'; it has {sorted(known)}")
    return known[robot.adapter]


def read_openpi(robot: Robot, observation: Mapping[str, Any]) -> Mapping[str, Any]:
    """An observation of openpi's client for `robot` in pilot's words; one that is so already is returned as it is.

    Raises:
        ValueError: it lacks a part.
    """
    if "images" in observation or robot.name not in robot_names():
        return observation
    read = getattr(_module(robot.name), "from_openpi", None)
    if read is None:
        return observation
    try:
        return read(observation)
    except KeyError as error:
        raise ValueError(
            f"the observation of robot '{robot.name}' has neither 'images' nor {error}; it has {sorted(observation)}"
        ) from error


def _module(name: str) -> ModuleType:
    choose("robot", name, robot_names(), note=f" (a new robot is one file in {__path__[0]})")
    return importlib.import_module(f"{__name__}.{name}")
