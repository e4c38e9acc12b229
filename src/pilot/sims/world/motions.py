"""Motions that skills are made of: hands along straight lines, grippers, and a base that drives around furniture.

A motion is a generator of the next `JointCommand`, one per tick. Every tick it looks at the command that stands now and
goes on from there, so it leads to its end even while something else moves the robot: a disturbance, or a policy whose
mistakes the expert is asked about. What it cannot mend it raises as a `Deviation`; the expert then plans anew.
"""

import itertools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from pilot.sims.gl import mujoco
from pilot.sims.world.bodies.base import Arm
from pilot.sims.world.control import JointCommand
from pilot.sims.world.floor import find_way
from pilot.sims.world.ik import Pose
from pilot.sims.world.physics import quat_about, quat_of, rotation_of
from pilot.sims.world.planner import Carried, Planner

Motion = Generator[JointCommand, None, None]

UP = np.array([0.0, 0.0, 1.0])
CLOSE_SECONDS = 0.5  # a gripper needs to close from wide open
_RAMP = 0.25  # a hand takes to reach its speed [s]
_PATIENCE = 1.0  # without progress before a motion gives up [s]
_BASE_ACCELERATION = 1.0  # [m/s^2]
_BASE_TURN = 1.2  # [rad/s]
ROOM = 0.28  # that a base leaves for its arm to fold and unfold in front of furniture [m]
_ROOM_TO_TURN = 0.36  # from the base's centre to obstacles when it turns with its arms ahead [m]


class Deviation(Exception):
    """The world is not as a motion expected it: something slipped, moved, or is in the way."""


class _Patience:
    """Runs out when a motion has come no nearer for `_PATIENCE`; being pushed off begins the count anew.

    `gain`: what counts as nearer, in the unit of what is left; five times as much in one tick counts as a push.
    """

    def __init__(self, dt: float, *, gain: float):
        self._dt, self._gain = dt, gain
        self._least = self._last = np.inf
        self._waited = 0

    def is_out(self, left: float) -> bool:
        """Return whether it is time to give up, with so much left to go."""
        if left < self._least - self._gain or left > self._last + 5 * self._gain:
            self._least, self._waited = left, 0
        else:
            self._waited += 1
        self._last = left
        return self._waited * self._dt > _PATIENCE


def reach(
    planner: Planner,
    targets: Mapping[Arm, Pose],
    *,
    speed: float = 0.3,
    turn: float = 1.5,
    base: bool = False,
    until: Callable[[], bool] | None = None,
    lenient: bool = False,
) -> Motion:
    """Move hands straight to their targets, together: the one with the longest way goes at `speed` [m/s].

    `base`: the base may move too. `until`: stops early when this holds. `lenient`: near is near enough.

    Raises:
        Deviation: a hand gets no nearer and is still far from its target.
    """
    controller, ik = planner.controller, planner.ik
    pace, patience = 0.0, _Patience(controller.dt, gain=0.01)
    while until is None or not until():
        here = {arm: ik.pose(controller.command.q, arm) for arm in targets}
        left = max(_seconds(here[arm], targets[arm], speed, turn) for arm in targets)
        if left * speed < 0.003:
            return
        if patience.is_out(left):
            if lenient or left * speed < 0.012:
                return
            raise Deviation("a hand cannot get there")
        pace = min(1.0, pace + controller.dt / _RAMP)
        share = min(1.0, controller.dt * min(pace, 0.1 + left / _RAMP) / left)
        aims = {arm.tcp: between(here[arm], targets[arm], share) for arm in targets}
        q = ik.step(controller.command.q, aims, dt=controller.dt, base=base, speed=2.0, turn=6.0)
        yield replace(controller.command, q=q)


def move_joints(planner: Planner, goal: np.ndarray, *, speed: float = 1.0, only: Arm | None = None) -> Motion:
    """Move lift and arms to joint positions [nq], all at once, the slowest at `speed` [rad/s]; `only` one arm.

    A robot that is commanded by its hands has arrived when they are there, however its arms are folded.

    Raises:
        Deviation: something is in the way.
    """
    controller, body = planner.controller, planner.body
    free, hands = ~planner.ik.is_base, body.arms if only is None else (only,)
    for arm in body.arms:
        if only is not None and arm != only:
            free[body.joint_slice(arm)] = False
    fastest = np.where(planner.ik.is_base | planner.ik.is_lift, 0.4, speed)
    pace, patience = 0.0, _Patience(controller.dt, gain=0.005)
    while True:
        q = controller.command.q
        change = np.where(free, goal - q, 0.0)
        left = float(np.max(np.abs(change) / fastest))
        if left < 0.004 or (controller.by_hand and left < 1.0 and _hands_are_at(planner, q + change, hands)):
            return
        if patience.is_out(left):
            if not controller.by_hand:
                raise Deviation("something is in the arm's way")
            # The pose of a hand does not say how the arm is folded: go where the hand would be, folded as it is.
            yield from reach(planner, {arm: planner.ik.pose(q + change, arm) for arm in hands}, lenient=True)
            return
        pace = min(1.0, pace + controller.dt / _RAMP)
        share = min(1.0, controller.dt * min(pace, 0.15 + left / _RAMP) / left)
        yield replace(controller.command, q=q + share * change)


def _hands_are_at(planner: Planner, q: np.ndarray, arms: Sequence[Arm]) -> bool:
    """Return whether hands are commanded to where they would be at joint positions `q`, to a centimetre."""
    for arm in arms:
        (here, turn), (there, end) = planner.hand(arm), planner.ik.pose(q, arm)
        if np.linalg.norm(there - here) > 0.01 or turn_between(turn, end)[1] > 0.08:
            return False
    return True


def travel(
    planner: Planner, arm: Arm, goal: np.ndarray, *, carried: Carried | None = None, speed: float = 1.0
) -> Motion:
    """Bring an arm to joint positions `goal` [nq] past what stands around: straight, or up first, or over `ready`.

    Where all of that is blocked, a base that drives steps back, and comes back with the arm as it should be.
    """
    q = planner.controller.command.q
    way = _clear_way(planner, arm, q, goal, carried=carried)
    if way is None and planner.body.is_mobile and (away := _room_behind(planner)) is not None:
        yield from _drive_straight(planner, away[:2], None, speed=0.3, near=0.015)
        yield from travel(planner, arm, _at_base(planner, goal), carried=carried, speed=speed)
        yield from _drive_straight(planner, q[:2], None, speed=0.25, near=0.008)
        yield from wait(planner, 0.2)
        return
    for corner in way or [_only(planner, arm, q, goal)]:
        yield from move_joints(planner, corner, only=arm, speed=speed)


def _clear_way(
    planner: Planner, arm: Arm, q: np.ndarray, goal: np.ndarray, *, carried: Carried | None
) -> list[np.ndarray] | None:
    """Return joint positions to go through to `goal`, the last of them; None if all ways that are tried are blocked."""
    goal = _only(planner, arm, q, goal)
    for via in _detours(planner, arm, q, goal):
        corners = [q, *via, goal]
        if not any(planner.blocked(a, b, carried=carried) for a, b in itertools.pairwise(corners)):
            return corners[1:]
    return None


def _room_behind(planner: Planner) -> np.ndarray | None:
    """Return where the base would be a step back from here; None where that is not free."""
    q = planner.controller.command.q[:3].copy()
    here = q[:2].copy()
    q[:2] -= ROOM * np.array([np.cos(q[2]), np.sin(q[2])])
    clearance = planner.obstacles.clearance(np.stack([here, q[:2]]))
    return q if clearance[1] >= min(planner.base_radius, clearance[0] + ROOM / 2) else None


def _at_base(planner: Planner, goal: np.ndarray) -> np.ndarray:
    """Return joint positions with the base where it is now."""
    return np.where(planner.ik.is_base, planner.controller.command.q, goal)


def _detours(planner: Planner, arm: Arm, q: np.ndarray, goal: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Return ways from `q` to `goal` as the joint positions between them, the shortest first."""
    yield []
    pos, rotation = planner.hand(arm)
    back = pos - 0.10 * rotation[:, 0], rotation
    raised = [(pos + height * UP, rotation) for height in (0.12, 0.24)] + [(back[0] + 0.1 * UP, rotation)]
    above = [found for pose in raised if (found := planner.reach(q, {arm: pose})) is not None]
    for up in above:
        yield [up]
    ready = _only(planner, arm, q, planner.body.ready)
    level = np.where(planner.ik.is_lift, goal, ready)  # folded, at the height that the goal needs
    yield [ready]
    yield [level]
    yield [ready, level]
    for up in above:
        yield [up, ready]
        yield [up, ready, level]


def _only(planner: Planner, arm: Arm, q: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Return `q` with the lift and one arm's joints from `goal`."""
    joints = planner.body.joint_slice(arm)
    mixed = np.where(planner.ik.is_lift, goal, q)
    mixed[joints] = goal[joints]
    return mixed


def retreat(planner: Planner, arm: Arm, distance: float, *, speed: float = 0.3, lenient: bool = False) -> Motion:
    """Move a hand back against the direction in which it points: straight up would drag what it touches."""
    pos, rotation = planner.hand(arm)
    yield from reach(planner, {arm: (pos - distance * rotation[:, 0], rotation)}, speed=speed, lenient=lenient)


def set_grip(planner: Planner, arm: Arm, opening: float, *, seconds: float = CLOSE_SECONDS) -> Motion:
    """Open a gripper to `opening`, 0 (closed) to 1, and give it time."""
    for _ in range(max(1, round(seconds / planner.controller.dt))):
        yield gripping(planner, planner.controller.command, arm, opening=opening)


def gripping(planner: Planner, command: JointCommand, arm: Arm, *, opening: float) -> JointCommand:
    """Return a command with another opening of one gripper."""
    grip = command.grip.copy()
    grip[planner.body.arms.index(arm)] = opening
    return replace(command, grip=grip)


def with_grip(planner: Planner, motion: Motion, arm: Arm, *, opening: float) -> Motion:
    """Run a motion with a gripper held open by `opening`."""
    for command in motion:
        yield gripping(planner, command, arm, opening=opening)


def wait(planner: Planner, seconds: float) -> Motion:
    """Stay."""
    for _ in range(max(1, round(seconds / planner.controller.dt))):
        yield planner.controller.command


def settle(planner: Planner, arm: Arm, *, within: float = 0.006, seconds: float = 0.4) -> Motion:
    """Wait until a hand is where it is commanded to be, but no longer than `seconds`."""
    for _ in range(round(seconds / planner.controller.dt)):
        if np.linalg.norm(planner.hand(arm)[0] - planner.world.site(arm.tcp)[0]) < within:
            return
        yield planner.controller.command


def watched(motion: Motion, is_well: Callable[[], bool], problem: str) -> Motion:
    """Run a motion for as long as `is_well`.

    Raises:
        Deviation: it is not any more; `problem` says what.
    """
    for command in motion:
        if not is_well():
            raise Deviation(problem)
        yield command


def drive(planner: Planner, goal: tuple[float, float, float], *, speed: float = 0.5) -> Motion:
    """Drive the base to `goal` (x, y, yaw) around furniture; arms and lift keep their joints.

    Raises:
        Deviation: there is no way, or the base got stuck.
    """
    q = planner.controller.command.q
    end, yaw = np.array(goal[:2]), goal[2]
    way = find_way(planner.obstacles, q[:2], end, radius=planner.base_radius)
    if way is None:
        raise Deviation("there is no way for the base")
    if np.linalg.norm(end - q[:2]) > 0.8 or abs(turned(yaw - q[2])) > 0.7:
        yield from _back_off(planner, speed=speed)
    for corner in way[:-1]:
        yield from _drive_straight(planner, corner, None, speed=speed, near=0.06)
    last = way[-1]
    ahead = last - 0.25 * np.array([np.cos(yaw), np.sin(yaw)])  # turn before the counter, not at it
    here = planner.controller.command.q
    if abs(turned(yaw - here[2])) > 0.4 and planner.obstacles.is_free(here[:2], ahead, radius=planner.base_radius):
        yield from _drive_straight(planner, ahead, yaw, speed=speed, near=0.03)
    yield from _drive_straight(planner, last, yaw, speed=speed, near=0.008)
    yield from wait(planner, 0.2)


def _back_off(planner: Planner, *, speed: float) -> Motion:
    """Drive backwards until the arms have room to turn."""
    q = planner.controller.command.q
    back = -np.array([np.cos(q[2]), np.sin(q[2])])
    for distance in np.arange(0, 0.45, 0.05):
        there = q[:2] + distance * back
        clearance = planner.obstacles.clearance(np.stack([there, there - 0.35 * back]))
        if clearance[0] < planner.base_radius - 0.02 and distance > 0.1:
            return
        if clearance.min() > _ROOM_TO_TURN - 0.1:
            break
    if distance > 0:
        yield from _drive_straight(planner, there, None, speed=speed, near=0.03)


def _drive_straight(planner: Planner, end: np.ndarray, yaw: float | None, *, speed: float, near: float) -> Motion:
    """Drive straight to `end` [2], turning to `yaw` meanwhile, until `near` [m] of it.

    Raises:
        Deviation: the base got stuck.
    """
    controller, pace = planner.controller, 0.0
    patience = _Patience(controller.dt, gain=0.004)
    while True:
        q = controller.command.q.copy()
        offset, turn = end - q[:2], 0.0 if yaw is None else turned(yaw - q[2])
        distance = float(np.linalg.norm(offset))
        if distance < near and abs(turn) < max(near, 0.012):
            return
        left = distance + 0.3 * abs(turn)
        if patience.is_out(left):
            raise Deviation("the base is stuck")
        pace = min(speed, pace + _BASE_ACCELERATION * controller.dt)
        if near < 0.02:  # slow down before the end; at a corner, go on
            pace = min(pace, 0.02 + 2.5 * distance)
        q[:2] += offset * min(1.0, controller.dt * pace / max(distance, 1e-9))
        q[2] += np.sign(turn) * min(abs(turn), controller.dt * min(_BASE_TURN, 2.5 * abs(turn) + 0.05))
        yield replace(controller.command, q=q)


def turned(angle: float) -> float:
    """Return an angle within half a turn of 0."""
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


def about(axis: np.ndarray, angle: float) -> np.ndarray:
    """Return the rotation [3 3] by `angle` [rad] about a unit axis."""
    return rotation_of(quat_about(axis, angle))


def between(start: Pose, end: Pose, share: float) -> Pose:
    """Return the pose at a share [0, 1] of the straight way from one to another."""
    axis, angle = turn_between(start[1], end[1])
    return start[0] + share * (end[0] - start[0]), about(axis, share * angle) @ start[1]


def turn_between(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the unit axis and the angle [rad] of the turn from one rotation to another."""
    vector = np.zeros(3)
    mujoco.mju_quat2Vel(vector, quat_of(end @ start.T), 1)
    angle = float(np.linalg.norm(vector))
    return (vector / angle if angle > 1e-9 else UP), angle


def _seconds(start: Pose, end: Pose, speed: float, turn: float) -> float:
    angle = turn_between(start[1], end[1])[1]
    return max(float(np.linalg.norm(end[0] - start[0])) / speed, angle / turn)
