"""A person moves the hand, whatever the robot's actions are, and sees in the picture where a plan leads."""

import numpy as np
import pytest

from pilot.eval.suites import load_suite
from pilot.sims.base import ShowsMotion, Steerable

STEPS = 12


@pytest.fixture(params=["mobile", "mobile_ee", "arm"])
def env(request):
    env = load_suite(f"rooms-move@{request.param}").make_env()
    env.reset_to(3)
    yield env
    env.close()


def hand(env) -> np.ndarray:
    """The hand in the frame of the robot [3]."""
    controller = env.controller
    q = controller.measured()
    position, rotation = controller.ik.root(q)
    return rotation.T @ (controller.ik.pose(q, controller.body.arms[0])[0] - position)


def test_axes_move_the_hand_in_the_frame_of_the_robot(env):
    assert isinstance(env, Steerable) and set(env.steering_axes) >= {"hand right", "hand forward", "hand up"}
    for axis, change in (("hand up", (0, 0, 1)), ("hand right", (0, -1, 0))):
        before = hand(env)
        for _ in range(STEPS):
            env.advance(env.steer({axis: 1.0}, is_open=True))
        moved = hand(env) - before
        assert moved @ np.array(change) > 0.04, (axis, moved)
        assert np.abs(moved).argmax() == np.abs(change).argmax(), (axis, moved)


def test_without_a_push_the_robot_stays(env):
    before = hand(env)
    for _ in range(STEPS):
        env.advance(env.steer({}, is_open=True))
    assert np.linalg.norm(hand(env) - before) < 0.01


def test_the_gripper_follows(env):
    for is_open in (False, True):
        for _ in range(STEPS):
            env.advance(env.steer({}, is_open=is_open))
        assert bool(env.controller.measured_grip()[0] > 0.5) is is_open


def test_a_mobile_robot_drives_and_its_hand_comes_along(env):
    if not env.scene.body.is_mobile:
        pytest.skip("this robot stands")
    before, start = hand(env), env.controller.measured()[:3]
    for _ in range(STEPS):
        env.advance(env.steer({"drive forward": -1.0}, is_open=True))
    q = env.controller.measured()[:3]
    ahead = np.array([np.cos(start[2]), np.sin(start[2])])
    assert (q[:2] - start[:2]) @ ahead < -0.1
    assert np.linalg.norm(hand(env) - before) < 0.04


def test_the_drawn_path_is_where_the_hand_goes(env):
    assert isinstance(env, ShowsMotion)
    plan = np.stack([env.steer({}, is_open=True)] + [env.steer({"hand right": 1.0}, is_open=True)] * 2)
    (_, x0), (_, x1), *_ = env.path_of(plan)
    eye, centre = env.controller.ik.root(env.controller.measured())[1], env.world.site(env.scene.body.arms[0].tcp)[0]
    right = centre - 0.05 * eye[:, 1]
    shown = env.pictures.project(np.stack([centre, right]), camera=env.robot.cameras[0])
    assert np.sign(x1 - x0) == np.sign(shown[0, 1] - shown[0, 0])
    assert abs(x0 - shown[0, 0]) < 0.05, "a plan to stay is drawn at the hand"
