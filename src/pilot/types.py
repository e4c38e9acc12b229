"""The words everything else is written in: robots, samples, statistics, policies. Free of torch.

Time, stated once: **t = 1 is noise, t = 0 is data** (openpi's direction; the papers print the opposite).
`x_t = t * noise + (1 - t) * actions`, `u_t = noise - actions`, and sampling integrates from 1 to 0.

Roles: a *model* maps tensors to tensors, a *policy* raw dicts to raw dicts, a *robot* is an embodiment, a *dataset* is
one source, a *mixture* weighs sources, a *chunk* is `action_horizon` consecutive actions.

Axes: `h w` picture height and width, `ah` action horizon, `ad` action dims of the robot, `sd` its state dims.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float, UInt8


@dataclass(frozen=True, kw_only=True)
class Robot:
    """An embodiment: what its cameras, state and action vectors mean, in the robot's own units.

    `delta_mask[i]` says that action dim `i` is learned relative to dim `i` of the state at the start of the chunk.
    """

    name: str
    cameras: tuple[str, ...]
    wrist_cameras: tuple[str, ...] = ()
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    delta_mask: tuple[bool, ...]
    control_hz: float

    def __post_init__(self) -> None:
        if len(self.delta_mask) != len(self.action_names):
            raise ValueError(
                f"robot '{self.name}' has {len(self.action_names)} action dims, but a delta_mask of "
                f"{len(self.delta_mask)}; give one bool per action dim"
            )
        if unknown := set(self.wrist_cameras) - set(self.cameras):
            raise ValueError(f"robot '{self.name}': wrist cameras {sorted(unknown)} are not among {self.cameras}")

    @property
    def state_dim(self) -> int:
        return len(self.state_names)

    @property
    def action_dim(self) -> int:
        return len(self.action_names)


@dataclass(frozen=True, kw_only=True)
class NormStats:
    """Statistics of one vector, one entry per dim. `q01` and `q99` are true quantiles."""

    mean: Float[np.ndarray, " d"]
    std: Float[np.ndarray, " d"]
    q01: Float[np.ndarray, " d"]
    q99: Float[np.ndarray, " d"]


@dataclass(kw_only=True)
class Sample:
    """One training row in the robot's own units, before the pipeline.

    `subtask` and `answer` are targets of the text loss; a subtask carries its box as `<loc>` tokens in front.
    A row without `actions` has no action loss; `action_is_pad` marks steps past the episode's end, or unusable.
    """

    images: dict[str, UInt8[np.ndarray, "h w 3"]]
    prompt: str
    state: Float[np.ndarray, " sd"] | None = None
    actions: Float[np.ndarray, "ah ad"] | None = None
    action_is_pad: Bool[np.ndarray, " ah"] | None = None
    subtask: str | None = None
    answer: str | None = None
    source: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


class Policy(Protocol):
    """Raw observation in, raw actions out."""

    metadata: dict[str, Any]

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """From `{"images": {camera: uint8 [h w 3]}, "state": [sd], "prompt": str}` to a chunk.

        The answer is `{"actions": [ah ad], "subtask", …}`.
        """
        ...

    def session(self) -> "Policy":
        """The same weights with state of its own (the high level's clock), for one robot or one connection."""
        ...
