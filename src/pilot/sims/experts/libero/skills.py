"""What the expert of LIBERO can do: pick a thing up, and put it into or onto something."""

import numpy as np

from pilot.sims.experts.libero.grasping import CLEAR, TIP, TopGrasp, find_top_grasps
from pilot.sims.experts.libero.motions import (
    CLOSED,
    OPEN,
    UP,
    LiberoHand,
    Missed,
    Motion,
    over,
    pointing_down,
    reach,
    set_grip,
    turn_onto,
    wait,
)
from pilot.sims.experts.libero.scene import LiberoScene

TRAVEL = 0.03  # between what is carried and what it is carried over [m]
AISLE = 0.10  # half the width of what is looked at between two places [m]
YAWS = (-0.2, 4.2)  # that the wrist's last joint leaves, where LIBERO's scenes are [rad]
LOST = 0.05  # a thing this much further from the hand than it was is not held any more [m]


def is_held(scene: LiberoScene, name: str) -> bool:
    """Return whether a thing is between the fingers and has left what it lay on."""
    robot, rest = scene.touches(name)
    return robot and not rest and scene.gap() < 0.078


def pick(
    hand: LiberoHand, name: str, *, rng: np.random.Generator, tries: int = 0, along: np.ndarray | None = None
) -> Motion:
    """Grip a thing from above and lift it.

    Raises:
        Missed: there is no room for the fingers, or it is not in the hand afterwards.
    """
    yield from grip(hand, name, rng=rng, tries=tries, along=along)
    height = hand.scene.pose(name)[0][2]
    pos, rotation = hand.pose
    yield from reach(hand, (pos + 0.06 * UP, rotation), pace=0.8, near=0.015, lenient=True)
    if hand.scene.pose(name)[0][2] < height + 0.02:
        raise Missed(f"{name} is not in the hand")


def grip(
    hand: LiberoHand, name: str, *, rng: np.random.Generator, tries: int = 0, along: np.ndarray | None = None
) -> Motion:
    """Close the fingers on a thing from above. After `tries` that failed, other grasps are as good as the best.

    `along`: the direction in which the fingers have to close [3]; any if not given.

    Raises:
        Missed: there is no room for the fingers.
    """
    scene = hand.scene
    grasp = choose_grasp(scene, name, hand, rng=rng, tries=tries, along=along)
    yaw = nearest_yaw(hand.yaw, grasp.yaw)
    down = grasp.pos + np.array([*rng.normal(0, 0.0015, 2), 0]), pointing_down(yaw)
    hand.grip = OPEN
    top = float(scene.points(name)[:, 2].max())
    above = max(grasp.pos[2] + 0.05, top + 0.04) + float(rng.uniform(0, 0.03))
    yield from over(hand, down, height=max(above, travel_height(scene, hand.pose[0], down[0], hang=0.02)))
    yield from reach(hand, (np.array([*down[0][:2], above]), down[1]), near=0.012)
    yield from reach(hand, down, pace=0.75, near=0.006, lenient=True)
    yield from wait(hand, int(rng.integers(0, 3)))
    yield from set_grip(hand, CLOSED)


def choose_grasp(
    scene: LiberoScene,
    name: str,
    hand: LiberoHand,
    *,
    rng: np.random.Generator,
    tries: int,
    along: np.ndarray | None,
) -> TopGrasp:
    """Return one of the better grasps of a thing.

    Raises:
        Missed: there is none.
    """
    points = scene.points(name)
    grasps = find_top_grasps(points, others=scene.others(name), ground=scene.ground, yaw=hand.yaw)
    if along is not None:
        grasps = [g for g in grasps if abs(np.cos(g.yaw) * along[0] + np.sin(g.yaw) * along[1]) > 0.97]
    if not grasps:
        raise Missed(f"no room for the fingers at {name}")
    good = [grasp for grasp in grasps if grasp.cost < grasps[0].cost + 0.05 + 0.3 * tries]
    return good[int(rng.integers(len(good)))]


def place(
    hand: LiberoHand, name: str, goal: np.ndarray, *, ground: float, drop: float = 0.006, lowest: float = -np.inf,
    rng: np.random.Generator,
) -> Motion:  # fmt: skip
    """Bring a thing that is held to where its body's origin is over `goal` [2], and let go `drop` above `ground` [m].

    The fingertips stay above `lowest` [m].

    Raises:
        Missed: it fell on the way.
    """
    scene = hand.scene
    pos = hand.pose[0]
    offset = scene.pose(name)[0] - pos
    hang = pos[2] - float(scene.points(name)[:, 2].min())
    xy = goal + rng.normal(0, 0.003, 2) - offset[:2]
    target = np.array([*xy, max(ground + drop + hang, lowest)])
    height = max(travel_height(scene, pos, target, hang=hang, but=name), target[2] + 0.02)
    turned = pointing_down(hand.yaw)
    yield from while_held(hand, name, over(hand, (target, turned), height=height))
    yield from while_held(hand, name, reach(hand, (target, turned), pace=0.6, near=0.006, lenient=True))
    yield from wait(hand, int(rng.integers(0, 3)))
    yield from release(hand)


def place_at(hand: LiberoHand, name: str, where: str, *, rng: np.random.Generator) -> Motion:
    """Put a thing that is held into or onto a region, or another thing."""
    scene = hand.scene
    is_region = where in scene.world.object_sites_dict
    goal = (scene.site(where) if is_region else scene.pose(where))[0]
    goal = goal + _out_of_the_frame(scene, where) if is_region else goal
    below = scene.points(scene.site_body(where) if is_region else where)
    away = np.linalg.norm(below[:, :2] - goal[:2], axis=1)
    ground = float(below[away < 0.03, 2].max(initial=scene.ground))
    rim = float(below[away < 0.12, 2].max(initial=ground))
    lowest = rim + TIP + CLEAR if rim > ground + 0.02 else -np.inf
    yield from place(hand, name, goal[:2], ground=ground, lowest=lowest, rng=rng)


def _out_of_the_frame(scene: LiberoScene, region: str) -> np.ndarray:
    """Return the way from a region's middle to where things fit in from above: the middle of what is pulled out."""
    body = scene.body(scene.site_body(region))
    if not scene.model.body_jntnum[body]:
        return np.zeros(3)
    return -0.015 * scene.data.xaxis[scene.model.body_jntadr[body]]


def lay(hand: LiberoHand, name: str, region: str) -> Motion:
    """Lay a thing that is held by its top onto a slope, its foot at the lower end, and leave uphill.

    The region's axes say how the slope lies: its z uphill, its y into the board.
    """
    scene = hand.scene
    where, axes = scene.site(region)
    uphill, normal = axes[:, 2], -axes[:, 1]
    origin, rotation = scene.pose(name)
    pos, held = hand.pose
    radius = float(np.abs((scene.points(name) - origin) @ np.cross(rotation[:, 2], uphill)).max())
    tilt = turn_onto(rotation[:, 2], uphill)
    foot = where + radius * normal + 0.015 * uphill
    target = foot + tilt @ (pos - origin), tilt @ held
    above = target[0] + 0.12 * normal, target[1]
    yield from while_held(hand, name, reach(hand, (np.array([*pos[:2], above[0][2]]), held), near=0.02))
    yield from while_held(hand, name, reach(hand, above, near=0.015))
    yield from while_held(hand, name, reach(hand, target, pace=0.5, near=0.006, lenient=True))
    yield from set_grip(hand, OPEN, steps=8)
    yield from reach(hand, (target[0] + 0.08 * uphill, target[1]), pace=0.6, near=0.015, lenient=True)
    yield from reach(hand, (target[0] + 0.15 * uphill + 0.05 * UP, held), near=0.04, lenient=True)


def is_slope(scene: LiberoScene, region: str) -> bool:
    """Return whether a region leans so that things have to be laid on it: a wine rack's."""
    return region in scene.world.object_sites_dict and bool(np.abs(scene.site(region)[1][2]).max() < 0.95)


def release(hand: LiberoHand, *, by: float = 0.08) -> Motion:
    """Open the fingers and go up."""
    yield from set_grip(hand, OPEN, steps=8)
    pos, rotation = hand.pose
    yield from reach(hand, (pos + by * UP, rotation), pace=0.8, near=0.02, lenient=True)


def while_held(hand: LiberoHand, name: str, motion: Motion) -> Motion:
    """Run a motion for as long as a thing stays where it is in the hand.

    Raises:
        Missed: it has slipped.
    """
    before = hand.pose[1].T @ (hand.scene.pose(name)[0] - hand.pose[0])
    for action in motion:
        pos, rotation = hand.pose
        if np.linalg.norm(rotation.T @ (hand.scene.pose(name)[0] - pos) - before) > LOST:
            raise Missed(f"{name} fell")
        yield action


def travel_height(
    scene: LiberoScene, start: np.ndarray, end: np.ndarray, *, hang: float, but: str | None = None
) -> float:
    """Return the height [m] at which a hand passes over all between two places; `hang` reaches below it."""
    points = scene.others(*([] if but is None else [but]))
    way = end[:2] - start[:2]
    share = np.clip((points[:, :2] - start[:2]) @ way / max(float(way @ way), 1e-9), 0, 1)
    near = np.linalg.norm(points[:, :2] - start[:2] - share[:, None] * way, axis=1) < AISLE
    return float(points[near, 2].max(initial=scene.ground)) + hang + TRAVEL


def nearest_yaw(now: float, yaw: float) -> float:
    """Return `yaw` or half turns on, for two fingers are alike: the nearest to `now` that the wrist can turn to."""
    alike = yaw + np.pi * np.arange(-4, 5)
    return float(min(alike[(alike > YAWS[0]) & (alike < YAWS[1])], key=lambda angle: abs(angle - now)))
