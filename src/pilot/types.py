"""The types that everything else is written in: robots, samples, statistics. Free of torch.

Time, stated once: **t = 1 is noise, t = 0 is data** (openpi's direction; the papers print the opposite).
`x_t = t * noise + (1 - t) * actions`, `u_t = noise - actions`, and sampling integrates from 1 to 0.

Roles: a *model* maps tensors to tensors, a *policy* raw dicts to raw dicts, a *robot* is an embodiment, a *dataset* is
one source, a *mixture* weighs sources, a *chunk* is `action_horizon` consecutive actions.

Axes: `h w` picture height and width, `ah` action horizon, `ad` action dims of the robot, `sd` its state dims.
"""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from enum import IntEnum
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

CONTROL_MODES = ("", "joint", "end_effector")
"""What a robot's actions command; "" says nothing, and nothing is said of it to the model."""


class Kind(IntEnum):
    """The kind of a token, which decides what the token sees and which loss it carries."""

    PAD = 0
    PREFIX = 1
    TEXT = 2
    FAST = 3


@dataclass(frozen=True, kw_only=True)
class Gripper:
    """One gripper: its dims, and their values when it is open and when it is closed."""

    action: str  # the action dim that commands it
    open: float
    closed: float
    state: str | None = None  # the state dim that measures it, if one does
    state_open: float = 0.0
    state_closed: float = 1.0

    def openness(self, command: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """Return a command as a share of fully open, 0 to 1, whatever the robot's range and sign."""
        return np.clip((command - self.closed) / (self.open - self.closed), 0.0, 1.0)


UNITS = ("1", "m", "rad", "deg", "px", "0 to 1", "0 or 1", "-1 to 1", "-1 or 1", "m/s", "rad/s", "deg/s", "squares")
"""Units of states and actions, beside steps such as "rad per step" and "5 cm per step"."""
_STEP = re.compile(r"(\d*\.?\d+ )?(m|cm|mm|rad|deg|px|squares) per step")


def is_step(unit: str) -> bool:
    """Return whether a number of this unit is how far something moves in one step, so that steps add up."""
    return _STEP.fullmatch(unit) is not None


def is_rate(unit: str) -> bool:
    """Return whether a number of this unit is a motion, so that 0 stands still: a velocity, or a step.

    Raises:
        ValueError: there is no such unit: a robot that was told the wrong thing would not stop.
    """
    if is_step(unit):
        return True
    if unit not in UNITS:
        raise ValueError(
            f"no unit '{unit}'; units are {', '.join(UNITS)}, and steps such as 'rad per step', '5 cm per step'"
        )
    return unit.endswith("/s")


Vector = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Joint:
    """One joint on the way from a robot's base to its hand, as it is with all joints at 0.

    Then the frames of all links are parallel to the base's.
    """

    dim: int  # the action dim that says where it is [rad], or [m] if it slides
    axis: Vector  # of length 1
    at: Vector  # on the link before it [m]
    slides: bool = False


@dataclass(frozen=True, kw_only=True)
class HandWorkspace:
    """A box, in the frame of a robot's base, that the place of its hand stays in [m]; `joints` lead to the hand."""

    low: Vector
    high: Vector
    joints: tuple[Joint, ...]
    hand: Vector  # on the last link [m]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "HandWorkspace":
        """Build a workspace from its `dataclasses.asdict` form, also after JSON, which has no tuples."""
        declared = _with_tuples(values)
        joints = tuple(Joint(**_with_tuples(joint)) for joint in declared.pop("joints"))
        return cls(**declared, joints=joints)

    def place(self, actions: Float[np.ndarray, "*t ad"]) -> Float[np.ndarray, "*t 3"]:
        """Compute where the hand is when the joints are where `actions` say: forward kinematics."""
        place = np.broadcast_to(np.array(self.hand, float), (*actions.shape[:-1], 3))
        for joint in reversed(self.joints):
            axis, value = np.array(joint.axis, float), np.asarray(actions[..., joint.dim], float)[..., None]
            if joint.slides:
                place = place + value * axis
            else:  # Rodrigues' formula
                along = (place @ axis)[..., None] * axis
                place = along + np.cos(value) * (place - along) + np.sin(value) * np.cross(axis, place)
            place = place + np.array(joint.at, float)
        return place


@dataclass(frozen=True, kw_only=True)
class MotionLimits:
    """What may be commanded, one number per action dim in its own unit; `infer/safety.py` keeps to it.

    A robot that is commanded by the place of its hand has its workspace in `low` and `high`; one that is commanded by
    its joints has it in `workspaces`, one for each hand.

    Raises:
        ValueError: lengths that differ, or limits that leave nothing.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    speed: tuple[float, ...]  # the most that a command may change per second
    acceleration: tuple[float | None, ...]  # the most that this change may change per second; None: nobody has said
    effort: tuple[float | None, ...] = ()  # the most that a gripper may press; None, or none at all: not by force
    workspaces: tuple[HandWorkspace, ...] = ()
    on_violation: str = "clip"  # "clip": go as far as allowed; "stop": stop until somebody releases the robot

    def __post_init__(self) -> None:
        parts = (self.low, self.high, self.speed, self.acceleration, self.effort or self.low)
        if len({len(part) for part in parts}) != 1:
            raise ValueError(f"limits have one number per action dim, got {[len(part) for part in parts]}")
        if self.on_violation not in ("clip", "stop"):
            raise ValueError(f"on_violation is 'clip' or 'stop', got '{self.on_violation}'")
        for dim, (low, high, speed, acceleration) in enumerate(zip(*parts[:4])):
            if not (low < high and speed > 0 and (acceleration is None or acceleration > 0)):
                raise ValueError(
                    f"limits of dim {dim}: low {low} is below high {high}, speed {speed} and acceleration "
                    f"{acceleration} are above 0"
                )
        for dim, effort in enumerate(self.effort):
            if effort is not None and not effort > 0:
                raise ValueError(
                    f"the effort of dim {dim} is above 0, or None where it presses with none; got {effort}"
                )
        for workspace in self.workspaces:
            if not all(low < high for low, high in zip(workspace.low, workspace.high)):
                raise ValueError(f"a workspace is a box from low to high, got {workspace.low} and {workspace.high}")
            if wrong := [joint.dim for joint in workspace.joints if not 0 <= joint.dim < len(self.low)]:
                raise ValueError(f"a workspace has joints of dims {wrong}; there are {len(self.low)}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "MotionLimits":
        """Build limits from their `to_dict` form, also after JSON, which has no tuples."""
        declared = _with_tuples(values)
        workspaces = tuple(HandWorkspace.from_dict(workspace) for workspace in declared.pop("workspaces", ()))
        return cls(**declared, workspaces=workspaces)

    def to_dict(self) -> dict[str, Any]:
        """Return the limits as plain values; younger fields that are empty are left out, for older readers."""
        return {name: value for name, value in asdict(self).items() if value or name not in ("effort", "workspaces")}

    @classmethod
    def join(cls, *parts: "MotionLimits") -> "MotionLimits":
        """Return the limits of a robot that is made of parts, in the order of its dims; all parts clip or all stop."""
        together = {
            name: tuple(number for part in parts for number in getattr(part, name))
            for name in ("low", "high", "speed", "acceleration")
        }
        if any(part.effort for part in parts):
            together["effort"] = tuple(most for part in parts for most in part.effort or (None,) * len(part.low))
        workspaces, first = [], 0
        for part in parts:
            workspaces += [_with_later_dims(workspace, first) for workspace in part.workspaces]
            first += len(part.low)
        (on_violation,) = {part.on_violation for part in parts}
        return cls(**together, workspaces=tuple(workspaces), on_violation=on_violation)


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Return fields as they were declared: JSON has lists where they are tuples."""
    return {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}


def _with_later_dims(workspace: HandWorkspace, first: int) -> HandWorkspace:
    return replace(workspace, joints=tuple(replace(joint, dim=joint.dim + first) for joint in workspace.joints))


@dataclass(frozen=True, kw_only=True)
class Robot:
    """An embodiment: what its cameras, state and action vectors mean, in the robot's own units.

    Raises:
        ValueError: lengths that do not fit, or names that are not declared.
    """

    name: str
    cameras: tuple[str, ...]
    wrist_cameras: tuple[str, ...] = ()  # those of `cameras` that move with an arm
    slots: tuple[str | None, ...] = ()  # the model's name of each camera, None: it is not shown; no slots: its own
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    state_units: tuple[str, ...] = ()
    action_units: tuple[str, ...] = ()
    delta_mask: tuple[bool, ...]  # True: learned relative to the same state dim at the start of the chunk
    grippers: tuple[Gripper, ...] = ()
    control_hz: float
    limits: MotionLimits | None = None  # what may be commanded; None: nobody has said
    adapter: str = ""  # the convention in `robots/<name>.py` that numbers are converted to first, "" for none
    control_mode: str = ""  # one of `CONTROL_MODES`, which π0.5's prompts say (`tokenizers/prompts.py`)

    def __post_init__(self) -> None:
        if self.control_mode not in CONTROL_MODES:
            raise ValueError(
                f"robot '{self.name}' has the control mode '{self.control_mode}'; it is 'joint', 'end_effector' or ''"
            )
        if len(self.delta_mask) != len(self.action_names):
            raise ValueError(
                f"robot '{self.name}' has {len(self.action_names)} action dims, but a delta_mask of "
                f"{len(self.delta_mask)}; give one bool per action dim"
            )
        if unknown := set(self.wrist_cameras) - set(self.cameras):
            raise ValueError(f"robot '{self.name}': wrist cameras {sorted(unknown)} are not among {self.cameras}")
        per_item = {"slots": self.cameras, "state_units": self.state_names, "action_units": self.action_names}
        for field_name, items in per_item.items():
            if (count := len(getattr(self, field_name))) not in (0, len(items)):
                raise ValueError(f"robot '{self.name}': {count} {field_name} for {items}; give one each, or none")
        for unit in (*self.state_units, *self.action_units):
            try:
                is_rate(unit)
            except ValueError as error:
                raise ValueError(f"robot '{self.name}': {error}") from error
        if not isinstance(self.limits, MotionLimits | None):
            raise ValueError(f"limits of robot '{self.name}' are a MotionLimits, got a {type(self.limits).__name__}")
        if self.limits is not None and len(self.limits.low) != len(self.action_names):
            raise ValueError(
                f"robot '{self.name}' has {len(self.action_names)} action dims, its limits are for "
                f"{len(self.limits.low)}"
            )
        for gripper in self.grippers:
            if gripper.action not in self.action_names or gripper.state not in (None, *self.state_names):
                raise ValueError(f"robot '{self.name}': {gripper} names a dim that is neither in action nor in state")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Robot":
        """Build a robot from its `to_dict` form, also after JSON, which has neither tuples nor classes."""
        declared = _with_tuples(values)
        grippers = tuple(Gripper(**gripper) for gripper in declared.pop("grippers", ()))
        limits = declared.pop("limits", None)
        limits = MotionLimits.from_dict(limits) if isinstance(limits, dict) else limits
        return cls(**declared, grippers=grippers, limits=limits)

    def to_dict(self) -> dict[str, Any]:
        """Return the robot as plain values, for a checkpoint; younger fields that are empty are left out of it."""
        younger = {"limits", "control_mode"}
        values = asdict(self) | {"limits": self.limits and self.limits.to_dict()}
        return {name: value for name, value in values.items() if name not in younger or value}

    @property
    def state_dim(self) -> int:
        """Dims of a state."""
        return len(self.state_names)

    @property
    def action_dim(self) -> int:
        """Dims of an action."""
        return len(self.action_names)

    @property
    def shown_cameras(self) -> dict[str, str]:
        """The cameras that a model is shown, the main one first, and the model's name of each."""
        slots = {camera: self.slot(camera) for camera in self.cameras}
        return {camera: slot for camera, slot in slots.items() if slot is not None}

    def slot(self, camera: str) -> str | None:
        """Return the name under which a model sees `camera`; None if it does not."""
        return self.slots[self.cameras.index(camera)] if self.slots else camera


def make_bool_mask(*runs: int) -> tuple[bool, ...]:
    """Make a mask from run lengths: `make_bool_mask(6, -1, 6, -1)` is six True, one False, six True, one False."""
    return tuple(run > 0 for run in runs for _ in range(abs(run)))


def identity(values: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Return the values as they are."""
    return values


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """Conversion of a robot's numbers to the convention that a model was pre-trained in, and back.

    The last axis is the dims. The inverses undo their functions up to rounding, in the range that the robot can reach.
    """

    state: Callable[[np.ndarray], np.ndarray] = identity
    state_inverse: Callable[[np.ndarray], np.ndarray] = identity
    actions: Callable[[np.ndarray], np.ndarray] = identity
    actions_inverse: Callable[[np.ndarray], np.ndarray] = identity


def require_adapter(robot: Robot, adapter: Adapter | None) -> Adapter:
    """Return `adapter`, or one that changes nothing for a robot that needs none.

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
    """Statistics of one vector, one entry per dim."""

    mean: Float[np.ndarray, " d"]
    std: Float[np.ndarray, " d"]
    q01: Float[np.ndarray, " d"]  # true quantiles
    q99: Float[np.ndarray, " d"]
    clip: Float[np.ndarray, " d"] | None = None  # the largest normalised value; finite only in dims that hardly move
    # Of each step of a normalised chunk: the flow learns every step at its own scale, see `DataConfig.scale_steps`.
    step_mean: Float[np.ndarray, "h d"] | None = None
    step_std: Float[np.ndarray, "h d"] | None = None


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What a robot saw at another time."""

    images: dict[str, UInt8[np.ndarray, "h w 3"]]  # by camera
    state: Float[np.ndarray, " sd"]


def moment_before(camera: str) -> str:
    """Return the name under which a model sees what a camera showed one control step earlier."""
    return f"{camera}@-1"


@dataclass(kw_only=True)
class Sample:
    """One training row in the robot's own units, before the pipeline."""

    images: dict[str, UInt8[np.ndarray, "h w 3"]]  # by camera
    prompt: str
    state: Float[np.ndarray, " sd"] | None = None
    past: Moment | None = None  # one control step earlier, for models that see two moments; None: there was none
    actions: Float[np.ndarray, "ah ad"] | None = None  # None: the row has no action loss
    action_is_pad: Bool[np.ndarray, " ah"] | None = None  # past the episode's end, or not to be learned
    subtask: str | None = None  # target of the text loss, with its box as `<loc>` tokens in front
    answer: str | None = None  # target of the text loss, for a question
    source: str = ""  # the data set
    extra: dict[str, Any] = field(default_factory=dict)
