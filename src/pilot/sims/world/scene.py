"""A scene as data: a spec with furniture and things, who acts in it, and what is asked of him.

Whoever draws scenes (`sims/rooms`, `sims/lab`) adds furniture and things to a spec of `physics.new_spec`, and names
what tasks speak of. The robot's body is added by the environment.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from pilot.sims.world.bodies.base import Arm, Body
from pilot.sims.world.physics import Physics

Vec3 = tuple[float, float, float]
BasePose = tuple[float, float, float]
"""Where a robot stands: x, y [m] and the direction it faces [rad]."""


class ImpossibleSceneError(ValueError):
    """These numbers draw no scene that works (nothing fits, nothing is in reach): the environment draws another."""


@dataclass(frozen=True)
class Item:
    """A thing that can be moved. `name` is what people call it, "red mug", and unique in the scene."""

    body: str  # of the spec, with a free joint
    kind: Any  # a `things.ThingKind`, or None
    look: Any  # its `things.Look`, or None
    name: str


@dataclass(frozen=True)
class Fixture:
    """Furniture that tasks speak of: what things are put on or into, or what opens.

    `centre` and `half` are the box, in the frame of `body`, in which the centre of an item counts as on or in it.
    """

    name: str  # "sink", "top drawer"
    body: str
    role: str = "surface"  # or "container", "opening"
    centre: Vec3 = (0.0, 0.0, 0.0)
    half: Vec3 = (0.0, 0.0, 0.0)
    joint: str | None = None  # what opens it
    open_at: float = 0.0  # position of the joint, open [m, rad]
    closed_at: float = 0.0
    handle: str | None = None  # a site on it: x points into the furniture, fingers close along y
    front: BasePose | None = None  # where a mobile base stands to use it, in the world's frame


class Effect(Protocol):
    """Something that happens in a scene beside physics: a spill that is wiped away, toast that pops up."""

    def update(self, world: Physics, scene: "Scene") -> None:
        """Look at the world after a control tick, and change it."""
        ...


@dataclass(kw_only=True)
class Scene:
    """Everything that an episode begins with.

    Bodies of items begin where the spec has them. `robot_pose` is where the robot stands: its base, or its stand, whose
    foot is at `robot_height`; `robot_start` are other joint positions than `body.ready` to begin with.
    """

    name: str  # "kitchen"
    spec: Any
    body: Body
    task: Any  # a `task.Task`, which is made of goals, which speak of scenes
    robot_pose: BasePose = (0.0, 0.0, 0.0)
    robot_height: float = 0.0
    robot_start: np.ndarray | None = None
    items: dict[str, Item] = field(default_factory=dict)
    fixtures: dict[str, Fixture] = field(default_factory=dict)
    effects: Sequence[Effect] = ()
    camera_jitter: np.random.Generator | None = None
    extra: dict[str, Any] = field(default_factory=dict)  # what a simulator keeps for its own experts and questions


def in_region(world: Physics, fixture: Fixture, point: np.ndarray) -> bool:
    """Return whether a point [3] of the world is in a fixture's box."""
    local = world.rot(fixture.body).T @ (point - world.pos(fixture.body))
    return bool(np.all(np.abs(local - fixture.centre) <= fixture.half))


def region_centre(world: Physics, fixture: Fixture) -> np.ndarray:
    """Return the middle of a fixture's box in the world's frame [3]."""
    return world.pos(fixture.body) + world.rot(fixture.body) @ np.asarray(fixture.centre)


def openness(world: Physics, fixture: Fixture) -> float:
    """Return how far a fixture is open, 0 to 1.

    Raises:
        ValueError: it has no joint.
    """
    if fixture.joint is None:
        raise ValueError(f"'{fixture.name}' does not open: it has no joint")
    return (world.joint(fixture.joint) - fixture.closed_at) / (fixture.open_at - fixture.closed_at)


def held_items(world: Physics, scene: Scene) -> dict[str, Arm]:
    """Return the items that touch both fingertips of an arm, by name, with that arm."""
    held = {}
    owner = {world.id_of("body", item.body): name for name, item in scene.items.items()}
    count = world.data.ncon
    pairs = world.data.contact.geom[:count] if count else np.zeros((0, 2), int)
    roots = world.model.body_rootid[world.model.geom_bodyid]
    for arm in scene.body.arms:
        touched = []
        for pad in arm.pads:
            number = world.id_of("geom", pad)
            others = pairs[(pairs == number).any(axis=1)]
            touched.append({int(roots[geom]) for geom in others.ravel() if geom != number})
        for body in touched[0] & touched[1]:
            if body in owner:
                held[owner[body]] = arm
    return held
