"""Take the laundry out of a dryer, and put it into a basket.

A stand-in: the laundry is rolled into stiff bundles, and the dryer is a box that stands open.
"""

import numpy as np

from pilot.sims.lab.motions import put_exactly, shift
from pilot.sims.lab.task import LabTask
from pilot.sims.lab.workbench import Area, Workbench, paint
from pilot.sims.world.control import opening_for
from pilot.sims.world.goals import Inside
from pilot.sims.world.grasping import find_grasp
from pilot.sims.world.ik import Pose, pointing_down
from pilot.sims.world.motions import UP, Deviation, Motion, reach, set_grip, settle, travel, with_grip
from pilot.sims.world.phrases import Phrasings
from pilot.sims.world.physics import add_geom
from pilot.sims.world.places import free_spots
from pilot.sims.world.planner import Planner
from pilot.sims.world.scene import Item
from pilot.sims.world.skills import arms_by_distance
from pilot.sims.world.task import Step
from pilot.sims.world.things import Look, ThingKind
from pilot.sims.world.things.grasps import sideways
from pilot.sims.world.things.kind import Form
from pilot.sims.world.things.pieces import disc, lump, moved

BASKET = "laundry basket"
BUNDLE = 0.032  # height of a bundle's middle above where it lies [m]
FRONT, INSIDE, FLOOR = 0.40, (0.12, 0.17, 0.30), 0.04  # where it opens; half depth, half width, height; of its floor
_OUTSIDE = 0.12  # a hand comes and goes this far before the opening [m]

PHRASINGS = Phrasings.of(
    (
        "{empty|unload} the dryer{|, please}",
        "{take|get} the {laundry|clothes|washing} out of the dryer{| and put it in the basket}",
        "put the {laundry|clothes|washing} {from the dryer |}{in|into} the {basket|laundry basket}",
    ),
    held_out=("the {laundry|washing} is dry, collect it", "the next load waits, make room in the dryer"),
)


def _form(look: Look) -> Form:
    bundle = moved((lump(0.033, look.rgb, look.rng()),), (0, 0, BUNDLE - 0.001))
    base = disc(0.022, (0, 0.012), look.rgb)
    return Form((base, *bundle), sideways(BUNDLE, 0.032, count=16, down=0.2))


KIND = ThingKind(name="rolled towel", family="clothes", form=_form, mass=0.08, scales=(0.95, 1.05))


def lay_out(bench: Workbench, level: int) -> list[Step]:
    """Put the dryer before one arm with laundry in it, and the basket beside it."""
    rng, spread = bench.rng, 0.5 * level
    side = 1 if rng.random() < 0.5 else -1
    shoulder = side * max(abs(arm.mount[1]) for arm in bench.body.arms)  # of the arm that does it
    y = shoulder + side * ((0.02 if shoulder else 0.10) + 0.02 * spread * float(rng.uniform(-1, 1)))
    depth, width, height = INSIDE
    dryer = bench.fixed("dryer", (FRONT + depth, y))
    rgb, wall = paint(rng, (0.85, 0.86, 0.88)), 0.012
    add_geom(dryer, "box", size=(depth, width, FLOOR / 2), pos=(0, 0, FLOOR / 2), rgb=paint(rng, (0.5, 0.5, 0.52)))
    add_geom(dryer, "box", size=(depth, width + 2 * wall, wall), pos=(0, 0, height + wall), rgb=rgb)
    add_geom(dryer, "box", size=(wall, width + 2 * wall, height / 2), pos=(depth + wall, 0, height / 2), rgb=rgb)
    for side in (-1, 1):
        pos = (0, side * (width + wall), height / 2)
        add_geom(dryer, "box", size=(depth, wall, height / 2), pos=pos, rgb=rgb)
    basket = 0.27 + 0.01 * spread * float(rng.uniform(-1, 1)), shoulder - side * float(rng.uniform(0.25, 0.27))
    bench.container(BASKET, basket, (0.09, 0.10, 0.07), rgb=paint(rng, (0.62, 0.48, 0.30)))
    drum = Area((FRONT + 0.06, FRONT + 0.07 + 0.05 * spread), (y - 0.10, y + 0.10))
    items = [_put_bundle(bench, drum) for _ in range(1 if level == 1 else int(rng.integers(2, 4)))]
    return [
        Step(
            goal=Inside(item.name, BASKET),
            subtasks=(f"take the {item.name} out of the dryer", f"put the {item.name} in the {BASKET}"),
            skill="unload",
        )
        for item in items
    ]


def _put_bundle(bench: Workbench, drum: Area) -> Item:
    look = bench.draw_look(KIND)
    return bench.place(KIND, look, bench.find_spot(drum, 0.035, gap=0.03), z=FLOOR + 0.001)


def unload(planner: Planner, step: Step, rng: np.random.Generator) -> Motion:
    """Reach into the dryer for a bundle, unless it is held, and put it into the basket."""
    assert step.goal.item is not None
    item = planner.scene.items[step.goal.item]
    if planner.holder(item.name) is None:
        yield from _take_out(planner, item, rng)
    yield from put_exactly(planner, item, _over_basket(planner, item, rng), rng=rng, spread=0.03, leave=0.14)


def _over_basket(planner: Planner, item: Item, rng: np.random.Generator) -> list[Pose]:
    """Return poses of a held bundle in the basket, with the hand that holds it pointing down."""
    arm = planner.holder(item.name)
    if arm is None:
        raise Deviation(f"the {item.name} is not in the gripper")
    in_hand = planner.carried(item, arm).rotation
    poses = []
    for spot in free_spots(planner, planner.scene.fixtures[BASKET], item, rng=rng)[:4]:
        for yaw in np.radians([0, 45, -45, 90, -90, 135, -135]):
            rotation = pointing_down(float(yaw)) @ in_hand
            poses.append((spot + (BUNDLE + 0.03) * UP - rotation @ (BUNDLE * UP), rotation))
    return poses


def _take_out(planner: Planner, item: Item, rng: np.random.Generator) -> Motion:
    """Grip a bundle from the front, and draw it out.

    Raises:
        Deviation: it is out of reach, or not in the gripper.
    """
    arms = arms_by_distance(planner, planner.world.pos(item.body), rng)
    found = find_grasp(planner, item, rng=rng, arms=arms, lax=True)
    if found is None:
        raise Deviation(f"no way to grip the {item.name}")
    arm, (pos, rotation), opening = found.arm, found.pose, opening_for(found.grasp.opening)
    is_inside = pos[0] > FRONT
    outside, start = found.before[0], found.q_before
    if is_inside:
        ahead = rotation[:, 0] / rotation[0, 0] * [1, 1, 0]  # per metre along x
        for before in (_OUTSIDE, 0.7 * _OUTSIDE, 0.4 * _OUTSIDE):
            outside = pos - (pos[0] - FRONT + before) * ahead + 0.03 * UP
            start = planner.reach(planner.controller.command.q, {arm: (outside, rotation)})
            if start is not None:
                break
        else:
            raise Deviation(f"the {item.name} is out of reach")
    yield from with_grip(planner, travel(planner, arm, start), arm, opening=opening)
    for to in (found.before[0], pos):
        yield from with_grip(planner, reach(planner, {arm: (to, rotation)}, speed=0.2), arm, opening=opening)
    yield from settle(planner, arm)
    yield from set_grip(planner, arm, opening=0.0)
    yield from shift(planner, (arm,), 0.05 * UP, speed=0.2)
    if planner.holder(item.name) != arm:
        raise Deviation(f"the {item.name} is not in the gripper")
    if is_inside:
        yield from reach(planner, {arm: (outside + 0.05 * UP, rotation)}, speed=0.3, lenient=True)


TASK = LabTask(phrasings=PHRASINGS, lay_out=lay_out, skills={"unload": unload}, seconds=50)
