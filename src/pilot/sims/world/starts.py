"""Where episodes begin other than with the robot at rest: a hand beside what it is to pick up, or with it in hand."""

import numpy as np

from pilot.sims.world.bodies.base import FINGER_TRAVEL
from pilot.sims.world.disturbances import push_off
from pilot.sims.world.env import BeginFn, WorldEnv
from pilot.sims.world.expert import WorldExpert
from pilot.sims.world.grasping import find_grasp
from pilot.sims.world.motions import UP, about
from pilot.sims.world.planner import Planner
from pilot.sims.world.scene import ImpossibleSceneError

_WRONG = 0.25  # share of hands that begin beside another thing
_BESIDE = 0.05  # standard deviation of where a hand is, along each horizontal axis [m]
_HIGHER = (-0.09, 0.28)  # than the place from which the expert comes down [m]
_WIDER = 5.0  # the higher, the farther aside: at 20 cm twice as far [1/m]
_TWIST, _TILT = 0.5, 0.15  # standard deviations of how it is turned about the vertical, and of the rest [rad]
_TRIES = 10

_ONWARD = {False: 2.5, True: 6.0}  # for how long a standing robot, and one that drives, carries it at most [s]
_PUSHED = 0.75  # share of these that are pushed off their way, for up to so long [s]
_PUSH_SECONDS = (0.4, 1.5)
_PUSH = {"m": 0.2, "1": 0.15, "rad": 0.35, "m/s": 0.35, "rad/s": 0.7}  # how far, or how fast, by the unit of a dim


def start_beside(env: WorldEnv, rng: np.random.Generator) -> None:
    """Put a hand beside the first thing to pick up, its gripper open, closed or between.

    A policy that misses sees many such states, and a whole demonstration has few: there the hand comes straight from
    above. One time in four it is beside another thing, or else a policy would name whatever its hand is beside.

    Raises:
        ImpossibleSceneError: there is nothing that the hand can be put beside.
    """
    planner, items = Planner(env.world, env.controller, env.scene), env.scene.items
    steps = env.scene.task.open_steps(env.goal_states())
    name = env.scene.task.steps[steps[0]].goal.item if steps else None
    others = [other for other, item in items.items() if other != name and item.kind is not None]
    if others and rng.random() < _WRONG:
        name = str(rng.choice(others))
    found = None if name is None else find_grasp(planner, items[name], rng=rng, lax=True)
    if found is None:
        raise ImpossibleSceneError("nothing can be grasped")
    opening = float(rng.choice([0.0, 1.0, rng.random()], p=[0.3, 0.6, 0.1]))
    for _ in range(_TRIES):
        higher = rng.uniform(*_HIGHER)
        aside = np.array([*rng.normal(0, _BESIDE * (1 + _WIDER * max(0.0, higher)), 2), higher])
        turn = about(UP, rng.normal(0, _TWIST))
        for axis in np.eye(3)[:2]:
            turn = turn @ about(axis, rng.normal(0, _TILT))
        pose = found.before[0] + aside, turn @ found.before[1]
        q = planner.reach(found.q_before, {found.arm: pose})
        if q is not None and not planner.collides(q, openings={found.arm: opening * 2 * FINGER_TRAVEL}):
            env.controller.reset(q, grip=opening)
            return
    raise ImpossibleSceneError("no room for the hand beside the thing")


def start_holding(env: WorldEnv, rng: np.random.Generator) -> None:
    """Let the expert pick up the first thing and carry it for a while; push the robot off then, three times in four.

    A policy that stops half-way does not know whether it was on its way up or down, and no whole demonstration shows
    what to do there.

    Raises:
        ImpossibleSceneError: the expert did not pick it up, has put it down already, or lost it.
    """
    expert, ticks = (
        WorldExpert(env, rng),
        round(rng.uniform(0, _ONWARD[env.scene.body.is_mobile]) * env.robot.control_hz),
    )
    action = expert.act()
    for _ in range(env.max_steps):
        info = env.advance(action)
        ticks -= info["holding"] is not None
        if ticks < 0 or info["success"] or info["broken"]:
            break
        action = expert.act()
    if rng.random() < _PUSHED:
        _push_off(env, rng, action)
    if env.advance(action)["holding"] is None or ticks >= 0:
        raise ImpossibleSceneError("the hand does not hold the thing")


def _push_off(env: WorldEnv, rng: np.random.Generator, action: np.ndarray) -> None:
    """Move hands, lift and base elsewhere for a moment; grippers stay as `action` has them."""
    units = env.robot.action_units
    push = rng.uniform(-1, 1, len(units)) * np.array([_PUSH.get(unit, 0.0) for unit in units])
    grips = [env.robot.action_names.index(gripper.action) for gripper in env.robot.grippers]
    start = env.state()
    start[grips], push[grips] = action[grips], 0.0
    push_off(env, push, seconds=rng.uniform(*_PUSH_SECONDS), start=start)


STARTS: dict[str, BeginFn | None] = {"at rest": None, "beside": start_beside, "holding": start_holding}
"""How an episode begins, by the names that suites give it."""
