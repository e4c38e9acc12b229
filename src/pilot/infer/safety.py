"""The last word before the motors: no command leaves a robot's limits, whatever a policy, a network or a stall did.

`MotionFilter` stands between an executor and the robot. Each tick it takes the command that is wanted and returns the
nearest one that is allowed: within `low` and `high`, changing by no more than `speed`, and that change changing by no
more than `acceleration`. It slows down in time for the ends of the range, so that the three never contradict each
other. Grippers press with no more than `effort`. Where joints are commanded, hands stay in their `workspaces`: a step
that would leave one is taken as far as its wall, also where that is a harder stop than `acceleration`. What is not
finite, and a robot whose limits say `stop`, ends in a stop: the motion runs out as fast as
`acceleration` allows, and nothing moves until `release`.

The proof of braking, per dim, with a tick of `dt`, room `d` to the end of the range, speed `v` towards it and
acceleration `a`: the filter keeps 1.5 v dt + v²/2a ≤ d. A tick later the room is d − v dt, and slowing down by a dt
needs 1.5 (v − a dt) dt + (v − a dt)²/2a = (1.5 v dt + v²/2a) − v dt − a dt² ≤ d − v dt. So it can always slow down.

Numpy only. Axes: `ad` the robot's action dims, in its own units.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from pilot.types import HandWorkspace, MotionLimits, is_rate

Reason = Literal["range", "effort", "speed", "acceleration", "workspace", "not finite", "stopped"]
_TOLERANCE = 1e-6  # of a dim's range: float32 commands differ from their limits by that much without anybody's fault
_FASTEST = 1e-3  # of the highest change in a tick: the tolerance ends there, however wide the range is


@dataclass(frozen=True, kw_only=True)
class FilteredCommand:
    """What is sent to the robot, and why it differs from what was wanted: no reasons where it does not."""

    action: Float[np.ndarray, " ad"]
    wanted: Float[np.ndarray, " ad"]
    reasons: tuple[Reason, ...] = ()


class MotionFilter:
    """Keeps one robot's commands within its limits.

    `units` say which dims are motions, which stand still at 0 (`types.is_rate`); the others stand still where they are.
    `counts` has the number of interventions by reason. `is_stopped` lasts until `release`.

    Raises:
        ValueError: other numbers of limits and units, an unknown unit, a rate that is not above 0, or a motion whose
            range does not hold 0.
    """

    def __init__(self, limits: MotionLimits, *, units: Sequence[str], hz: float) -> None:
        if len(units) != len(limits.low) or not hz > 0:
            raise ValueError(f"{len(limits.low)} limits for {len(units)} dims at {hz} Hz; give one each, and a rate")
        self.limits, self.dt = limits, 1 / hz
        self.effort = np.array(
            [np.inf if most is None else most for most in limits.effort or [None] * len(units)], float
        )
        self.low = np.maximum(np.array(limits.low, float), -self.effort)
        self.high = np.minimum(np.array(limits.high, float), self.effort)
        self.speed = np.array(limits.speed, float)
        self.acceleration = np.array([np.inf if most is None else most for most in limits.acceleration], float)
        self.rates = np.array([is_rate(unit) for unit in units])
        if (self.rates & ((self.low > 0) | (self.high < 0))).any():
            raise ValueError(f"a motion stands still at 0, which is outside its limits {limits.low} to {limits.high}")
        self.counts: dict[Reason, int] = {}
        self.is_stopped = False
        self.reset()

    def reset(self, position: Float[np.ndarray, " ad"] | None = None) -> None:
        """Begin anew, at rest, where the robot is; dims that nobody measures are NaN. A stop stays."""
        dims = len(self.low)
        start = np.full(dims, np.nan) if position is None else np.asarray(position, float).copy()
        self.last = np.where(self.rates & ~np.isfinite(start), 0.0, start)
        self.velocity = np.zeros(dims)

    def join(self) -> None:
        """Begin in the middle of a motion that is not known: the first command may be anything within the range."""
        self.last = self.velocity = np.full(len(self.low), np.nan)

    def stop(self) -> None:
        """Stop, from the next tick on, until `release`: an emergency stop."""
        self.is_stopped = True

    def release(self) -> None:
        """Let the robot move again; only a person should."""
        self.is_stopped = False

    @property
    def knows_place(self) -> bool:
        """Whether it knows where the robot is, in all dims: then it can keep it there."""
        return bool(np.isfinite(self.last).all())

    @property
    def must_brake(self) -> bool:
        """Whether the robot moves so fast that to stand still at once would break its acceleration."""
        return bool((np.abs(np.nan_to_num(self.velocity)) > self.acceleration * self.dt).any())

    def passes(self, actions: Float[np.ndarray, "ah ad"]) -> bool:
        """Return whether a chunk, begun in the middle of a motion, would pass as it is; much faster than `apply`.

        Raises:
            ValueError: another number of dims.
        """
        actions = np.asarray(actions, float)
        if actions.ndim != 2 or actions.shape[1:] != self.low.shape:
            raise ValueError(f"a chunk has {len(self.low)} dims, got {actions.shape}")
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite passes none of these
            velocity = np.diff(actions, axis=0) / self.dt
            fastest = np.minimum(self.speed, self._braking_speed(self.high - actions[:-1]))
            slowest = -np.minimum(self.speed, self._braking_speed(actions[:-1] - self.low))
            return bool(
                ((actions >= self.low) & (actions <= self.high)).all()
                and ((velocity >= slowest) & (velocity <= fastest)).all()
                and (np.abs(np.diff(velocity, axis=0)) <= self.acceleration * self.dt).all()
                and all((_outside(workspace, actions) == 0).all() for workspace in self.limits.workspaces)
            )

    def apply(self, wanted: Float[np.ndarray, " ad"], *, missed: int = 0) -> FilteredCommand:
        """Return the command to send in place of `wanted`; `missed` ticks without one have passed since the last.

        Raises:
            ValueError: another number of dims.
        """
        wanted = np.asarray(wanted, float)
        if wanted.shape != self.low.shape:
            raise ValueError(f"a command has {len(self.low)} dims, got {wanted.shape}")
        if missed:
            self.velocity[:] = 0.0  # drivers hold the last command, so the robot has come to rest
        finite = np.isfinite(wanted).all()
        reasons: list[Reason] = [] if finite else ["not finite"]
        self.is_stopped = self.is_stopped or not finite
        goal = self._standstill() if self.is_stopped else wanted
        action, broken = self._nearest(goal)
        if not self.is_stopped:
            reasons += broken
            if broken and self.limits.on_violation == "stop":
                self.is_stopped = True
                action, _ = self._nearest(self._standstill())
        elif finite:
            reasons.append("stopped")
        known = np.isfinite(self.last)
        at_first = np.where(np.isnan(self.velocity), np.nan, 0.0)  # in the middle of a motion it stays unknown
        self.velocity = np.where(known, (action - self.last) / self.dt, at_first)
        self.last = np.where(known | (not self.is_stopped), action, np.nan)  # a stop tells nobody where the robot is
        for reason in reasons:
            self.counts[reason] = self.counts.get(reason, 0) + 1
        return FilteredCommand(action=action.astype(np.float32), wanted=wanted, reasons=tuple(reasons))

    def _standstill(self) -> Float[np.ndarray, " ad"]:
        """Return the command that stands still: no motion, or the place where the robot is."""
        here = np.where(np.isfinite(self.last), self.last, np.clip(0.0, self.low, self.high))
        return np.where(self.rates, 0.0, here)

    def _nearest(self, goal: np.ndarray) -> tuple[np.ndarray, list[Reason]]:
        """Return the allowed command nearest to `goal`, and what kept it from the goal."""
        inside = np.clip(goal, self.low, self.high)
        known = np.isfinite(self.last)
        last = np.where(known, self.last, inside)
        fastest = np.minimum(self.speed, self._braking_speed(self.high - last))
        slowest = -np.minimum(self.speed, self._braking_speed(last - self.low))
        change = (inside - last) / self.dt
        within_speed = np.clip(change, slowest, fastest)
        step = np.where(np.isnan(self.velocity), np.inf, self.acceleration * self.dt)
        velocity = np.nan_to_num(self.velocity)
        # Within the acceleration, but never beyond what can still be stopped: the proof says that both can be had.
        eased = np.clip(np.clip(within_speed, velocity - step, velocity + step), slowest, fastest)
        action = np.where(known, last + eased * self.dt, inside)
        tolerance = np.minimum(_TOLERANCE * (self.high - self.low), _FASTEST * self.speed * self.dt)
        beyond = np.abs(inside - goal) > tolerance
        reasons: list[Reason] = []
        if (beyond & (np.abs(goal) <= self.effort)).any():
            reasons.append("range")
        if (beyond & (np.abs(goal) > self.effort)).any():
            reasons.append("effort")
        if (known & (np.abs(within_speed - change) * self.dt > tolerance)).any():
            reasons.append("speed")
        if (known & (np.abs(eased - within_speed) * self.dt > tolerance)).any():
            reasons.append("acceleration")
        for workspace in self.limits.workspaces:
            action, is_cut = _keep_inside(workspace, self.last, action)
            if is_cut:
                reasons.append("workspace")
        return action, list(dict.fromkeys(reasons))

    def _braking_speed(self, room: np.ndarray) -> np.ndarray:
        """Return the highest speed towards an end of the range from which the robot still stops before it."""
        room, dt = np.maximum(room, 0.0), self.dt
        limited = np.isfinite(self.acceleration)
        a = np.where(limited, self.acceleration, 1.0)
        return np.where(limited, a * (np.sqrt((1.5 * dt) ** 2 + 2 * room / a) - 1.5 * dt), room / dt)


def _outside(workspace: HandWorkspace, actions: Float[np.ndarray, "*t ad"]) -> Float[np.ndarray, "*t"]:
    """Return how far the hand is outside of its box [m], 0 within."""
    place = workspace.place(actions)
    beyond = np.maximum(np.array(workspace.low) - place, place - np.array(workspace.high))
    return np.asarray(np.maximum(beyond, 0.0).max(axis=-1))


def _keep_inside(workspace: HandWorkspace, last: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return as much of the step from `last` to `action` as keeps the hand in its box, and whether that is not all.

    A hand that is outside already may come nearer, and not go further. Where nobody knows the joints, there is no step.
    """
    joints = [joint.dim for joint in workspace.joints]
    beyond = _outside(workspace, action)
    if not beyond or not np.isfinite(last[joints]).all():
        return action, bool(beyond)
    if beyond <= (allowed := _outside(workspace, last)):
        return action, False
    nearest, least, most = action.copy(), 0.0, 1.0
    for _ in range(20):  # to a millionth of the step
        share = (least + most) / 2
        nearest[joints] = last[joints] + share * (action[joints] - last[joints])
        least, most = (share, most) if _outside(workspace, nearest) <= allowed else (least, share)
    nearest[joints] = last[joints] + least * (action[joints] - last[joints])
    return nearest, True


def limit_chunk(
    actions: Float[np.ndarray, "ah ad"], metadata: Mapping[str, Any]
) -> tuple[Float[np.ndarray, "ah ad"], tuple[Reason, ...]]:
    """Return a chunk with all of its actions within its robot's limits, and what kept it from being as it was.

    This is for whoever executes chunks without a filter. Where the robot is and how it moves is not known here, so that
    the first action is only kept in range; if it has a hand outside of its box, the others may only bring it nearer. A
    chunk within the limits is returned itself.

    Raises:
        ValueError: the chunk has other dims than the robot.
    """
    motion = motion_filter(metadata)
    if motion is None:
        return actions, ()
    if motion.passes(actions):
        return actions, ()
    motion.join()
    sent = [motion.apply(action) for action in actions]
    reasons: tuple[Reason, ...] = tuple(
        dict.fromkeys(reason for one in sent for reason in one.reasons if reason != "stopped")
    )
    return (np.stack([one.action for one in sent]) if reasons else actions), reasons


def motion_filter(metadata: Mapping[str, Any]) -> MotionFilter | None:
    """Return the filter for a policy's robot, from the metadata that its server sends; None without limits."""
    if not metadata.get("limits"):
        return None
    limits = MotionLimits.from_dict(dict(metadata["limits"]))
    return MotionFilter(limits, units=metadata["action_units"], hz=float(metadata["control_hz"]))


def measured_position(metadata: Mapping[str, Any], state: np.ndarray) -> Float[np.ndarray, " ad"]:
    """Return where a robot is, in its action dims: the state dims of the same name, NaN where there is none."""
    names = {name: number for number, name in enumerate(metadata["state_names"])}
    values = [state[names[name]] if name in names else np.nan for name in metadata["action_names"]]
    rates = [is_rate(unit) for unit in metadata["action_units"]]
    return np.where(rates, np.nan, np.array(values, float))
