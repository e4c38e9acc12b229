"""Motions of LIBERO's hand that skills are made of: generators of the next action, one per control step.

A motion looks at the hand where it is now, so it leads to its end from wherever something else moved the hand to. What
it cannot mend it raises as a `Missed`; the expert then begins anew.
"""

from collections.abc import Generator

import numpy as np

from pilot.sims.experts.libero.scene import LiberoScene, Pose
from pilot.sims.world import motions

Motion = Generator[np.ndarray, None, None]

OPEN, CLOSED = -1.0, 1.0
METRES, RADIANS = 0.05, 0.5  # what an action of 1 asks for
FASTEST_TURN = 0.35  # as an action
GAIN = 1.8  # of an action that would just reach its target: the arm lags behind
DOWN = np.array([0.0, 0.0, -1.0])
UP = -DOWN
_RAMP = 4  # steps until a hand has its speed
_PATIENCE = 30  # steps without progress before a motion gives up


class Missed(Exception):
    """The world is not as a motion expected it: something slipped, fell, or is in the way."""


class LiberoHand:
    """The hand, what its gripper was last told, and how fast it is used: `speed` is the largest action."""

    def __init__(self, scene: LiberoScene, *, speed: float):
        self.scene, self.speed, self.grip = scene, speed, OPEN

    @property
    def pose(self) -> Pose:
        """Return where the hand is."""
        return self.scene.hand()

    @property
    def yaw(self) -> float:
        """Return the direction in which the fingers close [rad]."""
        along = self.pose[1][:, 0]
        return float(np.arctan2(along[1], along[0]))

    def toward(self, target: Pose, *, pace: float = 1.0) -> np.ndarray:
        """Return the action [7] that brings the hand nearer to a pose, at `pace` times its speed at most."""
        pos, rotation = self.pose
        move = GAIN * (target[0] - pos) / METRES
        turn = turn_between(rotation, target[1])
        turn = np.where(np.linalg.norm(turn) < 0.02, 0.0, turn / RADIANS)  # exactly none keeps the orientation
        return np.array([*_at_most(move, self.speed * pace), *_at_most(turn, FASTEST_TURN), self.grip])

    def still(self) -> np.ndarray:
        """Return the action that stays here."""
        return np.array([0, 0, 0, 0, 0, 0, self.grip])


def reach(hand: LiberoHand, target: Pose, *, pace: float = 1.0, near: float = 0.008, lenient: bool = False) -> Motion:
    """Move straight to a pose, until it is `near` [m]. `lenient`: as far as the hand gets.

    Raises:
        Missed: something is in the way.
    """
    least, waited, step = np.inf, 0, 0
    while True:
        pos, rotation = hand.pose
        left = float(np.linalg.norm(target[0] - pos)) + 0.04 * float(np.linalg.norm(turn_between(rotation, target[1])))
        if left < near:
            return
        least, waited = (left, 0) if left < least - 0.001 else (least, waited + 1)
        if waited > (_PATIENCE // 3 if lenient else _PATIENCE):
            if lenient or left < 2.5 * near:
                return
            raise Missed("the hand cannot get there")
        step += 1
        yield hand.toward(target, pace=pace * min(1.0, step / _RAMP))


def set_grip(hand: LiberoHand, grip: float, *, steps: int = 16) -> Motion:
    """Open or close the fingers, until they stand still."""
    hand.grip = grip
    last = np.inf
    for step in range(steps):
        yield hand.still()
        gap = hand.scene.gap()
        if step > 3 and abs(gap - last) < 0.0005:
            return
        last = gap


def wait(hand: LiberoHand, steps: int) -> Motion:
    """Stay for some steps."""
    for _ in range(steps):
        yield hand.still()


def over(hand: LiberoHand, target: Pose, *, height: float) -> Motion:
    """Move to above a pose at `height` [m], first up where the hand is lower, and turned as the pose is."""
    pos, _ = hand.pose
    if height > pos[2] + 0.02:
        away = np.linalg.norm(pos[:2] - target[0][:2])
        yield from reach(hand, (np.array([*pos[:2], height]), hand.pose[1]), near=0.02 if away > 0.05 else 0.01)
    high = np.array([*target[0][:2], max(height, target[0][2])])
    yield from reach(hand, (high, target[1]), near=0.015)


def pointing_down(yaw: float) -> np.ndarray:
    """Return the rotation [3 3] of a hand that points down, its fingers closing along `yaw`."""
    along = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    return np.stack([along, np.cross(DOWN, along), DOWN], axis=1)


def turn_between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the axis-angle [rad] that turns one rotation into another, in the world's frame."""
    axis, angle = motions.turn_between(start, end)
    return angle * axis


def turn_onto(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the rotation [3 3] that turns one unit vector into another by the shortest way; not for opposite ones."""
    axis = np.cross(start, end)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + cross + cross @ cross / (1 + float(start @ end))


def _at_most(vector: np.ndarray, length: float) -> np.ndarray:
    return vector * min(1.0, length / max(float(np.linalg.norm(vector)), 1e-9))
