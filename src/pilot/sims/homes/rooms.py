"""Draws a home: the room, the light, the camera, the receptacles and the objects that live there.

Everything comes from one seed. Train homes have seeds below `FIRST_TEST_SEED`, test homes from there on, so no home
is ever in both.
"""

import colorsys
from dataclasses import dataclass

import numpy as np

from pilot.names import check_name
from pilot.sims.homes import language
from pilot.sims.homes.objects import VESSELS, Vec3

FIRST_TEST_SEED = 1_000_000
SPLITS = ("train", "test")
REACH = np.array([0.27, 0.21])  # half width and half depth of the part of the table where things are [m]
SPACING = 0.112  # between the centres of two objects [m]
MARGIN = 0.060  # between an object's centre and the outside of a receptacle [m]


@dataclass(frozen=True)
class Receptacle:
    """An open box on the table. `inner` is its half width and half depth inside the walls [m]."""

    name: str
    pos: tuple[float, float]
    yaw: float
    inner: tuple[float, float]
    wall: float
    rgb: Vec3
    rim: Vec3

    def local(self, xy: np.ndarray) -> np.ndarray:
        """Turn table coordinates [..., 2] into the receptacle's own frame."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return (np.asarray(xy) - self.pos) @ np.array([[c, -s], [s, c]])

    def world(self, xy: np.ndarray) -> np.ndarray:
        """Turn coordinates [..., 2] of the receptacle's own frame into those of the table."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return np.asarray(xy) @ np.array([[c, s], [-s, c]]) + self.pos

    def distance(self, xy: np.ndarray) -> np.ndarray:
        """Return the distance [m] from points [..., 2] to the inner footprint, 0 inside."""
        outside = np.maximum(np.abs(self.local(xy)) - self.inner, 0)
        return np.linalg.norm(outside, axis=-1)


@dataclass(frozen=True)
class Decor:
    """Something in the room that nobody can move: a box, ellipsoid or cylinder beyond the robot's reach."""

    shape: str
    size: tuple[float, ...]
    pos: Vec3
    rgb: Vec3


@dataclass(frozen=True)
class Home:
    """One home; `pool` is the kind and size factor of every object that lives here, colours come with the episode."""

    seed: int
    level: int
    wall: Vec3
    floor: Vec3
    table: Vec3
    table_second: Vec3
    table_texture: str
    table_half: tuple[float, float]
    light: Vec3
    ambient: float
    camera: Vec3
    camera_target: Vec3
    decor: tuple[Decor, ...]
    receptacles: tuple[Receptacle, ...]
    pool: tuple[tuple[str, float], ...]


def home_seed(split: str, home: int) -> int:
    """Return the seed of home `home` of a split; the splits share no seed."""
    check_name("split", split, SPLITS)
    if not 0 <= home < FIRST_TEST_SEED:
        raise ValueError(f"home {home} is not in [0, {FIRST_TEST_SEED})")
    seed = home if split == "train" else FIRST_TEST_SEED + home
    assert (seed < FIRST_TEST_SEED) == (split == "train"), (seed, split)
    return seed


def draw_home(seed: int, level: int, *, kinds: tuple[str, ...], receptacles: tuple[str, ...]) -> Home:
    """Draw the home of this seed, with objects of these kinds and one or two of these receptacles."""
    rng = np.random.default_rng([seed, level])
    texture = str(rng.choice(["flat", "checker", "gradient"]))
    table = _draw_paint(rng, value=(0.55, 0.95))
    return Home(
        seed=seed,
        level=level,
        wall=_draw_paint(rng, value=(0.6, 0.95)),
        floor=_draw_paint(rng, value=(0.25, 0.7)),
        table=table,
        table_second=tuple(np.clip(np.array(table) * rng.uniform(0.82, 0.94), 0, 1)),
        table_texture=texture,
        table_half=(float(rng.uniform(0.34, 0.42)), float(rng.uniform(0.27, 0.30))),
        light=tuple(rng.uniform([-0.6, -0.6, 1.2], [0.6, 0.2, 1.8])),
        ambient=float(rng.uniform(0.38, 0.52)),
        camera=tuple(np.array([0, -0.50, 0.84]) + rng.uniform(-0.012, 0.012, 3)),
        camera_target=tuple(np.array([0, 0.015, 0]) + rng.uniform(-0.008, 0.008, 3)),
        decor=_draw_decor(rng),
        receptacles=_draw_receptacles(rng, level, receptacles),
        pool=_draw_pool(rng, kinds),
    )


def _draw_paint(rng: np.random.Generator, *, value: tuple[float, float]) -> Vec3:
    """Draw a wall paint: any hue, little saturation, so that objects stand out."""
    return colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0.03, 0.28), rng.uniform(*value))


def _draw_decor(rng: np.random.Generator) -> tuple[Decor, ...]:
    """Draw boxes along the wall and pictures on it."""
    boxes = []
    for x in rng.permutation(np.linspace(-0.42, 0.42, 5))[: rng.integers(1, 5)]:
        half = rng.uniform([0.03, 0.015, 0.03], [0.08, 0.03, 0.10])
        rgb = _draw_paint(rng, value=(0.3, 0.9))
        on_wall = rng.uniform() < 0.5
        z = rng.uniform(0.12, 0.25) if on_wall else half[2]
        y = 0.385 if on_wall else 0.37 - half[1]
        boxes.append(Decor("box", (half[0], 0.006 if on_wall else half[1], half[2]), (float(x), y, float(z)), rgb))
    return tuple(boxes)


def _draw_pool(rng: np.random.Generator, kinds: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    """Draw one object of every kind and three more, at least nine; each of its own size."""
    extra = rng.choice(kinds, size=max(3, 9 - len(kinds)))
    return tuple((str(kind), float(rng.uniform(0.94, 1.06))) for kind in (*kinds, *extra))


def _draw_receptacles(rng: np.random.Generator, level: int, names: tuple[str, ...]) -> tuple[Receptacle, ...]:
    """Draw one or two (level 2: two) receptacles that leave room for five objects."""
    count = min(len(names), 2 if level == 2 else int(rng.integers(1, 3)))
    chosen = [str(name) for name in rng.choice(names, size=count, replace=False)]
    for _ in range(10_000):
        drawn = tuple(_draw_receptacle(rng, name) for name in chosen)
        if not _overlap(drawn) and all(free_spots(rng, drawn, count=5) is not None for _ in range(2)):
            return drawn
    raise AssertionError(f"no room for {chosen}")


def _draw_receptacle(rng: np.random.Generator, name: str) -> Receptacle:
    vessel = VESSELS[name]
    inner = rng.uniform([0.100, 0.086], [0.116, 0.098])
    pos = rng.uniform(-1, 1, 2) * (REACH - inner * 0.85)
    tint = rng.uniform(0.9, 1.08)
    return Receptacle(
        name=name,
        pos=(float(pos[0]), float(pos[1])),
        yaw=float(rng.uniform(-0.2, 0.2)),
        inner=(float(inner[0]), float(inner[1])),
        wall=float(vessel.wall * rng.uniform(0.9, 1.1)),
        rgb=tuple(np.clip(np.array(vessel.rgb) * tint, 0, 1)),
        rim=tuple(np.clip(np.array(vessel.rim) * tint, 0, 1)),
    )


def _overlap(receptacles: tuple[Receptacle, ...]) -> bool:
    """Whether two receptacles are nearer than 2 cm; corners and edge middles of each against the other."""
    if len(receptacles) < 2:
        return False
    ring = np.array([(x, y) for x in (-1, -0.5, 0, 0.5, 1) for y in (-1, 0, 1)])
    one, two = receptacles
    near = [b.distance(a.world(ring * a.inner)).min() for a, b in ((one, two), (two, one))]
    return min(near) < 0.04


def free_spots(
    rng: np.random.Generator, receptacles: tuple[Receptacle, ...], *, count: int, tries: int = 200
) -> np.ndarray | None:
    """Draw places [count, 2] for objects, clear of each other and of the receptacles; None if no try worked."""
    spots = np.empty((0, 2))
    for candidate in rng.uniform(-REACH, REACH, (tries, 2)):
        clear_of_walls = all(r.distance(candidate) > MARGIN for r in receptacles)
        if clear_of_walls and np.all(np.linalg.norm(spots - candidate, axis=1) > SPACING):
            spots = np.vstack([spots, candidate])
        if len(spots) == count:
            return spots
    return None


def check_names(what: str, got: tuple[str, ...], *, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names as a tuple.

    Raises:
        ValueError: there are none, or unknown ones.
    """
    unknown = [name for name in got if name not in known]
    if unknown or not got:
        raise ValueError(f"unknown {what} {unknown or 'list (empty)'}; homes knows {known}")
    return tuple(got)


ALL_KINDS = language.KINDS + language.HELD_OUT_KINDS
ALL_RECEPTACLES = language.RECEPTACLES + language.HELD_OUT_RECEPTACLES
