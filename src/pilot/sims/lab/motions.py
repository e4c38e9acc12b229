"""Motions of several hands at once, beyond those of `world.motions`: swings about a hinge, and grips in step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from pilot.sims.world.bodies.base import Arm
from pilot.sims.world.control import opening_for
from pilot.sims.world.ik import Pose
from pilot.sims.world.motions import UP, Deviation, Motion, about, reach, set_grip, settle, travel, watched
from pilot.sims.world.planner import Carried, Planner
from pilot.sims.world.scene import Item

FASTEST_HAND = 1.0  # [m/s]
SLIPPED = 0.05  # an item that has moved this far in the hand is not held any more [m]


def smooth(share: float) -> float:
    """Return a share of the way [0, 1] that begins and ends at rest."""
    return share * share * (3 - 2 * share)


def follow(planner: Planner, path: Callable[[float], Mapping[Arm, Pose]], *, seconds: float) -> Motion:
    """Follow a path of poses, from 0 to 1; hands that it leaves out stay where they are."""
    controller = planner.controller
    still = {arm.tcp: planner.hand(arm) for arm in planner.body.arms}
    count = max(1, round(seconds / controller.dt))
    for tick in range(1, count + 1):
        targets = still | {arm.tcp: pose for arm, pose in path(smooth(tick / count)).items()}
        q = planner.ik.step(controller.command.q, targets, dt=controller.dt, speed=FASTEST_HAND)
        yield replace(controller.command, q=q)


def swing(
    planner: Planner,
    held: Mapping[Arm, np.ndarray],
    *,
    pivot: np.ndarray,
    axis: np.ndarray,
    angle: float,
    seconds: float,
    turn: float = 1.0,
    lift: float = 0.0,
) -> Motion:
    """Swing the points that hands hold about a line through `pivot`; hands turn by the share `turn` of the angle.

    `lift`: how far they rise half-way, beyond the arc [m].
    """
    starts = {arm: planner.hand(arm) for arm in held}

    def path(share: float) -> dict[Arm, Pose]:
        turned, hand = about(axis, angle * share), about(axis, angle * share * turn)
        rise = lift * np.sin(np.pi * share) * UP
        poses = {}
        for arm, (pos, rotation) in starts.items():
            point = pivot + turned @ (held[arm] - pivot) + rise
            poses[arm] = point + hand @ (pos - held[arm]), hand @ rotation
        return poses

    yield from follow(planner, path, seconds=seconds)


def shift(planner: Planner, arms: Sequence[Arm], by: np.ndarray, *, speed: float = 0.3) -> Motion:
    """Move hands by a vector [3], or as far as they get."""
    targets = {arm: (planner.hand(arm)[0] + by, planner.hand(arm)[1]) for arm in arms}
    yield from reach(planner, targets, speed=speed, lenient=True)


def retreat_all(planner: Planner, arms: Sequence[Arm], distance: float, *, speed: float = 0.3) -> Motion:
    """Move hands back against the directions in which they point."""
    poses = {arm: planner.hand(arm) for arm in arms}
    targets = {arm: (pos - rot[:, 0] * distance, rot) for arm, (pos, rot) in poses.items()}
    yield from reach(planner, targets, speed=speed)


def grip_all(planner: Planner, arms: Sequence[Arm], width: float, *, seconds: float = 0.35) -> Motion:
    """Open hands to `width` [m] between the pads, or close them with 0, and wait until that is done."""
    for _ in range(max(1, round(seconds / planner.controller.dt))):
        command = planner.controller.command
        grip = command.grip.copy()
        for arm in arms:
            grip[planner.body.arms.index(arm)] = opening_for(width) if width > 0 else 0.0
        yield replace(command, grip=grip)


def while_held(planner: Planner, carried: Carried, motion: Motion) -> Motion:
    """Run a motion for as long as an item stays where it is in the hand.

    Contacts are no sign of that: a pad loses touch for a tick now and then.

    Raises:
        Deviation: the item has slipped by centimetres.
    """
    item, arm = carried.item, carried.arm

    def is_there() -> bool:
        where = planner.carried(item, arm).pos
        return bool(np.linalg.norm(where - carried.pos) < SLIPPED)

    yield from watched(motion, is_there, f"the {item.name} fell")


def put_exactly(
    planner: Planner,
    item: Item,
    poses: Sequence[Pose],
    *,
    rng: np.random.Generator,
    over: float = 0.12,
    spread: float = 0.02,
    leave: float = 0.10,
) -> Motion:
    """Put the item that a hand holds to the first of some poses of its body that it reaches, and take the hand away.

    The hand comes from `over` above it, opens by `spread` more than it held, and goes back up by `leave` [m]: as much
    as is free around the place.

    Raises:
        Deviation: nobody holds it, it is lost on the way, or none of the poses can be reached.
    """
    arm = planner.holder(item.name)
    if arm is None:
        raise Deviation(f"the {item.name} is not in the gripper")
    carried = planner.carried(item, arm)
    found = _first_in_reach(planner, carried, poses, over=over)
    if found is None:
        raise Deviation(f"no place for the {item.name} in reach")
    (pos, rotation), q_over = found
    over_there = travel(planner, arm, q_over, carried=carried, speed=float(rng.uniform(0.8, 1.0)))
    yield from while_held(planner, carried, over_there)
    yield from settle(planner, arm)
    down = reach(planner, {arm: (pos, rotation)}, speed=float(rng.uniform(0.12, 0.18)))
    yield from while_held(planner, carried, down)
    yield from settle(planner, arm, within=0.004)
    held = float(planner.controller.measured_grip()[planner.body.arms.index(arm)])
    yield from set_grip(planner, arm, opening=min(1.0, held + opening_for(spread) - opening_for(0)), seconds=0.35)
    yield from reach(planner, {arm: (pos + leave * UP, rotation)}, speed=0.3, lenient=True)


def _first_in_reach(
    planner: Planner, carried: Carried, poses: Sequence[Pose], *, over: float
) -> tuple[Pose, np.ndarray] | None:
    """Return the hand's pose that puts an item to the first of some poses in reach, and joints to begin above it."""
    q = planner.controller.command.q
    for pos, rotation in poses:
        hand = rotation @ carried.rotation.T
        pose = pos - hand @ carried.pos, hand
        above = planner.reach(q, {carried.arm: (pose[0] + over * UP, hand)})
        if above is not None and planner.reach(above, {carried.arm: pose}) is not None:
            return pose, above
    return None
