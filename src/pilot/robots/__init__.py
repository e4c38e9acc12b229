"""One file per embodiment, each with a `ROBOT`; the folder is the list, and a file of your own is as good.

A file may also hold `ADAPTERS`, by name: conventions that models were pre-trained in (`Robot.adapter`), and
`from_openpi`, which reads what openpi's client for this robot sends.

`load_robot("path/to/arm.py")` reads a robot of your own; from then on this process knows it by its name too. A
checkpoint carries its robot, so that it loads without the file, unless the robot has an adapter: that is code, which a
checkpoint never holds. Then load the file first, or declare it as an entry point (`pilot.extensions`).
"""

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from pilot.extensions import Extension, ExtensionPoint, import_file, is_file_reference, module_names
from pilot.types import Adapter, MotionLimits, Robot


def _own(name: str) -> Extension:
    module = importlib.import_module(f"{__name__}.{name}")
    return Extension(module.ROBOT, module)


ROBOTS = ExtensionPoint(
    kind="robot",
    group="pilot.robots",
    own_names=lambda: module_names(sys.modules[__name__]),
    load_own=_own,
    attribute="ROBOT",
    instance_of=Robot,
)
_from_files: dict[str, Extension] = {}
"""Robots that were loaded by a path, by their name."""


def robot_names() -> list[str]:
    """Return the names of all robots: files of this folder, entry points, and those loaded from files."""
    return sorted({*ROBOTS.names(), *_from_files})


def load_robot(reference: str) -> Robot:
    """Return the robot that `reference` names: `ur5`, `path/to/arm.py`, `path/to/arms.py:LEFT` or an entry point.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no robot has that name (the nearest is suggested), or the file has no `ROBOT`, or another robot's
            name.
    """
    return _find(reference).value


def robots_in(file: Path) -> dict[str, Robot]:
    """Return every robot that a file of your own defines, by its name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it defines none.
    """
    robots = [value for value in vars(import_file(file)).values() if isinstance(value, Robot)]
    if not robots:
        raise ValueError(f"{file} defines no robot; a robot is `ROBOT = Robot(name=…)`, see docs/adding.md")
    return {robot.name: robot for robot in robots}


def load_adapter(robot: Robot) -> Adapter:
    """Return the convention that `robot.adapter` names, or one that changes nothing if it names none.

    Raises:
        ValueError: the robot's file has no such adapter, or is not known here.
    """
    if not robot.adapter:
        return Adapter()
    if robot.name not in robot_names():
        raise ValueError(
            f"robot '{robot.name}' needs the adapter '{robot.adapter}' of its file, which is not known here; load the "
            "file first (pilot.robots.load_robot), or declare it as an entry point of the group 'pilot.robots'"
        )
    known = getattr(_module(robot), "ADAPTERS", {})
    if robot.adapter not in known:
        raise ValueError(f"robot '{robot.name}' has no adapter '{robot.adapter}'; it has {sorted(known)}")
    return known[robot.adapter]


def limits_of(robot: Robot) -> MotionLimits | None:
    """Return the limits that a robot declares, or those of its file where a checkpoint is older than they are.

    None where nobody has said what it may do, or where the file's robot has other action dims.
    """
    if robot.limits is not None or robot.name not in robot_names():
        return robot.limits
    known = _find(robot.name).value
    same = (known.action_names, known.action_units) == (robot.action_names, robot.action_units)
    return known.limits if same else None


def read_openpi(robot: Robot, observation: Mapping[str, Any]) -> Mapping[str, Any]:
    """Translate an observation of openpi's client for `robot` into pilot's words; return others as they are.

    Raises:
        ValueError: it lacks a part.
    """
    if "images" in observation or robot.name not in robot_names():
        return observation
    read = getattr(_module(robot), "from_openpi", None)
    if read is None:
        return observation
    try:
        return read(observation)
    except KeyError as error:
        raise ValueError(
            f"the observation of robot '{robot.name}' has neither 'images' nor {error}; it has {sorted(observation)}"
        ) from error


def _find(reference: str) -> Extension:
    if reference in _from_files:
        return _from_files[reference]
    found = ROBOTS.load(reference)
    name = found.value.name
    if is_file_reference(reference):
        other = _find(name) if name in robot_names() else found
        if other.value != found.value:
            raise ValueError(f"{reference}: another robot is called '{name}'; give this one a name of its own")
        _from_files.setdefault(name, found)
    return found


def _module(robot: Robot) -> ModuleType:
    return _find(robot.name).module
