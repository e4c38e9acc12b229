"""One demonstration: the scripted expert solves an episode while things go wrong on purpose.

A policy trained on flawless demonstrations never sees what its own mistakes lead to. So the gripper is pushed about,
grasps are missed, starts are odd, or a policy drives the first steps; the expert, which answers any state, recovers.
The recorded action is always the expert's answer to the recorded state, even where something else was executed: those
steps are marked `perturbed`, and readers end a chunk's supervision there (`LeRobotDataset.windows`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pilot.sims.homes import Expert, HomesEnv
from pilot.sims.homes.language import DONE, utterances

DriveFn = Callable[[dict[str, Any]], np.ndarray]
_X, _Y, _Z, _SUCTION = range(4)  # of actions and states alike
_HOLDING = 4
_STEP = 0.05  # metres per control step: the fastest the gantry goes


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What goes wrong. Shares are of episodes; lengths in metres."""

    bursts: float = 0.6  # share with bursts of 1 to `burst_steps` steps in a random direction
    burst_rate: float = 0.07  # chance per step that one starts
    burst_steps: int = 4
    missed_grasps: float = 0.25  # share with a grasp 3 to 5 cm beside the object
    odd_starts: float = 0.5  # share that starts after up to 10 unrecorded random steps
    wrong_objects: float = 0.1  # share that starts with another object near, in or under the gripper
    jitter: float = 0.006  # largest standard deviation of the executed position; too small to mark as perturbed


REST_STEPS = 4  # after "done", before the recording ends


@dataclass(kw_only=True)
class Demonstration:
    """The recorded columns of one episode, one entry per frame."""

    prompt: str = ""
    images: dict[str, list[np.ndarray]] = field(default_factory=dict)
    states: list[np.ndarray] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)
    perturbed: list[bool] = field(default_factory=list)
    subtasks: list[tuple[int, str]] = field(default_factory=list)  # (first frame, text), one per change
    events: list[tuple[int, str]] = field(default_factory=list)  # (frame, what a person says)

    def add(
        self, observation: dict[str, Any], action: np.ndarray, *, subtask: str, box: tuple[float, ...] | None
    ) -> None:
        """Records one frame: what is seen, the expert's answer, and what it is doing."""
        if not self.subtasks or self.subtasks[-1][1] != subtask:
            self.subtasks.append((len(self.states), subtask))
        self.prompt = observation["prompt"]
        for camera, picture in observation["images"].items():
            self.images.setdefault(camera, []).append(picture)
        self.states.append(np.asarray(observation["state"], np.float32))
        self.actions.append(action)
        self.boxes.append(np.full(4, np.nan, np.float32) if box is None else np.asarray(box, np.float32))


def demonstrate(
    env: HomesEnv,
    *,
    home: int,
    episode: int,
    seed: int,
    noise: Noise,
    verbal: bool = False,
    policy: DriveFn | None = None,
) -> Demonstration | None:
    """Records one episode of `home`; None when the expert ran out of time.

    `verbal`: a person tells the next step whenever the subtask changes, in an order of their own.
    `policy`: drives the first 4 to 24 steps from what it observes; the expert finishes (DAgger, 1011.0686).
    """
    rng = np.random.default_rng((seed, home, episode))
    env.reset(seed=int(rng.integers(2**31)), options={"home": home, "episode": episode})
    expert = Expert(env, rng, order="random" if verbal else "nearest")
    _odd_start(env, rng, noise)
    disturbance, takeover = Disturbance(rng, noise), int(rng.integers(4, 25)) if policy else 0
    record, resting = Demonstration(), 0
    for step in range(env.max_steps):
        observation = env.observe()
        action = np.asarray(expert.act(), np.float32)
        subtask, box = expert.subtask
        record.add(observation, action, subtask=subtask, box=box)
        if verbal and record.subtasks[-1][0] == step and subtask != DONE:
            record.events.append((step, str(rng.choice(utterances(subtask)))))
        if policy and step < takeover:
            executed, perturbed = np.asarray(policy(observation), np.float32), True
        else:
            executed, perturbed = disturbance.apply(observation["state"], action)
        record.perturbed.append(perturbed)
        info = env.advance(executed)
        resting = resting + 1 if expert.subtask[0] == DONE and info["success"] else 0
        if resting > REST_STEPS:
            return record
    return None


class Disturbance:
    """Turns the expert's action into the executed one: jitter always, bursts and a missed grasp now and then."""

    def __init__(self, rng: np.random.Generator, noise: Noise) -> None:
        self._rng, self._noise = rng, noise
        self._has_bursts = rng.random() < noise.bursts
        self._misses = int(rng.random() < noise.missed_grasps)
        self._jitter = rng.uniform(0, noise.jitter)
        self._script: list[np.ndarray] = []  # offsets and suction of the steps still to execute

    def apply(self, state: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, bool]:
        """The executed action, and whether it is something else than the expert's."""
        if not self._script:
            self._start(state, action)
        if self._script:
            executed = self._script.pop(0).copy()
            executed[:_SUCTION] += state[:_SUCTION]
            return executed, True
        executed = action.copy()
        executed[:_SUCTION] += self._rng.normal(0, self._jitter, 3).astype(np.float32)
        return executed, False

    def _start(self, state: np.ndarray, action: np.ndarray) -> None:
        if self._misses and _descends(state, action):
            self._misses -= 1
            self._script = self._missed_grasp()
        elif self._has_bursts and self._rng.random() < self._noise.burst_rate:
            self._script = self._burst(state)

    def _burst(self, state: np.ndarray) -> list[np.ndarray]:
        suction = float(state[_SUCTION] > 0.5) if self._rng.random() < 0.8 else float(self._rng.random() < 0.5)
        offset = np.append(self._rng.uniform(-_STEP, _STEP, 3), suction).astype(np.float32)
        return [offset] * int(self._rng.integers(1, self._noise.burst_steps + 1))

    def _missed_grasp(self) -> list[np.ndarray]:
        """Aside by 3 to 5 cm, down as far as it goes, suction on: it closes on nothing, or on the rim."""
        angle, distance = self._rng.uniform(0, 2 * np.pi), self._rng.uniform(0.03, 0.05)
        aside = np.array([distance * np.cos(angle), distance * np.sin(angle), -0.01, 0], np.float32)
        down = [np.array([0, 0, -0.04, 0], np.float32)] * 2
        closed = [np.array([0, 0, -0.02, 1], np.float32)] * int(self._rng.integers(2, 4))
        return [aside, *down, *closed]


def _descends(state: np.ndarray, action: np.ndarray) -> bool:
    """The expert is above the object and goes down to grasp it."""
    above = np.abs(action[:_Z] - state[:_Z]).max() < 0.015
    return bool(above and action[_Z] < state[_Z] - 0.01 and state[_HOLDING] < 0.5)


def _odd_start(env: HomesEnv, rng: np.random.Generator, noise: Noise) -> None:
    """Unrecorded steps before the recording: anywhere, suction off or on; or off with a wrong object."""
    if rng.random() < noise.wrong_objects:
        wander_with_wrong_object(env, rng)
    elif rng.random() < noise.odd_starts:
        wander(env, rng, steps=int(rng.integers(1, 11)))


def wander(env: HomesEnv, rng: np.random.Generator, *, steps: int) -> None:
    """Moves in one random direction, mostly with suction off."""
    direction = rng.uniform(-_STEP, _STEP, 3) * (1, 1, 0.7)
    suction = float(rng.random() < 0.15)
    for _ in range(steps):
        env.advance(np.append(env.world.gripper + direction, suction))


def wander_with_wrong_object(env: HomesEnv, rng: np.random.Generator) -> None:
    """Goes for an object that nobody asked for; stops anywhere from half-way there to carrying it."""
    others = [thing.name for thing in env.episode.things if thing.name not in env.targets]
    if not others:
        return wander(env, rng, steps=int(rng.integers(1, 11)))
    misled = Expert(env, rng, order=[str(rng.choice(others))])
    for _ in range(int(rng.integers(6, 24))):
        env.advance(misled.act())
        if env.state()[_HOLDING] > 0.5 and rng.random() < 0.2:
            return
