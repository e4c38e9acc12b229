"""What-if questions about an episode's robot: could a hand get there, what would it touch, what is in the base's way.

They are answered on a copy of the world's state; the world itself stays as it is.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pilot.sims.gl import mujoco
from pilot.sims.world.bodies.base import BASE_JOINTS, FINGER_TRAVEL, Arm
from pilot.sims.world.control import BodyController
from pilot.sims.world.floor import HIGH, LOW, Obstacles
from pilot.sims.world.ik import Pose
from pilot.sims.world.physics import Physics, quat_of
from pilot.sims.world.scene import Item, Scene, held_items

ON_SUPPORT = 0.006  # overlap with furniture that is no collision: fingertips beside a thing that lies on it [m]
_TOUCH = 0.001  # overlap with anything else that is none [m]
_STRIDE = 0.12  # of the joint that moves most, between two looks at a way [rad]
_ITERATIONS = 48  # of inverse kinematics before a pose counts as out of reach


@dataclass(frozen=True)
class Carried:
    """An item in a hand: where it is in the hand's frame."""

    item: Item
    arm: Arm
    pos: np.ndarray  # [3]
    rotation: np.ndarray  # [3 3]

    def pose_at(self, hand: Pose) -> Pose:
        """Return where the item is when the hand is there."""
        return hand[0] + hand[1] @ self.pos, hand[1] @ self.rotation


class Planner:
    """Answers for one episode. `robot` [nbody] says which of the world's bodies belong to the robot."""

    def __init__(self, world: Physics, controller: BodyController, scene: Scene):
        self.world, self.controller, self.scene = world, controller, scene
        self.body, self.ik = controller.body, controller.ik
        self.base_radius = 0.255
        self.missed: Counter[tuple[str, bytes]] = Counter()  # grasps that did not hold, see `grasping.count_miss`
        model = world.model
        self._data = mujoco.MjData(model)
        names = {self.ik.model.body(i).name for i in range(1, self.ik.model.nbody)}
        names |= {finger for arm in self.body.arms for finger in arm.fingers}
        self.robot = np.array([model.body(i).name in names for i in range(model.nbody)])
        self.is_free = np.array([model.body_dofnum[i] == 6 for i in range(model.nbody)])
        self._moves = model.body_weldid != 0
        self._side = np.array([_side(model.body(i).name, self.robot[i]) for i in range(model.nbody)])
        self._qpos = np.array([model.joint(name).qposadr[0] for name in self.body.joints])
        self._fingers = np.array([[model.joint(name).qposadr[0] for name in arm.fingers] for arm in self.body.arms])

    # Of the robot as it stands.

    def hand(self, arm: Arm) -> Pose:
        """Return where a hand is commanded to be."""
        return self.ik.pose(self.controller.command.q, arm)

    def shoulder(self, arm: Arm) -> Pose:
        """Return where an arm begins, as the base stands: its x axis points forwards."""
        pos, rotation = self.ik.root(self.controller.command.q)
        return pos + rotation @ np.array(arm.mount), rotation

    def held_by(self, arm: Arm) -> str | None:
        """Return the name of the item between an arm's fingers."""
        return next((name for name, holder in held_items(self.world, self.scene).items() if holder == arm), None)

    def holder(self, item: str) -> Arm | None:
        """Return the arm that holds an item."""
        return held_items(self.world, self.scene).get(item)

    def carried(self, item: Item, arm: Arm) -> Carried:
        """Return how a hand holds an item."""
        pos, rotation = self.world.site(arm.tcp)
        offset = rotation.T @ (self.world.pos(item.body) - pos)
        return Carried(item, arm, offset, rotation.T @ self.world.rot(item.body))

    # Of joint positions that it might have.

    def reach(self, q: np.ndarray, targets: Mapping[Arm, Pose], *, base: bool = False) -> np.ndarray | None:
        """Return joint positions with the hands at their targets, found from `q`; None if they cannot be reached."""
        poses = {arm.tcp: pose for arm, pose in targets.items()}
        best = np.inf
        for number in range(1, _ITERATIONS + 1):
            q = self.ik.step(q, poses, dt=0.04, base=base, speed=8.0, turn=25.0, hurry=3.0)
            if number % 4 == 0:
                distance, angle = self.ik.error(q, poses)
                if distance < 0.004 and angle < 0.05:
                    return q
                error = distance + 0.3 * angle
                if number > 12 and error > 0.9 * best:
                    return None
                best = min(best, error)
        return None

    def collides(
        self,
        q: np.ndarray,
        *,
        openings: Mapping[Arm, float] | None = None,
        touching: str | None = None,
        carried: Carried | None = None,
    ) -> bool:
        """Return whether the robot at `q` would hit something.

        `openings` [m] of grippers, else as they are. `touching` names a body that it may touch. What is `carried` moves
        with the hand, and may touch it and nothing else.
        """
        data, model = self._data, self.world.model
        data.qpos[:] = self.world.data.qpos
        data.qpos[self._qpos] = q
        for arm, opening in (openings or {}).items():
            data.qpos[self._fingers[self.body.arms.index(arm)]] = min(opening / 2, FINGER_TRAVEL)
        mine = self.robot
        allowed = -1 if touching is None else self.world.id_of("body", touching)
        if carried is not None:
            allowed = self.world.id_of("body", carried.item.body)
            pos, rotation = carried.pose_at(self.ik.pose(q, carried.arm))
            address = model.jnt_qposadr[model.body_jntadr[allowed]]
            data.qpos[address : address + 7] = [*pos, *quat_of(rotation)]
            mine = mine.copy()
            mine[allowed] = True
        mujoco.mj_kinematics(model, data)
        mujoco.mj_collision(model, data)
        first, second = model.geom_bodyid[data.contact.geom[: data.ncon]].T
        depth = -data.contact.dist[: data.ncon]
        fixed = ~(self._moves[np.where(mine[first], second, first)])
        hits = (mine[first] != mine[second]) & (depth > np.where(fixed, ON_SUPPORT, _TOUCH))
        if carried is None:
            hits &= (first != allowed) & (second != allowed)
        crossed = self._side[first] * self._side[second] < 0
        return bool(hits.any() or (crossed & (depth > 0)).any())

    def blocked(self, start: np.ndarray, end: np.ndarray, *, carried: Carried | None = None) -> bool:
        """Return whether the robot would hit something on a straight way between joint positions."""
        steps = max(2, int(np.abs(end - start).max() / _STRIDE) + 1)
        shares = np.arange(1, steps) / steps
        return any(self.collides(start + share * (end - start), carried=carried) for share in shares)

    # Of the room.

    @property
    def obstacles(self) -> Obstacles:
        """What stands in the base's way, as it is now: doors and drawers move."""
        model, data = self.world.model, self.world.data
        owner = model.geom_bodyid
        solid = (model.geom_contype | model.geom_conaffinity) != 0
        solid &= ~self.robot[owner] & (model.geom_type != mujoco.mjtGeom.mjGEOM_PLANE)
        rotation = data.geom_xmat.reshape(-1, 3, 3)
        middle = data.geom_xpos + np.einsum("nij,nj->ni", rotation, model.geom_aabb[:, :3])
        half = np.einsum("nij,nj->ni", np.abs(rotation), model.geom_aabb[:, 3:])  # in the world's axes
        solid &= (middle[:, 2] + half[:, 2] > LOW) & (middle[:, 2] - half[:, 2] < HIGH)
        solid &= ~(self.is_free[owner] & (middle[:, 2] > 0.5))  # what lies on tables is inside their outline
        upright = np.abs(rotation[:, 2, 2]) > 0.999
        yaw = np.where(upright, np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0]), 0.0)
        size = np.where(upright[:, None], model.geom_aabb[:, 3:5], half[:, :2])
        return Obstacles(middle[solid, :2], size[solid], yaw[solid])

    def box_of(self, body: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the lowest and the highest corner [3] of the upright box around a body's geoms."""
        model, data, number = self.world.model, self.world.data, self.world.id_of("body", body)
        geoms = slice(model.body_geomadr[number], model.body_geomadr[number] + model.body_geomnum[number])
        rotation, boxes = data.geom_xmat[geoms].reshape(-1, 3, 3), model.geom_aabb[geoms]
        middle = data.geom_xpos[geoms] + np.einsum("nij,nj->ni", rotation, boxes[:, :3])
        half = np.einsum("nij,nj->ni", np.abs(rotation), boxes[:, 3:])
        return (middle - half).min(axis=0), (middle + half).max(axis=0)


def _side(name: str, is_robot: Any) -> int:
    """Return 1 for what belongs to a left arm, -1 for a right one, 0 for everything else."""
    if not is_robot or name in BASE_JOINTS:
        return 0
    return {"l_": 1, "r_": -1}.get(name[:2], 0)
