"""Sets the scene of one episode in a furnished room: containers on surfaces, things at their places, what stands open.

Tasks ask it for things; it draws their looks and finds room for them, all within reach of the robot that will act.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pilot.sims.rooms import language
from pilot.sims.rooms.furniture.storage import add_lidded_box, add_vessel
from pilot.sims.rooms.paints import Paint, draw_rgb
from pilot.sims.rooms.room import STAND, STAND_AT_DRAWER, Place, Room, Spot, Station, Taken
from pilot.sims.world.bodies.base import Body
from pilot.sims.world.scene import BasePose, Effect, Fixture, ImpossibleSceneError, Item
from pilot.sims.world.things import HELD_OUT_COLOURS, KINDS, Look, ThingKind, handled_kinds
from pilot.sims.world.things.build import add_thing

GAP = 0.035  # between two things, and to a container's outside [m]: fingers fit in
TRIES = 80
VESSELS = {  # half sizes inside, and height, of what stands on a surface [m]
    "basket": ((0.105, 0.12), 0.09),
    "tray": ((0.115, 0.15), 0.028),
    "crate": ((0.11, 0.13), 0.11),
    "box": ((0.1, 0.12), 0.1),  # with a lid
}
BESIDE = {"arm": 0.4, "bimanual": 0.5}  # how far to either side a robot that cannot drive reaches [m]
AHEAD = (0.12, 0.38)  # and how far from the surface's front edge [m]
REACH = 0.56  # from a shoulder, seen from above [m]
HAND, UNDER_HAND = 0.234, 0.07  # where a hand at rest is, ahead of the shoulder; what may be under it is no higher [m]
BACK = 0.4  # from a surface's front edge: farther away are things that stay there [m]
NEARBY = 0.9  # from where one stands at a surface to where one stands at a container near it [m]
FOOT = 0.08  # from its foot to the front edge [m]


@dataclass
class Stage:
    """A room and the robot that will act in it. `novel`: which of `choices.NOVELTIES` training never sees.

    `level` 1: few things, near each other; 2: more of them, some alike; 3: many, anywhere in the room.
    """

    room: Room
    body: Body
    rng: np.random.Generator
    level: int = 1
    novel: frozenset[str] = frozenset()
    items: dict[str, Item] = field(default_factory=dict)
    station: Station | None = None
    spots: dict[str, Spot] = field(default_factory=dict)  # where things may lie in this episode
    homes: dict[str, str] = field(default_factory=dict)  # the surface that each item lies on
    opened: set[str] = field(default_factory=set)  # drawers, doors and lids that begin open
    effects: list[Effect] = field(default_factory=list)
    robot_pose: BasePose = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if self.body.is_mobile:
            self.spots = dict(self.room.spots)
            return
        if not self.room.stations:
            raise ImpossibleSceneError(f"no surface in this {self.room.name} has room for robot '{self.body.name}'")
        self.station = self.room.stations[str(self.rng.choice(sorted(self.room.stations)))]
        side, (low, high) = BESIDE[self.body.name], self.station.span
        name, place, z = self.station.fixture, self.station.place, self.station.height
        self.spots = {name: Spot(name, place, AHEAD, (max(low, -side), min(high, side)), z)}

    @property
    def surfaces(self) -> list[str]:
        """Names of the surfaces where things may lie, the largest first."""
        return sorted(self.spots, key=lambda name: (-self.spots[name].area, name))

    @property
    def fixtures(self) -> dict[str, Fixture]:
        """The fixtures that this robot can use."""
        if self.station is None:
            return self.room.fixtures
        own = {self.station.fixture, *self.station.also}
        return {k: f for k, f in self.room.fixtures.items() if k in own or k.removesuffix(" lid") in VESSELS}

    @property
    def containers(self) -> list[str]:
        """Names of the containers that stand open."""
        shut = {name for name in self.fixtures if lid_of(name) in self.fixtures and lid_of(name) not in self.opened}
        return [n for n, f in self.fixtures.items() if f.role == "container" and not f.joint and n not in shut]

    @property
    def drawers(self) -> list[str]:
        """Names of the drawers."""
        return [name for name, f in self.fixtures.items() if f.role == "container" and f.joint]

    @property
    def lidded(self) -> list[str]:
        """Names of the boxes with a lid that is closed."""
        return [n for n in self.fixtures if lid_of(n) in self.fixtures and lid_of(n) not in self.opened]

    @property
    def firm_surfaces(self) -> list[str]:
        """Names of the surfaces that one wipes."""
        return [name for name in self.surfaces if name not in ("bed", "sofa", "shelf")]

    def containers_near(self, surface: str) -> list[str]:
        """Return the containers that stand open on a surface or a step away from it."""
        return [name for name in self.containers if self.station or self._distance(name, surface) < NEARBY]

    def _distance(self, name: str, surface: str) -> float:
        """Return how far apart a base stands at a fixture and along a surface [m]."""
        spot, (x, y, _) = self.spots[surface], self.room.fixtures[name].front or (0, 0, 0)
        ahead, aside = spot.place.local(x, y)
        return float(np.hypot(ahead + STAND, aside - np.clip(aside, *spot.y)))

    def pick(self, options: Iterable[str]) -> str:
        """Draw one of the options, whatever their order.

        Raises:
            ImpossibleSceneError: there is none.
        """
        names = sorted(options)
        if not names:
            raise ImpossibleSceneError(f"this {self.room.name} offers nothing for the task")
        return names[int(self.rng.integers(len(names)))]

    def kinds(self, families: Sequence[str], *, tallest: float = np.inf, largest: float = 0.115) -> list[ThingKind]:
        """Return the kinds of these families that are below a height and a radius [m].

        With novel "kinds", those that training never sees, where the families have any.
        """
        new = handled_kinds(families=families, held_out=True) if "kinds" in self.novel else ()
        for chosen in (new, handled_kinds(families=families)):
            fitting = [k for k in chosen if _size(k)[0] < largest and _size(k)[1] < tallest]
            if fitting:
                return fitting
        raise ImpossibleSceneError(f"no thing of {', '.join(families)} fits")

    def leave_open(self, name: str) -> None:
        """Let a drawer, a door or a lid begin open, wide or nearly so."""
        assert name not in self.opened, name
        self.room.leave_open(name, share=float(self.rng.uniform(0.8, 1.0)))
        self.opened.add(name)

    def draw_kind(
        self, families: Sequence[str], *, place: str | None = None, tallest: float = np.inf, largest: float = 0.115
    ) -> ThingKind:
        """Draw a kind of these families; `place` is a container that it should fit into."""
        if place is not None:
            largest = min(largest, max(self.room.fixtures[place].half[:2]) + 0.01)
        kinds = self.kinds(families, tallest=tallest, largest=largest)
        return kinds[int(self.rng.integers(len(kinds)))]

    def add_item(
        self,
        kind: ThingKind,
        *,
        where: str | None = None,
        near: Place | None = None,
        or_else: Sequence[str] = (),
        colours: Sequence[str] | None = None,
    ) -> Item:
        """Add a thing with a name of its own to a surface, one that is drawn or `where`, or else another of `or_else`.

        `near` keeps it close to a place; `colours` are those that it may have.

        Raises:
            ImpossibleSceneError: there is no room for it.
        """
        look, name = self._draw_look(kind, colours=colours)
        radius, height = kind.footprint(look), kind.height(look)
        surfaces = [where, *or_else] if where else [str(s) for s in self.rng.permutation(self.surfaces)]
        for surface in surfaces:
            spot = self.spots[surface]
            found = self._find_room(spot, radius, near=near, height=height)
            if found is not None:
                pos, yaw = (*found, spot.z + 0.001), float(self.rng.uniform(-np.pi, np.pi))
                add_thing(self.room.spec, name, kind, look=look, pos=pos, yaw=yaw)
                self.room.taken.append(Taken(*found, spot.z, radius, name))
                self.items[name] = Item(name=name, body=name, kind=kind, look=look)
                self.homes[name] = surface
                return self.items[name]
        raise ImpossibleSceneError("no room for a thing")

    def add_like(self, item: Item, *, where: str) -> None:
        """Add a thing that could be mistaken for `item`: its kind in other colours, where there is room for it."""
        if len(item.kind.colours) > 1:
            try:
                self.add_item(item.kind, where=where)
            except ImpossibleSceneError:
                return

    def reserve(self, surface: str, *, radius: float) -> Place:
        """Keep a circle of a surface free of things, and return its middle.

        Raises:
            ImpossibleSceneError: there is no room for it.
        """
        spot = self.spots[surface]
        found = self._find_room(spot, radius)
        if found is None:
            raise ImpossibleSceneError(f"no room on the {surface}")
        self.room.taken.append(Taken(*found, spot.z, radius - GAP))
        return Place(*found, spot.place.yaw)

    def start_at(self, name: str) -> None:
        """Let a mobile base begin before an item or a fixture: close to it on level 1, anywhere on level 3."""
        if self.station is not None:
            self.robot_pose = self.station.place.at(-FOOT, 0).pose
            return
        rng, (x_most, y_most) = self.rng, self.room.floor
        if self.level == 3:
            x, y = (float(share) for share in rng.uniform(-1, 1, 2))
            self.robot_pose = (x * x_most, y * y_most, float(rng.uniform(-np.pi, np.pi)))
            return
        if name in self.items:
            spot = self.spots[self.homes[name]]
            at = next(t for t in self.room.taken if t.name == name)
            stand = spot.place.at(-STAND, float(np.clip(spot.place.local(at.x, at.y)[1], *spot.y)))
        else:
            stand = Place(*(self.room.fixtures[name].front or (0, 0, 0)))
        back, aside, turn = ((0, 0.2), 0.15, 0.2) if self.level == 1 else ((0.1, 0.7), 0.6, 0.6)
        start = stand.at(
            -float(rng.uniform(*back)), float(rng.uniform(-aside, aside)), yaw=float(rng.uniform(-turn, turn))
        )
        self.robot_pose = (
            float(np.clip(start.x, -x_most, x_most)),
            float(np.clip(start.y, -y_most, y_most)),
            start.yaw,
        )

    def add_clutter(self, families: Sequence[str], count: int, *, where: str | None = None) -> None:
        """Add up to `count` things that the task is not about, where there is room."""
        kinds = [kind for kind in handled_kinds(families=families) if _size(kind)[0] < 0.1]
        for _ in range(count):
            try:
                self.add_item(kinds[int(self.rng.integers(len(kinds)))], where=where)
            except ImpossibleSceneError:
                return

    def add_extras(self, kinds: Sequence[str], count: int) -> None:
        """Add up to `count` things of these kinds in any of their colours, where there is room."""
        for _ in range(count):
            kind = KINDS[kinds[int(self.rng.integers(len(kinds)))]]
            try:
                self.add_item(kind, colours=kind.colours)
            except ImpossibleSceneError:
                continue

    def add_vessel(self, name: str, *, where: str | None = None) -> str:
        """Add one of `VESSELS` to a surface, and return its name.

        Raises:
            ImpossibleSceneError: there is no room for it.
        """
        half, height = VESSELS[name]
        radius = float(np.hypot(half[0] + 0.02, half[1] + 0.02)) * 0.92
        for surface in [where] if where else [str(s) for s in self.rng.permutation(self.surfaces)]:
            spot = self.spots[surface]
            low, high = spot.y[0] + half[1] * 0.7, spot.y[1] - half[1] * 0.7
            for y in self.rng.uniform(low, high, TRIES) if high > low else ():
                place = spot.place.at(spot.x[0] - 0.045, float(y))
                middle = place.at(half[0] + 0.02, 0)
                if self._is_free(middle, spot.z, radius, height=height):
                    self._build_vessel(name, place, spot.z, base=spot.place.at(-STAND, float(y)))
                    self.room.taken.append(Taken(middle.x, middle.y, spot.z, radius - 0.01))
                    return name
        raise ImpossibleSceneError("no room for a container")

    def _build_vessel(self, name: str, place: Place, z: float, *, base: Place) -> None:
        half, height = VESSELS[name]
        hue = 0.09 if name in ("basket", "crate") else None
        saturation = (0.35, 0.6) if name in ("basket", "crate") else (0.1, 0.5)
        rgb = draw_rgb(self.rng, hue=hue, saturation=saturation, value=(0.4, 0.85))
        paint = Paint(rgb, "wood" if name == "crate" else "cloth" if name == "basket" else "")
        if name == "box":
            add_lidded_box(self.room, place, name=name, lid="box lid", half=half, height=height, paint=paint, z=z)
            self.room.fixtures["box lid"] = replace(
                self.room.fixtures["box lid"], front=base.at(STAND - STAND_AT_DRAWER + 0.06, 0).pose
            )
            self.room.fixtures["box"] = replace(self.room.fixtures["box"], front=base.pose)
        else:
            add_vessel(
                self.room,
                place,
                name=name,
                half=half,
                height=height,
                paint=paint,
                z=z,
                front=base,
                rim=name == "basket",
            )

    def _draw_look(self, kind: ThingKind, *, colours: Sequence[str] | None = None) -> tuple[Look, str]:
        """Draw a look whose name no other thing in the scene has."""
        new = [c for c in kind.colours if c in HELD_OUT_COLOURS] if "colours" in self.novel else []
        for _ in range(TRIES):
            look = kind.draw_look(self.rng, colours=colours or new or None)
            name = kind.names(look)[0]
            if name not in self.items and name not in self.room.fixtures:
                return look, name
        raise ImpossibleSceneError(f"no name is left for another {kind.name}")

    def _find_room(
        self, spot: Spot, radius: float, *, near: Place | None = None, height: float = 0.0
    ) -> tuple[float, float] | None:
        """Draw a place on a surface for something of a radius and a height; None if there is no room."""
        x_low = spot.x[0] if self.station else max(spot.x[0], min(radius + 0.03, 0.16))
        x_high = max(x_low, min(spot.x[1], BACK - radius))
        for _ in range(TRIES):
            y = self.rng.uniform(*spot.y)
            if near is not None:
                y = np.clip(spot.place.local(near.x, near.y)[1] + self.rng.uniform(-0.4, 0.4), *spot.y)
            place = spot.place.at(float(self.rng.uniform(x_low, x_high)), float(y))
            if self._is_free(place, spot.z, radius, height=height):
                return place.x, place.y
        return None

    def _is_free(self, at: Place, z: float, radius: float, *, height: float) -> bool:
        """Whether a circle touches nothing and, for a robot that cannot drive, is in its reach and beside its hands."""
        others = [t for t in self.room.taken if abs(t.z - z) < 0.2]
        if any(np.hypot(t.x - at.x, t.y - at.y) < t.radius + radius + GAP for t in others):
            return False
        if self.station is None:
            return True
        x, y = self.station.place.local(at.x, at.y)
        sides = [arm.mount[1] for arm in self.body.arms]
        if height > UNDER_HAND and any(np.hypot(x + FOOT - HAND, y - side) < radius + 0.06 for side in sides):
            return False
        return min(np.hypot(x + FOOT, y - side) for side in sides) < REACH

    def say(self, request: str, **words: str) -> str:
        """Draw the words of a request, as `language.say` does; places are called by one of their names."""
        held_out = "phrasings" in self.novel
        for gap in ("place", "into"):
            if gap in words:
                words[gap] = self.pick(language.place_names(words[gap], held_out=held_out))
        return language.say(request, self.rng, held_out=held_out, **words)

    def call(self, item: Item) -> str:
        """Draw one of the names of an item."""
        return self.pick(self.names_of(item))

    def names_of(self, item: Item) -> tuple[str, ...]:
        """Return what an item may be called here: its names that no other thing could have."""
        others = {n for other in self.items.values() if other is not item for n in other.kind.names(other.look)}
        own = item.kind.names(item.look)
        return tuple(name for name in own if name == own[0] or name not in others)


def lid_of(name: str) -> str:
    """Return what the lid of a box is called, if it has one."""
    return f"{name} lid"


_SIZES: dict[str, tuple[float, float]] = {}


def _size(kind: ThingKind) -> tuple[float, float]:
    """Return the radius and the height of a kind in a usual look [m]."""
    if kind.name not in _SIZES:
        look = kind.draw_look(np.random.default_rng(0), colours=kind.colours)
        _SIZES[kind.name] = (kind.footprint(look) / look.scale, kind.height(look) / look.scale)
    return _SIZES[kind.name]
