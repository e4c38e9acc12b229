"""What every format that can be converted gives: a robot, a rate, and episodes one by one.

Axes: `t` steps of an episode.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from pilot.data.formats.rlds import RldsLayout
from pilot.data.formats.writer import Text
from pilot.types import Robot


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Answers of a person to what a source does not say itself. None takes what the source says, or is an error.

    `task`: the instruction of episodes without one. `layouts` gives the layout of an RLDS set by its name. `drop_idle`:
    of such sets, leave out the steps that their layout does not let training start at; else they are marked
    (`observation.drawable`).
    """

    robot: Robot | None = None
    fps: float | None = None
    task: str | None = None
    pictures: Literal["image", "video"] | None = None
    layouts: Callable[[str], RldsLayout] | None = None
    drop_idle: bool = False


@dataclass(frozen=True, kw_only=True)
class ImportedEpisode:
    """One episode, as `LeRobotWriter.add_episode` takes it."""

    frames: Mapping[str, Any]
    task: str
    persistent: Iterable[Text] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Importer(Protocol):
    """A folder of recordings. `episodes` names them, in order; `left_out` says which columns are not taken along.

    `settings`: what else than the options decides how they are read, as JSON; an import does not go on with others.
    """

    robot: Robot
    fps: float
    pictures: str
    episodes: Sequence[str]
    left_out: Sequence[str]
    settings: Mapping[str, Any]

    def __init__(self, path: Path, options: ImportOptions) -> None: ...

    @staticmethod
    def can_read(path: Path) -> bool:
        """Return whether a folder looks like this format."""
        ...

    def read(self, number: int) -> ImportedEpisode:
        """Read the episode `episodes[number]`. A `ValueError` or `OSError` names the file and what is wrong."""
        ...


def describe_robot(
    name: str, *, cameras: Iterable[str], states: Sequence[str], actions: Sequence[str], fps: float
) -> Robot:
    """Make a robot of what the data say about it."""
    return Robot(
        name=name,
        cameras=tuple(cameras),
        state_names=tuple(states),
        action_names=tuple(actions),
        delta_mask=(False,) * len(actions),
        control_hz=fps,
    )


def dim_names(declared: Any, dims: int, *, kind: str) -> list[str]:
    """Return the names of a feature's dims, from a list or a dict of lists; numbered names where there are none."""
    lists = declared.values() if isinstance(declared, dict) else [declared or []]
    names = [str(name) for part in lists if isinstance(part, list | tuple) for name in part]
    return names if len(names) == dims and len(set(names)) == dims else [f"{kind}_{i}" for i in range(dims)]


def require_rate(path: Path, options: ImportOptions) -> float:
    """Return the rate of a source that does not say it: what the person gave, or the robot's.

    Raises:
        ValueError: nor did the person.
    """
    fps = options.fps or (options.robot.control_hz if options.robot else None)
    if fps is None:
        raise ValueError(
            f"{path} does not say at which rate it was recorded; give --fps, or --robot for its control rate"
        )
    return fps


def require_task(where: Path, instruction: Any, options: ImportOptions) -> str:
    """Return the instruction that a file holds, or else the one that the person gave.

    Raises:
        ValueError: neither.
    """
    if isinstance(instruction, np.ndarray):
        instruction = instruction.reshape(-1)[0] if instruction.size else ""
    words = instruction.decode("utf-8") if isinstance(instruction, bytes) else str(instruction or "")
    if not (words := words.strip() or (options.task or "")):
        raise ValueError(
            f"{where} has no instruction; give one for such episodes with --task 'put the cup in the sink'"
        )
    return words
