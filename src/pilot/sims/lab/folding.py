"""Cloth as stiff plates on hinges, and how hands fold it: pinch a hem, swing it over, let go along the way in.

Real cloth is soft. MuJoCo's flex bodies are, too, but cost ten times as much and stick to the fingers when they let go.
A plate's hem is a ridge, because fingers cannot get under what lies flat on a table.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pilot.sims.lab.motions import grip_all, retreat_all, swing
from pilot.sims.lab.workbench import Rgb
from pilot.sims.world.bodies.base import Arm
from pilot.sims.world.ik import hand_rotation
from pilot.sims.world.motions import UP, Motion, about, reach, turn_between, wait
from pilot.sims.world.physics import add_geom, quat_about
from pilot.sims.world.planner import Planner
from pilot.sims.world.skills import tuck

THICK = 0.003  # half of a plate's thickness [m]
LAYER = THICK + 0.0005  # height of a hinge above the middle of its plate, so that what is folded lies flat on it
_HEM = 0.006  # radius of the ridge: it is round, so that it can turn between the fingers
_PINCH = 0.006  # the fingers are commanded to this width, and press on a hem with some 6 N [m]
_ABOVE_HEM = 0.0125  # of the tcp over a hem's middle [m]
_FREE_OPENING = 0.04  # of a hand that comes down over a hem, between its pads [m]


def add_plate(body: Any, half: Sequence[float], at: Sequence[float], *, rgb: Rgb, mass: float = 0.04) -> None:
    """Add a rectangle of cloth to a body: half sizes x y, middle x y z."""
    add_geom(body, "box", size=(half[0] - 0.001, half[1] - 0.001, THICK), pos=at, rgb=rgb, mass=mass)


def add_hem(body: Any, edge: Sequence[float], half_length: float, *, rgb: Rgb, along: str) -> None:
    """Add the ridge that fingers pinch: its middle x y on the plate's plane z, running along "x" or "y"."""
    lying = quat_about((0, 1, 0) if along == "x" else (1, 0, 0), np.pi / 2)
    pos = (edge[0], edge[1], edge[2] + THICK + _HEM)
    add_geom(body, "cylinder", size=(_HEM, half_length), pos=pos, quat=lying, rgb=rgb, mass=0.01)


def fold_over(
    planner: Planner,
    grips: dict[Arm, np.ndarray],
    *,
    pivot: np.ndarray,
    axis: np.ndarray,
    seconds: float = 2.4,
    angle: float = 0.94 * np.pi,
    turn: float = 0.55,
) -> Motion:
    """Pinch a hem at the points `grips` [3] and swing it about the line through `pivot` along `axis`.

    Hands turn by the share `turn` of the angle: all of it would bring the arm into the table.
    """
    arms = tuple(grips)
    down = _down_across(planner.hand(arms[0])[1], np.cross(axis, UP))
    at = {arm: (point + _ABOVE_HEM * UP, down) for arm, point in grips.items()}
    yield from grip_all(planner, arms, _FREE_OPENING, seconds=0.1)
    yield from reach(planner, {arm: (pos + 0.1 * UP, rot) for arm, (pos, rot) in at.items()}, speed=0.4)
    yield from reach(planner, at, speed=0.2)
    yield from grip_all(planner, arms, _PINCH)
    yield from swing(planner, grips, pivot=pivot, axis=axis, angle=angle, seconds=seconds, turn=turn, lift=0.01)
    yield from wait(planner, 0.1)
    yield from grip_all(planner, arms, _FREE_OPENING, seconds=0.25)
    yield from retreat_all(planner, arms, 0.08, speed=0.25)
    yield from tuck(planner)


def _down_across(now: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Return the rotation [3 3] of a hand that points down and closes along `across`, the one nearer to `now`."""
    down = hand_rotation(-UP, across)
    return min((down, about(UP, np.pi) @ down), key=lambda rotation: turn_between(now, rotation)[1])
