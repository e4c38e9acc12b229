"""Many embodiments in one run: each source's robot, its statistics, and the pipeline that its rows go through.

A run's policy acts for all robots of its sources. Their statistics are computed once, kept beside the run
(`norm_stats/<robot>.json`) and read again when it goes on. Robots that are known to the checkpoint that a run starts
from keep the statistics that they have there.
"""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pilot.data.action_chunks import add_step_scale, whole_chunks
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
from pilot.models.trained_robots import TrainedRobot, TrainedRobots, same_dims
from pilot.names import suggest_names
from pilot.robots import load_adapter, load_robot
from pilot.train.config import Source, TrainConfig
from pilot.train.robots import robot_of, robots_of
from pilot.types import NormStats, Robot

Stats = dict[str, NormStats]
FOLDER = "norm_stats"


def update_description(stored: Robot, robot: Robot) -> Robot:
    """Return a checkpoint's robot with the units, grippers and limits of its file, if their dims have the same names.

    Checkpoints may be older than the file. What changes the meaning of numbers stays as the weights have learned it.

    Raises:
        ValueError: another number of dims: it is another robot.
    """
    if not same_dims(stored, robot):
        raise ValueError(
            f"robot '{robot.name}' has {robot.state_dim} state and {robot.action_dim} action dims, and the checkpoint "
            f"knows one of that name with {stored.state_dim} and {stored.action_dim}; give it another name"
        )
    if (stored.state_names, stored.action_names) != (robot.state_names, robot.action_names):
        return stored
    return replace(
        stored,
        state_units=robot.state_units or stored.state_units,
        action_units=robot.action_units or stored.action_units,
        grippers=robot.grippers or stored.grippers,
        limits=robot.limits or stored.limits,
    )


def fit_to_robot(dataset: EpisodeDataset, robot: Robot, source: Source) -> None:
    """Set the cameras that `dataset` reads to those that models are shown of `robot`, and check the rest.

    Raises:
        ValueError: other dims than the robot's, or none of its cameras.
    """
    remedy = ", or give the source the robot that recorded it"
    check_dims(dataset.path, robot, state=dataset.state, actions=dataset.actions, remedy=remedy)
    shown = list(robot.shown_cameras)
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


def learn_robots(
    config: TrainConfig, sources: Mapping[str, RowSource], *, known: TrainedRobots, out: Path, computed: bool
) -> dict[str, TrainedRobot]:
    """Return the robots that a run's policy is for: those `known` to what it starts from, and all of its sources.

    Statistics that are not known are computed from the sources and written into folder `out`, or read from there if
    they have been `computed` already. So are the scales of single steps (`data.scale_steps`).

    Raises:
        ValueError: a robot has neither.
    """
    robots = robots_of(config)
    fresh = [name for name in robots if name not in known]
    if missing := [name for name in fresh if not datasets_of(name, config, sources)]:
        others = sorted({*known, *(name for name in robots if name not in missing)})
        raise ValueError(
            f"run '{config.name}' has no statistics of robot '{missing[0]}': they come from a source of it, or from a "
            f"checkpoint that knows it ({suggest_names(missing[0], others, listed='known here:')}); name a set of its "
            f"demonstrations in data.sources, or add statistics to the checkpoint: pilot data stats DATASET, then "
            f"pilot convert CHECKPOINT FOLDER --robot {missing[0]} --stats FILE"
        )
    unscaled = [
        name for name in robots if name in known and datasets_of(name, config, sources)
        and config.data.scale_steps and known[name].norm_stats["actions"].step_std is None
    ]  # fmt: skip
    if not computed:
        every = compute_stats(fresh, config, sources) | {name: known[name].norm_stats for name in unscaled}
        for name, stats in every.items():
            if config.data.scale_steps:
                stats = scale_steps(stats, robots[name], datasets_of(name, config, sources), config=config)
            save_norm_stats(out / FOLDER / f"{name}.json", stats)
    return dict(known) | {
        name: TrainedRobot(
            robot=known[name].robot if name in known else robots[name],
            norm_stats=load_norm_stats(out / FOLDER / f"{name}.json"),
        )
        for name in (*fresh, *unscaled)
    }


def scale_steps(stats: Stats, robot: Robot, datasets: list[EpisodeDataset], *, config: TrainConfig) -> Stats:
    """Return a robot's statistics with the scale of each step of its chunks."""
    chunks = chunks_of(robot, datasets, stats=stats, config=config)
    return {**stats, "actions": add_step_scale(stats["actions"], chunks)}


def chunks_of(robot: Robot, datasets: list[EpisodeDataset], *, stats: Stats, config: TrainConfig) -> np.ndarray:
    """Return whole chunks [n ah ad] of a robot's sets, normalised as the run's model asks for."""
    model = config.model
    options: dict[str, Any] = {"norm": model.norm, "stride": model.action_stride, "seed": config.seed}
    return whole_chunks(datasets, robot, stats=stats["actions"], adapter=load_adapter(robot), **options)


def compute_stats(
    robot_names: Iterable[str], config: TrainConfig, sources: Mapping[str, RowSource]
) -> dict[str, Stats]:
    """Compute the statistics of robots in a run, over the sources that share them (`data.stats_per`)."""
    per, robots = config.data.stats_per, {name: load_robot(name) for name in robot_names}
    if per == "mixture" and robots:
        names = dict.fromkeys(robot_of(source, config).name for source in config.data.sources)
        groups = {name: datasets_of(name, config, sources) for name in names}
        merged = merge_stats([_running(load_robot(name), datasets) for name, datasets in groups.items() if datasets])
        return {name: select_dims(merged, robot) for name, robot in robots.items()}
    datasets = {name: datasets_of(name, config, sources)[: 1 if per == "dataset" else None] for name in robots}
    return {name: _running(robot, datasets[name]).result() for name, robot in robots.items()}


def other_chunks(config: TrainConfig, sources: Mapping[str, RowSource], *, robots: TrainedRobots) -> list[np.ndarray]:
    """Return whole chunks [n ah ad] of each robot but the run's own whose actions are tokens, by its statistics."""
    others, own = [], load_robot(config.robot).name
    for name in dict.fromkeys(robot_of(source, config).name for source in config.data.sources):
        datasets = [
            rows.dataset
            for source, rows in zip(config.data.sources, sources.values(), strict=True)
            if isinstance(rows, RobotRows) and robot_of(source, config).name == name and "fast" in source.teaches
        ]
        # A tokenizer is fitted to whole chunks, and some sets have none.
        long = [data for data in datasets if _longest_trained(data) >= data.action_horizon]
        if name == own or not long:
            continue
        others.append(chunks_of(load_robot(name), long, stats=robots[name].norm_stats, config=config))
    return others


def pipelines(
    config: TrainConfig, bundle: Bundle, sources: Mapping[str, RowSource], *, out: Path, computed: bool
) -> dict[str, Pipeline]:
    """Return the pipeline of every source by its name, all for the bundle's model.

    It is that of the source's robot; web rows go through that of the run's own. With `stats_per="dataset"` that is so
    for the first source of a robot, and its others have statistics of their own, written or read as in `learn_robots`.
    """
    of_robot = {name: bundle.pipeline(name) for name in bundle.robots}
    result: dict[str, Pipeline] = {}
    seen: set[str] = set()
    for source, (name, rows) in zip(config.data.sources, sources.items(), strict=True):
        robot = robot_of(source, config).name
        if not isinstance(rows, RobotRows) or config.data.stats_per != "dataset" or robot not in seen:
            result[name] = of_robot[robot if isinstance(rows, RobotRows) else load_robot(config.robot).name]
        else:
            # The first set of a robot gives the policy its statistics; later ones have their own.
            file = out / FOLDER / (f"{name}.json" if name not in bundle.robots else f"{name}.dataset.json")
            if not computed:
                stats = _running(load_robot(robot), [rows.dataset]).result()
                if config.data.scale_steps:
                    stats = scale_steps(stats, load_robot(robot), [rows.dataset], config=config)
                save_norm_stats(file, stats)
            own = TrainedRobot(robot=bundle.robots[robot].robot, norm_stats=load_norm_stats(file))
            result[name] = replace(bundle, robots={robot: own}).pipeline(robot)
        seen |= {robot} if isinstance(rows, RobotRows) else set()
    return result


def _running(robot: Robot, datasets: list[EpisodeDataset]) -> RobotStats:
    return compute_robot_stats(datasets, robot, adapter=load_adapter(robot))


def _longest_trained(dataset: EpisodeDataset) -> int:
    """Return the steps of the longest episode with rows that training may draw."""
    episodes = (dataset.episodes[i] for i in np.unique(dataset.episode_of[dataset.trainable_rows()]))
    return max((episode.stop - episode.start for episode in episodes), default=0)
