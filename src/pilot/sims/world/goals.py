"""What can be true of a scene: predicates that tasks are made of, judged from the state of the world alone.

A goal names items and fixtures of its scene. `item` and `fixture` say which one an expert has to deal with; a
simulator's own goals are subclasses.
"""

from dataclasses import dataclass

import numpy as np

from pilot.sims.world.physics import Physics
from pilot.sims.world.scene import Scene, held_items, in_region, openness

WIDE_OPEN, NEARLY_CLOSED = 0.75, 0.08  # shares of the way that count as opened and as closed
STACKED = 0.045  # how far centres may be apart, seen from above [m]
LIFTED = 0.04  # how far above where it stood a held item counts as picked up [m]


class Goal:
    """Something that holds in a world, or does not. Subclasses are frozen dataclasses."""

    item: str | None
    fixture: str | None

    def __init_subclass__(cls) -> None:
        for name in ("item", "fixture"):  # None of what a goal does not name; a default here would become its field's
            if name not in cls.__annotations__ and not hasattr(cls, name):
                setattr(cls, name, None)

    def holds(self, world: Physics, scene: Scene) -> bool:
        """Return whether it is true now."""
        raise NotImplementedError

    @property
    def items(self) -> tuple[str, ...]:
        """The items that may be moved for it."""
        return () if self.item is None else (self.item,)

    def check(self, scene: Scene) -> None:
        """Check that the scene has what the goal names.

        Raises:
            ValueError: it does not.
        """
        for what, name, known in (("item", self.item, scene.items), ("fixture", self.fixture, scene.fixtures)):
            if name is not None and name not in known:
                raise ValueError(f"{self} names {what} '{name}'; the scene '{scene.name}' has {sorted(known)}")


def _centre(world: Physics, scene: Scene, item: str) -> np.ndarray:
    return world.centre(scene.items[item].body)


@dataclass(frozen=True)
class Inside(Goal):
    """The item is in the fixture, and nobody holds it."""

    item: str
    fixture: str

    def holds(self, world: Physics, scene: Scene) -> bool:
        is_in = in_region(world, scene.fixtures[self.fixture], _centre(world, scene, self.item))
        return is_in and self.item not in held_items(world, scene)


@dataclass(frozen=True)
class On(Inside):
    """The item is on the fixture, and nobody holds it."""


@dataclass(frozen=True)
class Opened(Goal):
    """The fixture is open."""

    fixture: str

    def holds(self, world: Physics, scene: Scene) -> bool:
        return openness(world, scene.fixtures[self.fixture]) >= WIDE_OPEN


@dataclass(frozen=True)
class Closed(Goal):
    """The fixture is closed."""

    fixture: str

    def holds(self, world: Physics, scene: Scene) -> bool:
        return openness(world, scene.fixtures[self.fixture]) <= NEARLY_CLOSED


@dataclass(frozen=True)
class Holding(Goal):
    """The item is in a gripper, and rests on nothing else."""

    item: str

    def holds(self, world: Physics, scene: Scene) -> bool:
        return self.item in held_items(world, scene) and not touches_others(world, scene, self.item)


@dataclass(frozen=True)
class StackedOn(Goal):
    """The item stands on, or in, the item `base`, and nobody holds it."""

    item: str
    base: str

    def holds(self, world: Physics, scene: Scene) -> bool:
        top, bottom = _centre(world, scene, self.item), _centre(world, scene, self.base)
        above = top[2] > bottom[2] + 0.004 and np.linalg.norm(top[:2] - bottom[:2]) < STACKED
        return bool(above) and self.item not in held_items(world, scene)

    @property
    def items(self) -> tuple[str, ...]:
        return self.item, self.base

    def check(self, scene: Scene) -> None:
        super().check(scene)
        if self.base not in scene.items:
            raise ValueError(f"{self} names item '{self.base}'; the scene '{scene.name}' has {sorted(scene.items)}")


@dataclass(frozen=True)
class NearTo(Goal):
    """The item stands within `radius` of a place, seen from above, and nobody holds it."""

    item: str
    xy: tuple[float, float]
    radius: float = 0.1

    def holds(self, world: Physics, scene: Scene) -> bool:
        near = np.linalg.norm(_centre(world, scene, self.item)[:2] - self.xy) < self.radius
        return bool(near) and self.item not in held_items(world, scene)


@dataclass(frozen=True)
class Wiped(Goal):
    """The spots of a fixture are wiped away; `Wiping` says by what."""

    spots: tuple[str, ...]  # geoms
    share: float = 0.85

    def holds(self, world: Physics, scene: Scene) -> bool:
        gone = [world.model.geom_rgba[world.id_of("geom", spot), 3] == 0 for spot in self.spots]
        return bool(np.mean(gone) >= self.share)


@dataclass(frozen=True)
class Wiping:
    """An effect: spots, geoms of the spec, fade where one of the items is wiped over them."""

    spots: tuple[str, ...]
    items: tuple[str, ...]
    reach: float = 0.045  # [m]

    def update(self, world: Physics, scene: Scene) -> None:
        for item in self.items:
            body = world.id_of("body", scene.items[item].body)
            low = lowest_point(world, body)
            for spot in self.spots:
                number = world.id_of("geom", spot)
                away = world.data.geom_xpos[number] - world.data.xipos[body]
                if np.hypot(*away[:2]) < self.reach and low < world.data.geom_xpos[number][2] + 0.012:
                    world.model.geom_rgba[number, 3] = 0


def lowest_point(world: Physics, body: int) -> float:
    """Return the height of a body's lowest point [m], from the boxes around its geoms."""
    first = world.model.body_geomadr[body]
    geoms = np.arange(first, first + world.model.body_geomnum[body])
    up = world.data.geom_xmat[geoms].reshape(-1, 3, 3)[:, 2]
    boxes = world.model.geom_aabb[geoms]
    return float(
        (world.data.geom_xpos[geoms, 2] + (up * boxes[:, :3]).sum(1) - (np.abs(up) * boxes[:, 3:]).sum(1)).min()
    )


def touches_others(world: Physics, scene: Scene, item: str) -> bool:
    """Return whether an item touches anything but the robot's hands."""
    body = world.id_of("body", scene.items[item].body)
    roots = world.model.body_rootid
    fingers = {world.id_of("body", name) for arm in scene.body.arms for name in (*arm.fingers, arm.hand)}
    count = world.data.ncon
    bodies = world.model.geom_bodyid[world.data.contact.geom[:count]] if count else np.zeros((0, 2), int)
    for pair in bodies[(roots[bodies] == body).any(axis=1)]:
        others = [int(b) for b in pair if roots[b] != body]
        if others and others[0] not in fingers:
            return True
    return False
