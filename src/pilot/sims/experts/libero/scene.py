"""What the expert sees of a LIBERO world: where things are, what shape they have, what is held, and what is missing."""

from typing import Any

import numpy as np

from pilot.sims.base import Box
from pilot.sims.experts.pictures import find_box
from pilot.sims.world.physics import rotation_of

Pose = tuple[np.ndarray, np.ndarray]
"""Position [3] and rotation matrix [3 3], in the world's frame."""

Goal = tuple[str, ...]
"""A predicate of LIBERO and what it is about: `("in", "milk_1", "basket_1_contain_region")`."""

SPACING = 0.008  # between the points that stand for a surface [m]
COARSE = 0.02  # and between those of furniture
CAMERA = "agentview"


class LiberoScene:
    """The episode that an environment stands in. Shapes are those of the geoms that collide, as points on them."""

    def __init__(self, world: Any):
        """`world`: LIBERO's own environment."""
        self.world = world
        self.model, self.data = world.sim.model._model, world.sim.data._data
        self.goals: list[Goal] = [tuple(goal) for goal in world.parsed_problem["goal_state"]]
        self.objects: tuple[str, ...] = tuple(world.objects_dict)
        self.fixtures: tuple[str, ...] = tuple(name for name in world.fixtures_dict if name in world.obj_body_id)
        self.ground = 0.0 if "floor" in world.parsed_problem["fixtures"] else self._table()
        self._shapes: dict[int, np.ndarray] = {}  # by body: points in its frame [n 3]
        self._subtrees: dict[int, list[int]] = {}
        self._hand = self.model.site("gripper0_grip_site").id
        self._fingers = [self.model.joint(f"gripper0_finger_joint{number}").qposadr[0] for number in (1, 2)]

    def _table(self) -> float:
        return float(self.data.site("table_top").xpos[2])

    def is_done(self, goal: Goal) -> bool:
        """Return whether LIBERO says that a goal is reached."""
        return bool(self.world._eval_predicate(list(goal)))

    def hand(self) -> Pose:
        """Return the pose of the point between the fingertips; the hand's z points out of it, its y along the grip."""
        return self.data.site_xpos[self._hand].copy(), self.data.site_xmat[self._hand].reshape(3, 3).copy()

    def gap(self) -> float:
        """Return how far the fingers are apart [m]."""
        left, right = self.data.qpos[self._fingers]
        return float(left - right)

    def body(self, name: str) -> int:
        """Return the number of the body that a thing of that name hangs on."""
        if name in self.world.obj_body_id:
            return self.world.obj_body_id[name]
        return self.model.body(name).id

    def pose(self, name: str) -> Pose:
        """Return the pose of an object, a fixture, or a body of it."""
        body = self.body(name)
        return self.data.xpos[body].copy(), self.data.xmat[body].reshape(3, 3).copy()

    def site(self, name: str) -> Pose:
        """Return the pose of a region."""
        return self.data.site(name).xpos.copy(), self.data.site(name).xmat.reshape(3, 3).copy()

    def parent(self, region: str) -> str:
        """Return the name of the object or fixture that a region belongs to."""
        return str(self.world.object_sites_dict[region].parent_name)

    def site_body(self, region: str) -> str:
        """Return the name of the body that a region moves with: of a drawer, say."""
        return self.model.body(self.model.site_bodyid[self.model.site(region).id]).name

    def points(self, name: str, *, spacing: float = SPACING) -> np.ndarray:
        """Return points on the surface of a thing and of all that moves with it [n 3], in the world's frame."""
        return np.concatenate([self._points(body, spacing) for body in self._subtree(self.body(name))])

    def others(self, *names: str) -> np.ndarray:
        """Return points on all objects and fixtures [n 3], without the things and bodies of these names."""
        left_out = {body for name in names for body in self._subtree(self.body(name))}
        clouds = [np.zeros((0, 3))]
        for thing in (*self.objects, *self.fixtures):
            spacing = SPACING if thing in self.objects else COARSE
            bodies = self._subtree(self.body(thing))
            clouds += [self._points(body, spacing) for body in bodies if body not in left_out]
        return np.concatenate(clouds)

    def _subtree(self, root: int) -> list[int]:
        """Return a body and all bodies that move with it; a body comes after its parent."""
        if root not in self._subtrees:
            found = [root]
            for body in range(root + 1, self.model.nbody):
                if self.model.body_parentid[body] in found:
                    found.append(body)
            self._subtrees[root] = found
        return self._subtrees[root]

    def _points(self, body: int, spacing: float) -> np.ndarray:
        key = body if spacing == SPACING else -body
        if key not in self._shapes:
            model = self.model
            geoms = range(model.body_geomadr[body], model.body_geomadr[body] + model.body_geomnum[body])
            solid = [g for g in geoms if model.geom_contype[g] or model.geom_conaffinity[g]]
            clouds = [_geom_points(model, geom, spacing) for geom in solid]
            self._shapes[key] = np.concatenate([np.zeros((0, 3)), *clouds])
        return self._shapes[key] @ self.data.xmat[body].reshape(3, 3).T + self.data.xpos[body]

    def touches(self, name: str) -> tuple[bool, bool]:
        """Return whether a thing touches the robot, and whether it touches anything else."""
        own = set(self._subtree(self.body(name)))
        robot = rest = False
        for contact in self.data.contact[: self.data.ncon]:
            bodies = [int(self.model.geom_bodyid[geom]) for geom in (contact.geom1, contact.geom2)]
            if (bodies[0] in own) == (bodies[1] in own):
                continue
            other = self.model.body(bodies[1] if bodies[0] in own else bodies[0]).name
            is_robot = other.startswith(("robot0", "gripper0"))
            robot, rest = robot or is_robot, rest or not is_robot
        return robot, rest

    def box(self, name: str) -> Box | None:
        """Return where a thing is in the first camera's picture, whether something hides it or not."""
        points = self.points(name, spacing=COARSE)
        return find_box(points, model=self.model, data=self.data, camera=CAMERA, mirrored=True)


def _geom_points(model: Any, geom: int, spacing: float) -> np.ndarray:
    """Return points on a geom's bounding box [n 3], in its body's frame; LIBERO's shapes are made of boxes."""
    centre, half = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
    counts = np.maximum(2, np.ceil(2 * half / spacing).astype(int) + 1)
    unit = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in counts), indexing="ij"), axis=-1).reshape(-1, 3)
    surface = unit[np.abs(unit).max(axis=1) == 1]
    return (centre + surface * half) @ rotation_of(model.geom_quat[geom]).T + model.geom_pos[geom]
