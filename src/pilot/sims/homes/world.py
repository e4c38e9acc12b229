"""The physics and the pictures of one home: everything that knows MuJoCo's arrays, and nothing about tasks.

The gripper holds by contact and adhesion alone. One control step is 0.1 s; the pad's target moves at most `MAX_STEP`.
"""

import numpy as np

from pilot.sims.gl import Renderer, mujoco
from pilot.sims.homes.mjcf import LIMITS, SUBSTEPS, home_xml
from pilot.sims.homes.objects import SHAPES, shade_colour
from pilot.sims.homes.rooms import Home, Receptacle

MAX_STEP = 0.05  # of the pad's target per control step and axis [m]
_RAMP = np.minimum(1, 2 * np.arange(1, SUBSTEPS + 1) / SUBSTEPS)  # of the target within a step: no jerks, no drops
_INSIDE = 0.01  # where in the pad the seal is measured from, above what presses into it [m]
_SEAL = 0.004  # the widest gap that suction closes [m]
Box = tuple[float, float, float, float]
_CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)


class World:
    """One compiled home. Objects are numbered as in `home.pool`; those not placed lie out of sight."""

    def __init__(self, home: Home, image_size: int):
        self.home = home
        self.model = mujoco.MjModel.from_xml_string(home_xml(home))
        self.data = mujoco.MjData(self.model)
        self._size = image_size
        self._renderer = None
        self._bodies = [self.model.body(f"item{i}").id for i in range(len(home.pool))]
        self._geoms = [self.model.geom(f"item{i}").id for i in range(len(home.pool))]
        self._index_of = {geom: i for i, geom in enumerate(self._geoms)}
        self._hulls = [SHAPES[kind].hull() * scale for kind, scale in home.pool]
        self._gripper = self.model.body("gripper").id
        self._paint = self._paintable()
        self._camera = self.model.camera("room").id
        self.items: list[int] = []
        self.suction = False

    def _paintable(self) -> list[list[tuple[int, str]]]:
        """Per object, its visual geoms and their shades, from the names that `mjcf` gave them."""
        names = [(g, self.model.geom(g).name.split(".")) for g in range(self.model.ngeom)]
        return [[(g, n[2]) for g, n in names if n[0] == f"item{i}" and len(n) == 3] for i in range(len(self._bodies))]

    def place(self, items: dict[int, tuple[np.ndarray, float, np.ndarray]], gripper: np.ndarray) -> None:
        """Restart with these objects standing on the table, number → (xy, yaw, rgb), and the pad at `gripper`."""
        mujoco.mj_resetData(self.model, self.data)
        self.items = list(items)
        for i, parts in enumerate(self._paint):
            for geom, shade in parts:
                self.model.geom_rgba[geom] = [*shade_colour(items[i][2], shade), 1] if i in items else [0, 0, 0, 0]
        for i, (xy, yaw, _) in items.items():
            self.data.qpos[self._qpos(i)] = [*xy, 0.0, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
        self.data.qpos[:3] = self.data.ctrl[:3] = gripper
        self._park()
        mujoco.mj_forward(self.model, self.data)
        self.advance(np.array([*gripper, 0.0]))

    def advance(self, action: np.ndarray) -> None:
        """Run one control step towards the target [x y z suction]."""
        position = self.gripper
        start = self.data.ctrl[:3].copy()
        target = np.clip(action[:3], position - MAX_STEP, position + MAX_STEP)
        target = np.clip(target, LIMITS[0], LIMITS[1])
        self.suction = bool(action[3] > 0.5)
        for share in _RAMP:
            self.data.ctrl[3] = self.held_object() is not None
            self.data.ctrl[:3] = start + (target - start) * share
            mujoco.mj_step(self.model, self.data)
        self._park()
        mujoco.mj_forward(self.model, self.data)

    def _qpos(self, i: int) -> slice:
        return slice(3 + 7 * i, 10 + 7 * i)

    def _park(self) -> None:
        """Put the objects of other episodes back high in the sky: falling freely, they cost the solver nothing."""
        for i in range(len(self._bodies)):
            if i not in self.items:
                self.data.qpos[self._qpos(i)] = [i, 0, 20, 1, 0, 0, 0]
                self.data.qvel[3 + 6 * i : 9 + 6 * i] = 0

    @property
    def gripper(self) -> np.ndarray:
        """The position of the pad [3]."""
        return self.data.qpos[:3].copy()

    def sealed_object(self) -> int | None:
        """Return the object that closes the pad: straight below its middle, and almost touching; None if there is none.

        Without a seal there is no vacuum, so nothing sticks to the pad's sides or hangs by a corner.
        """
        above = self.data.xpos[self._gripper] + [0, 0, _INSIDE]
        hit = np.full(1, -1, np.int32)
        collision = np.array([0, 0, 0, 1, 0, 0], np.uint8)
        gap = (
            mujoco.mj_ray(self.model, self.data, above, [0, 0, -1], collision, False, self._gripper, hit, None)
            - _INSIDE
        )
        return self._index_of[int(hit[0])] if hit[0] >= 0 and gap < _SEAL else None

    def held_object(self) -> int | None:
        """Return the object that suction holds; None without suction or seal."""
        return self.sealed_object() if self.suction else None

    def position(self, i: int) -> np.ndarray:
        """Return the middle of an object's collision box [3]."""
        return self.data.geom_xpos[self._geoms[i]].copy()

    def speed(self, i: int) -> float:
        """Return how fast an object moves [m/s]."""
        return float(np.linalg.norm(self.data.qvel[3 + 6 * i : 6 + 6 * i]))

    def extent(self, i: int) -> np.ndarray:
        """Return the half sizes [3] of the upright box around an object's collision box, as it lies now."""
        rotation = self.data.geom_xmat[self._geoms[i]].reshape(3, 3)
        return np.abs(rotation) @ self.model.geom_size[self._geoms[i]]

    def top(self, i: int) -> float:
        """Return the height of an object's highest point [m]."""
        return float(self.position(i)[2] + self.extent(i)[2])

    def item_box(self, i: int) -> Box | None:
        """Return an object's box in the room picture; None if it is out of the picture."""
        body = self._bodies[i]
        return self._box(self._hulls[i] @ self.data.xmat[body].reshape(3, 3).T + self.data.xpos[body])

    def receptacle_box(self, receptacle: Receptacle) -> Box | None:
        """Return a receptacle's box in the room picture."""
        rim = receptacle.world(_CORNERS[:, :2] * (np.array(receptacle.inner) + 0.012))
        heights = (_CORNERS[:, 2:] + 1) / 2 * receptacle.wall
        return self._box(np.hstack([rim, heights]))

    def _box(self, points: np.ndarray) -> Box | None:
        """Return the clipped box (y0, x0, y1, x1) in [0, 1] around points [n, 3] seen by the room camera."""
        uv = np.clip(self.project(points), 0, 1)
        (x0, y0), (x1, y1) = uv.min(0), uv.max(0)
        return (float(y0), float(x0), float(y1), float(x1)) if x1 > x0 and y1 > y0 else None

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return where points [n 3] are in the picture of the room camera: (x, y) [n 2], in [0, 1] within it."""
        in_camera = (points - self.data.cam_xpos[self._camera]) @ self.data.cam_xmat[self._camera].reshape(3, 3)
        scale = -in_camera[:, 2:] * np.tan(np.radians(self.model.cam_fovy[self._camera]) / 2)
        return 0.5 + in_camera[:, :2] / scale * [0.5, -0.5]

    def render(self, camera: str) -> np.ndarray:
        """Render one camera's picture, uint8 [h w 3]."""
        if self._renderer is None:
            self._renderer = Renderer(self.model, self._size)
        return self._renderer.render(self.data, camera)

    def close(self) -> None:
        """Free the memory of the pictures."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
