"""Take two slices of toast out of a toaster, and lay them on a board.

A stand-in: the slices are stiff, and stick out of the toaster as if it had just popped.
"""

import numpy as np

from pilot.sims.lab.motions import grip_all, shift, while_held
from pilot.sims.lab.task import LabTask
from pilot.sims.lab.workbench import METAL, Workbench, paint
from pilot.sims.world.goals import On
from pilot.sims.world.ik import Pose, hand_rotation
from pilot.sims.world.motions import UP, Deviation, Motion, reach, retreat, settle, travel
from pilot.sims.world.phrases import Phrasings
from pilot.sims.world.physics import add_geom
from pilot.sims.world.planner import Carried, Planner
from pilot.sims.world.skills import pick, tuck
from pilot.sims.world.task import Step
from pilot.sims.world.things import Look, ThingKind
from pilot.sims.world.things.grasps import above
from pilot.sims.world.things.kind import Form
from pilot.sims.world.things.looks import lighter
from pilot.sims.world.things.pieces import box

BOARD = "bread board"
SLICE = (0.048, 0.009, 0.055)  # half sizes of a slice that stands
BOARD_HALF, BOARD_TOP = (0.10, 0.13), 0.014
SLOT, STANDS = 0.0215, 0.065  # of the slots from the toaster's middle; how high slices stand in it: pads stay above

PHRASINGS = Phrasings.of(
    (
        "{take|get} the {toast|bread|slices} out of the toaster{| and lay it on the board}",
        "put the {toast|slices of toast} on the {board|bread board}",
        "{empty|unload} the toaster",
        "the {toast|bread} is ready, put it on the {board|bread board}",
    ),
    held_out=(
        "breakfast is ready, serve the {toast|bread}",
        "clear the toaster before it gets cold",
        "nobody wants the toast to stay in there",
    ),
)


def _form(look: Look) -> Form:
    crust = box(SLICE, (0, 0, SLICE[2]), look.rgb)
    crumb = box((SLICE[0] - 0.006, SLICE[1] + 0.0006, SLICE[2] - 0.006), (0, 0, SLICE[2]), lighter(look.rgb, 0.5))
    return Form((crust, crumb.only_seen()), above((0, 0, 2 * SLICE[2] - 0.016), SLICE[1]))


KIND = ThingKind(name="slice of toast", family="food", form=_form, mass=0.04, colours=("brown",), scales=(0.97, 1.0))


def lay_out(bench: Workbench, level: int) -> list[Step]:
    """Put a toaster with two slices on one side and a board on the other."""
    rng = bench.rng
    side = 1 if rng.random() < 0.5 else -1
    spread = 0.5 * level
    xy = np.array([0.36 + 0.03 * spread * rng.uniform(-1, 1), side * (0.17 + 0.03 * spread * rng.uniform(-1, 1))])
    yaw = float(rng.uniform(-0.35, 0.35) * spread)
    toaster = bench.fixed("toaster", xy, yaw=yaw)
    rgb = paint(rng, METAL)
    for y, half in ((-0.055, 0.02), (0.0, 0.008), (0.055, 0.02)):
        add_geom(toaster, "box", size=(0.085, half, 0.065), pos=(0, y, 0.065), rgb=rgb)
    for x in (-0.095, 0.095):
        add_geom(toaster, "box", size=(0.012, 0.075, 0.065), pos=(x, 0, 0.065), rgb=rgb)
    add_geom(toaster, "box", size=(0.085, 0.075, STANDS / 2 - 0.001), pos=(0, 0, STANDS / 2 - 0.001), rgb=rgb)
    steps = []
    for name, offset in (("left slice of toast", SLOT), ("right slice of toast", -SLOT)):
        at = xy + offset * np.array([-np.sin(yaw), np.cos(yaw)])
        bench.place(KIND, KIND.draw_look(rng), at, yaw=yaw, z=STANDS, name=name)
        words = (f"take the {name} out of the toaster", f"lay the {name} on the {BOARD}")
        steps.append(Step(goal=On(name, BOARD), subtasks=words, skill="toast"))
    place = (
        0.36 + 0.02 * spread * float(rng.uniform(-1, 1)),
        -side * (0.16 + 0.03 * spread * float(rng.uniform(-1, 1))),
    )
    board = bench.fixed(BOARD, place)
    add_geom(
        board, "box", size=(*BOARD_HALF, BOARD_TOP / 2), pos=(0, 0, BOARD_TOP / 2), rgb=paint(rng, (0.7, 0.5, 0.3))
    )
    bench.region(BOARD, board, centre=(0, 0, 0.05), half=(*BOARD_HALF, 0.05))
    return steps


def move_toast(planner: Planner, step: Step, rng: np.random.Generator) -> Motion:
    """Pull a slice out of its slot, unless it is held, and lay it on the board."""
    assert step.goal.item is not None
    item = planner.scene.items[step.goal.item]
    if planner.holder(item.name) is None:
        yield from pick(planner, item, rng=rng, to=planner.scene.fixtures[BOARD])
    arm = planner.holder(item.name)
    if arm is None:
        raise Deviation(f"the {item.name} is not in the gripper")
    yield from shift(planner, (arm,), 0.05 * UP)
    carried = planner.carried(item, arm)
    taken = [planner.world.centre(other.body)[:2] for other in planner.scene.items.values() if other is not item]
    found = _laid_down(planner, carried, taken)
    if found is None:
        raise Deviation(f"no place for the {item.name} in reach")
    pose, over = found
    yield from while_held(planner, carried, travel(planner, arm, over, carried=carried, speed=0.7))
    yield from settle(planner, arm)
    yield from while_held(planner, carried, reach(planner, {arm: pose}, speed=0.15))
    yield from settle(planner, arm)
    yield from grip_all(planner, (arm,), 0.045, seconds=0.35)
    yield from retreat(planner, arm, 0.10)
    yield from tuck(planner)


def _laid_down(planner: Planner, carried: Carried, taken: list[np.ndarray]) -> tuple[Pose, np.ndarray] | None:
    """Return the hand's pose that lays a slice on the board, nearly flat, and joints to begin above it."""
    board = planner.world.pos(BOARD)
    shoulder = planner.shoulder(carried.arm)[0]
    spots = sorted((-0.06, 0.06), key=lambda y: -min([abs(board[1] + y - other[1]) for other in taken], default=0))
    towards = float(np.arctan2(board[1] - shoulder[1], board[0] - shoulder[0]))
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (0, 2)]) * SLICE
    for y in spots:
        for turn in (0.0, 0.4, -0.4, 0.8, -0.8, 1.2, -1.2):
            heading, dip = towards + turn, np.radians(25)
            ahead = np.array([np.cos(heading), np.sin(heading), 0.0])
            approach, up = np.cos(dip) * ahead - np.sin(dip) * UP, np.sin(dip) * ahead + np.cos(dip) * UP
            for across in (up, -up):
                hand = hand_rotation(approach, across)
                local = hand @ (carried.pos[:, None] + carried.rotation @ corners.T)
                pos = board + np.array([0.0, y, 0.0]) - local.mean(axis=1)
                pos[2] = board[2] + BOARD_TOP + 0.006 - local[2].min()
                above_it = planner.reach(planner.controller.command.q, {carried.arm: (pos + 0.1 * UP, hand)})
                if above_it is None or planner.reach(above_it, {carried.arm: (pos, hand)}) is None:
                    continue
                return (pos, hand), above_it
    return None


TASK = LabTask(phrasings=PHRASINGS, lay_out=lay_out, skills={"toast": move_toast}, seconds=50)
