"""Boxes in pictures, from the simulator's state."""

import numpy as np
import pytest

from pilot.sims.experts.pictures import find_box
from pilot.sims.gl import mujoco


@pytest.fixture(scope="module")
def view():
    """A camera 1 m above the origin that sees 1 m to each side; x is right in its picture, y is up."""
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><camera name='top' pos='0 0 1' fovy='90'/><geom size='.1'/></worldbody></mujoco>"
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return {"model": model, "data": data, "camera": "top"}


SQUARE = np.array([[0.2, 0.4, 0.0], [0.6, 0.8, 0.0]])


def test_a_box_is_where_the_camera_sees_the_points(view):
    np.testing.assert_allclose(find_box(SQUARE, **view), (0.1, 0.6, 0.3, 0.8))
    np.testing.assert_allclose(find_box(SQUARE, **view, mirrored=True), (0.1, 0.2, 0.3, 0.4))
    np.testing.assert_allclose(find_box(SQUARE, **view, aspect=2.0), (0.1, 0.55, 0.3, 0.65))


def test_a_box_ends_at_the_edge_of_the_picture(view):
    np.testing.assert_allclose(find_box(SQUARE + [0.6, 0, 0], **view), (0.1, 0.9, 0.3, 1.0))


def test_what_is_not_in_the_picture_has_no_box(view):
    assert find_box(SQUARE + [3, 0, 0], **view) is None
    assert find_box(SQUARE + [0, 0, 2], **view) is None
