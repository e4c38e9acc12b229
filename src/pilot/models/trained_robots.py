"""The robots that a model was trained on, with their descriptions and statistics, and how a checkpoint holds them.

A checkpoint of one robot has `robot` in its config.json, and norm_stats.json beside it, as older versions read it. One
of several has a list `robots` there, and a folder robots/NAME with the norm_stats.json of each.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilot.data.pipeline import common_camera_order
from pilot.data.stats import FILE as STATS
from pilot.data.stats import load_norm_stats, save_norm_stats
from pilot.models.base import Model
from pilot.names import suggest_names
from pilot.types import NormStats, Robot

FOLDER = "robots"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # what can be the name of a folder


@dataclass(frozen=True, kw_only=True)
class TrainedRobot:
    """A robot as a model knows it: its description, and the statistics of its state and its actions."""

    robot: Robot
    norm_stats: dict[str, NormStats]


TrainedRobots = Mapping[str, TrainedRobot]
"""Robots by their name, in the order in which they are listed."""


def by_name(robots: Iterable[TrainedRobot]) -> dict[str, TrainedRobot]:
    """Return robots by their name."""
    return {trained.robot.name: trained for trained in robots}


def one_robot(robot: Robot, norm_stats: dict[str, NormStats]) -> dict[str, TrainedRobot]:
    """Return what a bundle of one robot holds as its `robots`."""
    return {robot.name: TrainedRobot(robot=robot, norm_stats=norm_stats)}


def find_robot(robots: TrainedRobots, name: str | None) -> TrainedRobot:
    """Return the robot of this name; without a name the only one.

    Raises:
        ValueError: there are several and none is named, or there is none of that name; the message lists them.
    """
    if name is None:
        if len(robots) > 1:
            raise ValueError(f"this policy is for robots {', '.join(robots)}; name one: robot='{next(iter(robots))}'")
        return next(iter(robots.values()))
    if name not in robots:
        raise ValueError(
            f"this policy was not trained on robot '{name}'; {suggest_names(name, robots, listed='it knows')}. A new "
            f"robot needs statistics (pilot data stats DATASET --robot {name}) and training on its data (pilot train), "
            f"or, without training, to be added: pilot convert CHECKPOINT FOLDER --robot {name} --stats FILE"
        )
    return robots[name]


def check_robots(robots: TrainedRobots, model: Model) -> None:
    """Check that each robot fits the model, and that all of them can be in one batch.

    Raises:
        ValueError: there are none, or one has too many dims, cameras that the model has no tower for, or other cameras
            than its neighbours where the model cannot do with fewer.
    """
    if not robots:
        raise ValueError("a checkpoint needs a robot, with its statistics")
    for name, trained in robots.items():
        assert name == trained.robot.name, (name, trained.robot.name)
        _check_robot(trained.robot, model)
    if len(robots) == 1:
        return
    if unfit := [name for name in robots if not NAME.fullmatch(name)]:
        raise ValueError(f"robot '{unfit[0]}': the name of one of several holds letters, digits, '-', '_' and '.'")
    shown = {name: trained.robot.shown_cameras for name, trained in robots.items()}
    common_camera_order(list(shown[name].values()) for name in shown)
    if model.needs_all_cameras and len({frozenset(slots.values()) for slots in shown.values()}) > 1:
        cameras = {name: tuple(slots.values()) for name, slots in shown.items()}
        raise ValueError(f"this model needs the same cameras of every robot, and they have {cameras}; train one each")
    sizes: dict[str, tuple[str, int]] = {}
    for name, trained in robots.items():
        for camera, slot in shown[name].items():
            size = model.config.image_size(wrist=camera in trained.robot.wrist_cameras)
            other, known = sizes.setdefault(slot, (name, size))
            if known != size:
                raise ValueError(
                    f"camera '{slot}' of robot '{name}' is {size} pixels wide and that of '{other}' {known}: one is a "
                    "wrist camera and the other is not; give them different names or slots"
                )


def _check_robot(robot: Robot, model: Model) -> None:
    config = model.config
    for what, own in (("state", robot.state_dim), ("action", robot.action_dim)):
        if own > config.action_dim:
            raise ValueError(
                f"robot '{robot.name}' has {own} {what} dims, the model's action_dim is {config.action_dim}; "
                "raise it in the config"
            )
    towers, seen = config.vision_towers, tuple(robot.shown_cameras.values())
    if towers and (without := [slot for slot in seen if slot not in towers]):
        raise ValueError(
            f"robot '{robot.name}' shows cameras {without}, and the model's vision_towers are {towers}; make "
            f"it with vision_towers={seen}"
        )


def same_dims(robot: Robot, other: Robot) -> bool:
    """Return whether two robots have as many state and action dims."""
    return (robot.state_dim, robot.action_dim) == (other.state_dim, other.action_dim)


# --- in a checkpoint --------------------------------------------------------------------------------------------------


def folder_of(checkpoint: Path, name: str, robots: Iterable[str]) -> Path:
    """Return the folder in a checkpoint that holds what belongs to one of its robots: the checkpoint's own if alone."""
    return checkpoint / FOLDER / name if len(list(robots)) > 1 else checkpoint


def describe_robots(robots: TrainedRobots) -> dict[str, Any]:
    """Return the part of config.json that describes the robots."""
    described = [trained.robot.to_dict() for trained in robots.values()]
    return {"robot": described[0]} if len(described) == 1 else {"robots": described}


def save_stats(checkpoint: Path, robots: TrainedRobots) -> None:
    """Write the statistics of all robots into the folder of a checkpoint."""
    for name, trained in robots.items():
        folder = folder_of(checkpoint, name, robots)
        folder.mkdir(parents=True, exist_ok=True)
        save_norm_stats(folder, trained.norm_stats)


def load_robots(checkpoint: Path, config: Mapping[str, Any]) -> dict[str, TrainedRobot]:
    """Read the robots of a checkpoint whose config.json holds `config`.

    Raises:
        FileNotFoundError: the statistics of one are missing.
        ValueError: a description or statistics are damaged.
    """
    described = config["robots"] if "robots" in config else [config["robot"]]
    try:
        robots = [Robot.from_dict(values) for values in described]
    except (TypeError, AttributeError) as error:
        where = checkpoint / "config.json"
        raise ValueError(f"{where}: the checkpoint's robot is not one of this version of pilot: {error}") from error
    except ValueError as error:
        raise ValueError(f"{checkpoint / 'config.json'}: {error}") from error
    names = [robot.name for robot in robots]
    if len(set(names)) < len(names) or not names:
        raise ValueError(f"{checkpoint / 'config.json'} names the robots {names}; the checkpoint is damaged")
    folders = [folder_of(checkpoint, name, names) for name in names]
    for folder in folders:
        require_file(checkpoint, str((folder / STATS).relative_to(checkpoint)))
    stats = [load_norm_stats(folder) for folder in folders]
    for folder, found in zip(folders, stats, strict=True):
        if missing := {"state", "actions"} - found.keys():
            raise ValueError(
                f"{folder / STATS} has no '{min(missing)}' (got {sorted(found)}); fetch the checkpoint again"
            )
    pairs = zip(robots, stats, strict=True)
    return by_name(TrainedRobot(robot=robot, norm_stats=found) for robot, found in pairs)


def require_file(checkpoint: Path, name: str) -> None:
    """Check that a checkpoint has a file.

    Raises:
        FileNotFoundError: it has not.
    """
    if not (checkpoint / name).is_file():
        raise FileNotFoundError(
            f"{checkpoint} is not a pilot checkpoint: it has no {name}; make one with: pilot train NAME"
        )
