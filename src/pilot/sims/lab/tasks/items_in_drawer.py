"""Put things into a drawer: open it by its handle, put them in, and push it shut."""

import numpy as np

from pilot.sims.lab.motions import grip_all, shift
from pilot.sims.lab.task import LabTask, move_step
from pilot.sims.lab.workbench import DARK, Area, Workbench, paint
from pilot.sims.world.bodies.base import Arm
from pilot.sims.world.goals import Closed, Opened
from pilot.sims.world.ik import hand_rotation
from pilot.sims.world.motions import UP, Deviation, Motion, reach, settle, travel
from pilot.sims.world.phrases import Phrasings
from pilot.sims.world.physics import add_geom, quat_about
from pilot.sims.world.planner import Planner
from pilot.sims.world.scene import Fixture
from pilot.sims.world.skills import arms_by_distance, tuck
from pilot.sims.world.task import Step

ITEMS = ("marker", "key", "tape", "dice", "soap", "block", "toy ring", "egg", "donut", "phone")
DRAWER = "drawer"
HALF, HEIGHT = (0.11, 0.12), 0.075  # of the drawer inside: half depth, half width; its walls [m]
TRAVEL, BAR = 0.17, 0.045  # how far it opens, how far the handle's bar stands out [m]

PHRASINGS = Phrasings.of(
    (
        "put {everything|the things|all things|the items} {in|into} the drawer{| and close it}",
        "{open the drawer, put the things in and close it|open the drawer and put everything away}",
        "{tidy|clear|put} the things away {in|into} the drawer",
        "store the {things|items} in the drawer",
    ),
    held_out=(
        "nothing should lie around, use the drawer",
        "{hide|keep} the things in the drawer",
        "the drawer is where these belong",
    ),
)


def lay_out(bench: Workbench, level: int) -> list[Step]:
    """Put a chest with one drawer before the robot, and small things at its sides."""
    rng, spread = bench.rng, 0.02 * level
    xy = (float(rng.uniform(0.53, 0.55)), float(rng.uniform(-spread, spread)))
    _build_chest(bench, xy)
    areas = (Area((0.24, 0.40), (0.16, 0.32)), Area((0.24, 0.40), (-0.32, -0.16)))
    count = 1 if level == 1 else int(rng.integers(2, 4))
    items = [bench.put(ITEMS, areas) for _ in range(count)]
    inside = tuple(range(1, count + 1))
    moves = [move_step(item, DRAWER) for item in items]
    return [
        Step(goal=Opened(DRAWER), subtasks=("open the drawer",), skill="pull", enables=inside),
        *[Step(goal=step.goal, subtasks=step.subtasks, needs=(0,)) for step in moves],
        Step(goal=Closed(DRAWER), subtasks=("close the drawer",), skill="shut", needs=inside),
    ]


def _build_chest(bench: Workbench, xy: tuple[float, float]) -> None:
    rgb = paint(bench.rng, (0.62, 0.46, 0.30), spread=0.12)
    x, y, top = HALF[0] + 0.012, HALF[1] + 0.012, HEIGHT + 0.03
    chest = bench.fixed("chest", xy)
    for side in (-1, 1):
        add_geom(chest, "box", size=(x, 0.006, top / 2), pos=(0, side * (y + 0.006), top / 2), rgb=rgb)
    add_geom(chest, "box", size=(0.006, y, top / 2), pos=(x, 0, top / 2), rgb=rgb)
    add_geom(chest, "box", size=(x, y + 0.012, 0.008), pos=(0, 0, top + 0.008), rgb=rgb)
    drawer = bench.sliding(chest, DRAWER, at=(0, 0, 0.008), axis=(-1, 0, 0), travel=TRAVEL, friction=0.8)
    bench.tub(drawer, (*HALF, HEIGHT), rgb=paint(bench.rng, rgb), mass=0.8)
    front = -HALF[0] - 0.012
    add_geom(
        drawer,
        "box",
        size=(0.006, y, top / 2 - 0.006),
        pos=(front, 0, top / 2 - 0.008),
        rgb=paint(bench.rng, rgb),
        mass=0.3,
    )
    z = top / 2
    lying = quat_about((1, 0, 0), np.pi / 2)
    add_geom(drawer, "capsule", size=(0.007, 0.055), pos=(front - BAR, 0, z), quat=lying, rgb=DARK, mass=0.05)
    for side in (-1, 1):
        pos, along = (front - BAR / 2, side * 0.05, z), quat_about((0, 1, 0), np.pi / 2)
        add_geom(drawer, "capsule", size=(0.006, BAR / 2), pos=pos, quat=along, rgb=DARK, mass=0.02)
    drawer.add_site(name="drawer_handle", pos=(front - BAR, 0, z), group=4)
    bench.fixtures[DRAWER] = Fixture(
        name=DRAWER,
        body=DRAWER,
        role="container",
        centre=(-0.03, 0, HEIGHT / 2),
        half=(HALF[0] - 0.03, HALF[1], HEIGHT / 2 + 0.02),
        joint=DRAWER,
        open_at=TRAVEL,
        handle="drawer_handle",
    )
    bench.take(xy, 0.16)
    bench.take((xy[0] - 0.22, xy[1]), 0.13)


def _hand_over_bar(planner: Planner, rng: np.random.Generator) -> tuple[Arm, np.ndarray]:
    """Return an arm that reaches the handle from above, and the rotation of its hand.

    Raises:
        Deviation: there is none.
    """
    bar = planner.world.site("drawer_handle")[0]
    for arm in arms_by_distance(planner, bar, rng):
        for side in (1.0, -1.0):
            down = hand_rotation(-UP, np.array([side, 0.0, 0.0]))
            if planner.reach(planner.controller.command.q, {arm: (bar + 0.1 * UP, down)}) is not None:
                return arm, down
    raise Deviation("the drawer's handle is out of reach")


def open_drawer(planner: Planner, step: Step, rng: np.random.Generator) -> Motion:
    """Take the handle from above, one finger behind it, and pull."""
    arm, down = _hand_over_bar(planner, rng)
    bar = planner.world.site("drawer_handle")[0] + np.array([0.0, rng.uniform(-0.015, 0.015), 0.004])
    over = planner.reach(planner.controller.command.q, {arm: (bar + 0.1 * UP, down)})
    assert over is not None
    yield from grip_all(planner, (arm,), 0.045, seconds=0.2)
    yield from travel(planner, arm, over)
    yield from reach(planner, {arm: (bar, down)}, speed=0.2)
    yield from settle(planner, arm)
    yield from grip_all(planner, (arm,), 0)
    left = TRAVEL - planner.world.joint(DRAWER)
    yield from shift(planner, (arm,), np.array([-left + float(rng.uniform(0.0, 0.01)), 0, 0]), speed=0.25)
    yield from grip_all(planner, (arm,), 0.045, seconds=0.3)
    yield from shift(planner, (arm,), 0.1 * UP)
    yield from tuck(planner)


def shut_drawer(planner: Planner, step: Step, rng: np.random.Generator) -> Motion:
    """Push the front with a closed hand until the drawer is shut."""
    arm, down = _hand_over_bar(planner, rng)
    handle = planner.world.site("drawer_handle")[0]
    start = handle + np.array([-0.05, float(rng.uniform(-0.02, 0.02)), 0.0])
    over = planner.reach(planner.controller.command.q, {arm: (start + 0.1 * UP, down)})
    if over is None:
        raise Deviation("the drawer's front is out of reach")
    yield from grip_all(planner, (arm,), 0, seconds=0.2)
    yield from travel(planner, arm, over)
    yield from reach(planner, {arm: (start, down)}, speed=0.25)
    shut = start + np.array([planner.world.joint(DRAWER) + 0.05 - 0.012, 0, 0])
    yield from reach(planner, {arm: (shut, down)}, speed=0.2, until=lambda: planner.world.joint(DRAWER) < 0.004)
    yield from shift(planner, (arm,), np.array([-0.03, 0, 0.1]))
    yield from tuck(planner)


TASK = LabTask(phrasings=PHRASINGS, lay_out=lay_out, skills={"pull": open_drawer, "shut": shut_drawer}, seconds=75)
