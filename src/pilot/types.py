"""The words everything else is written in: robots, samples, statistics. Free of torch.

Time, stated once: **t = 1 is noise, t = 0 is data** (openpi's direction; the papers print the opposite).
`x_t = t * noise + (1 - t) * actions`, `u_t = noise - actions`, and sampling integrates from 1 to 0.

Roles: a *model* maps tensors to tensors, a *policy* raw dicts to raw dicts, a *robot* is an embodiment, a *dataset* is
one source, a *mixture* weighs sources, a *chunk* is `action_horizon` consecutive actions.

Axes: `h w` picture height and width, `ah` action horizon, `ad` action dims of the robot, `sd` its state dims.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8


@dataclass(frozen=True, kw_only=True)
class Gripper:
    """One gripper: its dims, and what they read or command when it is open and when it is closed.

    `state` is None where nothing measures it.
    """

    action: str
    open: float
    closed: float
    state: str | None = None
    state_open: float = 0.0
    state_closed: float = 1.0

    def openness(self, command: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """A command as a share of fully open, 0 to 1, whatever the robot's range and sign."""
        return np.clip((command - self.closed) / (self.open - self.closed), 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Robot:
    """An embodiment: what its cameras, state and action vectors mean, in the robot's own units.

    `delta_mask[i]` says that action dim `i` is learned relative to dim `i` of the state at the start of the chunk;
    False for commands that are relative already. `slots[i]` is the name under which a model sees camera `i` (None: it
    does not); without slots, the camera's own. `adapter` names the convention of `robots/<name>.py` that the numbers
    are turned into before anything else, "" for none.

    Raises:
        ValueError: lengths that do not fit, or names that are not declared.
    """

    name: str
    cameras: tuple[str, ...]
    wrist_cameras: tuple[str, ...] = ()
    slots: tuple[str | None, ...] = ()
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    state_units: tuple[str, ...] = ()
    action_units: tuple[str, ...] = ()
    delta_mask: tuple[bool, ...]
    grippers: tuple[Gripper, ...] = ()
    control_hz: float
    adapter: str = ""

    def __post_init__(self) -> None:
        if len(self.delta_mask) != len(self.action_names):
            raise ValueError(
                f"robot '{self.name}' has {len(self.action_names)} action dims, but a delta_mask of "
                f"{len(self.delta_mask)}; give one bool per action dim"
            )
        if unknown := set(self.wrist_cameras) - set(self.cameras):
            raise ValueError(f"robot '{self.name}': wrist cameras {sorted(unknown)} are not among {self.cameras}")
        per_item = {"slots": self.cameras, "state_units": self.state_names, "action_units": self.action_names}
        for field_name, items in per_item.items():
            if (given := len(getattr(self, field_name))) not in (0, len(items)):
                raise ValueError(f"robot '{self.name}': {given} {field_name} for {items}; give one each, or none")
        for gripper in self.grippers:
            if gripper.action not in self.action_names or gripper.state not in (None, *self.state_names):
                raise ValueError(f"robot '{self.name}': {gripper} names a dim that is neither in action nor in state")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Robot":
        """The inverse of `dataclasses.asdict`, also after JSON, which has neither tuples nor classes."""
        declared: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        grippers = tuple(Gripper(**gripper) for gripper in declared.pop("grippers", ()))
        return cls(**declared, grippers=grippers)

    @property
    def state_dim(self) -> int:
        return len(self.state_names)

    @property
    def action_dim(self) -> int:
        return len(self.action_names)

    def slot(self, camera: str) -> str | None:
        """The name under which a model sees `camera`; None if it is not shown to it."""
        return self.slots[self.cameras.index(camera)] if self.slots else camera


def make_bool_mask(*runs: int) -> tuple[bool, ...]:
    """`make_bool_mask(6, -1, 6, -1)`: six True, one False, six True, one False."""
    return tuple(run > 0 for run in runs for _ in range(abs(run)))


def identity(values: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return values


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A robot's numbers in the convention that a model was pre-trained in, and back. The last axis is the dims.

    The inverses undo their function up to rounding, in the range that the robot can reach.
    """

    state: Callable[[np.ndarray], np.ndarray] = identity
    state_inverse: Callable[[np.ndarray], np.ndarray] = identity
    actions: Callable[[np.ndarray], np.ndarray] = identity
    actions_inverse: Callable[[np.ndarray], np.ndarray] = identity


def require_adapter(robot: Robot, adapter: Adapter | None) -> Adapter:
    """`adapter`, or for a robot that needs none, one that changes nothing.

    Raises:
        ValueError: the robot needs one and none was given.
    """
    if adapter is None and robot.adapter:
        raise ValueError(
            f"robot '{robot.name}' is learned in the convention '{robot.adapter}'; pass load_adapter(robot), or clear "
            "it with dataclasses.replace(robot, adapter='')"
        )
    return adapter or Adapter()


@dataclass(frozen=True, kw_only=True)
class NormStats:
    """Statistics of one vector, one entry per dim. `q01` and `q99` are true quantiles.

    `clip`: how far from zero a normalised value may be, per dim; infinite where nothing is cut off, which is everywhere
    but in dims whose range is made up because they hardly move.
    """

    mean: Float[np.ndarray, " d"]
    std: Float[np.ndarray, " d"]
    q01: Float[np.ndarray, " d"]
    q99: Float[np.ndarray, " d"]
    clip: Float[np.ndarray, " d"] | None = None


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
