"""Odd starts: unrecorded steps that bring the gripper where no flawless demonstration would have been."""

import numpy as np

from pilot.sims.homes.disturbances import HOLDING, STEP, Noise
from pilot.sims.homes.env import HomesEnv
from pilot.sims.homes.expert import Expert


def odd_start(env: HomesEnv, rng: np.random.Generator, *, noise: Noise) -> None:
    """Move anywhere with suction off or on, or go off with a wrong object, or do nothing."""
    if rng.random() < noise.wrong_objects:
        wander_with_wrong_object(env, rng)
    elif rng.random() < noise.odd_starts:
        wander(env, rng, steps=int(rng.integers(1, 11)))


def wander(env: HomesEnv, rng: np.random.Generator, *, steps: int) -> None:
    """Move in one random direction, mostly with suction off."""
    direction = rng.uniform(-STEP, STEP, 3) * (1, 1, 0.7)
    suction = float(rng.random() < 0.15)
    for _ in range(steps):
        env.advance(np.append(env.world.gripper + direction, suction))


def wander_with_wrong_object(env: HomesEnv, rng: np.random.Generator) -> None:
    """Go for an object that nobody asked for; stop anywhere from half-way there to carrying it."""
    others = [thing.name for thing in env.episode.things if thing.name not in env.targets]
    if not others:
        return wander(env, rng, steps=int(rng.integers(1, 11)))
    misled = Expert(env, rng, order=[str(rng.choice(others))])
    for _ in range(int(rng.integers(6, 24))):
        env.advance(misled.act())
        if env.state()[HOLDING] > 0.5 and rng.random() < 0.2:
            return
