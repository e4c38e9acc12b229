"""Skills that move along a surface: pushing a thing with a closed hand, and wiping with what a hand holds."""

from collections.abc import Sequence

import numpy as np

from pilot.sims.world.bodies.base import Arm
from pilot.sims.world.goals import lowest_point
from pilot.sims.world.ik import pointing_down
from pilot.sims.world.motions import UP, Deviation, Motion, drive, reach, settle, travel, watched, with_grip
from pilot.sims.world.places import nearest_fixture, region_of, stands
from pilot.sims.world.planner import Planner
from pilot.sims.world.scene import Fixture, Item
from pilot.sims.world.skills import arms_by_distance, tuck

_BEHIND = 0.05  # a hand that pushes goes down this far behind the thing [m]
_AHEAD = 0.02  # of the table, a hand that pushes stays this high [m]
_STROKE = 0.09  # the longest push before it is aimed anew [m]
_OVER = 0.14  # a hand passes this high over what it wipes [m]
_PRESS = 0.004  # what wipes is aimed this far below the surface [m]


def push(planner: Planner, item: Item, to: Fixture | tuple[float, float], *, rng: np.random.Generator) -> Motion:
    """Push an item over what it stands on, to a place or to the middle of a fixture, in strokes.

    Raises:
        Deviation: no arm gets behind it, or it does not follow.
    """
    world = planner.world
    goal = region_of(planner, to).centre[:2] if isinstance(to, Fixture) else np.array(to)
    for _ in range(12):
        at = world.centre(item.body)
        left = goal - at[:2]
        distance = float(np.linalg.norm(left))
        if distance < 0.02:
            return
        direction = np.array([*left / distance, 0.0])
        arm = yield from _come_near(planner, at, rng=rng)
        low, high = planner.box_of(item.body)
        radius = 0.5 * float(np.abs(high - low)[:2] @ np.abs(direction[:2]))
        height = low[2] + max(_AHEAD, min(0.035, 0.4 * (high[2] - low[2])))
        rotation = pointing_down(float(np.arctan2(direction[1], direction[0])))
        start = np.array([*(at - (radius + _BEHIND) * direction)[:2], height])
        end = start + (_BEHIND + min(distance, _STROKE) - 0.012) * direction
        q = planner.reach(planner.controller.command.q, {arm: (start, rotation)})
        if q is None or planner.reach(q, {arm: (end, rotation)}) is None:
            raise Deviation(f"no way to push the {item.name}")
        over = planner.reach(q, {arm: (start + _OVER * UP, rotation)})
        yield from with_grip(planner, travel(planner, arm, q if over is None else over), arm, opening=0.0)
        yield from reach(planner, {arm: (start, rotation)}, speed=0.25)
        yield from reach(planner, {arm: (end, rotation)}, speed=0.12, lenient=True)
        yield from settle(planner, arm)
        yield from reach(planner, {arm: (end - 0.02 * direction, rotation)}, speed=0.2)
        yield from reach(planner, {arm: (end - 0.02 * direction + _OVER * UP, rotation)}, speed=0.35, lenient=True)
        if np.linalg.norm(world.centre(item.body)[:2] - at[:2]) < 0.01:
            raise Deviation(f"the {item.name} does not follow")


def wipe(planner: Planner, tool: Item, spots: Sequence[str], *, rng: np.random.Generator) -> Motion:
    """Draw what a hand holds over spots (geoms) until none is left.

    Raises:
        Deviation: it was lost, or a spot is out of reach.
    """
    world, arm = planner.world, planner.holder(tool.name)
    if arm is None:
        raise Deviation(f"the {tool.name} is not in the gripper")

    def is_held() -> bool:
        return bool(np.linalg.norm(world.centre(tool.body) - world.site(arm.tcp)[0]) < 0.2)

    def left() -> list[np.ndarray]:
        numbers = [world.id_of("geom", spot) for spot in spots]
        return [world.data.geom_xpos[n].copy() for n in numbers if world.model.geom_rgba[n, 3] > 0]

    is_down = False
    for _ in range(6 * len(spots)):
        todo = left()
        if not todo:
            break
        tool_at = world.centre(tool.body)
        spot = min(todo, key=lambda s: float(np.linalg.norm(s[:2] - tool_at[:2])))
        if not is_down and planner.body.is_mobile:
            yield from watched(
                _stand_at(planner, np.mean(todo, axis=0), arm, rng=rng), is_held, f"the {tool.name} fell"
            )
        tcp, rotation = planner.hand(arm)
        hangs = float(world.site(arm.tcp)[0][2] - lowest_point(world, world.id_of("body", tool.body)))
        off = (world.site(arm.tcp)[0] - world.centre(tool.body)) * [1, 1, 0]
        beyond = (spot - tool_at) * [1, 1, 0]
        beyond *= 0.01 / max(float(np.linalg.norm(beyond)), 1e-6)
        at = np.array([*spot[:2], spot[2] + hangs - _PRESS]) + off + (beyond if is_down else 0)
        if not is_down:
            over = planner.reach(planner.controller.command.q, {arm: (at + _OVER * UP, rotation)})
            if over is None or planner.reach(over, {arm: (at, rotation)}) is None:
                raise Deviation("a spot is out of reach")
            way = travel(planner, arm, over, carried=planner.carried(tool, arm))
            yield from watched(way, is_held, f"the {tool.name} fell")
            is_down = True
        stroke = reach(planner, {arm: (at, rotation)}, speed=0.2, lenient=True)
        yield from watched(stroke, is_held, f"the {tool.name} fell")
        yield from settle(planner, arm, seconds=0.2)
    tcp, rotation = planner.hand(arm)
    yield from reach(planner, {arm: (tcp + _OVER * UP, rotation)}, lenient=True)


def _come_near(planner: Planner, point: np.ndarray, *, rng: np.random.Generator):
    """Drive to where an arm reaches a point, if need be; return the arm."""
    arm = arms_by_distance(planner, point, rng)[0]
    if planner.body.is_mobile:
        yield from _stand_at(planner, point, arm, rng=rng)
    return arm


def _stand_at(planner: Planner, point: np.ndarray, arm: Arm, *, rng: np.random.Generator) -> Motion:
    """Drive to where an arm reaches a point, unless the base stands there."""
    shoulder, forwards = planner.shoulder(arm)
    local = forwards.T @ (point - shoulder)
    if 0.2 < local[0] < 0.55 and abs(local[1]) < 0.25:
        return
    options = stands(planner, nearest_fixture(planner, point), point, arm, rng=rng)
    if not options:
        raise Deviation("nowhere to stand")
    yield from tuck(planner)
    yield from drive(planner, options[0])
