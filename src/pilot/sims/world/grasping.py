"""How to grip a thing where it lies now: its kind's grasps, those in reach, and of them the first that hits nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pilot.sims.world.bodies.base import FINGER_TRAVEL, Arm
from pilot.sims.world.ik import Pose
from pilot.sims.world.motions import turn_between
from pilot.sims.world.planner import Planner
from pilot.sims.world.scene import Item
from pilot.sims.world.things.grasps import Grasp

APPROACH = 0.09  # a hand comes this far along its fingers [m]
MOST_TRIED = 24  # grasps that are looked at closely
_WRIST = 0.175  # from the tcp back to the wrist's joints [m]
_ARM = 0.66  # from the shoulder to the wrist, stretched [m]
_AGAIN = 0.4  # what a grasp that missed once costs, as 4 cm of room for a finger
_NEAR = 0.3  # a hand that is so close to a thing does not turn round for it [m]
_STEEPEST = 0.35  # of an approach from below, as the upward part of its direction


@dataclass(frozen=True)
class Reachable:
    """A grasp that an arm can make: the hand's pose in the world, and the joints for it and for the way there."""

    grasp: Grasp
    arm: Arm
    pose: Pose
    before: Pose
    q_before: np.ndarray  # [nq]
    q: np.ndarray  # [nq]


def find_grasp(
    planner: Planner,
    item: Item,
    *,
    rng: np.random.Generator,
    arms: Sequence[Arm] | None = None,
    drop: Pose | None = None,
    lax: bool = False,
) -> Reachable | None:
    """Return a grasp of an item that an arm can make from where the base stands; None if there is none.

    `arms` in order of preference, all if not given. `drop`: a position that the hand must be able to reach as it grips,
    turned about the vertical as needed. `lax`: a grasp that brushes against something is better than none.
    """
    spare, near = None, None
    for arm in arms or planner.body.arms:
        for grasp, pose in rank_grasps(planner, item, arm, rng=rng)[:MOST_TRIED]:
            found = _check_grasp(planner, item, arm, grasp, pose)
            if found is None:
                continue
            near = near or found
            if drop is not None and not _can_carry(planner, found, drop[0]):
                continue
            # Wide open where there is room: a gripper that is half open then holds something, for all who see it.
            for opening in (2 * FINGER_TRAVEL, grasp.opening):
                openings = {arm: opening}
                ways = (found.q_before, found.q)
                if not any(planner.collides(q, openings=openings, touching=item.body) for q in ways):
                    return replace(found, grasp=replace(grasp, opening=opening))
            spare = spare or found
    return (spare or near) if lax else None


def is_reachable(planner: Planner, item: Item) -> bool:
    """Return whether an arm could grip an item from where the robot stands, whatever is in the way.

    An item without a kind, for which a simulator has skills of its own, counts as reachable.
    """
    if item.kind is None:
        return True
    rng = np.random.default_rng(0)
    return any(
        _check_grasp(planner, item, arm, grasp, pose) is not None
        for arm in planner.body.arms
        for grasp, pose in rank_grasps(planner, item, arm, rng=rng)[:MOST_TRIED]
    )


def rank_grasps(planner: Planner, item: Item, arm: Arm, *, rng: np.random.Generator) -> list[tuple[Grasp, Pose]]:
    """Return an item's grasps as hand poses in the world, the most promising first; `rng` shuffles near ties."""
    pos, rotation = planner.world.pos(item.body), planner.world.rot(item.body)
    shoulder = planner.shoulder(arm)
    away = pos[:2] - shoulder[0][:2]
    away /= max(float(np.linalg.norm(away)), 1e-6)
    others = [planner.world.pos(other.body)[:2] for other in planner.scene.items.values() if other is not item]
    here = planner.hand(arm)
    is_near = np.linalg.norm(here[0] - pos) < _NEAR
    ranked = []
    for grasp in () if item.kind is None else item.kind.grasps_as_it_lies(item.look, rotation):
        tcp, hand = pos + rotation @ grasp.tcp, rotation @ grasp.rotation
        approach, across = hand[:, 0], hand[:, 1]
        wrist = tcp - _WRIST * approach
        if approach[2] > _STEEPEST or np.linalg.norm(wrist[:2] - shoulder[0][:2]) > _ARM:
            continue
        fingers = [tcp[:2] + side * 0.06 * across[:2] for side in (1, -1)]
        room = min([float(np.linalg.norm(finger - other)) for finger in fingers for other in others] + [0.09])
        if is_near:  # rather as the hand is turned
            cost = 0.6 * turn_between(here[1], hand)[1]
        elif approach[2] < -0.8:  # from above: rather without turning the wrist
            sideways = shoulder[1].T @ across
            cost = 0.3 * abs(float(np.arctan2(-sideways[0], abs(sideways[1])))) + 0.1 * (sideways[1] < 0)
        else:
            cost = 1.0 - float(approach[:2] @ away)
        cost += _AGAIN * planner.missed[_key(item, grasp)]
        ranked.append((cost - 10 * room + 0.15 * rng.random(), grasp, (tcp, hand)))
    ranked.sort(key=lambda entry: entry[0])
    return [(grasp, pose) for _, grasp, pose in ranked]


def count_miss(planner: Planner, item: Item, grasp: Grasp) -> None:
    """Remember that a grasp did not hold, so that another one is tried first."""
    planner.missed[_key(item, grasp)] += 1


def _key(item: Item, grasp: Grasp) -> tuple[str, bytes]:
    return item.name, np.round([*grasp.tcp, *grasp.rotation[:, 1]], 2).tobytes()


def _check_grasp(planner: Planner, item: Item, arm: Arm, grasp: Grasp, pose: Pose) -> Reachable | None:
    """Return the grasp with joints to make it; None where the arm cannot."""
    before = pose[0] - APPROACH * pose[1][:, 0], pose[1]
    q_before = planner.reach(planner.controller.command.q, {arm: before})
    if q_before is None:
        return None
    q = planner.reach(q_before, {arm: pose})
    return None if q is None else Reachable(grasp, arm, pose, before, q_before, q)


def _can_carry(planner: Planner, found: Reachable, to: np.ndarray) -> bool:
    """Return whether the arm can hold what it grips over a place, turned about the vertical as needed."""
    return any(
        planner.reach(found.q_before, {found.arm: (to, rotation)}) is not None
        for rotation in turned_about_vertical(found.pose[1])
    )


def turned_about_vertical(rotation: np.ndarray) -> list[np.ndarray]:
    """Return a hand's rotation turned about the vertical, the smallest turns first."""
    turns = []
    for angle in np.radians([0, 30, -30, 60, -60, 90, -90, 135, -135, 180]):
        c, s = np.cos(angle), np.sin(angle)
        turns.append(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ rotation)
    return turns
