"""Where furniture stands: along four walls, around a rectangle of free floor.

The free floor is convex and every place to stand lies in it or at its edge, so a base can drive straight from anywhere
to anywhere. Fronts on one wall are in line, as far from the free floor as an arm wants them (`room.STAND`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import pi

import numpy as np

from pilot.sims.rooms.furniture.decor import (
    add_floor_lamp,
    add_hall_door,
    add_lights,
    add_picture,
    add_plant,
    add_rug,
    add_shell,
    add_window,
    wall_places,
)
from pilot.sims.rooms.room import STAND, Place, Room
from pilot.sims.world.physics import look_at

BARE = 0.36  # from the free floor to a wall without furniture [m]
EDGE = 0.2  # how far furniture may reach along a wall beyond the free floor [m]
DOORWAY = 1.0  # width of wall that the door to the hall takes [m]


@dataclass(frozen=True)
class Unit:
    """A piece of furniture, or a row of them, that takes a stretch of wall."""

    build: Callable[[Place], None]  # given the middle of its front edge
    width: float
    depth: float
    is_tall: bool = False  # it hides what hangs on the wall behind it


@dataclass(frozen=True)
class Stretch:
    """A stretch of wall from `low` to `high` along it that nothing hides; `is_empty`: nothing stands before it."""

    wall: int
    low: float
    high: float
    is_empty: bool

    @property
    def width(self) -> float:
        """Its length along the wall [m]."""
        return self.high - self.low


Walls = tuple[Sequence[Unit], Sequence[Unit], Sequence[Unit], Sequence[Unit]]


def furnish(room: Room, walls: Walls, *, floor: tuple[float, float]) -> None:
    """Build the room: units on the walls +x, +y, -x and -y in a drawn order, then what hangs and what lights it.

    `floor`: half sizes of the free floor; it grows where the units need more wall.
    """
    rng = room.rng
    need = [sum(unit.width + 0.06 for unit in units) / 2 - EDGE for units in walls]
    x, y = max(floor[0], need[1], need[3]), max(floor[1], need[0], need[2])
    room.floor = (x, y)
    depths = [max((unit.depth for unit in units), default=BARE - STAND) for units in walls]
    east, north, west, south = (half + STAND + depth for half, depth in zip((x, y, x, y), depths, strict=True))
    room.walls = (east, north, west, south)
    add_shell(room)
    shows: list[Stretch] = []
    for i, units in enumerate(walls):
        half = (y, x)[i % 2] + EDGE
        order = [units[j] for j in rng.permutation(len(units))]
        shows += _build_row(room, order, i, half=half)
    _hang(room, shows)
    _fill_corners(room, depths)
    if rng.uniform() < 0.7:
        size = rng.uniform([0.45, 0.5], [0.8, 0.9]) * np.array([x, y])
        place = Place(float(rng.uniform(-0.15, 0.15)), float(rng.uniform(-0.15, 0.15)), float(rng.normal(0, 0.06)))
        add_rug(room, place, half=(size[0], size[1]))
    add_lights(room)
    _add_overview(room)


def _build_row(room: Room, units: Sequence[Unit], wall: int, *, half: float) -> list[Stretch]:
    """Put units along a wall with drawn gaps between them; return the stretches where the wall shows."""
    slack = max(0.0, 2 * half - sum(unit.width for unit in units))
    gaps = np.sort(room.rng.uniform(0, slack, len(units)))
    front, end, shows = room.floor[wall % 2] + STAND, -half, []
    for unit, gap, before in zip(units, gaps, np.cumsum([0.0, *(unit.width for unit in units)]), strict=False):
        start = -half + gap + before
        unit.build(Place(0, 0, wall * pi / 2).at(front, start + unit.width / 2))
        shows.append(Stretch(wall, end, start, is_empty=True))
        end = start + unit.width
        if not unit.is_tall:
            shows.append(Stretch(wall, start, end, is_empty=False))
    return [*shows, Stretch(wall, end, half, is_empty=True)]


def _hang(room: Room, shows: list[Stretch]) -> None:
    """Hang the door to the hall, one or two windows and some pictures where the walls show."""
    rng, walls = room.rng, wall_places(room)
    makers = ["window", "picture", "picture", "window", "picture"][: int(rng.integers(3, 6))]
    has_door = False
    for stretch in sorted(shows, key=lambda stretch: -stretch.width):
        wall = walls[stretch.wall]
        shift = (wall.y, -wall.x, -wall.y, wall.x)[stretch.wall]  # of the wall's middle from the floor's
        place = wall.at(0, (stretch.low + stretch.high) / 2 - shift)
        if not has_door and stretch.is_empty and stretch.width > DOORWAY:
            add_hall_door(room, place)
            has_door = True
        elif makers and stretch.width > 0.9 and makers[0] == "window":
            add_window(room, place, half_width=min(stretch.width / 2 - 0.2, float(rng.uniform(0.4, 0.7))))
            makers.pop(0)
        elif makers and stretch.width > 0.45:
            add_picture(room, place, z=float(rng.uniform(1.4, 1.65)))
            makers.pop(0)


def _fill_corners(room: Room, depths: Sequence[float]) -> None:
    """Put a plant or a floor lamp into corners that are deep enough."""
    rng, (east, north, west, south) = room.rng, room.walls
    corners = [(east, north, 0, 1), (-west, north, 2, 1), (-west, -south, 2, 3), (east, -south, 0, 3)]
    lamps = 0
    for x, y, one, other in corners:
        if min(depths[one], depths[other]) < 0.3 or rng.uniform() < 0.3:
            continue
        place = Place(x - np.sign(x) * 0.18, y - np.sign(y) * 0.18, 0)
        if lamps == 0 and rng.uniform() < 0.5:
            add_floor_lamp(room, place)
            lamps += 1
        else:
            add_plant(room, place)


def _add_overview(room: Room) -> None:
    """Add the camera `overview` in a corner, for people."""
    east, north, west, south = room.walls
    eye = np.array([-west + 0.12, (-south + 0.12) if room.rng.uniform() < 0.5 else north - 0.12, 2.25])
    target = np.array([east * 0.35, -np.sign(eye[1]) * 0.2, 0.55])
    room.spec.worldbody.add_camera(name="overview", pos=eye, quat=look_at(eye, target), fovy=76)
