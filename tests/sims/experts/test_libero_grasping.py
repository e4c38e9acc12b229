"""Where a hand can close its fingers on a thing, from points on its surface alone."""

import numpy as np
import pytest

from pilot.sims.experts.libero.grasping import CLEAR, DEEPEST, TIP, WIDEST, find_top_grasps

NOTHING = np.zeros((0, 3))


def box(centre, half, *, spacing=0.006):
    """Points on the surface of a box [n 3]."""
    axes = [np.linspace(-h, h, max(2, int(2 * h / spacing) + 1)) for h in half]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return grid[(np.abs(np.abs(grid) - half) < 1e-9).any(axis=1)] + centre


def bowl(*, radius=0.053, height=0.05, wall=0.003):
    """Points on the wall of an upright pot about the origin [n 3]."""
    angle, z, r = np.meshgrid(np.linspace(0, 2 * np.pi, 90), np.linspace(0, height, 9), [radius - wall, radius])
    return np.stack([r * np.cos(angle), r * np.sin(angle), z], axis=-1).reshape(-1, 3)


def test_a_carton_is_gripped_across_its_narrow_side():
    grasp = find_top_grasps(box((0.1, 0.2, 0.07), (0.045, 0.02, 0.07)), others=NOTHING, ground=0.0, yaw=0.0)[0]
    assert np.isclose(grasp.yaw, np.pi / 2) and np.isclose(grasp.width, 0.04)
    np.testing.assert_allclose(grasp.pos, [0.1, 0.2, 0.14 - DEEPEST + TIP], atol=0.005)


def test_fingers_stay_above_the_ground():
    grasp = find_top_grasps(box((0, 0, 0.009), (0.04, 0.02, 0.009)), others=NOTHING, ground=0.0, yaw=0.0)[0]
    assert np.isclose(grasp.pos[2], CLEAR + TIP)


def test_a_bowl_is_gripped_at_its_rim():
    grasps = find_top_grasps(bowl(), others=NOTHING, ground=0.0, yaw=0.0)
    assert grasps and all(grasp.width < 0.02 for grasp in grasps)
    assert 0.045 < np.hypot(*grasps[0].pos[:2]) < 0.055


def test_what_is_too_wide_is_not_gripped():
    assert find_top_grasps(box((0, 0, 0.05), (WIDEST, WIDEST, 0.05)), others=NOTHING, ground=0.0, yaw=0.0) == []


@pytest.mark.parametrize("height", [0.14, 0.12])
def test_no_finger_goes_where_something_stands(height):
    carton = box((0, 0, 0.07), (0.02, 0.02, 0.07))
    neighbour = box((0.05, 0, height / 2), (0.008, 0.05, height / 2))
    free, crowded = (find_top_grasps(carton, others=o, ground=0.0, yaw=0.0) for o in (NOTHING, neighbour))
    assert any(grasp.yaw == 0 and grasp.pos[2] - TIP < height for grasp in free)
    beside = [grasp for grasp in crowded if grasp.yaw == 0]
    assert all(grasp.pos[2] - TIP >= height for grasp in beside)
    if height == 0.14:
        assert crowded[0].yaw > 0.5, "the hand turns"


def test_turning_costs():
    square = box((0, 0, 0.05), (0.02, 0.02, 0.05))
    assert find_top_grasps(square, others=NOTHING, ground=0.0, yaw=0.1)[0].yaw == 0
    assert np.isclose(find_top_grasps(square, others=NOTHING, ground=0.0, yaw=np.pi / 2)[0].yaw, np.pi / 2)
