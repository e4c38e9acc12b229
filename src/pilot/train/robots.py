"""The robots of a run: each source's own, and all that its policy acts for."""

from pilot.robots import load_robot
from pilot.train.config import Source, TrainConfig
from pilot.types import Robot


def robot_of(source: Source, config: TrainConfig) -> Robot:
    """Return the robot that recorded a source: its own, or else the run's."""
    return load_robot(source.robot or config.robot)


def robots_of(config: TrainConfig) -> dict[str, Robot]:
    """Return the robots of a run by name: its own first, then those of other demonstrations."""
    recorded = [robot_of(source, config) for source in config.data.sources if source.kind == "robot"]
    return {robot.name: robot for robot in (load_robot(config.robot), *recorded)}
