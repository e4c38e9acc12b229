"""Where episodes begin other than with the robot at rest: a hand beside what it is to pick up."""

import numpy as np

from pilot.sims.world.bodies.base import FINGER_TRAVEL
from pilot.sims.world.env import WorldEnv
from pilot.sims.world.grasping import find_grasp
from pilot.sims.world.motions import UP, about
from pilot.sims.world.planner import Planner

_WRONG = 0.25  # share of hands that begin beside another thing
_BESIDE = 0.05  # standard deviation of where a hand is, along each horizontal axis [m]
_HIGHER = (-0.09, 0.28)  # than the place from which the expert comes down [m]
_WIDER = 5.0  # the higher, the farther aside: at 20 cm twice as far [1/m]
_TWIST, _TILT = 0.5, 0.15  # standard deviations of how it is turned about the vertical, and of the rest [rad]


def start_beside(env: WorldEnv, rng: np.random.Generator, *, tries: int = 10) -> bool:
    """Put a hand beside the first thing to pick up, its gripper open, closed or between; return whether that worked.

    A policy that misses sees many such states, and a whole demonstration has few: there the hand comes straight from
    above. One time in four it is beside another thing, or else a policy would name whatever its hand is beside.
    """
    planner, items = Planner(env.world, env.controller, env.scene), env.scene.items
    steps = env.scene.task.open_steps(env.goal_states())
    name = env.scene.task.steps[steps[0]].goal.item if steps else None
    others = [other for other, item in items.items() if other != name and item.kind is not None]
    if others and rng.random() < _WRONG:
        name = str(rng.choice(others))
    found = None if name is None else find_grasp(planner, items[name], rng=rng, lax=True)
    if found is None:
        return False
    opening = float(rng.choice([0.0, 1.0, rng.random()], p=[0.25, 0.5, 0.25]))
    for _ in range(tries):
        higher = rng.uniform(*_HIGHER)
        aside = np.array([*rng.normal(0, _BESIDE * (1 + _WIDER * max(0.0, higher)), 2), higher])
        turn = about(UP, rng.normal(0, _TWIST))
        for axis in np.eye(3)[:2]:
            turn = turn @ about(axis, rng.normal(0, _TILT))
        pose = found.before[0] + aside, turn @ found.before[1]
        q = planner.reach(found.q_before, {found.arm: pose})
        if q is not None and not planner.collides(q, openings={found.arm: opening * 2 * FINGER_TRAVEL}):
            env.controller.reset(q, grip=opening)
            return True
    return False
