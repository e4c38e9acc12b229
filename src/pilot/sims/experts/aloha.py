"""The expert of ALOHA's two simulated tasks: both hands go from pose to pose, and the joints follow.

A motion is a generator that moves what the hands are told, one control step at a time. Poses are of the point between
the fingertips. Dry friction lets the simulated joints creep to where they are told to be: what was off after one motion
is measured, and put right by the next.
"""

from collections.abc import Generator
from typing import Any

import numpy as np

from pilot.sims.base import DONE, Box
from pilot.sims.experts.pictures import find_box
from pilot.sims.gl import mujoco
from pilot.sims.world.motions import about, between

Motion = Generator[None, None, None]
"""Moves what the hands are told, one step at a time."""

JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
OPEN, CLOSED = 1.0, 0.0
PINCH = 0.015  # from the fingertips back to the point that is meant [m]
DAMPING = 0.03
UP = np.array([0.0, 0.0, 1.0])
PEG, PIN = 0.06, 0.04  # from the middle of the peg to its end, and from that of the socket to its pin [m]
PRESSED = 0.003  # against each other they are held, so near they are [m]
MEETING = np.array([0.0, 0.5, 0.25])  # where the hands meet [m]


class ViperHand:
    """One of the arms: what its hand was told, and the joints that bring it there."""

    def __init__(self, model: Any, data: Any, *, side: str):
        self.model, self.data, self.scratch = model, data, mujoco.MjData(model)
        joints = [model.joint(f"vx300s_{side}/{name}") for name in JOINTS]
        self._address, self._dof = [j.qposadr[0] for j in joints], [j.dofadr[0] for j in joints]
        self._low, self._high = np.array([j.range for j in joints]).T
        self._body = model.body(f"vx300s_{side}/gripper_link").id
        self._facing = 0.0 if side == "left" else np.pi
        self._finger = model.joint(f"vx300s_{side}/left_finger").qposadr[0]
        self._reach = self._fingertip(model.geom(f"vx300s_{side}/10_left_gripper_finger").id) - PINCH
        self.q = data.qpos[self._address].copy()
        self.grip = 0.1
        self.pose = self._forward(self.q)

    def _fingertip(self, geom: int) -> float:
        """Return how far a finger reaches ahead of the hand's frame [m]."""
        mesh = self.model.geom_dataid[geom]
        start = self.model.mesh_vertadr[mesh]
        vertices = self.model.mesh_vert[start : start + self.model.mesh_vertnum[mesh]]
        world = vertices @ self.data.geom_xmat[geom].reshape(3, 3).T + self.data.geom_xpos[geom]
        ahead = self.data.xmat[self._body].reshape(3, 3)[:, 0]
        return float(((world - self.data.xpos[self._body]) @ ahead).max())

    def rotation(self, *, down: float = 0.0, roll: float = 0.0) -> np.ndarray:
        """Return the rotation [3 3] of a hand that faces the other arm, `down` and rolled by these angles [rad]."""
        forwards, sideways, _ = np.eye(3)
        return about(UP, self._facing) @ about(sideways, down) @ about(forwards, roll)

    def action(self) -> np.ndarray:
        """Return the arm's part of the action [7]."""
        return np.append(self.q, self.grip)

    def follow(self, pos: np.ndarray, rotation: np.ndarray) -> None:
        """Move the joints towards a pose of the point between the fingertips (damped least squares)."""
        self.pose = pos, rotation
        for _ in range(4):
            here, turned = self._forward(self.q)
            jacobian = np.zeros((6, self.model.nv))
            mujoco.mj_jac(self.model, self.scratch, jacobian[:3], jacobian[3:], here, self._body)
            turn = rotation @ turned.T
            twist = 0.5 * np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
            own = jacobian[:, self._dof] * np.array([1, 1, 1, 0.3, 0.3, 0.3])[:, None]
            error = np.concatenate([pos - here, 0.3 * twist])
            step = own.T @ np.linalg.solve(own @ own.T + DAMPING**2 * np.eye(6), error)
            self.q = np.clip(self.q + np.clip(step, -0.1, 0.1), self._low, self._high)

    def _forward(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.scratch.qpos[:] = self.data.qpos
        self.scratch.qpos[self._address] = q
        mujoco.mj_kinematics(self.model, self.scratch)
        mujoco.mj_comPos(self.model, self.scratch)
        rotation = self.scratch.xmat[self._body].reshape(3, 3).copy()
        return self.scratch.xpos[self._body] + self._reach * rotation[:, 0], rotation


class AlohaExpert:
    """Acts in the episode that `env` stands in; `rng` draws its style: speed, and where it grips."""

    def __init__(self, env: Any, rng: np.random.Generator):
        self.model, self.data, self.task = env.physics.model.ptr, env.physics.data.ptr, env.task
        self.left = ViperHand(self.model, self.data, side="left")
        self.right = ViperHand(self.model, self.data, side="right")
        self.rng, self.pace = rng, float(rng.uniform(0.85, 1.15))
        self._words, self._about = DONE, "red_box"
        self._motion = self._transfer() if env.task == "transfer_cube" else self._insert()
        self._action, self._time = np.zeros(14), -1.0

    @property
    def subtask(self) -> tuple[str, Box | None]:
        """The subtask that the next action belongs to, and the box of what it is about."""
        self._look()
        return self._words, None if self._words == DONE else self._box()

    def act(self) -> np.ndarray:
        """Return the next action [14]."""
        self._look()
        return self._action

    def _look(self) -> None:
        """Move the motion on if the world has moved on since it was last asked."""
        if self._time != self.data.time:
            next(self._motion)
            self._time = self.data.time
            self._action = np.concatenate([self.left.action(), self.right.action()])

    def _box(self) -> Box | None:
        geom = self.model.geom(self._about).id
        corners = np.stack(np.meshgrid(*[[-1, 1]] * 3), axis=-1).reshape(-1, 3) * self.model.geom_size[geom]
        points = corners @ self.data.geom_xmat[geom].reshape(3, 3).T + self.data.geom_xpos[geom]
        return find_box(points, model=self.model, data=self.data, camera="top", aspect=4 / 3)

    def _where(self, body: str) -> np.ndarray:
        return self.data.body(body).xpos.copy()

    def _go(self, seconds: float, *moves: tuple[ViperHand, np.ndarray, np.ndarray]) -> Motion:
        """Bring hands to poses in a straight line, all in the same time."""
        starts = [hand.pose for hand, _, _ in moves]
        steps = max(2, round(50 * seconds / self.pace))
        for step in range(1, steps + 1):
            share = step / steps
            share = share * share * (3 - 2 * share)
            for (hand, *end), start in zip(moves, starts, strict=True):
                hand.follow(*between(start, (end[0], end[1]), share))
            yield

    def _grip(self, seconds: float, *hands: ViperHand, opening: float) -> Motion:
        """Open or close hands that stay where they are."""
        before = [hand.grip for hand in hands]
        steps = round(50 * seconds)
        for step in range(1, steps + 1):
            for hand, grip in zip(hands, before, strict=True):
                hand.grip = grip + (opening - grip) * min(1.0, 1.5 * step / steps)
            yield

    def _rest(self) -> Motion:
        self._words = DONE
        while True:
            yield

    def _transfer(self) -> Motion:
        """Pick the cube up with the right hand, and hand it to the left one, whose fingers close up and down."""
        left, right = self.left, self.right
        self._words, self._about = "pick up the cube with the right arm", "red_box"
        down, level, rolled = right.rotation(down=np.pi / 3), right.rotation(), left.rotation(roll=np.pi / 2)
        right.grip = OPEN
        yield from self._go(1.3, (right, self._where("box") + 0.07 * UP, down))
        cube = self._where("box") + np.array([*self.rng.normal(0, 0.002, 2), 0.008])  # it had to fall onto the table
        yield from self._go(0.7, (right, cube, down))
        yield from self._grip(0.5, right, opening=CLOSED)
        yield from self._go(0.4, (right, cube + 0.08 * UP, down))
        self._words = "hand the cube to the left arm"
        meeting = MEETING + self.rng.uniform(-0.02, 0.02, 3)
        left.grip = OPEN
        ready = meeting - np.array([0.12, 0, 0])
        yield from self._go(1.3, (right, meeting, level), (left, ready, rolled))
        yield from self._go(0.2)
        cube = self._where("box")
        yield from self._go(0.7, (left, cube - np.array([0.008, 0, 0]), rolled))
        yield from self._grip(0.5, left, opening=CLOSED)
        yield from self._grip(0.3, right, opening=OPEN)
        away = np.array([0.1, 0, 0])
        yield from self._go(0.8, (right, right.pose[0] + away, level), (left, left.pose[0] - 0.5 * away, rolled))
        yield from self._rest()

    def _insert(self) -> Motion:
        """Pick up the peg with the right hand, the socket with the left one, and bring the peg into the socket."""
        left, right = self.left, self.right
        self._words, self._about = "pick up the peg and the socket", "red_peg"
        down, down_left = right.rotation(down=np.pi / 3), left.rotation(down=np.pi / 3)
        back = np.array([0.015, 0, 0])  # the hands leave the ends that meet free
        right.grip = left.grip = OPEN
        peg, socket = self._where("peg") + back, self._where("socket") - back
        yield from self._go(1.3, (right, peg + 0.07 * UP, down), (left, socket + 0.07 * UP, down_left))
        socket = self._where("socket") - back  # they had to fall onto the table
        peg = self._where("peg") + back + 0.012 * UP  # it lies too low for the fingertips
        yield from self._go(0.7, (right, peg, down), (left, socket, down_left))
        yield from self._grip(0.6, right, left, opening=CLOSED)
        yield from self._go(0.6, (right, peg + 0.1 * UP, down), (left, socket + 0.1 * UP, down_left))
        self._words, self._about = "insert the peg into the socket", "socket-1"
        middle = np.array([0.0, 0.5, 0.17]) + self.rng.uniform(-0.02, 0.02, 3)
        apart = np.array([0.075, 0, 0])
        for seconds in (1.0, 0.4):  # what was off after the first is put right by the second
            yield from self._go(
                seconds,
                (right, right.pose[0] + middle + apart - self._where("peg"), down),
                (left, left.pose[0] + middle - apart - self._where("socket"), down_left),
            )
        for step in (0.0, 0.0, 0.02, *[0.012] * 8):  # first into line, then in
            aside, ahead, left_over = self._to_pin()
            if left_over < PRESSED:
                break
            way = aside + min(step, left_over + 2 * PRESSED) * ahead
            yield from self._go(0.3 if step == 0 else 0.25, (right, right.pose[0] + way, down))
        yield from self._rest()

    def _to_pin(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Return the way of the peg's end onto the socket's axis [3], the axis [3], and how far the pin is along it."""
        socket, axis = self._where("socket"), -self.data.body("socket").xmat.reshape(3, 3)[:, 0]
        end = self._where("peg") - PEG * self.data.body("peg").xmat.reshape(3, 3)[:, 0]
        along = float((socket - end) @ axis)
        return socket - end - along * axis, axis, along - PIN
