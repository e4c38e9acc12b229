"""What goes wrong on purpose while the expert demonstrates: the gripper is pushed about, and grasps are missed."""

from dataclasses import dataclass

import numpy as np

from pilot.sims.base import Disturbance

X, Y, Z, SUCTION = range(4)  # of actions and states alike
HOLDING = 4  # of states
STEP = 0.05  # metres per control step: the fastest the gantry goes


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The settings of what goes wrong. Shares are of episodes; lengths in metres."""

    bursts: float = 0.6  # share with bursts of 1 to `burst_steps` steps in a random direction
    burst_rate: float = 0.07  # chance per step that one starts
    burst_steps: int = 4
    missed_grasps: float = 0.25  # share with a grasp 3 to 5 cm beside the object
    odd_starts: float = 0.5  # share that starts after up to 10 unrecorded random steps
    wrong_objects: float = 0.1  # share that starts with another object near, in or under the gripper
    jitter: float = 0.006  # largest standard deviation of the executed position; too small to mark as perturbed


class HomesDisturbance(Disturbance):
    """Changes the expert's actions: a little jitter always, bursts and a missed grasp now and then."""

    def __init__(self, rng: np.random.Generator, noise: Noise) -> None:
        self._rng, self._noise = rng, noise
        self._has_bursts = rng.random() < noise.bursts
        self._misses = int(rng.random() < noise.missed_grasps)
        self._jitter = rng.uniform(0, noise.jitter)
        self._script: list[np.ndarray] = []  # offsets and suction of the steps still to execute

    def apply(self, state: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, bool]:
        """Return the executed action, and whether it is another one than the expert's."""
        if not self._script:
            self._start(state, action)
        if self._script:
            executed = self._script.pop(0).copy()
            executed[:SUCTION] += state[:SUCTION]
            return executed, True
        executed = action.copy()
        executed[:SUCTION] += self._rng.normal(0, self._jitter, 3).astype(np.float32)
        return executed, False

    def _start(self, state: np.ndarray, action: np.ndarray) -> None:
        if self._misses and _descends(state, action):
            self._misses -= 1
            self._script = self._missed_grasp()
        elif self._has_bursts and self._rng.random() < self._noise.burst_rate:
            self._script = self._burst(state)

    def _burst(self, state: np.ndarray) -> list[np.ndarray]:
        suction = float(state[SUCTION] > 0.5) if self._rng.random() < 0.8 else float(self._rng.random() < 0.5)
        offset = np.append(self._rng.uniform(-STEP, STEP, 3), suction).astype(np.float32)
        return [offset] * int(self._rng.integers(1, self._noise.burst_steps + 1))

    def _missed_grasp(self) -> list[np.ndarray]:
        """Return steps aside by 3 to 5 cm, down as far as it goes, suction on: it grasps nothing, or the rim."""
        angle, distance = self._rng.uniform(0, 2 * np.pi), self._rng.uniform(0.03, 0.05)
        aside = np.array([distance * np.cos(angle), distance * np.sin(angle), -0.01, 0], np.float32)
        down = [np.array([0, 0, -0.04, 0], np.float32)] * 2
        closed = [np.array([0, 0, -0.02, 1], np.float32)] * int(self._rng.integers(2, 4))
        return [aside, *down, *closed]


def _descends(state: np.ndarray, action: np.ndarray) -> bool:
    """Return whether the expert is above the object and goes down to grasp it."""
    above = np.abs(action[:Z] - state[:Z]).max() < 0.015
    return bool(above and action[Z] < state[Z] - 0.01 and state[HOLDING] < 0.5)
