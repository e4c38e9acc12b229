"""Put a food container into a microwave: open its door, put the container in, and push the door shut."""

import numpy as np

from pilot.sims.lab.motions import follow, grip_all, shift, swing, while_held
from pilot.sims.lab.task import LabTask
from pilot.sims.lab.workbench import Area, Workbench, paint
from pilot.sims.world.bodies.base import Arm
from pilot.sims.world.goals import Closed, Inside, Opened
from pilot.sims.world.ik import Pose, hand_rotation, pointing_down
from pilot.sims.world.motions import UP, Deviation, Motion, reach, retreat, set_grip, settle, travel, with_grip
from pilot.sims.world.phrases import Phrasings
from pilot.sims.world.physics import add_geom, quat_about
from pilot.sims.world.planner import Planner
from pilot.sims.world.scene import Fixture
from pilot.sims.world.skills import tuck
from pilot.sims.world.task import Step

MICROWAVE, DOOR = "microwave", "microwave door"
HALF, WALL = (0.12, 0.16, 0.10), 0.008  # half depth, half width, half height outside
PANEL = 0.05  # half width of the part beside the door
OPEN = 1.35  # [rad]
FLOOR = 2 * WALL  # height of the floor inside
_AJAR, _ARM = 0.65, 0.16  # how far the door is pulled [rad]; from the hinge to where it is pushed [m]
_GRIP = (0.045, 0.03)  # from the container's near end to the tcp, and from its bottom: nearer the end it would tip [m]

PHRASINGS = Phrasings.of(
    (
        "put the {food|container|food container|lunch box} {in|into} the microwave{| and close it}",
        "{open the microwave and put the container in|put the container in the microwave and shut the door}",
        "{heat up|warm up|reheat} the {food|lunch|food in the container}",
        "{load|use} the microwave for the {food|container}",
    ),
    held_out=("{lunch|dinner} is cold, make it warm", "get the {meal|leftovers} ready to be heated"),
)


def lay_out(bench: Workbench, level: int) -> list[Step]:
    """Put a closed microwave before the right arm, and a food container at its other side."""
    rng, spread = bench.rng, 0.5 * level
    arm = bench.body.arm("right").mount[1]
    xy = (0.56 + 0.01 * spread * float(rng.uniform(-1, 1)), arm + 0.04 + 0.01 * spread * float(rng.uniform(-1, 1)))
    _build(bench, xy)
    bench.take(xy, 0.15)
    area = Area((0.40, 0.40 + 0.04 * spread), (arm - 0.22 - 0.03 * spread, arm - 0.22))
    turn = 0.12 * spread
    food = bench.put(["food container"], area, yaws=(-0.48 - turn, -0.48 + turn))  # it points away from the shoulder
    words = (f"pick up the {food.name}", f"put the {food.name} in the {MICROWAVE}")
    return [
        Step(goal=Opened(DOOR), subtasks=("open the microwave",), skill="swing open", enables=(1,)),
        Step(goal=Inside(food.name, MICROWAVE), subtasks=words, skill="insert", needs=(0,)),
        Step(goal=Closed(DOOR), subtasks=("close the microwave",), skill="shut", needs=(1,)),
    ]


def _build(bench: Workbench, xy: tuple[float, float]) -> None:
    x, y, z = HALF
    rgb = paint(bench.rng, (0.30, 0.31, 0.33), spread=0.15)
    case = bench.fixed(MICROWAVE, xy)
    for height in (WALL, 2 * z - WALL):
        add_geom(case, "box", size=(x, y, WALL), pos=(0, 0, height), rgb=rgb)
    add_geom(case, "box", size=(WALL, y, z), pos=(x, 0, z), rgb=rgb)
    add_geom(case, "box", size=(x, WALL, z), pos=(0, y, z), rgb=rgb)
    add_geom(case, "box", size=(x, PANEL, z), pos=(0, -y + PANEL, z), rgb=rgb)
    width = y - PANEL  # half, of the door
    door = bench.hinged(case, DOOR, at=(-x - 0.012, y, z), axis=(0, 0, -1), limits=(0, 1.6), friction=0.1, damping=0.15)
    add_geom(door, "box", size=(0.008, width, z - 0.004), pos=(0, -width, 0), rgb=paint(bench.rng, rgb), mass=0.6)
    glass = (0.0005, width * 0.7, z * 0.6)
    add_geom(door, "box", size=glass, pos=(-0.009, -width, 0), rgb=(0.1, 0.1, 0.12), contact="none")
    bar = (-0.045, -2 * width + 0.03, 0)
    add_geom(door, "capsule", size=(0.008, 0.05), pos=bar, rgb=(0.8, 0.8, 0.8), mass=0.05)
    for side in (-1, 1):
        foot, across = (-0.025, bar[1], side * 0.045), quat_about((0, 1, 0), np.pi / 2)
        add_geom(door, "capsule", size=(0.006, 0.015), pos=foot, quat=across, rgb=(0.8, 0.8, 0.8), mass=0.02)
    door.add_site(name="microwave_handle", pos=bar, group=4)
    inside = (x - WALL, width - WALL / 2, z - 2 * WALL)
    bench.region(MICROWAVE, case, centre=(0, PANEL - WALL / 2, z), half=inside, role="container")
    bench.fixtures[DOOR] = Fixture(
        name=DOOR, body=DOOR, role="opening", joint=DOOR, open_at=OPEN, handle="microwave_handle"
    )


def swing_open(planner: Planner, step: Step, rng: np.random.Generator) -> Motion:
    """Pull the door ajar by its handle, then push it wide open from inside, with the fingers pointing down.

    Pulled all the way, the door would be between the arm and where it goes next.
    """
    arm = planner.body.arm("right")
    if planner.world.joint(DOOR) < _AJAR - 0.1:
        yield from _pull_ajar(planner, arm, rng)
    yield from _push(planner, arm, OPEN + 0.12, side=1.0)


def shut(planner: Planner, step: Step, rng: np.random.Generator) -> Motion:
    """Push the door shut from outside, with the fingers pointing down."""
    yield from _push(planner, planner.body.arm("right"), -0.02, side=-1.0)


def _pull_ajar(planner: Planner, arm: Arm, rng: np.random.Generator) -> Motion:
    world = planner.world
    bar = world.site("microwave_handle")[0] + np.array([0, 0, rng.uniform(-0.01, 0.01)])
    start, hand = _approach(planner, arm, bar, np.array([1.0, 0.0, 0.0]), (0.1, 0.25, 0.4))
    yield from with_grip(planner, travel(planner, arm, start), arm, opening=0.7)
    yield from with_grip(planner, reach(planner, {arm: (bar, hand)}, speed=0.2), arm, opening=0.7)
    yield from settle(planner, arm)
    yield from set_grip(planner, arm, opening=0.0)
    hinge, angle = np.array([*world.pos(DOOR)[:2], bar[2]]), _AJAR - world.joint(DOOR)
    yield from swing(planner, {arm: bar}, pivot=hinge, axis=-UP, angle=angle, seconds=1.4, turn=0.3)
    yield from set_grip(planner, arm, opening=0.7, seconds=0.35)
    yield from retreat(planner, arm, 0.06)
    yield from shift(planner, (arm,), np.array([0.0, -0.08, 0.2]), speed=0.4)
    yield from tuck(planner)


def _push(planner: Planner, arm: Arm, to: float, *, side: float) -> Motion:
    """Push the door to an angle, from inside (`side` 1) or outside (-1).

    Raises:
        Deviation: the place to begin is out of reach.
    """
    hinge, now = planner.world.pos(DOOR), planner.world.joint(DOOR)

    def pose(angle: float, off: float, up: float) -> Pose:
        along = np.array([-np.sin(angle), -np.cos(angle), 0.0])
        inwards = np.array([np.cos(angle), -np.sin(angle), 0.0])
        return hinge + _ARM * along + side * off * inwards + up * UP, pointing_down(0.0)

    over = planner.reach(planner.controller.command.q, {arm: pose(now, 0.06, 0.22)})
    if over is None:
        raise Deviation("the microwave's door is out of reach")
    yield from grip_all(planner, (arm,), 0, seconds=0.2)
    yield from travel(planner, arm, over)
    yield from reach(planner, {arm: pose(now, 0.05, 0.04)}, speed=0.25, lenient=True)
    yield from follow(planner, lambda share: {arm: pose(now + (to - now) * share, 0.019, 0.04)}, seconds=2.4)
    yield from reach(planner, {arm: pose(to, 0.05, 0.04)}, speed=0.25, lenient=True)
    yield from reach(planner, {arm: pose(to, 0.07, 0.24)}, speed=0.4, lenient=True)
    yield from tuck(planner)


def insert(planner: Planner, step: Step, rng: np.random.Generator) -> Motion:
    """Take the container at its near end, and push it into the microwave, level all the way."""
    assert step.goal.item is not None
    item, arm = planner.scene.items[step.goal.item], planner.body.arm("right")
    world = planner.world
    low, high = planner.box_of(item.body)
    length = float(high[0] - low[0])
    if planner.holder(item.name) != arm:
        yield from _take(planner, arm, item.body, length)
    if planner.holder(item.name) != arm:
        raise Deviation(f"the {item.name} is not in the gripper")
    carried, case = planner.carried(item, arm), world.pos(MICROWAVE)
    level = carried.rotation.T  # the hand's rotation with the container straight ahead
    y = PANEL - WALL / 2 + float(rng.uniform(-0.01, 0.01))

    def pose(x: float, z: float) -> Pose:
        return case + np.array([x, y, z]) - level @ carried.pos, level

    before = pose(-HALF[0] - 0.5 * length - 0.03, FLOOR + 0.025)
    start = planner.reach(planner.controller.command.q, {arm: before})
    if start is None:
        raise Deviation("the microwave is out of reach")
    yield from while_held(planner, carried, travel(planner, arm, start, carried=carried, speed=0.7))
    yield from settle(planner, arm)
    for x, z in ((-0.005, FLOOR + 0.02), (-0.005, FLOOR + 0.004)):
        yield from while_held(planner, carried, reach(planner, {arm: pose(x, z)}, speed=0.2, lenient=True))
    yield from settle(planner, arm)
    yield from set_grip(planner, arm, opening=1.0, seconds=0.4)
    yield from retreat(planner, arm, 0.24, speed=0.3)
    yield from tuck(planner)


def _take(planner: Planner, arm: Arm, body: str, length: float) -> Motion:
    """Grip the container at its near end, level, and lift it a little.

    Raises:
        Deviation: it is out of reach.
    """
    origin, rotation = planner.world.pos(body), planner.world.rot(body)
    ahead = rotation[:, 0] if rotation[0, 0] > 0 else -rotation[:, 0]  # it looks the same from both ends
    at = origin - (0.5 * length - _GRIP[0]) * ahead + _GRIP[1] * UP
    start, hand = _approach(planner, arm, at, ahead, (0.3, 0.45, 0.6))
    yield from with_grip(planner, travel(planner, arm, start), arm, opening=1.0)
    yield from with_grip(planner, reach(planner, {arm: (at, hand)}, speed=0.2), arm, opening=1.0)
    yield from settle(planner, arm)
    yield from set_grip(planner, arm, opening=0.0)
    yield from reach(planner, {arm: (at + 0.10 * UP, hand)}, speed=0.2, lenient=True)
    yield from reach(planner, {arm: (at + 0.12 * UP - 0.08 * ahead, hand)}, speed=0.2, lenient=True)


def _approach(
    planner: Planner, arm: Arm, at: np.ndarray, ahead: np.ndarray, dips: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Return joints before a point that is taken from the front, and the hand's rotation; `dips`: how far it leans.

    Raises:
        Deviation: it is out of reach.
    """
    for dip in dips:
        hand = hand_rotation(np.cos(dip) * ahead - np.sin(dip) * UP, np.cross(UP, ahead))
        for distance in (0.10, 0.07, 0.05):
            start = planner.reach(planner.controller.command.q, {arm: (at - distance * hand[:, 0], hand)})
            if start is not None and planner.reach(start, {arm: (at, hand)}) is not None:
                return start, hand
    raise Deviation("what is taken from the front is out of reach")


TASK = LabTask(
    phrasings=PHRASINGS, lay_out=lay_out, skills={"swing open": swing_open, "insert": insert, "shut": shut}, seconds=60
)
