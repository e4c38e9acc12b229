"""What a session asks of a policy for one turn of one robot, and what it gets. Plain data, which neither side changes.

Axes: `ah` action horizon, `rd` the robot's action dims, `sd` its state dims.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from pilot.infer.high_level.base import HighLevel, SubtaskRequest
from pilot.infer.rtc import Previous
from pilot.types import Sample


@dataclass(frozen=True, kw_only=True)
class Request:
    """One turn of one robot.

    `robot` names its kind, one of the policy's robots. `sample` are its pictures, its state and the prompt to act on.
    `high_level` is what decides in its session from what the model has prefilled, if anything does; `subtask` says
    whether it decides now. `bounded`: the text may not be longer than the model was trained on. The chunk's noise comes
    from `noise_generator`.
    """

    robot: str
    sample: Sample
    high_level: HighLevel | None
    subtask: SubtaskRequest
    bounded: bool
    previous: Previous | None
    noise_generator: torch.Generator

    @property
    def state(self) -> Float[np.ndarray, " sd"]:
        """The robot's state, which a policy's sample always has."""
        assert self.sample.state is not None
        return self.sample.state


@dataclass(frozen=True, kw_only=True)
class Result:
    """A chunk in the robot's units, and the subtask that it acts on, its box in front.

    `details` go into the answer as they are: the scores of a high level, and `timing` in seconds.
    """

    actions: Float[np.ndarray, "ah rd"]
    subtask: str | None
    details: dict[str, Any] = field(default_factory=dict)
