"""Skills for what opens: drawers, doors and lids, by their handles.

The handle's site says how it is gripped: the hand's x axis points into the furniture, the fingers close along y. A
drawer's is pulled along its slide, a door's about its hinge; the hand turns with it, though less far.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pilot.sims.gl import mujoco
from pilot.sims.world.bodies.base import Arm
from pilot.sims.world.control import JointCommand
from pilot.sims.world.ik import Pose
from pilot.sims.world.motions import (
    ROOM,
    UP,
    Deviation,
    Motion,
    about,
    drive,
    gripping,
    reach,
    retreat,
    set_grip,
    settle,
    travel,
    with_grip,
)
from pilot.sims.world.places import stands, step_back
from pilot.sims.world.planner import Planner
from pilot.sims.world.scene import Fixture, openness
from pilot.sims.world.skills import arms_by_distance, tuck

_BEFORE = 0.11  # a hand begins this far from a handle [m]
_SLIDE_SPEED, _HINGE_SPEED = 0.22, 0.75  # of what opens [m/s, rad/s]
_TURNS_WITH = 0.6  # of a door's angle that the hand turns by
_TILTS = (0.0, 0.4, -0.4, 0.8, -0.8)  # of a hand about the bar that it grips [rad]
_STAND = (0.5, 0.66)  # of a base before a handle [m]
_LOST = 0.05  # a hand this far from the handle does not hold it [m]
_LEAD = (0.05, 0.25)  # the hand is commanded at most this far ahead of the drawer, or of the door [m, rad]


class Opening:
    """How a fixture opens: where its handle is when its joint is somewhere else."""

    def __init__(self, planner: Planner, fixture: Fixture):
        if fixture.joint is None or fixture.handle is None:
            raise ValueError(f"'{fixture.name}' does not open: it has no joint with a handle")
        self.world, self.fixture, self.handle = planner.world, fixture, fixture.handle
        self._joint = self.world.id_of("joint", fixture.joint)
        self.is_hinge = self.world.model.jnt_type[self._joint] == mujoco.mjtJoint.mjJNT_HINGE

    @property
    def now(self) -> float:
        """The joint's position [m, rad]."""
        return self.world.joint(self.fixture.joint or "")

    @property
    def axis(self) -> np.ndarray:
        """The joint's axis in the world [3]."""
        return self.world.data.xaxis[self._joint].copy()

    @property
    def anchor(self) -> np.ndarray:
        """A point on the joint's axis [3]."""
        return self.world.data.xanchor[self._joint].copy()

    def widest(self, *, beyond: float) -> float:
        """Return where the joint is open, and farther by a share of the way where it can: a bump will not close it."""
        fixture = self.fixture
        low, high = self.world.model.jnt_range[self._joint]
        at = fixture.open_at + beyond * (fixture.open_at - fixture.closed_at)
        return float(np.clip(at, low + 0.01, high - 0.01))

    def moved(self, point: np.ndarray, by: float) -> np.ndarray:
        """Return where a point of the moving part comes to when the joint moves `by` [m, rad]."""
        if self.is_hinge:
            return self.anchor + about(self.axis, by) @ (point - self.anchor)
        return point + by * self.axis

    def grip(self, at: float, *, tilt: float = 0.0) -> Pose:
        """Return the hand's pose that grips the handle when the joint is `at` a position; `tilt` is about the bar."""
        pos, rotation = self.world.site(self.handle)
        rotation = about(rotation[:, 2], tilt) @ rotation
        if not self.is_hinge:
            return self.moved(pos, at - self.now), rotation
        closed = about(self.axis, self.fixture.closed_at - self.now) @ rotation
        return self.moved(pos, at - self.now), about(self.axis, _TURNS_WITH * (at - self.fixture.closed_at)) @ closed


def open_fixture(planner: Planner, fixture: Fixture, *, rng: np.random.Generator) -> Motion:
    """Grip the handle, pull until it is open, and let go.

    Raises:
        Deviation: the handle is out of reach, or slipped out of the hand.
    """
    opening = Opening(planner, fixture)
    wide = opening.widest(beyond=float(rng.uniform(0.02, 0.12)))
    hold = yield from _take_handle(planner, opening, rng=rng)
    yield from _swing(planner, hold, opening, wide)
    yield from set_grip(planner, hold.arm, 0.6, seconds=0.35)
    yield from _step_away(planner, hold.arm)


def close_fixture(planner: Planner, fixture: Fixture, *, rng: np.random.Generator) -> Motion:
    """Shut what is open: a drawer or a lid by its handle, a door by its outer face.

    Raises:
        Deviation: it is out of reach, or does not move.
    """
    opening = Opening(planner, fixture)
    if opening.is_hinge and abs(opening.axis[2]) > 0.7 and openness(planner.world, fixture) > 0.3:
        yield from _push_shut(planner, opening, rng=rng)
        return
    hold = yield from _take_handle(planner, opening, rng=rng)
    yield from _swing(planner, hold, opening, fixture.closed_at)
    yield from set_grip(planner, hold.arm, 0.6, seconds=0.35)
    yield from _step_away(planner, hold.arm)


@dataclass(frozen=True)
class _Hold:
    """How an arm takes a handle: joints before it and at it, and how far the hand is tilted about the bar."""

    arm: Arm
    before: np.ndarray  # [nq]
    tilt: float  # [rad]
    touches: bool  # something is hit on the way


def _take_handle(
    planner: Planner, opening: Opening, *, rng: np.random.Generator
) -> Generator[JointCommand, None, _Hold]:
    """Drive to the handle if need be, and grip it; return how.

    Raises:
        Deviation: no arm reaches it.
    """
    hold, stand = _plan_hold(planner, opening, rng=rng)
    if hold is None:
        raise Deviation(f"the handle of the {opening.fixture.name} is out of reach")
    if stand is None:
        yield from with_grip(planner, travel(planner, hold.arm, hold.before), hold.arm, opening=0.7)
    else:  # the arm is brought into its pose where it has room, and then the base brings it to the handle
        away = step_back(stand, ROOM)
        if not planner.obstacles.is_free(np.array(away[:2]), np.array(away[:2]), radius=planner.base_radius):
            away = stand
        yield from tuck(planner)
        yield from drive(planner, away)
        yield from with_grip(planner, travel(planner, hold.arm, hold.before), hold.arm, opening=0.7)
        yield from with_grip(planner, drive(planner, stand, speed=0.25), hold.arm, opening=0.7)
    off = np.array([*rng.uniform(-0.003, 0.003, 2), 0.0])
    at, rotation = opening.grip(opening.now, tilt=hold.tilt)
    way = reach(planner, {hold.arm: (at + off, rotation)}, speed=0.18)
    yield from with_grip(planner, way, hold.arm, opening=0.7)
    yield from settle(planner, hold.arm)
    yield from set_grip(planner, hold.arm, 0.0)
    return hold


def _plan_hold(
    planner: Planner, opening: Opening, *, rng: np.random.Generator
) -> tuple[_Hold | None, tuple[float, float, float] | None]:
    """Return how the handle can be taken, and from where by a robot that drives."""
    pos, q = opening.grip(opening.now)[0], planner.controller.command.q.copy()
    arms = arms_by_distance(planner, pos, rng)
    if not planner.body.is_mobile:
        return _find_hold(planner, opening, arms, q), None
    spare = None
    for arm in arms:
        for stand in stands(planner, opening.fixture, pos, arm, rng=rng, distance=_STAND):
            q[:3] = stand
            hold = _find_hold(planner, opening, [arm], q)
            if hold is not None and not hold.touches:
                return hold, stand
            spare = spare or (hold and (hold, stand))
    return spare or (None, None)


def _find_hold(planner: Planner, opening: Opening, arms: Sequence[Arm], q: np.ndarray) -> _Hold | None:
    """Return how a handle can be taken with the base as in `q`: without hitting anything, or else at all."""
    spare = None
    for arm in arms:
        for tilt in _TILTS:
            pos, rotation = opening.grip(opening.now, tilt=tilt)
            before = planner.reach(q, {arm: (pos - _BEFORE * rotation[:, 0], rotation)})
            if before is None or planner.reach(before, {arm: (pos, rotation)}) is None:
                continue
            hold = _Hold(arm, before, tilt, planner.collides(before, openings={arm: 0.06}))
            if not hold.touches:
                return hold
            spare = spare or hold
    return spare


def _step_away(planner: Planner, arm: Arm) -> Motion:
    """Take the hand off what it held, back as it came if it can, and a base with it, until the arm has room to fold."""
    pos, rotation = planner.hand(arm)
    back = -rotation[:, 0]
    for way in (back, back + UP, back + 0.5 * UP, UP, back - 0.5 * UP):
        pose = pos + _BEFORE * way / np.linalg.norm(way), rotation
        q = planner.reach(planner.controller.command.q, {arm: pose})
        if q is not None and not planner.collides(q):
            yield from reach(planner, {arm: pose}, lenient=True)
            break
    else:
        yield from retreat(planner, arm, _BEFORE, lenient=True)
    if planner.body.is_mobile:
        x, y, yaw = planner.controller.command.q[:3]
        away = step_back((x, y, yaw), ROOM)
        if planner.obstacles.is_free(np.array([x, y]), np.array(away[:2]), radius=planner.base_radius - 0.03):
            yield from drive(planner, away, speed=0.3)


def _swing(planner: Planner, hold: _Hold, opening: Opening, end: float) -> Motion:
    """Move what opens to `end` by the handle that a hand holds.

    Raises:
        Deviation: the hand lost the handle, or it does not move.
    """
    controller, arm = planner.controller, hold.arm
    speed, lead = (_HINGE_SPEED, _LEAD[1]) if opening.is_hinge else (_SLIDE_SPEED, _LEAD[0])
    way = np.sign(end - opening.now)
    at, pace, still, last = opening.now, 0.0, 0, opening.now
    while way * (end - opening.now) > 0.01 * (3 if opening.is_hinge else 1):
        pace = min(1.0, pace + controller.dt / 0.4)
        at = opening.now + way * min(way * (at - opening.now) + pace * speed * controller.dt, lead)
        at = way * min(way * at, way * end + 0.02)
        still = 0 if abs(opening.now - last) > 0.002 else still + 1
        last = opening.now if still == 0 else last
        if still * controller.dt > 1.0:
            if openness(planner.world, opening.fixture) > 0.8 or way * (opening.now - end) > -0.05:
                return
            raise Deviation(f"the {opening.fixture.name} does not move")
        if np.linalg.norm(planner.world.site(arm.tcp)[0] - planner.world.site(opening.handle)[0]) > _LOST:
            raise Deviation(f"the handle of the {opening.fixture.name} slipped out of the hand")
        aims = {arm.tcp: opening.grip(at, tilt=hold.tilt)}
        q = planner.ik.step(
            controller.command.q, aims, dt=controller.dt, base=planner.body.is_mobile, speed=0.6, turn=2.0
        )
        yield gripping(planner, replace(controller.command, q=q), arm, opening=0.0)


def _push_shut(planner: Planner, opening: Opening, *, rng: np.random.Generator) -> Motion:
    """Push the outer face of a door or a lid with a closed hand until it is shut."""
    fixture, world, controller = opening.fixture, planner.world, planner.controller
    way = np.sign(fixture.closed_at - opening.now)

    def touch(at: float, *, off: float, follow: float) -> Pose:
        """Return the hand's pose `off` [m] outside the door's face, near its handle, when the door is `at`.

        `follow`: the share of the door's angle that the hand turns by.
        """
        pos, rotation = world.site(opening.handle)
        radius = pos - opening.anchor
        radius -= opening.axis * (radius @ opening.axis)
        inwards = way * np.cross(opening.axis, radius)
        inwards /= np.linalg.norm(inwards)
        point = opening.moved(pos - 0.06 * radius / np.linalg.norm(radius) - off * inwards, at - opening.now)
        closed = about(opening.axis, fixture.closed_at - opening.now) @ rotation
        return point, about(opening.axis, follow * (at - fixture.closed_at)) @ closed

    def found(arm: Arm) -> tuple[Pose, np.ndarray, float] | None:
        """Return the pose to begin in, joints for it, and how the hand turns, from where the base stands."""
        for follow in (_TURNS_WITH, 0.3, 0.9, 0.0):
            pose = touch(opening.now, off=0.07, follow=follow)
            q = planner.reach(controller.command.q, {arm: pose})
            if q is not None:
                return pose, q, follow
        return None

    middle, begin = touch(opening.now, off=0.07, follow=_TURNS_WITH)[0], None
    for arm in arms_by_distance(planner, middle, rng):
        begin = found(arm)
        for stand in stands(planner, fixture, middle, arm, rng=rng, distance=_STAND) if planner.body.is_mobile else ():
            if begin is not None:
                break
            yield from tuck(planner)
            yield from drive(planner, stand)
            begin = found(arm)
        if begin is not None:
            break
    if begin is None:
        raise Deviation(f"the {fixture.name} is out of reach")
    start, before, follow = begin
    yield from with_grip(planner, travel(planner, arm, before), arm, opening=0.0)
    yield from reach(planner, {arm: start}, base=planner.body.is_mobile, lenient=True)
    at, still, last = opening.now, 0, opening.now
    while abs(fixture.closed_at - opening.now) > 0.03:
        at = opening.now + way * min(way * (at - opening.now) + _HINGE_SPEED * controller.dt, _LEAD[1])
        still = 0 if abs(opening.now - last) > 0.004 else still + 1
        last = opening.now if still == 0 else last
        if still * controller.dt > 2.0:
            raise Deviation(f"the {fixture.name} does not move")
        aims = {arm.tcp: touch(at, off=0.012, follow=follow)}
        q = planner.ik.step(controller.command.q, aims, dt=controller.dt, base=planner.body.is_mobile, turn=2.0)
        yield gripping(planner, replace(controller.command, q=q), arm, opening=0.0)
    yield from _step_away(planner, arm)
