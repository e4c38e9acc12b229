"""Hands come where they should be, joints stay within their limits, and a base moves only when it may."""

import numpy as np
import pytest

from pilot.sims.world.bodies import body_names, load_body
from pilot.sims.world.ik import InverseKinematics, hand_rotation, pointing_down


def reachable_targets(body, ik, rng):
    """Poses around the one that the body is ready in, within 15 cm and a third of a turn."""
    targets = {}
    for arm in body.arms:
        pos, _ = ik.pose(body.ready, arm)
        down = pointing_down(rng.uniform(-0.8, 0.8), lean=rng.uniform(-0.1, 0.4))
        targets[arm.tcp] = (pos + rng.uniform(-0.12, 0.12, 3), down)
    return targets


@pytest.mark.parametrize("name", body_names())
def test_poses_in_reach_are_reached(name):
    body, rng = load_body(name), np.random.default_rng(0)
    ik = InverseKinematics(body)
    solved = [ik.solve(body.ready, reachable_targets(body, ik, rng), base=True) for _ in range(10)]
    assert sum(solution.is_close() for solution in solved) >= 9
    for solution in solved:
        assert (solution.q >= ik.lower).all() and (solution.q <= ik.upper).all()


def test_a_pose_out_of_reach_is_said_to_be():
    body = load_body("arm")
    solution = InverseKinematics(body).solve(body.ready, {"r_tcp": (np.array([2.0, 0, 0]), np.eye(3))})
    assert solution.distance > 1.0 and not solution.is_close()


def test_only_what_may_move_moves():
    body = load_body("mobile")
    ik = InverseKinematics(body)
    pos, rotation = ik.pose(body.ready, body.arms[0])
    far = {"r_tcp": (pos + [0.5, 0.3, 0.1], rotation)}
    still = ik.solve(body.ready, far).q
    assert np.array_equal(still[:3], body.ready[:3]) and still[3] != body.ready[3]
    assert ik.step(body.ready, far, dt=0.05, lift=False)[3] == body.ready[3]
    assert ik.solve(body.ready, far, base=True).distance < 0.01


def test_a_step_is_no_faster_than_the_joints():
    body = load_body("bimanual")
    ik = InverseKinematics(body)
    pos, rotation = ik.pose(body.ready, body.arms[1])
    change = ik.step(body.ready, {"r_tcp": (pos - [0, 0, 0.3], rotation)}, dt=0.02, speed=10) - body.ready
    assert 0 < np.abs(change).max() <= 1.6 * 0.02 + 1e-9
    assert not change[:6].any()  # the left arm has no target


def test_a_static_body_is_known_where_it_stands():
    body = load_body("arm")
    here, there = InverseKinematics(body), InverseKinematics(body, xy=(1.0, 2.0), yaw=np.pi / 2, height=0.5)
    (a, _), (b, turned) = here.pose(body.ready, body.arms[0]), there.pose(body.ready, body.arms[0])
    assert b == pytest.approx([1 - a[1], 2 + a[0], 0.5 + a[2]])
    assert there.root(body.ready)[0] == pytest.approx([1, 2, 0.5])
    assert turned[:, 0] == pytest.approx([0, 0, -1], abs=0.01)


def test_rotations_of_hands():
    down = pointing_down(0.3)
    assert down[:, 0] == pytest.approx([0, 0, -1]) and down @ down.T == pytest.approx(np.eye(3))
    sideways = hand_rotation(np.array([2.0, 0, 0]), np.array([1.0, 0, 1.0]))
    assert sideways[:, 0] == pytest.approx([1, 0, 0]) and sideways[:, 1] == pytest.approx([0, 0, 1])
    assert np.linalg.det(sideways) == pytest.approx(1)
