"""Many embodiments in one run: each source's robot, its statistics, and the pipeline that its rows go through.

A run is for one robot (`TrainConfig.robot`), whose statistics its policy carries; other sources may be of other robots.
Theirs are computed once, kept beside the run (`norm_stats/<source>.json`) and read again when it goes on.
"""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from pilot.data.action_chunks import whole_chunks
from pilot.data.formats.episodes import EpisodeDataset
from pilot.data.loading.loader import RobotRows
from pilot.data.mixture import RowSource
from pilot.data.pipeline import Pipeline
from pilot.data.stats import (
    RobotStats,
    check_dims,
    compute_robot_stats,
    load_norm_stats,
    merge_stats,
    save_norm_stats,
    select_dims,
)
from pilot.models.bundle import Bundle
from pilot.models.registry import require_pi
from pilot.robots import load_adapter, load_robot
from pilot.train.config import Source, TrainConfig
from pilot.types import NormStats, Robot

Stats = dict[str, NormStats]
FOLDER = "norm_stats"


def robot_of(source: Source, config: TrainConfig) -> Robot:
    """Return the robot that recorded a source: its own, or else the run's."""
    return load_robot(source.robot or config.robot)


def update_description(stored: Robot, robot: Robot) -> Robot:
    """Return a checkpoint's robot with the units, grippers and limits of its file, if both have the same dims.

    Checkpoints may be older than the file. What changes the meaning of numbers stays as the weights have learned it.
    """
    if (stored.state_names, stored.action_names) != (robot.state_names, robot.action_names):
        return stored
    return replace(
        stored,
        state_units=robot.state_units or stored.state_units,
        action_units=robot.action_units or stored.action_units,
        grippers=robot.grippers or stored.grippers,
        limits=robot.limits or stored.limits,
    )


def shown_cameras(robot: Robot) -> list[str]:
    """Return the cameras that models are shown, the main one first."""
    return [camera for camera in robot.cameras if robot.slot(camera) is not None]


def fit_to_robot(dataset: EpisodeDataset, robot: Robot, source: Source) -> None:
    """Set the cameras that `dataset` reads to those that models are shown of `robot`, and check the rest.

    Raises:
        ValueError: other dims than the robot's, or none of its cameras.
    """
    remedy = ", or give the source the robot that recorded it"
    check_dims(dataset.path, robot, state=dataset.state, actions=dataset.actions, remedy=remedy)
    shown = shown_cameras(robot)
    names = {camera: source.cameras.get(camera, camera) for camera in dataset.cameras}
    if unknown := set(source.cameras) - set(dataset.cameras):
        raise ValueError(f"{dataset.path} has cameras {dataset.cameras}, not {sorted(unknown)}; see Source.cameras")
    if not (cameras := tuple(camera for camera, name in names.items() if name in shown)):
        raise ValueError(
            f"{dataset.path} has cameras {dataset.cameras}, robot '{robot.name}' shows models {shown}; say which is "
            "which in Source.cameras"
        )
    if missing := sorted(set(shown) - {names[camera] for camera in cameras}):
        warnings.warn(f"{dataset.path} has no {missing} of robot '{robot.name}': masked in its rows", stacklevel=2)
    # Less is rounding: 29.97 is often written as 30.
    if abs(dataset.fps - robot.control_hz) > 0.5:
        warnings.warn(
            f"{dataset.path} has {dataset.fps:g} frames per second, robot '{robot.name}' is controlled at "
            f"{robot.control_hz:g} Hz: its chunks are of another length in time",
            stacklevel=2,
        )
    dataset.cameras = cameras


def datasets_of(robot_name: str, config: TrainConfig, sources: Mapping[str, RowSource]) -> list[EpisodeDataset]:
    """Return the demonstrations of one robot, in the order of the sources."""
    pairs = zip(config.data.sources, sources.values(), strict=True)
    own = [rows for source, rows in pairs if robot_of(source, config).name == robot_name]
    return [rows.dataset for rows in own if isinstance(rows, RobotRows)]


def stats_of(robot_name: str, config: TrainConfig, sources: Mapping[str, RowSource]) -> Stats:
    """Compute the statistics of one robot in a run, over the sources that share them (`data.stats_per`)."""
    robot = load_robot(robot_name)
    if config.data.stats_per == "mixture":
        names = dict.fromkeys(robot_of(source, config).name for source in config.data.sources)
        groups = {name: datasets_of(name, config, sources) for name in names}
        each = [_running(load_robot(name), datasets) for name, datasets in groups.items() if datasets]
        return select_dims(merge_stats(each), robot)
    datasets = datasets_of(robot_name, config, sources)
    return _running(robot, datasets[:1] if config.data.stats_per == "dataset" else datasets).result()


def other_chunks(robot_name: str, config: TrainConfig, sources: Mapping[str, RowSource]) -> list[np.ndarray]:
    """Return whole chunks [n ah ad] of each other robot whose actions are tokens, by that robot's own statistics."""
    others = []
    for name in dict.fromkeys(robot_of(source, config).name for source in config.data.sources):
        datasets = [
            rows.dataset
            for source, rows in zip(config.data.sources, sources.values(), strict=True)
            if isinstance(rows, RobotRows) and robot_of(source, config).name == name and "fast" in source.teaches
        ]
        # A tokenizer is fitted to whole chunks, and some sets have none.
        long = [data for data in datasets if max(e.stop - e.start for e in data.episodes) >= data.action_horizon]
        if name == robot_name or not long:
            continue
        robot, stats = load_robot(name), stats_of(name, config, sources)["actions"]
        options = {"norm": require_pi(config.model).norm, "adapter": load_adapter(robot), "seed": config.seed}
        others.append(whole_chunks(long, robot, stats=stats, **options))
    return others


def pipelines(
    config: TrainConfig, bundle: Bundle, sources: Mapping[str, RowSource], *, out: Path, resumed: bool
) -> dict[str, Pipeline]:
    """Return the pipeline of every source by its name, all for the bundle's model.

    The run's own robot, and web rows, go through the bundle's. With `stats_per="dataset"` that is so for the first of
    its sources, and the others have statistics of their own.
    """
    result: dict[str, Pipeline] = {}
    stats_by_key: dict[str, Stats] = {load_robot(config.robot).name: bundle.norm_stats}
    seen: set[str] = set()
    for source, (name, rows) in zip(config.data.sources, sources.items(), strict=True):
        robot = robot_of(source, config)
        if not isinstance(rows, RobotRows):
            result[name] = bundle.pipeline
            continue
        # The first set of the run's robot gives the policy its statistics; later ones have their own.
        alone = config.data.stats_per == "dataset" and robot.name in seen
        seen.add(robot.name)
        key = name if alone else robot.name
        if key not in stats_by_key:
            file = out / FOLDER / f"{key}.json"
            if not resumed:
                fresh = _running(robot, [rows.dataset]).result() if alone else stats_of(robot.name, config, sources)
                save_norm_stats(file, fresh)
            stats_by_key[key] = load_norm_stats(file)
        result[name] = Pipeline(
            bundle.robot if robot.name == bundle.robot.name else robot,
            bundle.model.config,
            norm_stats=stats_by_key[key],
            text=bundle.text,
            action_tokenizer=bundle.action_tokenizer,
            adapter=load_adapter(robot),
        )
    return result


def _running(robot: Robot, datasets: list[EpisodeDataset]) -> RobotStats:
    return compute_robot_stats(datasets, robot, adapter=load_adapter(robot))
