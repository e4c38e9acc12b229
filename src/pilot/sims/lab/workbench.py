"""The table that lab tasks are laid out on: a robot behind it, things and stand-ins before it, drawn per episode.

The robot's base is at the origin and looks along x; y points to its left. Heights are given above the table top,
everything else in the world's frame. Physics is imported here and in the tasks, never where suites are listed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pilot.sims.gl import mujoco
from pilot.sims.world.bodies.base import Body
from pilot.sims.world.physics import add_geom, new_spec, quat_about
from pilot.sims.world.scene import Fixture, ImpossibleSceneError, Item, Scene
from pilot.sims.world.task import Task
from pilot.sims.world.things import ThingKind, find_kind
from pilot.sims.world.things.build import add_thing
from pilot.sims.world.things.looks import COLOURS, HELD_OUT_COLOURS, PAINTS, Look

TABLE = 0.75  # height of the table top [m]
HAND_START = (0.235, 0.07)  # how far ahead of its shoulder a hand begins, and how high a thing below it may be [m]
Vec3 = tuple[float, float, float]
Rgb = tuple[float, float, float]

TABLE_COLOURS: tuple[Rgb, ...] = ((0.55, 0.41, 0.28), (0.80, 0.78, 0.74), (0.36, 0.38, 0.42), (0.70, 0.62, 0.48))
WALL_COLOURS: tuple[Rgb, ...] = ((0.80, 0.82, 0.84), (0.72, 0.76, 0.70), (0.84, 0.78, 0.70), (0.62, 0.66, 0.74))
CARDBOARD: Rgb = (0.74, 0.57, 0.37)
METAL: Rgb = (0.72, 0.73, 0.76)
DARK: Rgb = (0.20, 0.21, 0.23)


@dataclass(frozen=True)
class Area:
    """A rectangle of the table top: x and y from … to [m]."""

    x: tuple[float, float]
    y: tuple[float, float]

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Draw a point [2] in it."""
        return np.array([rng.uniform(*self.x), rng.uniform(*self.y)])


def paint(rng: np.random.Generator, rgb: Rgb, *, spread: float = 0.06) -> Rgb:
    """Return a colour near `rgb`."""
    r, g, b = np.clip(np.array(rgb) + rng.uniform(-spread, spread) + rng.uniform(-0.02, 0.02, 3), 0, 1)
    return (float(r), float(g), float(b))


class Workbench:
    """A spec that grows: table and things; it knows which spots are taken.

    `held_out`: things may be of kinds and colours that training never sees.
    """

    def __init__(self, body: Body, rng: np.random.Generator, *, held_out: bool = False):
        self.body, self.rng, self.held_out = body, rng, held_out
        self.items: dict[str, Item] = {}
        self.spec: Any = new_spec()
        self.fixtures: dict[str, Fixture] = {}
        self._taken: list[tuple[np.ndarray, float]] = []
        self._hands = [(np.array([HAND_START[0], arm.mount[1]]), 0.05) for arm in body.arms]
        self._add_room()

    def _add_room(self) -> None:
        world, rng = self.spec.worldbody, self.rng
        floor = paint(rng, (0.50, 0.48, 0.46), spread=0.12)
        wall = paint(rng, WALL_COLOURS[rng.integers(len(WALL_COLOURS))])
        top = paint(rng, TABLE_COLOURS[rng.integers(len(TABLE_COLOURS))])
        add_geom(world, "plane", size=(3, 3, 0.1), rgb=floor, name="floor")
        table = world.add_body(name="table", pos=(0.30, 0, TABLE - 0.04))
        # Thick, so that nothing that falls on it goes through.
        add_geom(table, "box", size=(0.42, 0.62, 0.04), rgb=top)
        self.region("table", table, centre=(0, 0, 0.09), half=(0.2, 0.4, 0.05))
        for x in (-0.36, 0.36):
            for y in (-0.56, 0.56):
                size = (0.03, 0.03, (TABLE - 0.08) / 2)
                add_geom(table, "box", size=size, pos=(x, y, -0.04 - size[2]), rgb=paint(rng, top), contact="none")
        add_geom(world, "box", size=(0.02, 3, 1.4), pos=(1.3, 0, 1.4), rgb=wall, contact="none")
        for side in (-1, 1):
            size, pos = (1.6, 0.02, 1.4), (-0.3, side * 1.7, 1.4)
            add_geom(world, "box", size=size, pos=pos, rgb=paint(rng, wall, spread=0.03), contact="none")
        light = rng.uniform(0.2, 0.4)
        direction = (float(rng.uniform(-0.3, 0.3)), float(rng.uniform(-0.3, 0.3)), -1.0)
        world.add_light(
            pos=(0.3, 0, 2.4),
            dir=direction,
            type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
            castshadow=False,
            diffuse=[light] * 3,
        )

    # Where things go

    def take(self, xy: Sequence[float] | np.ndarray, radius: float) -> None:
        """Keep other things out of a disc."""
        self._taken.append((np.asarray(xy, float), radius))

    def find_spot(
        self, areas: Area | Sequence[Area], radius: float, *, gap: float = 0.03, height: float = 0.0
    ) -> np.ndarray:
        """Draw a free spot [2] for a disc, and take it; what is higher than hands begin does not stand below them.

        Raises:
            ImpossibleSceneError: 300 draws were not free.
        """
        choices = (areas,) if isinstance(areas, Area) else tuple(areas)
        taken = self._taken + (self._hands if height > HAND_START[1] else [])
        for _ in range(300):
            xy = choices[self.rng.integers(len(choices))].draw(self.rng)
            if all(np.linalg.norm(xy - other) > radius + size + gap for other, size in taken):
                self.take(xy, radius)
                return xy
        raise ImpossibleSceneError(f"no free spot of radius {radius:.2f} m among {len(self._taken)} things")

    # Looks

    def draw_colour(self) -> Rgb:
        """Draw the colour of a stand-in that is not named by it."""
        words = [word for word in PAINTS if self.held_out or word not in HELD_OUT_COLOURS]
        return paint(self.rng, COLOURS[words[self.rng.integers(len(words))]], spread=0.03)

    def draw_look(self, kind: ThingKind) -> Look:
        """Draw a look of a kind whose name nothing else has.

        Raises:
            ImpossibleSceneError: there is none.
        """
        for _ in range(50):
            look = self._draw_look(kind)
            if kind.names(look)[0] not in self.items:
                return look
        raise ImpossibleSceneError(f"no more names for a {kind.name}")

    def _draw_look(self, kind: ThingKind) -> Look:
        return kind.draw_look(self.rng, colours=kind.colours if self.held_out else None)

    # Things

    def put(
        self,
        kinds: Sequence[str],
        areas: Area | Sequence[Area],
        *,
        gap: float = 0.03,
        yaws: tuple[float, float] = (-np.pi, np.pi),
    ) -> Item:
        """Put a thing of one of some kinds on a free spot, in a look whose name nothing else has.

        Kinds that training never sees are left out, unless this is a bench of the test split.

        Raises:
            ImpossibleSceneError: there is no free spot, or no name that is free.
        """
        allowed = [find_kind(name) for name in kinds if self.held_out or not find_kind(name).is_held_out]
        for _ in range(50):
            kind = allowed[int(self.rng.integers(len(allowed)))]
            look = self._draw_look(kind)
            if kind.names(look)[0] not in self.items:
                break
        else:
            raise ImpossibleSceneError(f"no more names for {' or '.join(kinds)}")
        xy = self.find_spot(areas, kind.footprint(look), gap=gap, height=kind.height(look))
        return self.place(kind, look, xy, yaw=float(self.rng.uniform(*yaws)))

    def place(
        self,
        kind: ThingKind,
        look: Look,
        xy: Sequence[float] | np.ndarray,
        *,
        yaw: float = 0.0,
        z: float = 0.001,
        name: str | None = None,
    ) -> Item:
        """Put a thing where it is said; its name, the usual one if it is given no other, must be free."""
        name = name or kind.names(look)[0]
        body = f"thing_{len(self.items)}"
        add_thing(self.spec, body, kind, look=look, pos=(float(xy[0]), float(xy[1]), TABLE + z), yaw=yaw)
        self.items[name] = Item(body, kind, look, name)
        return self.items[name]

    def container(
        self,
        name: str,
        xy: Sequence[float] | np.ndarray,
        inside: Vec3,
        *,
        rgb: Rgb,
        yaw: float = 0.0,
        mass: float | None = None,
    ) -> Fixture:
        """Put an open box on the table: a fixture called `name`, fixed, or free and of a `mass` [kg].

        `inside`: its half sizes x and y, and its height.
        """
        body = self.fixed(name, xy, yaw=yaw) if mass is None else self.free(name, xy, yaw=yaw)
        self.tub(body, inside, rgb=rgb, mass=mass)
        x, y, height = inside
        return self.region(name, body, centre=(0, 0, height / 2), half=(x, y, height / 2 + 0.02), role="container")

    def region(self, name: str, body: Any, *, centre: Vec3, half: Vec3, role: str = "surface") -> Fixture:
        """Name a box in a body's frame as a fixture."""
        self.fixtures[name] = Fixture(name=name, body=body.name, role=role, centre=centre, half=half)
        return self.fixtures[name]

    # Bodies of stand-ins

    def fixed(self, name: str, xy: Sequence[float] | np.ndarray, *, yaw: float = 0, z: float = 0) -> Any:
        """Add a body that stands still on the table."""
        quat = quat_about((0, 0, 1), yaw)
        return self.spec.worldbody.add_body(name=name, pos=(xy[0], xy[1], TABLE + z), quat=quat)

    def free(self, name: str, xy: Sequence[float] | np.ndarray, *, yaw: float = 0, z: float = 0.001) -> Any:
        """Add a body that can be moved."""
        body = self.fixed(name, xy, yaw=yaw, z=z)
        body.add_freejoint(name=name)
        return body

    def hinged(
        self,
        parent: Any,
        name: str,
        *,
        at: Vec3,
        axis: Vec3,
        limits: tuple[float, float],
        friction: float,
        damping: float | None = None,
        start: float = 0.0,
        apart: bool = True,
    ) -> Any:
        """Add a body on a hinge of the same name, which stays where it is left.

        Angles are measured from how the body is built; `start` [rad] is where an episode begins. `friction` [N m].
        `apart`: it never touches its parent.
        """
        body = parent.add_body(name=name, pos=at, quat=quat_about(axis, start))
        damping = friction / 2 if damping is None else damping
        options = {"range": limits, "limited": 1, "damping": damping, "armature": max(friction / 40, 2e-4)}
        hinge = mujoco.mjtJoint.mjJNT_HINGE
        body.add_joint(name=name, type=hinge, axis=axis, frictionloss=friction, ref=start, **options)
        if apart:
            self.spec.add_exclude(bodyname1=parent.name, bodyname2=name)
        return body

    def sliding(self, parent: Any, name: str, *, at: Vec3, axis: Vec3, travel: float, friction: float) -> Any:
        """Add a body on a rail of the same name; `friction` [N]. It never touches its parent."""
        body = parent.add_body(name=name, pos=at)
        options = {"range": (0, travel), "limited": 1, "damping": 4, "armature": 0.05}
        body.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis, frictionloss=friction, **options)
        self.spec.add_exclude(bodyname1=parent.name, bodyname2=name)
        return body

    def tub(self, body: Any, inside: Vec3, *, rgb: Rgb, wall: float = 0.004, mass: float | None = None) -> None:
        """Build an open box around a body's origin; `inside` are its half sizes x and y, and its height."""
        x, y, height = inside
        part = None if mass is None else mass / 5
        add_geom(body, "box", size=(x, y, wall), pos=(0, 0, wall), rgb=rgb, mass=part)
        for side in (-1, 1):
            place, size = (side * (x + wall), 0, height / 2), (wall, y, height / 2)
            add_geom(body, "box", size=size, pos=place, rgb=rgb, mass=part)
            place, size = (0, side * (y + wall), height / 2), (x + 2 * wall, wall, height / 2)
            add_geom(body, "box", size=size, pos=place, rgb=rgb, mass=part)

    # The whole

    def scene(self, task: Task) -> Scene:
        """Return the scene, in which `task` is asked."""
        return Scene(
            name=task.name,
            spec=self.spec,
            body=self.body,
            task=task,
            robot_height=TABLE,
            items=self.items,
            fixtures=self.fixtures,
            camera_jitter=np.random.default_rng(int(self.rng.integers(1 << 31))),
        )
