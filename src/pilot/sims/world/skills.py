"""What an expert can do with its hands: pick, place, open, close, push and wipe, on any body.

Each skill is a motion (see `motions.py`). It begins from any state, draws its style from `rng`, and raises a
`Deviation` as soon as the world is not as it planned; whoever runs it then begins again.
"""

from collections.abc import Callable, Generator, Mapping, Sequence

import numpy as np

from pilot.sims.world.bodies.base import FINGER_TRAVEL, Arm
from pilot.sims.world.control import JointCommand, opening_for
from pilot.sims.world.goals import touches_others
from pilot.sims.world.grasping import Reachable, count_miss, find_grasp, turned_about_vertical
from pilot.sims.world.ik import Pose
from pilot.sims.world.motions import (
    UP,
    Deviation,
    Motion,
    drive,
    reach,
    set_grip,
    settle,
    travel,
    turn_between,
    turned,
    watched,
    with_grip,
)
from pilot.sims.world.places import free_spots, nearest_fixture, region_of, spots_near, stands
from pilot.sims.world.planner import Carried, Planner
from pilot.sims.world.scene import Fixture, Item

OVER = 0.22  # a hand passes this high over what things stand on [m]
MOVED = 0.06  # an item that is this far from where it was planned has moved [m]
_TURNED = 1.2  # a hand that is nearer than `OVER`, and turned by less than this, goes straight down [rad]
_MOST_SPOTS = 5  # that are tried for what is held
_LIFT = 0.13  # after closing, before it is checked that the item came along [m]
_LET_GO = 0.032  # farther open than what it held: wide open, a finger inside a glass would wedge it [m]
_CARRY = (0.40, 1.22)  # of a driving robot's hand: ahead of the base, and at least so high [m]


def pick(
    planner: Planner,
    item: Item,
    *,
    rng: np.random.Generator,
    arms: Sequence[Arm] | None = None,
    to: Fixture | None = None,
) -> Motion:
    """Drive to an item if need be, grip it, and lift it. `to`: where it will be put decides about arm and grasp.

    Raises:
        Deviation: it cannot be gripped from anywhere near, it moved, or it was not in the gripper after lifting.
    """
    arms = arms or arms_by_distance(planner, planner.world.pos(item.body), rng)
    if planner.body.is_mobile:
        found = yield from _approach(planner, item, arms, rng=rng)
    else:
        found = find_grasp(planner, item, rng=rng, arms=arms, drop=_above(planner, to), lax=True)
    if found is None:
        raise Deviation(f"no way to grip the {item.name}")
    yield from grip_as_found(planner, item, found, rng=rng)


def _above(planner: Planner, to: Fixture | None) -> Pose | None:
    if to is None:
        return None
    region = region_of(planner, to)
    return region.centre + (0.04 + region.half[2]) * UP, np.eye(3)


def arms_by_distance(planner: Planner, point: np.ndarray, rng: np.random.Generator) -> list[Arm]:
    """Return the arms, the nearest to a point first; where that hardly matters, in an order drawn by `rng`."""
    away = {
        arm: float(np.linalg.norm(planner.shoulder(arm)[0][:2] - point[:2])) + 0.08 * rng.random()
        for arm in planner.body.arms
    }
    return sorted(planner.body.arms, key=lambda arm: away[arm])


def _approach(
    planner: Planner, item: Item, arms: Sequence[Arm], *, rng: np.random.Generator
) -> Generator[JointCommand, None, Reachable | None]:
    """Drive to where an item can be gripped, unless the base stands there; return how to grip it."""
    point = planner.world.pos(item.body)
    found = None
    if np.linalg.norm(point[:2] - planner.ik.root(planner.controller.command.q)[0][:2]) < 0.75:
        found = find_grasp(planner, item, rng=rng, arms=arms)
    fixture = nearest_fixture(planner, point)
    for arm in arms:
        if found is not None:
            break
        for stand in stands(planner, fixture, point, arm, rng=rng)[:3]:
            yield from tuck(planner)
            yield from drive(planner, stand)
            found = find_grasp(planner, item, rng=rng, arms=[arm])
            if found is not None:
                break
    return found or find_grasp(planner, item, rng=rng, arms=arms, lax=True)


def tuck(planner: Planner) -> Motion:
    """Bring hands that hold nothing back to where they disturb nothing while the base drives."""
    far = np.abs(planner.controller.command.q - planner.body.ready)
    if far[~(planner.ik.is_base | planner.ik.is_lift)].max() < 0.15:
        return
    for arm in planner.body.arms:
        pos, rotation = planner.hand(arm)
        if planner.held_by(arm) is None and rotation[2, 0] < -0.5:
            yield from reach(planner, {arm: (pos + 0.10 * UP, rotation)}, speed=0.4, lenient=True)
    for arm in planner.body.arms:
        if planner.held_by(arm) is None:
            yield from travel(planner, arm, planner.body.ready)


def grip_as_found(planner: Planner, item: Item, found: Reachable, *, rng: np.random.Generator) -> Motion:
    """Bring the hand to a grasp, close it, and lift.

    Raises:
        Deviation: the item moved meanwhile, or is not in the gripper.
    """
    arm, opening, world = found.arm, opening_for(found.grasp.opening), planner.world
    began = world.pos(item.body)
    off = np.array([*rng.normal(0, 0.002, 2), 0.0])
    before, at = (found.before[0] + off, found.before[1]), (found.pose[0] + off, found.pose[1])

    def stays() -> bool:
        return bool(np.linalg.norm(world.pos(item.body) - began) < MOVED)

    height, over = OVER + float(rng.uniform(-0.04, 0.06)), found.q_before
    if not _is_near(planner, found):
        opened = {arm: found.grasp.opening}
        over = _raised(planner, arm, found.before, found.q_before, height, openings=opened)
    way = travel(planner, arm, over, speed=float(rng.uniform(0.9, 1.2)))
    yield from watched(with_grip(planner, way, arm, opening=opening), stays, f"the {item.name} moved")
    way = reach(planner, {arm: before}, speed=0.35)
    yield from watched(with_grip(planner, way, arm, opening=opening), stays, f"the {item.name} moved")
    yield from watched(settle(planner, arm), stays, f"the {item.name} moved")
    down = with_grip(planner, reach(planner, {arm: at}, speed=float(rng.uniform(0.13, 0.2))), arm, opening=opening)
    yield from watched(down, stays, f"the {item.name} moved")
    yield from settle(planner, arm, within=0.004)
    yield from set_grip(planner, arm, 0.0)
    yield from reach(planner, {arm: (at[0] + _LIFT * UP, at[1])}, speed=0.3, lenient=True)
    if planner.holder(item.name) != arm:
        count_miss(planner, item, found.grasp)
        raise Deviation(f"the {item.name} is not in the gripper")


def _is_near(planner: Planner, found: Reachable) -> bool:
    """Return whether the hand can go straight to where it comes down: misses are mended on the spot."""
    pos, rotation = planner.hand(found.arm)
    if np.linalg.norm(pos - found.before[0]) > OVER or turn_between(rotation, found.before[1])[1] > _TURNED:
        return False
    return not planner.blocked(planner.controller.command.q, found.q_before)


def place(
    planner: Planner,
    item: Item,
    to: Fixture | None,
    *,
    rng: np.random.Generator,
    xy: tuple[float, float] | None = None,
) -> Motion:
    """Put the item that a hand holds into or onto a fixture, or down at `xy`, and take the hand away.

    Raises:
        Deviation: it was lost on the way, or no spot can be reached.
    """
    arm = planner.holder(item.name)
    if arm is None:
        raise Deviation(f"the {item.name} is not in the gripper")

    def spots() -> list[np.ndarray]:
        if xy is not None:
            return spots_near(planner, np.array(xy), item, rng=rng)
        assert to is not None
        return free_spots(planner, to, item, rng=rng)

    gaps = [0.006]
    if to is not None and to.role != "surface":
        depth = 2 * float(region_of(planner, to).half[2])
        gaps = [0.012, *(gap for gap in (0.05, 0.09, 0.16, 0.24) if gap < depth - 0.03), max(0.09, depth - 0.02)]
    at = to or nearest_fixture(planner, spots()[0])
    yield from _deliver(planner, item, arm, at, spots, gaps=gaps, rng=rng)


def stack(planner: Planner, item: Item, base: Item, *, rng: np.random.Generator) -> Motion:
    """Put the item that a hand holds on, or into, another one, and take the hand away.

    Raises:
        Deviation: it was lost on the way, or the other one is out of reach.
    """
    arm = planner.holder(item.name)
    if arm is None:
        raise Deviation(f"the {item.name} is not in the gripper")

    def spots() -> list[np.ndarray]:
        middle = planner.world.centre(base.body)
        return [np.array([*middle[:2], planner.world.pos(base.body)[2] + 0.01])]

    at = nearest_fixture(planner, planner.world.pos(base.body))
    yield from _deliver(planner, item, arm, at, spots, gaps=(0.0,), rng=rng)


def put_back(planner: Planner, item: Item, arm: Arm, *, rng: np.random.Generator) -> Motion:
    """Put down what a hand holds without need, on the nearest surface; else let go.

    Raises:
        Deviation: it was lost on the way.
    """
    surfaces = [fixture for fixture in planner.scene.fixtures.values() if fixture.role == "surface"]
    surface = nearest_fixture(planner, planner.world.pos(item.body), among=surfaces)
    if surface is None:
        yield from set_grip(planner, arm, 1.0)
        return
    yield from place(planner, item, surface, rng=rng)


def _deliver(
    planner: Planner,
    item: Item,
    arm: Arm,
    at: Fixture | None,
    spots: Callable[[], list[np.ndarray]],
    *,
    gaps: Sequence[float],
    rng: np.random.Generator,
) -> Motion:
    """Bring a held item to the first of some spots in reach, `gaps` above it at best; `at` is the furniture there."""
    if planner.body.is_mobile:
        yield from _carry(planner, item, arm, at, spots()[0], rng=rng)
    carried = planner.carried(item, arm)
    found = _spot_in_reach(planner, carried, spots(), gaps=gaps)
    if found is None:
        raise Deviation(f"no place for the {item.name} in reach")
    yield from put_down(planner, carried, *found, deep=len(gaps) > 1, rng=rng)


def _carry(
    planner: Planner, item: Item, arm: Arm, at: Fixture | None, spot: np.ndarray, *, rng: np.random.Generator
) -> Motion:
    """Drive to where a spot is in reach, the hand high and close to the robot."""

    def is_held() -> bool:
        return _near_hand(planner, item, arm)

    q = planner.controller.command.q
    options = stands(planner, at, spot, arm, rng=rng)
    if not options:
        raise Deviation("nowhere to stand")
    stand = min(options[:2], key=lambda s: np.hypot(s[0] - q[0], s[1] - q[1]))
    if np.hypot(stand[0] - q[0], stand[1] - q[1]) < 0.12 and abs(turned(stand[2] - q[2])) < 0.2:
        return
    root, facing = planner.ik.root(q)
    pos, rotation = planner.hand(arm)
    up = root + facing @ np.array([_CARRY[0], arm.mount[1] * 0.8, 0.0])
    up[2] = min(max(pos[2] + 0.10, _CARRY[1]), 1.45)
    for to in (np.array([*pos[:2], up[2]]), up):
        way = reach(planner, {arm: (to, rotation)}, speed=0.35, lenient=True)
        yield from watched(way, is_held, f"the {item.name} fell")
    yield from watched(drive(planner, stand), is_held, f"the {item.name} fell")


def _near_hand(planner: Planner, item: Item, arm: Arm) -> bool:
    return bool(np.linalg.norm(planner.world.centre(item.body) - planner.world.site(arm.tcp)[0]) < 0.22)


def _raised(
    planner: Planner,
    arm: Arm,
    pose: Pose,
    q: np.ndarray,
    height: float,
    *,
    openings: Mapping[Arm, float] | None = None,
    carried: Carried | None = None,
) -> np.ndarray:
    """Return joint positions with the hand straight over a pose by up to `height` [m], as far as it gets unhindered.

    A hand that comes from the side stays at its height: there may be a shelf above.
    """
    if pose[1][2, 0] > -0.5:
        return q
    best, at = q, pose[0]
    for share in (0.4, 0.7, 1.0):
        higher = planner.reach(best, {arm: (at + share * height * UP, pose[1])})
        if higher is None or planner.collides(higher, openings=openings, carried=carried):
            break
        best = higher
    return best


def _spot_in_reach(
    planner: Planner, carried: Carried, spots: Sequence[np.ndarray], *, gaps: Sequence[float]
) -> tuple[Pose, np.ndarray] | None:
    """Return the hand's pose that lets go of what it holds over one of some spots, and joints for it.

    `gaps`: how far above the spot, in rising order; the lowest is taken that the arm reaches and that hits nothing.
    """
    item, arm, world = carried.item, carried.arm, planner.world
    tcp, rotation = world.site(arm.tcp)
    middle = (world.centre(item.body) - tcp) * [1, 1, 0]
    hangs = float(tcp[2] - planner.box_of(item.body)[0][2])
    start, spare = planner.controller.command.q, None
    for spot in spots[:_MOST_SPOTS]:
        for hand in turned_about_vertical(rotation):
            above, q, best = spot - hand @ rotation.T @ middle, start, None
            for gap in reversed(gaps):
                pose = above + (hangs + gap) * UP, hand
                lower = planner.reach(q, {arm: pose})
                if lower is None:
                    break
                spare, q = spare or (pose, lower), lower
                if planner.collides(q, carried=carried):
                    break
                best = pose, q
            if best is not None:
                return best
    return spare


def put_down(
    planner: Planner, carried: Carried, target: Pose, q: np.ndarray, *, deep: bool, rng: np.random.Generator
) -> Motion:
    """Bring what a hand holds over its place, lower it, let go, and take the hand away; `q` are joints for `target`.

    Raises:
        Deviation: it was lost on the way.
    """
    item, arm = carried.item, carried.arm

    def is_held() -> bool:
        return _near_hand(planner, item, arm)

    height = (0.20 if deep else 0.12) + float(rng.uniform(0, 0.04))
    over = _raised(planner, arm, target, q, height, carried=carried)
    way = travel(planner, arm, over, carried=carried, speed=float(rng.uniform(0.8, 1.0)))
    yield from watched(way, is_held, f"the {item.name} fell")
    yield from settle(planner, arm)

    def stands_already() -> bool:
        low = planner.hand(arm)[0][2] < target[0][2] + 0.04
        return low and touches_others(planner.world, planner.scene, item.name)

    down = reach(planner, {arm: target}, speed=float(rng.uniform(0.16, 0.25)), until=stands_already)
    yield from watched(down, is_held, f"the {item.name} fell")
    yield from settle(planner, arm, seconds=0.25)
    width = 2 * FINGER_TRAVEL * planner.controller.measured_grip()[planner.body.arms.index(arm)]
    yield from set_grip(planner, arm, opening_for(width + _LET_GO), seconds=0.4)
    pos, rotation = planner.hand(arm)
    away = UP if deep else (UP - rotation[:, 0]) / np.linalg.norm(UP - rotation[:, 0])
    yield from reach(planner, {arm: (pos + (0.14 if deep else 0.12) * away, rotation)}, speed=0.35, lenient=True)
