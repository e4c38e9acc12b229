"""What the expert of LIBERO does without carrying anything: it pulls drawers, turns a knob, and pushes a plate."""

import numpy as np

from pilot.sims.experts.libero.grasping import CLEAR, TIP, find_top_grasps
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
    turn_between,
)
from pilot.sims.experts.libero.scene import LiberoScene
from pilot.sims.experts.libero.skills import nearest_yaw, release, travel_height

PULL = 0.17  # from closed to open, and a little more [m]
OPEN_DRAWER = 0.14  # from here on LIBERO calls a drawer open [m]
SLIDE = 2  # MuJoCo's number for joints that slide
TURN = 1.2  # of a knob that is off: LIBERO calls it on from 0.5 [rad]
LEAN = 0.55  # of a hand that pushes, over what it pushes: what stands behind leaves no more room [rad]
NEAR_ENOUGH = 0.025  # to where something is pushed [m]
MOST_PUSHED = 90  # steps
STANDOFF = 0.09  # a hand comes this far along its fingers [m]


def is_drawer(scene: LiberoScene, body: str) -> bool:
    """Return whether a body slides: whether it is a drawer."""
    number = scene.body(body)
    return scene.model.body_jntnum[number] == 1 and scene.model.jnt_type[scene.model.body_jntadr[number]] == SLIDE


def drawer_opening(hand: LiberoHand, drawer: str) -> float:
    """Return how far a drawer is pulled out [m]."""
    model, data = hand.scene.model, hand.scene.data
    return -float(data.qpos[model.jnt_qposadr[model.body_jntadr[hand.scene.body(drawer)]]])


def open_drawer(hand: LiberoHand, drawer: str, *, rng: np.random.Generator, by: float = PULL) -> Motion:
    """Pinch a drawer's handle from the front, pull until it is open `by` [m], and leave.

    Raises:
        Missed: the drawer has not come along.
    """
    scene = hand.scene
    joint = scene.model.body_jntadr[scene.body(drawer)]
    out = -scene.pose(drawer)[1] @ scene.model.jnt_axis[joint]
    handle = _handle(scene.points(drawer), out) + rng.normal(0, 0.006) * np.cross(out, UP)
    rotation = _facing(hand, -out)
    before = handle + STANDOFF * out, rotation
    hand.grip = OPEN
    height = max(travel_height(scene, hand.pose[0], before[0], hang=0.02), handle[2] + 0.06)
    yield from over(hand, (before[0], pointing_down(hand.yaw)), height=height)
    yield from reach(hand, before, near=0.012)
    yield from reach(hand, (handle - 0.006 * out, rotation), pace=0.5, near=0.008, lenient=True)
    yield from set_grip(hand, CLOSED)
    left = by - drawer_opening(hand, drawer)
    yield from reach(hand, (hand.pose[0] + left * out, rotation), pace=0.8, near=0.012, lenient=True)
    opened = drawer_opening(hand, drawer)
    yield from set_grip(hand, OPEN, steps=8)
    yield from reach(hand, (hand.pose[0] + 0.07 * out, rotation), near=0.02, lenient=True)
    if opened < min(OPEN_DRAWER, by - 0.03):
        raise Missed(f"{drawer} is open by {opened:.2f} m only")
    yield from reach(hand, (hand.pose[0] + 0.12 * UP, pointing_down(hand_yaw_after(out))), near=0.05, lenient=True)


def _handle(points: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Return the middle of a drawer's handle: what stands out the most."""
    ahead = points @ out
    front = points[ahead > ahead.max() - 0.012]
    return (front.min(axis=0) + front.max(axis=0)) / 2


def _facing(hand: LiberoHand, ahead: np.ndarray) -> np.ndarray:
    """Return the rotation [3 3] of a hand that points `ahead` and closes up and down; of two, the nearer."""
    both = [np.stack([up, np.cross(ahead, up), ahead], axis=1) for up in (UP, -UP)]
    return min(both, key=lambda rotation: float(np.linalg.norm(turn_between(hand.pose[1], rotation))))


def hand_yaw_after(out: np.ndarray) -> float:
    """Return the yaw that a hand has which turns down again from pointing against `out`."""
    return float(np.arctan2(out[1], out[0]))


def turn_knob(hand: LiberoHand, knob: str) -> Motion:
    """Grip a knob from above, and turn it about the vertical.

    Raises:
        Missed: there is no room for the fingers.
    """
    scene = hand.scene
    body = scene.body(knob)
    joint = scene.model.body_jntadr[body]
    grasps = find_top_grasps(scene.points(knob), others=scene.others(knob), ground=scene.ground, yaw=hand.yaw)
    if not grasps:
        raise Missed(f"no room for the fingers at {knob}")
    grasp, start = grasps[0], hand.yaw
    yaw = nearest_yaw(start, grasp.yaw)
    hand.grip = OPEN
    down = grasp.pos, pointing_down(yaw)
    height = max(travel_height(scene, hand.pose[0], down[0], hang=0.02), down[0][2] + 0.06)
    yield from over(hand, down, height=height)
    yield from reach(hand, down, pace=0.6, near=0.006, lenient=True)
    yield from set_grip(hand, CLOSED)
    centre, arm = scene.data.xanchor[joint].copy(), hand.pose[0] - scene.data.xanchor[joint]
    turned, sense = float(scene.data.qpos[scene.model.jnt_qposadr[joint]]), np.sign(scene.data.xaxis[joint][2])
    for angle in np.arange(turned, TURN, 0.12)[1:]:
        swing = sense * (angle - turned)
        turn = np.array([[np.cos(swing), -np.sin(swing), 0], [np.sin(swing), np.cos(swing), 0], [0, 0, 1]])
        yield hand.toward((centre + turn @ arm, pointing_down(yaw + swing)))
    yield from reach(hand, (centre + turn @ arm, pointing_down(yaw + swing)), near=0.01, lenient=True)
    yield from release(hand)


def push(hand: LiberoHand, name: str, goal: np.ndarray) -> Motion:
    """Push a flat thing over the table to `goal` [2]: along one of the table's axes, then along the other.

    Raises:
        Missed: it does not get there.
    """
    scene = hand.scene
    for _ in range(3):
        way = goal - scene.pose(name)[0][:2]
        axis = int(np.abs(way).argmax())
        if abs(way[axis]) < NEAR_ENOUGH:
            return
        yield from _push_along(hand, name, np.sign(way[axis]) * np.eye(3)[axis], distance=abs(way[axis]))
    if np.abs(goal - scene.pose(name)[0][:2]).max() > NEAR_ENOUGH:
        raise Missed(f"{name} is not where it was pushed to")


def _push_along(hand: LiberoHand, name: str, ahead: np.ndarray, *, distance: float) -> Motion:
    """Push a thing `ahead` [3] with open fingers, which take it from behind while the hand leans over it."""
    scene = hand.scene
    start = scene.pose(name)[0]
    pointing = -np.cos(LEAN) * UP - np.sin(LEAN) * ahead
    yaw = nearest_yaw(hand.yaw, float(np.arctan2(ahead[0], -ahead[1])))
    along = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    rotation = np.stack([along, np.cross(pointing, along), pointing], axis=1)
    back = float(((scene.points(name) - start) @ ahead).min())
    tips = np.array([*start[:2], scene.ground + CLEAR]) + (back - 0.015) * ahead
    behind = tips - TIP * pointing
    hand.grip = OPEN
    height = max(travel_height(scene, hand.pose[0], behind, hang=0.02), behind[2] + 0.1)
    yield from over(hand, (behind, rotation), height=height)
    yield from reach(hand, (behind, rotation), pace=0.75, near=0.008, lenient=True)
    for _ in range(MOST_PUSHED):
        if (scene.pose(name)[0] - start) @ ahead > distance - 0.003:
            break
        forward = behind + ((hand.pose[0] - behind) @ ahead + 0.03) * ahead
        yield hand.toward((forward, rotation), pace=0.7)
    yield from reach(hand, (hand.pose[0] - 0.02 * ahead, rotation), near=0.01, lenient=True)
    yield from reach(hand, (hand.pose[0] + 0.1 * UP, rotation), near=0.02, lenient=True)
