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
    x, y, z = (point - world.pos(fixture.body)) @ world.rot(fixture.body) - fixture.centre
    return bool(abs(x) <= fixture.half[0] and abs(y) <= fixture.half[1] and abs(z) <= fixture.half[2])


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
    moment, held = world.memo.get("held", (-1, {}))
    if moment != world.moment:
        held = _find_held(world, scene)
        world.memo["held"] = world.moment, held
    return held


def _find_held(world: Physics, scene: Scene) -> dict[str, Arm]:
    if "pads" not in world.memo:
        world.memo["pads"] = _number_pads(world, scene)
    pad_of, item_of, names = world.memo["pads"]
    geoms = world.data.contact.geom
    pads = pad_of[geoms].max(axis=1)
    rows = np.flatnonzero(pads >= 0)
    if not len(rows):
        return {}
    items = item_of[geoms[rows]].max(axis=1)
    touched = {(int(pad), int(item)) for pad, item in zip(pads[rows], items) if item >= 0}
    return {
        names[item]: scene.body.arms[pad // 2]
        for pad, item in sorted(touched)
        if pad % 2 and (pad - 1, item) in touched
    }


def _number_pads(world: Physics, scene: Scene) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return of each geom the number of the fingertip that it is, and of the item that it belongs to; -1 for others."""
    model, names = world.model, list(scene.items)
    pad_of = np.full(model.ngeom, -1)
    pad_of[[world.id_of("geom", pad) for arm in scene.body.arms for pad in arm.pads]] = range(2 * len(scene.body.arms))
    numbers = {world.id_of("body", scene.items[name].body): i for i, name in enumerate(names)}
    item_of = np.array([numbers.get(int(root), -1) for root in model.body_rootid[model.geom_bodyid]])
    return pad_of, item_of, names
