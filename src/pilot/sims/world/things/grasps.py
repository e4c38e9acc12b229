"""Grasps with a parallel gripper: where its fingers close on a thing, by friction.

A gripper's frame has x along its fingers (the approach), y from one finger to the other (they close along it), and its
origin, the tcp, in the middle between the pads. The pads reach 2 cm beyond the tcp, so on a table it stays 2 cm above.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pilot.sims.world.things.pieces import Piece, Vec3, about

MAX_OPENING = 0.09  # between the pads [m]
LOWEST_TCP = 0.0205  # above what the thing stands on [m]; half a millimetre remains under the pads
WIDEST = 0.041  # half of what fits between the open pads [m]
_CLEARANCE = 0.014  # of each pad to the thing, before they close [m]
_DOWN = about("y", np.pi / 2)  # approach down, closing along y


@dataclass(frozen=True, eq=False)
class Grasp:
    """One grasp in the frame of the thing, which stands as its kind says."""

    part: str  # what is held: body, rim, handle, …
    tcp: np.ndarray  # [3], metres
    rotation: np.ndarray  # [3 3], columns: approach, closing direction, their cross product
    opening: float  # between the pads before they close, metres

    @property
    def approach(self) -> np.ndarray:
        """The unit direction [3] in which the gripper comes, and against which it leaves."""
        return self.rotation[:, 0]

    def scaled(self, factor: float) -> "Grasp":
        """Return the grasp of a thing that is `factor` times as large."""
        tcp = self.tcp * factor
        tcp[2] = max(tcp[2], LOWEST_TCP)
        return replace(self, tcp=tcp, opening=min(self.opening * factor, MAX_OPENING))


Grasps = tuple[Grasp, ...]


def above(
    at: Vec3,
    half_width: float,
    *,
    yaws: Sequence[float] | np.ndarray = (0, np.pi),
    part: str = "body",
    lean: float = 0.0,
) -> Grasps:
    """Return grasps from above of a part that is `half_width` wide to each side of `at`, closing along y at yaw 0.

    `lean` tips the approach, by so many radians, towards the closing direction.
    """
    assert half_width <= WIDEST, (half_width, WIDEST)
    opening = min(2 * (half_width + _CLEARANCE), MAX_OPENING)
    down = about("x", lean) @ _DOWN
    return tuple(Grasp(part, np.array(at, float), about("z", yaw) @ down, opening) for yaw in yaws)


def around(z: float, radius: float, *, count: int = 8, part: str = "body") -> Grasps:
    """Return grasps from above around something round and upright, at height `z`."""
    return above((0, 0, z), radius, yaws=2 * np.pi * np.arange(count) / count, part=part)


def rims(radius: float, z: float, *, count: int = 12, lean: float = 0.0, skip: float = 0.0) -> Grasps:
    """Return grasps from above of a round rim, one finger inside and one outside, at `count` places.

    `lean` tips the approach inwards. Places within `skip` radians of the x axis are left out: there is the handle.
    """
    grasps: list[Grasp] = []
    for angle in 2 * np.pi * np.arange(count) / count:
        if min(angle, 2 * np.pi - angle) < skip:
            continue
        at = (radius * np.cos(angle), radius * np.sin(angle), z)
        # At this yaw the gripper's y points inwards, and the other way round outwards.
        grasps += above(at, 0.012, yaws=(angle + np.pi / 2,), part="rim", lean=lean)
        grasps += above(at, 0.012, yaws=(angle - np.pi / 2,), part="rim", lean=-lean)
    return tuple(grasps)


def sideways(z: float, radius: float, *, count: int = 8, down: float = 0.3, part: str = "body") -> Grasps:
    """Return grasps from all sides around something upright at height `z`, the fingers tipped `down` radians."""
    tipped = about("y", down)
    opening = min(2 * (radius + _CLEARANCE), MAX_OPENING)
    yaws = 2 * np.pi * np.arange(count) / count
    return tuple(Grasp(part, np.array([0, 0, z]), about("z", yaw) @ tipped, opening) for yaw in yaws)


def as_it_lies(pieces: Sequence[Piece], rotation: np.ndarray) -> Grasps:
    """Return grasps from above, across the whole of a thing that lies in any `rotation` [3 3], in its own frame.

    They know no handles and no rims: a thing that is wider than the gripper every way round has none.
    """
    touched = [piece for piece in pieces if piece.is_touched]

    def span(direction: np.ndarray) -> tuple[float, float]:
        local = rotation.T @ direction
        return -max(p.reach(-local) for p in touched), max(p.reach(local) for p in touched)

    low, high = span(np.array([0.0, 0, 1]))
    z = low + max(LOWEST_TCP, min((high - low) / 2, high - low - 0.022))
    grasps: list[Grasp] = []
    for yaw in _yaws(rotation):
        along, across = np.array([np.cos(yaw), np.sin(yaw), 0]), np.array([-np.sin(yaw), np.cos(yaw), 0])
        (back, front), (right, left) = span(along), span(across)
        if (half_width := (left - right) / 2) <= WIDEST:
            tcp = along * (front + back) / 2 + across * (left + right) / 2 + (0, 0, z)
            (grasp,) = above((0, 0, 0), half_width, yaws=(yaw,))
            grasps.append(replace(grasp, tcp=rotation.T @ tcp, rotation=rotation.T @ grasp.rotation))
    return tuple(grasps)


def _yaws(rotation: np.ndarray) -> np.ndarray:
    """Return angles to try: all around, and along and across the thing's own axes as far as they are level."""
    level = rotation[:2, np.linalg.norm(rotation[:2], axis=0) > 0.3]
    own = np.arctan2(level[1], level[0])
    quarters = (own[:, None] + np.arange(4) * np.pi / 2).ravel()
    return np.concatenate([np.arange(8) * np.pi / 4, quarters])
