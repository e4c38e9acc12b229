"""The contract of a data set's entry: it names a robot that exists, and speaks of that robot's cameras."""

import inspect
from types import ModuleType

from pilot.contracts import require
from pilot.datasets import Dataset
from pilot.robots import load_robot


def find_in(module: ModuleType) -> dict[str, Dataset]:
    """Return the data sets of a module, those in its `DATASETS` and those with a name of their own, by their name."""
    values = [*vars(module).values(), *getattr(module, "DATASETS", ())]
    return {value.name: value for value in values if isinstance(value, Dataset)}


def check_robot(dataset: Dataset) -> None:
    """The data set's robot exists."""
    require(load_robot(dataset.robot).name == dataset.robot, f"'{dataset.robot}' is not the name of its robot")


def check_description(dataset: Dataset) -> None:
    """The entry says where the data set lies, which reader opens it and what it teaches."""
    require(bool(dataset.path) and not dataset.path.startswith("/"), f"path '{dataset.path}' should be relative")
    require(dataset.reader in ("robot", "web"), f"reader is '{dataset.reader}'; it should be 'robot' or 'web'")
    require(bool(dataset.objective), "objective is empty; say what its rows teach")


def check_layout(dataset: Dataset) -> None:
    """The layout of an RLDS set has the robot's cameras, a rate, and a place for the instruction."""
    if (layout := dataset.layout) is None:
        return
    robot = load_robot(dataset.robot)
    unknown = set(layout.cameras) - set(robot.cameras)
    require(not unknown, f"cameras {sorted(unknown)} are none of robot '{robot.name}', which has {robot.cameras}")
    require(bool(layout.instruction), "instruction is empty; name the features that hold the task in words")
    require(layout.fps > 0, f"fps is {layout.fps:g}; give the frames per second of its episodes")
    require(len(inspect.signature(layout.columns).parameters) == 1, "columns should take an episode's features alone")


def check_making(dataset: Dataset) -> None:
    """The arguments that make the data set are those of its collector."""
    if not dataset.collect:
        return
    from pilot.sims.collect import collect, collect_web  # a simulator need not be installed

    maker = collect if dataset.reader == "robot" else collect_web
    try:
        inspect.signature(maker).bind("out", **dataset.collect)
    except TypeError as error:
        raise ValueError(f"collect={dict(dataset.collect)} does not fit {maker.__name__}: {error}") from error


CHECKS = (check_robot, check_description, check_layout, check_making)
