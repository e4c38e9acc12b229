"""What goes wrong on purpose in demonstrations: joints pushed off, missed grasps, shoved things, odd starts."""

import numpy as np

from pilot.sims.base import Disturbance
from pilot.sims.world.env import WorldEnv
from pilot.sims.world.mishaps import Mishaps
from pilot.sims.world.scene import held_items

_PUSH = 0.12  # a burst pushes a joint off by at most this [rad]; a lift by a third of it [m]
_DRIFT = 0.25  # and a base to a speed of this [m/s]
_TURN = 0.06  # and each element of a hand's rotation matrix off by at most this
_ASIDE = 0.12  # a joint of an arm that misses is this far off [rad]
_HAND_ASIDE = 0.24  # speed of a hand that misses [m/s]
_SHOVE = (0.2, 0.45)  # speed of a thing that is shoved [m/s]

Script = list[tuple[np.ndarray, np.ndarray | None]]
"""For each coming step: what is added to the action, and the grippers' commands (None: those of the expert)."""


class WorldDisturbance(Disturbance):
    """Changes an expert's actions: a little jitter always, bursts, a missed or lost grasp and a shove now and then."""

    def __init__(self, env: WorldEnv, rng: np.random.Generator, mishaps: Mishaps) -> None:
        self._env, self._rng, self._mishaps = env, rng, mishaps
        self._has_bursts = rng.random() < mishaps.bursts
        self._misses = int(rng.random() < mishaps.missed_grasps)
        self._shoves = int(rng.random() < mishaps.shoves)
        self._jitter = float(rng.uniform(0, mishaps.jitter))
        robot = env.robot
        self._hz = robot.control_hz
        self._grips = np.array([robot.action_names.index(gripper.action) for gripper in robot.grippers])
        self._scale = _scales(env)
        self._script: Script = []

    def apply(self, state: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, bool]:
        """Return the executed action, and whether it is another one than the expert's."""
        if not self._script:
            self._start(state, action)
        executed = action.copy()
        if self._script:
            offset, grips = self._script.pop(0)
            executed += offset.astype(executed.dtype)
            if grips is not None:
                executed[self._grips] = grips
            return executed, True
        executed += (self._rng.normal(0, self._jitter, len(action)) * (self._scale > 0)).astype(executed.dtype)
        return executed, False

    def _start(self, state: np.ndarray, action: np.ndarray) -> None:
        closes = action[self._grips] < state[self._grips] - 0.15
        if self._misses and closes.any():
            self._misses -= 1
            self._script = self._miss(state, closes)
        elif self._shoves and self._rng.random() < 0.4 / self._hz:
            self._shoves -= 1
            self._shove()
        elif self._has_bursts and self._rng.random() < self._mishaps.burst_rate / self._hz:
            self._script = self._burst(len(action))

    def _burst(self, dims: int) -> Script:
        """Return steps in a random direction; sometimes grippers move as well, and go on when the hand stands."""
        ticks = max(1, round(self._rng.uniform(0.1, self._mishaps.burst_seconds) * self._hz))
        offset = self._rng.uniform(-1, 1, dims) * self._scale
        if self._rng.random() >= self._mishaps.burst_grips:
            return [(offset, None)] * ticks
        grips = self._rng.choice([0.0, 0.0, 1.0, self._rng.random()], len(self._grips))
        moving: Script = [(offset, grips)] * ticks
        return moving + [(np.zeros(dims), grips)] * ticks

    def _miss(self, state: np.ndarray, closes: np.ndarray) -> Script:
        """Return steps aside, with the gripper closing there."""
        offset = self._rng.choice([-1.0, 1.0], len(self._scale)) * (self._scale >= _PUSH) * _ASIDE
        angle, robot = self._rng.uniform(0, 2 * np.pi), self._env.robot
        for dim, (name, unit) in enumerate(zip(robot.action_names, robot.action_units, strict=True)):
            if unit == "m" and name.endswith(("x", "y")):  # of a hand's pose
                offset[dim] = _HAND_ASIDE / self._hz * (np.cos(angle) if name.endswith("x") else np.sin(angle))
        open_grips = np.where(closes, 1.0, state[self._grips])
        shut = np.where(closes, 0.0, state[self._grips])
        aside, closing = round(0.25 * self._hz), round(0.4 * self._hz)
        going: Script = [(offset, open_grips)] * aside
        return going + [(offset, shut)] * closing

    def _shove(self) -> None:
        """Give a thing that the task is about, and nobody holds, a push along the table."""
        world, scene = self._env.world, self._env.scene
        held = held_items(world, scene)
        names = [name for name in scene.task.items if name in scene.items and name not in held]
        if not names:
            return
        body = world.id_of("body", scene.items[str(self._rng.choice(names))].body)
        first, angle = world.model.body_dofadr[body], self._rng.uniform(0, 2 * np.pi)
        world.data.qvel[first : first + 2] = self._rng.uniform(*_SHOVE) * np.array([np.cos(angle), np.sin(angle)])
        world.forward()


def odd_start(env: WorldEnv, rng: np.random.Generator, *, mishaps: Mishaps) -> None:
    """Move joints, base and grippers for a moment, unrecorded, so that the episode begins elsewhere; or do nothing."""
    if rng.random() >= mishaps.odd_starts:
        return
    push = rng.uniform(-1, 1, len(env.robot.action_units)) * _scales(env)
    push_off(env, np.where(_are_speeds(env), push, 3 * push), seconds=rng.uniform(0.3, 1.0))


def push_off(env: WorldEnv, push: np.ndarray, *, seconds: float, start: np.ndarray | None = None) -> None:
    """Move a robot away from `start` [ad], or from where it is: by `push` in the end, at its speeds all the time."""
    begun = (env.state() if start is None else start).astype(np.float64)
    ticks, speeds = round(seconds * env.robot.control_hz), _are_speeds(env)
    for tick in range(1, ticks + 1):
        env.advance(np.where(speeds, push, begun + push * tick / ticks))


def _are_speeds(env: WorldEnv) -> np.ndarray:
    return np.array(["/s" in unit for unit in env.robot.action_units])


def _scales(env: WorldEnv) -> np.ndarray:
    """Return how far a burst may push each dim of an action; 0 for grippers."""
    scales = {"rad": _PUSH, "m": _PUSH / 3, "1": _TURN, "m/s": _DRIFT, "rad/s": 2 * _DRIFT}
    return np.array([scales.get(unit, 0.0) for unit in env.robot.action_units])
