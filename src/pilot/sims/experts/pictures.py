"""Where things are in the pictures of a camera, from the simulator's state alone: nothing is drawn."""

from typing import Any

import numpy as np

from pilot.sims.base import Box


def find_box(
    points: np.ndarray, *, model: Any, data: Any, camera: str, aspect: float = 1.0, mirrored: bool = False
) -> Box | None:
    """Return the box around points [n 3] in a camera's picture, whether something hides them or not.

    `aspect`: the picture's width by its height; `mirrored`: its columns are turned. None if nothing is in the picture.
    """
    number = model.camera(camera).id
    seen = (points - data.cam_xpos[number]) @ data.cam_xmat[number].reshape(3, 3)  # x right, y up, z back
    seen = seen[seen[:, 2] < 0]
    if not len(seen):
        return None
    scale = 0.5 / np.tan(np.deg2rad(model.cam_fovy[number]) / 2)
    y = 0.5 + scale * seen[:, 1] / seen[:, 2]
    x = 0.5 - scale / aspect * seen[:, 0] / seen[:, 2]
    x = 1 - x if mirrored else x
    y0, x0, y1, x1 = np.clip([y.min(), x.min(), y.max(), x.max()], 0, 1)
    return (float(y0), float(x0), float(y1), float(x1)) if y0 < y1 and x0 < x1 else None
