"""Pictures of a world, and where in them things are.

The GL context belongs to the process and stays (`sims/gl.py`); what a new model costs is a few milliseconds, with its
first picture. What is drawn is what the time of a picture goes to, so geoms out of a camera's sight are left out.
"""

import math

import numpy as np

from pilot.sims.base import Box
from pilot.sims.gl import Renderer, mujoco
from pilot.sims.world.physics import Physics, rotation_of
from pilot.sims.world.scene import Fixture

_CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
_DIRECTIONS = np.array([(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if x or y or z], float)
_UNSEEN, _HIDDEN = 3, 5  # geoms of groups from 3 on are not drawn
_SEEN = np.array([1, 1, 1, 0, 0, 0], np.uint8)
_RAYS, _FAR = 8, 50.0  # rays to a body, and how far they go [m]
_DOT = 0.8  # pixels: what has a smaller radius is not drawn
_NEAR = 0.02  # what is closer to a camera than this is behind it [m]
_SMALLEST = 0.004  # sides of a box that is worth naming, as shares of the picture


class Pictures:
    """The cameras of one world, `size` pixels on a side. Buffers are made with the first picture."""

    def __init__(self, world: Physics, size: int):
        self.world, self.size = world, size
        self._renderer: Renderer | None = None
        self._groups = world.model.geom_group.copy()
        self._has_end = world.model.geom_rbound > 0  # planes have none

    def render(self, camera: str) -> np.ndarray:
        """Render the picture of one camera, uint8 [h w 3]."""
        model = self.world.model
        if self._renderer is None:
            self._renderer = Renderer(model, self.size, max_geoms=model.ngeom + 8)
        model.geom_group[self._is_out_of_sight(camera)] = _HIDDEN
        picture = self._renderer.render(self.world.data, camera)
        model.geom_group[:] = self._groups
        return picture

    def close(self) -> None:
        """Free the buffers."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def box_of(self, body: str, *, camera: str) -> Box | None:
        """Return the box around a body, and what is jointed to it, in a camera's picture.

        None if it is out of the picture, or nothing of it is to be seen: in a closed drawer, behind a door.
        """
        box = self._box(body_corners(self.world, body), camera)
        return box if box and self.is_visible(body, camera=camera) else None

    def is_visible(self, body: str, *, camera: str) -> bool:
        """Return whether a ray from the camera to the middle of one of a body's geoms meets the body first."""
        model, data = self.world.model, self.world.data
        eye = data.cam_xpos[self.world.id_of("camera", camera)]
        geoms = self._seen_geoms(body)
        hits, distances = np.full(len(geoms), -1, np.int32), np.zeros(len(geoms))
        rays = (data.geom_xpos[geoms] - eye).ravel()
        mujoco.mj_multiRay(model, data, eye, rays, _SEEN, True, -1, hits, distances, None, len(geoms), _FAR)
        own = set(model.geom_bodyid[geoms])
        return any(model.geom_bodyid[hit] in own for hit in hits if hit >= 0)

    def _seen_geoms(self, body: str) -> np.ndarray:
        """Return some of the geoms that are drawn of a body, and of what is jointed to it."""
        memo, model = self.world.memo, self.world.model
        if ("seen", body) not in memo:
            body_corners(self.world, body)
            parts = [part for part, _ in memo["corners", body]]
            geoms = np.flatnonzero(np.isin(model.geom_bodyid, parts) & (self._groups < _UNSEEN))
            memo["seen", body] = geoms[:: max(1, len(geoms) // _RAYS)][:_RAYS]
        return memo["seen", body]

    def box_of_fixture(self, fixture: Fixture, *, camera: str) -> Box | None:
        """Return the box around a fixture's region in a camera's picture."""
        points = np.asarray(fixture.centre) + _CORNERS * np.asarray(fixture.half)
        return self._box(points @ self.world.rot(fixture.body).T + self.world.pos(fixture.body), camera)

    def box_of_points(self, points: np.ndarray, *, camera: str) -> Box | None:
        """Return the box around points [n 3] of the world in a camera's picture; None if it is out of it."""
        return self._box(points, camera)

    def project(self, points: np.ndarray, *, camera: str) -> np.ndarray:
        """Return where points [n 3] are in a camera's picture: across and down, in [0, 1] within it, and how far [3 n].

        What is behind the camera is taken to be just before it.
        """
        data, number = self.world.data, self.world.id_of("camera", camera)
        x, y, z = ((points - data.cam_xpos[number]) @ data.cam_xmat[number].reshape(3, 3)).T
        scale = 0.5 / math.tan(math.radians(self.world.model.cam_fovy[number]) / 2) / np.maximum(-z, _NEAR)
        return np.stack([0.5 + x * scale, 0.5 - y * scale, -z])

    def _is_out_of_sight(self, camera: str) -> np.ndarray:
        """Return of each geom whether the sphere around it is beside or behind a picture, or less than a dot in it."""
        model, data, number = self.world.model, self.world.data, self.world.id_of("camera", camera)
        x, y, z = ((data.geom_xpos - data.cam_xpos[number]) @ data.cam_xmat[number].reshape(3, 3)).T
        radius, slope = model.geom_rbound, math.tan(math.radians(model.cam_fovy[number]) / 2)
        edge = radius * math.sqrt(1 + slope**2) - z * slope
        is_seen = (z < radius) & (np.abs(x) < edge) & (np.abs(y) < edge)
        is_seen &= radius * self.size > -2 * _DOT * slope * z
        return ~is_seen & self._has_end

    def _box(self, points: np.ndarray, camera: str) -> Box | None:
        """Return the clipped box (y0, x0, y1, x1) around points [n 3]."""
        across, down, ahead = self.project(points, camera=camera)
        if ahead.max() < _NEAR:
            return None
        x0, x1 = max(float(across.min()), 0.0), min(float(across.max()), 1.0)
        y0, y1 = max(float(down.min()), 0.0), min(float(down.max()), 1.0)
        return (y0, x0, y1, x1) if min(x1 - x0, y1 - y0) > _SMALLEST else None


def body_corners(world: Physics, body: str) -> np.ndarray:
    """Return the outermost corners [n 3] of the boxes around the geoms of a body and of what is jointed to it."""
    if ("corners", body) not in world.memo:
        world.memo["corners", body] = _local_corners(world, world.id_of("body", body))
    parts = world.memo["corners", body]
    data = world.data
    return np.concatenate([corners @ data.xmat[part].reshape(3, 3).T + data.xpos[part] for part, corners in parts])


def _local_corners(world: Physics, body: int) -> list[tuple[int, np.ndarray]]:
    """Return of a body, and each of its children, the outermost corners of the boxes around its geoms, in its frame."""
    model, parts = world.model, []
    own = np.zeros(model.nbody, bool)
    for part in range(body, model.nbody):  # parents come before their children
        own[part] = part == body or own[model.body_parentid[part]]
        geoms = np.flatnonzero(model.geom_bodyid == part)
        if own[part] and len(geoms):
            boxes = model.geom_aabb[geoms]
            local = boxes[:, None, :3] + _CORNERS * boxes[:, None, 3:]
            turned = np.stack([corners @ rotation_of(quat).T for corners, quat in zip(local, model.geom_quat[geoms])])
            corners = (turned + model.geom_pos[geoms, None]).reshape(-1, 3)
            parts.append((part, corners[np.unique((corners @ _DIRECTIONS.T).argmax(axis=0))]))
    return parts
