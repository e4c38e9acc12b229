"""What a person plays, as a LeRobot set that a policy can be fine-tuned on.

A recording stays in memory until the person keeps or discards it, and only then can the next one start. Every
instruction begins an episode of its own, so that each episode is of one task. Where a person has taken over, only what
the person did is learned from: training draws no row of the policy's own steps, and chunks end where the policy goes
on. Without a takeover all of it is.
"""

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pilot.data.formats.writer import LeRobotWriter, read_finished
from pilot.sims.base import Box, Observation
from pilot.sims.collect import write_demonstration
from pilot.sims.demonstrate import Demonstration
from pilot.types import Robot

SHORTEST = 3  # frames; less than that is no episode


@dataclass(kw_only=True)
class Take:
    """One instruction being carried out: the frames, and which of them a person steered."""

    prompt: str
    labels: dict[str, Any]
    frames: Demonstration = field(default_factory=Demonstration)
    by_person: list[bool] = field(default_factory=list)


class Recorder:
    """Records one robot's episodes into the set at `path`.

    Raises:
        ValueError: the set there is of another robot, or of another rate.
    """

    def __init__(self, path: str | Path, robot: Robot) -> None:
        self.path, self.robot = Path(path), robot
        self.takes: list[Take] = []
        self.is_on = False
        # Says what does not fit, before anybody records.
        finished = read_finished(self.path, robot=robot, fps=robot.control_hz)
        self.episodes = finished["total_episodes"] if finished else 0

    @property
    def frames(self) -> int:
        """The number of frames that are recorded and not kept yet."""
        return sum(len(take.by_person) for take in self.takes)

    def start(self) -> None:
        """Record from the next step on.

        Raises:
            ValueError: what was recorded before is neither kept nor discarded.
        """
        if self.frames:
            raise ValueError(f"{self.frames} frames are not kept yet: keep or discard them first")
        self.takes, self.is_on = [], True

    def stop(self) -> None:
        """Record no more; what has been recorded waits for `keep` or `discard`."""
        self.is_on = False

    def discard(self) -> None:
        """Drop what has been recorded."""
        self.takes, self.is_on = [], False

    def cut(self) -> None:
        """Begin another episode with the next frame: the scene or the instruction is another."""
        if self.takes and self.takes[-1].by_person:
            self.takes.append(Take(prompt="", labels={}))

    def add(
        self,
        observation: Observation,
        action: np.ndarray,
        *,
        subtask: str | None,
        box: Box | None,
        by_person: bool,
        labels: dict[str, Any],
    ) -> None:
        """Add one frame, if recording is on: the observation with its instruction, and the action that is executed."""
        if not self.is_on:
            return
        if self.takes and self.takes[-1].by_person and self.takes[-1].prompt != observation["prompt"]:
            self.cut()
        if not self.takes:
            self.takes.append(Take(prompt="", labels={}))
        take = self.takes[-1]
        take.prompt, take.labels = observation["prompt"], labels
        take.frames.add(observation, np.asarray(action, np.float32), subtask=subtask, box=box)
        take.by_person.append(by_person)

    def keep(self) -> int:
        """Write the recorded episodes into the set, which is whole afterwards; return how many there were.

        Raises:
            ValueError: nothing has been recorded.
            OSError: the folder cannot be written.
        """
        takes = [take for take in self.takes if len(take.by_person) >= SHORTEST]
        if not takes:
            raise ValueError(f"there is nothing to keep: record {SHORTEST} steps or more first")
        was_steered = any(any(take.by_person) for take in takes)
        with LeRobotWriter(self.path, self.robot, self.robot.control_hz) as writer:
            for take in takes:
                learned = take.by_person if was_steered else [True] * len(take.by_person)
                take.frames.fresh = learned
                take.frames.perturbed = [now and not after for now, after in itertools.pairwise([*learned, True])]
                write_demonstration(writer, take.frames, labels=take.labels | {"group": "play"}, marks_drawable=True)
            self.episodes = writer.episodes
        self.discard()
        return len(takes)
