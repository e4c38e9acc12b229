"""Where things can be put: the room that a fixture offers, its height, and where a base stands in front of it."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from pilot.sims.world.bodies.base import Arm
from pilot.sims.world.planner import Planner
from pilot.sims.world.scene import Fixture, Item, held_items

_SPOTS = 40  # drawn per search
_ENOUGH = 0.10  # more room than this to the next thing is no better [m]
_SIDESTEPS = (0.0, 0.12, -0.12, 0.25, -0.25, 0.4, -0.4)  # of a base, where something stands in its place [m]
_FARTHER = (0.0, 0.08, 0.16, 0.25)  # or away: an open drawer keeps it at a distance [m]
_FARTHEST = 0.66  # from the shoulder, that an arm can work [m]
_TURNS = (0.0, 0.5, -0.5, 1.0, -1.0)  # or it stands slantwise [rad]


@dataclass(frozen=True)
class Region:
    """A fixture's region in the world: an upright box turned by `yaw`."""

    centre: np.ndarray  # [3]
    half: np.ndarray  # [3]
    yaw: float

    def contains(self, point: np.ndarray, *, margin: float = 0.0) -> bool:
        """Return whether a point [3] is inside, at least `margin` [m] from the sides."""
        offset = np.abs(self.local(point))
        return bool(np.all(offset[:2] <= self.half[:2] - margin) and offset[2] <= self.half[2])

    def local(self, point: np.ndarray) -> np.ndarray:
        """Return a point's coordinates along the region's own axes [3]."""
        return _turn(-self.yaw) @ (point - self.centre)

    def world(self, local: np.ndarray) -> np.ndarray:
        """Return the point of the world with these coordinates [3]."""
        return self.centre + _turn(self.yaw) @ local


def region_of(planner: Planner, fixture: Fixture) -> Region:
    """Return where a fixture's region is now: a drawer's moves with it."""
    pos, rotation = planner.world.pos(fixture.body), planner.world.rot(fixture.body)
    yaw = float(np.arctan2(rotation[1, 0], rotation[0, 0]))
    return Region(pos + rotation @ np.array(fixture.centre), np.array(fixture.half, float), yaw)


def free_spots(planner: Planner, fixture: Fixture, item: Item, *, rng: np.random.Generator) -> list[np.ndarray]:
    """Return points [3] on a fixture's ground for an item's middle, those with most room around them first."""
    region = region_of(planner, fixture)
    low, high = planner.box_of(item.body)
    radius = 0.5 * float(np.max((high - low)[:2]))
    room = np.maximum(region.half[:2] - (radius + 0.005), 0.15 * region.half[:2])
    if fixture.role == "surface":
        room = np.maximum(region.half[:2] - 0.03, 0.15 * region.half[:2])
    near = planner.ik.root(planner.controller.command.q)[0]
    others = [
        (planner.world.pos(other.body)[:2], 0.5 * float(np.max(np.subtract(*planner.box_of(other.body)[::-1])[:2])))
        for other in planner.scene.items.values()
        if other is not item and np.linalg.norm(planner.world.pos(other.body) - region.centre) < 1.0 + region.half.max()
    ]
    spots = []
    for number in range(_SPOTS):
        local = np.zeros(2) if number == 0 else rng.uniform(-room, room)
        spot = region.world(np.array([*local, -region.half[2]]))
        gap = min([float(np.linalg.norm(spot[:2] - at)) - radius - size for at, size in others] + [_ENOUGH])
        far = float(np.linalg.norm(spot[:2] - near[:2]))
        cost = -10 * min(gap, 0.03) - gap + (0.3 * far if fixture.role == "surface" else np.linalg.norm(local))
        spots.append((cost, spot))
    spots.sort(key=lambda entry: entry[0])
    for _, spot in spots:
        spot[2] = ground_height(planner, spot, region, item)
    return [spot for _, spot in spots]


def ground_height(planner: Planner, spot: np.ndarray, region: Region, item: Item) -> float:
    """Return the height of what an item would come to rest on at a spot [m]."""
    model, data = planner.world.model, planner.world.data
    owner = model.geom_bodyid
    solid = (model.geom_contype | model.geom_conaffinity) != 0
    solid &= ~planner.robot[owner] & (owner != planner.world.id_of("body", item.body))
    rotation = data.geom_xmat.reshape(-1, 3, 3)
    middle = data.geom_xpos + np.einsum("nij,nj->ni", rotation, model.geom_aabb[:, :3])
    local = np.abs(np.einsum("nji,nj->ni", rotation, spot - middle))
    half = np.einsum("nij,nj->ni", np.abs(rotation), model.geom_aabb[:, 3:])
    upright = np.abs(rotation[:, 2, 2]) > 0.999
    flat = np.where(
        upright[:, None], local[:, :2] - model.geom_aabb[:, 3:5], np.abs(spot - middle)[:, :2] - half[:, :2]
    )
    top = middle[:, 2] + half[:, 2]
    under = solid & (flat < 0.01).all(axis=1) & (top < region.centre[2] + region.half[2])
    under &= top > region.centre[2] - region.half[2] - 0.15
    return float(np.max(top[under], initial=region.centre[2] - region.half[2]))


def spots_near(planner: Planner, xy: np.ndarray, item: Item, *, rng: np.random.Generator) -> list[np.ndarray]:
    """Return points [3] on the ground near `xy` for an item's middle."""
    height = float(planner.world.pos(item.body)[2])
    region = Region(np.array([*xy, height]), np.array([0.02, 0.02, 0.4]), 0.0)
    fixture = nearest_fixture(planner, region.centre)
    if fixture is not None:
        region = replace(region, centre=np.array([*xy, region_of(planner, fixture).centre[2]]))
    spots = [region.world(np.array([*rng.uniform(-0.02, 0.02, 2) * (number > 0), 0])) for number in range(4)]
    for spot in spots:
        spot[2] = ground_height(planner, spot, region, item)
    return spots


def nearest_fixture(planner: Planner, point: np.ndarray, *, among: Iterable[Fixture] | None = None) -> Fixture | None:
    """Return the fixture whose region a point is in, or nearest to; the smaller of two; None if there is none."""
    best, least = None, np.inf
    for fixture in planner.scene.fixtures.values() if among is None else among:
        region = region_of(planner, fixture)
        outside = np.maximum(np.abs(region.local(point)) - region.half, 0)
        distance = float(np.linalg.norm(outside)) + 1e-3 * float(np.prod(region.half))
        if distance < least:
            best, least = fixture, distance
    return best


def stands(
    planner: Planner,
    fixture: Fixture | None,
    point: np.ndarray,
    arm: Arm,
    *,
    rng: np.random.Generator,
    distance: tuple[float, float] = (0.3, 0.66),
) -> list[tuple[float, float, float]]:
    """Return poses (x, y, yaw) where the base can stand so that an arm reaches a point, the best first.

    In front of the fixture, sideways so far that the arm points at it; around it where that is blocked. `distance`:
    the least and the most that the base stands before the point [m]; in between, as the fixture's `front` says.
    """
    q = planner.controller.command.q.copy()
    if not held_items(planner.world, planner.scene):
        q = np.where(planner.ik.is_base, q, planner.body.ready)
    yaw, near = _front(fixture, point, q, distance=distance)
    poses = []
    for turn, shift, extra in itertools.product(_TURNS, _SIDESTEPS, _FARTHER):
        away = near + extra
        if extra and np.hypot(away - arm.mount[0], shift) > _FARTHEST:
            continue
        off = rng.uniform((-0.08, -0.06), (0.08, 0.06))
        facing, lateral = yaw + turn + off[0], arm.mount[1] - shift + off[1]
        c, s = np.cos(facing), np.sin(facing)
        pose = (point[0] - away * c + lateral * s, point[1] - away * s - lateral * c, facing)
        poses.append((abs(shift) + 1.2 * extra + 0.6 * abs(turn), pose))
    poses.sort(key=lambda entry: entry[0])
    clearance = planner.obstacles.clearance(np.array([pose[:2] for _, pose in poses]))
    found = []
    for (_, pose), gap in zip(poses, clearance, strict=True):
        q[:3] = pose
        if gap >= planner.base_radius - 0.005 and not planner.collides(q):
            found.append((float(pose[0]), float(pose[1]), float(pose[2])))
            if len(found) == 4:
                break
    return found


def step_back(stand: tuple[float, float, float], distance: float) -> tuple[float, float, float]:
    """Return the pose of a base that has driven straight back."""
    x, y, yaw = stand
    return float(x - distance * np.cos(yaw)), float(y - distance * np.sin(yaw)), float(yaw)


def _front(
    fixture: Fixture | None, point: np.ndarray, q: np.ndarray, *, distance: tuple[float, float]
) -> tuple[float, float]:
    """Return the direction in which a base faces a point, and how far before it stands [m]."""
    if fixture is None or fixture.front is None:
        return float(np.arctan2(*(point[:2] - q[:2])[::-1])), 0.5
    x, y, yaw = fixture.front
    along = (point[0] - x) * np.cos(yaw) + (point[1] - y) * np.sin(yaw)
    return yaw, float(np.clip(along, *distance))


def _turn(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
