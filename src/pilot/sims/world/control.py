"""From an action vector to joint targets and back: what a robot's numbers mean on its body.

The `JointCommand` is what the motors aim at now. An expert reads it, thinks in joint targets, and `encode`s the next
one to an action; `decode` gives the same command back, so a recorded action replays what the expert did.
"""

import math
from dataclasses import dataclass

import numpy as np

from pilot.sims.base import check_action
from pilot.sims.world.bodies.base import BASE_JOINTS, FINGER_TRAVEL, LIFT, SQUEEZE, Body
from pilot.sims.world.ik import InverseKinematics, Pose
from pilot.sims.world.physics import Physics
from pilot.types import Robot

BASE_AHEAD, YAW_AHEAD, JOINT_AHEAD = 0.10, 0.2, 0.3  # the farthest that a target may be from where its joint is
BASE_TOP_SPEED = np.array([0.8, 0.8, 1.6])  # [m/s, m/s, rad/s]
RAMP = 0.01  # a tick's targets are reached in steps of this [s]: no jerks at 20 Hz
_HAND_ITERATIONS = 10  # of inverse kinematics per tick, in end-effector control


@dataclass(frozen=True)
class JointCommand:
    """Targets of all joints in the order of `Body.joints` (a mobile base in the world's frame), and of the grippers."""

    q: np.ndarray  # [nq]
    grip: np.ndarray  # of each arm, 0 closed to 1 open


class BodyController:
    """The motors of one body in a world. `robot` says how it is controlled: by joints, or by the hand's pose.

    `ik` is the body's kinematics where it stands.
    """

    def __init__(self, body: Body, world: Physics, ik: InverseKinematics, *, robot: Robot | None = None):
        self.body, self.world, self.ik = body, world, ik
        self.robot = robot or body.robot
        self.by_hand = self.robot.control_mode == "end_effector"
        model = world.model
        joints = [model.joint(name) for name in body.joints]
        self._qpos = np.array([joint.qposadr[0] for joint in joints])
        self._qvel = np.array([joint.dofadr[0] for joint in joints])
        self._motors = np.array([model.actuator(name).id for name in body.joints])
        self._finger_motors = np.array([[model.actuator(name).id for name in arm.fingers] for arm in body.arms])
        self._fingers = np.array([[model.joint(name).qposadr[0] for name in arm.fingers] for arm in body.arms])
        self._ahead = np.array([_ahead(name) for name in body.joints])
        substeps = round(1 / self.robot.control_hz / model.opt.timestep)
        self._ramp = max(1, round(substeps * model.opt.timestep / RAMP))
        self._steps = substeps // self._ramp
        self.command = JointCommand(body.ready.copy(), np.ones(len(body.arms)))

    @property
    def dt(self) -> float:
        """Time of one tick [s]."""
        return 1 / self.robot.control_hz

    def reset(self, q: np.ndarray, *, grip: float = 1.0) -> None:
        """Put the robot at joint positions `q`, at rest, with grippers open by `grip`, and command it to stay."""
        self.command = JointCommand(np.asarray(q, float).copy(), np.full(len(self.body.arms), grip))
        data = self.world.data
        data.qpos[self._qpos], data.qvel[self._qvel] = q, 0
        data.qpos[self._fingers] = grip * FINGER_TRAVEL
        data.ctrl[self._motors] = q
        data.ctrl[self._finger_motors] = _finger_target(self.command.grip)[:, None]
        self.world.forward()

    def measured(self) -> np.ndarray:
        """Return the positions that the joints have [nq]."""
        return self.world.data.qpos[self._qpos].copy()

    def measured_grip(self) -> np.ndarray:
        """Return how far each gripper is open, 0 to 1."""
        return np.clip(self.world.data.qpos[self._fingers].mean(axis=1) / FINGER_TRAVEL, 0, 1)

    def state(self) -> np.ndarray:
        """Return the robot's state, float32 [sd]: what it measures, in the order of `robot.state_names`."""
        return self._vector(self.measured(), self.measured_grip(), self._base_velocity()).astype(np.float32)

    def encode(self, command: JointCommand) -> np.ndarray:
        """Return the action, float32 [ad], that makes `command` the next one."""
        change = command.q[:3] - self.command.q[:3] if self.body.is_mobile else np.zeros(3)
        velocity = _turned(change, -self.command.q[2]) / self.dt if self.body.is_mobile else change
        return self._vector(command.q, command.grip, velocity).astype(np.float32)

    def decode(self, action: np.ndarray) -> JointCommand:
        """Return the command that an action [ad] asks for, within what joints and motors can do.

        Raises:
            ValueError: the action has other dims than the robot, or is not finite.
        """
        action = check_action(action, self.robot)
        q, first = self.command.q.copy(), 0
        if self.body.is_mobile:
            velocity = _clip(action[:3], -BASE_TOP_SPEED, BASE_TOP_SPEED)
            q[:3] += _turned(velocity, q[2]) * self.dt
            q[3], first = action[3], 4
        parts = action[first:].reshape(len(self.body.arms), -1)
        if self.by_hand:
            q = self._reach(q, parts)
        else:
            q[first:] = parts[:, :-1].ravel()
        measured = self.measured()
        q = _clip(q, measured - self._ahead, measured + self._ahead)
        return JointCommand(_clip(q, self.ik.lower, self.ik.upper), _clip(parts[:, -1], 0.0, 1.0))

    def apply(self, command: JointCommand) -> None:
        """Run one tick of physics, in which the motors' targets move to `command`."""
        data, start = self.world.data, self.command
        for share in np.arange(1, self._ramp + 1) / self._ramp:
            data.ctrl[self._motors] = start.q + (command.q - start.q) * share
            data.ctrl[self._finger_motors] = _finger_target(start.grip + (command.grip - start.grip) * share)[:, None]
            self.world.step(self._steps)
        self.command = command

    def _vector(self, q: np.ndarray, grip: np.ndarray, base_velocity: np.ndarray) -> np.ndarray:
        """Return joint positions and grips in the robot's own order and frame."""
        root = self.ik.root(q) if self.by_hand else None
        parts = [*base_velocity, q[3]] if self.body.is_mobile else []
        for arm, opening in zip(self.body.arms, grip, strict=True):
            where = q[self.body.joint_slice(arm)] if root is None else _hand_vector(self.ik.pose(q, arm), root)
            parts += [*where, opening]
        return np.array(parts)

    def _base_velocity(self) -> np.ndarray:
        """Return forwards, left and turning speed of the base in its own frame [3]; zeros without one."""
        if not self.body.is_mobile:
            return np.zeros(3)
        return _turned(self.world.data.qvel[self._qvel[:3]], -self.world.data.qpos[self._qpos[2]])

    def _reach(self, q: np.ndarray, parts: np.ndarray) -> np.ndarray:
        """Return joint positions near `q` that bring the hands where `parts`, vectors in the robot's frame, say."""
        root = self.ik.root(q)
        targets = {arm.tcp: _hand_pose(part, root) for arm, part in zip(self.body.arms, parts, strict=True)}
        for _ in range(_HAND_ITERATIONS):
            q = self.ik.step(
                q, targets, dt=self.dt, lift=False, speed=10.0, turn=30.0, hurry=3.0, damping=0.003, lean=0.0
            )
            if max(self.ik.error(q, targets)) < 1e-6:
                break
        return q


def opening_for(width: float) -> float:
    """Return the gripper command that opens it by `width` [m]."""
    return float(np.clip((width / 2 + SQUEEZE) / (FINGER_TRAVEL + SQUEEZE), 0, 1))


def _finger_target(grip: np.ndarray) -> np.ndarray:
    return grip * (FINGER_TRAVEL + SQUEEZE) - SQUEEZE


def _ahead(joint: str) -> float:
    if joint == BASE_JOINTS[2]:
        return YAW_AHEAD
    return BASE_AHEAD if joint in (*BASE_JOINTS, LIFT) else JOINT_AHEAD


def _clip(values: np.ndarray, lower: np.ndarray | float, upper: np.ndarray | float) -> np.ndarray:
    """Do as `np.clip`, several times faster on a few numbers."""
    return np.minimum(np.maximum(values, lower), upper)


def _turned(planar: np.ndarray, yaw: float) -> np.ndarray:
    """Turn a planar velocity (x, y, yaw rate) by `yaw`."""
    c, s = math.cos(yaw), math.sin(yaw)
    return np.array([c * planar[0] - s * planar[1], s * planar[0] + c * planar[1], planar[2]])


def _hand_vector(pose: Pose, root: Pose) -> np.ndarray:
    """Return a hand's position and the first two columns of its rotation [9], seen from the robot's frame."""
    rotation = root[1].T @ pose[1]
    return np.concatenate([root[1].T @ (pose[0] - root[0]), rotation[:, 0], rotation[:, 1]])


def _hand_pose(part: np.ndarray, root: Pose) -> Pose:
    """Return the pose in the world that a hand's vector [10] stands for; its columns need not be quite orthogonal."""
    x = part[3:6] / max(float(np.linalg.norm(part[3:6])), 1e-9)
    y = part[6:9] - x * (x @ part[6:9])
    y /= max(float(np.linalg.norm(y)), 1e-9)
    return root[0] + root[1] @ part[:3], root[1] @ np.stack([x, y, np.cross(x, y)], axis=1)
