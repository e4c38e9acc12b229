"""Put eggs into a carton, each into a place of its own.

A stand-in: the carton is open and stiff, with six places between two rails each; the eggs do not break.
"""

from dataclasses import dataclass

import numpy as np

from pilot.sims.lab.motions import put_exactly
from pilot.sims.lab.task import LabTask
from pilot.sims.lab.workbench import Area, Workbench, paint
from pilot.sims.world.goals import Goal
from pilot.sims.world.ik import Pose
from pilot.sims.world.motions import Motion, about
from pilot.sims.world.phrases import Phrasings
from pilot.sims.world.physics import Physics, add_geom, quat_about
from pilot.sims.world.planner import Planner
from pilot.sims.world.scene import Scene, held_items
from pilot.sims.world.skills import pick
from pilot.sims.world.task import Step

CARTON = "egg carton"
PITCH = (0.074, 0.086)  # from place to place, along an egg and across [m]
PLACES = tuple((x * PITCH[0], y * PITCH[1]) for x in (-1, 0, 1) for y in (-0.5, 0.5))
_RAIL, _APART, _FLOOR = 0.006, 0.016, 0.004  # radius of rails, half of the gap between two, half the floor [m]
_HEIGHT = 0.0276  # of an egg's middle on its rails above the table [m]
UP = np.array([0.0, 0.0, 1.0])

PHRASINGS = Phrasings.of(
    (
        "{put|place|pack} the eggs {in|into} the {carton|egg carton}",
        "{fill|load} the {carton|egg carton} with the eggs",
        "{put|place} {each egg|every egg|all eggs} {in|into} the {carton|egg box}",
    ),
    held_out=(
        "the eggs could roll away, put them where they are safe",
        "{store|put away} the eggs",
        "no egg may stay on the table",
    ),
)


@dataclass(frozen=True)
class InPlace(Goal):
    """The egg lies in one of the carton's places, and nobody holds it."""

    item: str
    fixture: str = CARTON

    def holds(self, world: Physics, scene: Scene) -> bool:
        centre = world.centre(scene.items[self.item].body)
        local = world.rot(CARTON).T @ (centre - world.pos(CARTON))
        near = any(abs(local[0] - x) < 0.022 and abs(local[1] - y) < 0.02 for x, y in PLACES)
        return near and 0 < local[2] < 0.05 and self.item not in held_items(world, scene)


def lay_out(bench: Workbench, level: int) -> list[Step]:
    """Put a carton on one side and eggs beside it."""
    rng = bench.rng
    side = 1 if rng.random() < 0.5 else -1
    xy = (float(rng.uniform(0.34, 0.38)), side * float(rng.uniform(0.10, 0.14)))
    carton = bench.fixed(CARTON, xy, yaw=float(rng.uniform(-0.1, 0.1) * level))
    _build_carton(carton, paint(rng, (0.58, 0.60, 0.56)))
    half = (1.5 * PITCH[0], PITCH[1])
    bench.region(CARTON, carton, centre=(0, 0, 0.03), half=(*half, 0.04), role="container")
    bench.take(xy, 0.14)
    area = Area((0.26, 0.42), (-0.30, -0.06) if side > 0 else (0.06, 0.30))
    eggs = [bench.put(["egg"], area, gap=0.035) for _ in range(2 if level == 1 else 3)]
    return [
        Step(
            goal=InPlace(egg.name),
            subtasks=(f"pick up the {egg.name}", f"put the {egg.name} in the {CARTON}"),
            skill="egg",
        )
        for egg in eggs
    ]


def _build_carton(body: object, rgb: tuple[float, float, float]) -> None:
    x, y = 1.5 * PITCH[0], PITCH[1]
    add_geom(body, "box", size=(x, y, _FLOOR), pos=(0, 0, _FLOOR), rgb=rgb)
    lying = quat_about((0, 1, 0), np.pi / 2)
    for place_x, place_y in PLACES:
        for side in (-1, 1):
            pos = (place_x, place_y + side * _APART, _FLOOR)
            add_geom(body, "cylinder", size=(_RAIL, PITCH[0] / 2 - 0.004), pos=pos, quat=lying, rgb=rgb)
    for wall in (-1.5, -0.5, 0.5, 1.5):
        add_geom(body, "box", size=(0.002, y, 0.009), pos=(wall * PITCH[0], 0, 0.009), rgb=rgb)


def put_egg(planner: Planner, step: Step, rng: np.random.Generator) -> Motion:
    """Pick an egg up, unless it is held, and put it into the nearest free place."""
    assert step.goal.item is not None
    item = planner.scene.items[step.goal.item]
    if planner.holder(item.name) is None:
        yield from pick(planner, item, rng=rng, to=planner.scene.fixtures[CARTON])
    yield from put_exactly(planner, item, free_places(planner, item.name), rng=rng, spread=0.022)


def free_places(planner: Planner, egg: str) -> list[Pose]:
    """Return poses of an egg in the places where no other lies, the nearest first, either way round."""
    world, scene = planner.world, planner.scene
    origin, rotation = world.pos(CARTON), world.rot(CARTON)
    others = [world.centre(other.body) for name, other in scene.items.items() if name != egg]
    now = world.pos(scene.items[egg].body)
    rest = (_HEIGHT - 0.0225 + 0.004) * UP  # an egg's origin is at its bottom; a little above the rails
    spots = [origin + rotation @ np.array([x, y, 0.0]) for x, y in PLACES]
    free = [spot for spot in spots if all(np.linalg.norm((spot - other)[:2]) > 0.04 for other in others)]
    free.sort(key=lambda spot: float(np.linalg.norm(spot - now)))
    turns = [rotation, rotation @ about(UP, np.pi)]
    turns.sort(key=lambda turn: -float(np.sum(turn * world.rot(scene.items[egg].body))))
    return [(spot + rest, turn) for spot in free for turn in turns]


TASK = LabTask(phrasings=PHRASINGS, lay_out=lay_out, skills={"egg": put_egg}, seconds=50)
