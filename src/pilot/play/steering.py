"""From keys and sticks to actions, for any robot.

A person pushes *axes* by −1 to 1. An environment may have axes of its own, such as those of an arm's hand
(`sims.base.Steerable`); for all others each dim of the action is an axis: one that is a motion is commanded while it is
pushed, and one that is a position goes on from where it is.
"""

from collections.abc import Mapping

import numpy as np

from pilot.sims.base import SimEnv, Steerable
from pilot.types import Robot, is_rate

SPEEDS = {"m": 0.3, "rad": 0.8, "deg": 45.0, "px": 150.0, "0 to 1": 1.0, "m/s": 0.4, "rad/s": 0.8, "deg/s": 45.0}
"""How fast a pushed axis moves, in its unit per second; rates are commanded at this value."""
STEP = 0.5  # the share of a step that a dim in steps moves


class Steering:
    """What one person holds down, and the action that follows from it; `axes` names what can be pushed."""

    def __init__(self, env: SimEnv) -> None:
        self.env, self.robot = env, env.robot
        self.axes = env.steering_axes if isinstance(env, Steerable) else dim_axes(env.robot)
        self.held: dict[str, float] = {}
        self.is_open = True
        self.target = np.zeros(self.robot.action_dim)

    def begin(self, state: np.ndarray, *, last: np.ndarray | None) -> None:
        """Take over where the robot is, from the action that was executed last."""
        self.held = {}
        self.target = start_target(self.robot, state, last=last)
        commands = [(grip, self.target[[self._dim(grip.action)]]) for grip in self.robot.grippers]
        self.is_open = all(grip.openness(command)[0] > 0.5 for grip, command in commands)

    def push(self, axes: Mapping[str, float], *, is_open: bool | None = None) -> None:
        """Hold these axes from now on, and no others.

        Raises:
            ValueError: an axis that this robot does not have, or a push that is no number from −1 to 1.
        """
        for name, value in axes.items():
            if name not in self.axes:
                raise ValueError(f"robot '{self.robot.name}' has no axis {name!r:.40}; it has {', '.join(self.axes)}")
            if isinstance(value, bool) or not isinstance(value, int | float) or not -1 <= value <= 1:
                raise ValueError(f"an axis is pushed by −1 to 1, got {value!r:.40}")
        self.held = {name: float(value) for name, value in axes.items() if value}
        if is_open is not None:
            self.is_open = bool(is_open)

    def action(self) -> np.ndarray:
        """Return the next action, float32 [ad]."""
        if isinstance(self.env, Steerable):
            return np.asarray(self.env.steer(self.held, is_open=self.is_open), np.float32)
        period = 1 / self.robot.control_hz
        for name in self.axes:
            dim, unit = self._dim(name), unit_of(self.robot, name)
            push = self.held.get(name, 0.0)
            if moves_while_pushed(self.robot, name):
                self.target[dim] = push * SPEEDS.get(unit, STEP)
            else:
                self.target[dim] += push * SPEEDS.get(unit, STEP) * period
        for grip in self.robot.grippers:
            self.target[self._dim(grip.action)] = grip.open if self.is_open else grip.closed
        return self.target.astype(np.float32)

    def settle(self, state: np.ndarray) -> None:
        """Bring a target that ran ahead of the robot back to it: at the end of its reach, keys work at once."""
        for name in self.axes:
            if name not in self.robot.state_names or name not in self.robot.action_names:
                continue
            dim, at = self._dim(name), float(state[self.robot.state_names.index(name)])
            ahead = SPEEDS.get(unit_of(self.robot, name), STEP) / self.robot.control_hz * 2
            if not moves_while_pushed(self.robot, name):
                self.target[dim] = np.clip(self.target[dim], at - ahead, at + ahead)

    def _dim(self, name: str) -> int:
        return self.robot.action_names.index(name)


def dim_axes(robot: Robot) -> tuple[str, ...]:
    """Return the dims of an action that are axes: all but the grippers, which are opened and closed."""
    grippers = {gripper.action for gripper in robot.grippers}
    return tuple(name for name in robot.action_names if name not in grippers)


def unit_of(robot: Robot, name: str) -> str:
    """Return the unit of an action's dim; "1" where the robot gives none."""
    return robot.action_units[robot.action_names.index(name)] if robot.action_units else "1"


def moves_while_pushed(robot: Robot, name: str) -> bool:
    """Return whether a dim is a motion, or nobody measures where it is: then it is 0 while it is not pushed."""
    return is_rate(unit_of(robot, name)) or name not in robot.state_names


def start_target(robot: Robot, state: np.ndarray, *, last: np.ndarray | None) -> np.ndarray:
    """Return the action that keeps a robot where it is: positions as measured, no motion, grippers as commanded."""
    target = np.zeros(robot.action_dim) if last is None else np.array(last, float)
    for dim, name in enumerate(robot.action_names):
        gripper = next((grip for grip in robot.grippers if grip.action == name), None)
        if gripper is not None:
            target[dim] = gripper.open if last is None else last[dim]
        elif is_rate(unit_of(robot, name)):
            target[dim] = 0.0
        elif name in robot.state_names:
            target[dim] = state[robot.state_names.index(name)]
    return target
