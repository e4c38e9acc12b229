"""Bodies stand, hold their pose, and are the same joints in a world and in the model that kinematics is computed on."""

import numpy as np
import pytest

from pilot.robots import robot_names
from pilot.sims.world.bodies import body_names, load_body
from pilot.sims.world.env import WorldEnv
from sims.world.small_scene import draw

BODIES = body_names()


def test_the_folder_is_the_list():
    assert BODIES == ["arm", "bimanual", "mobile", "mobile_bimanual"]
    assert {*BODIES, *(f"{name}_ee" for name in BODIES)} <= set(robot_names())


@pytest.mark.parametrize("name", BODIES)
def test_a_body_fits_its_robot(name):
    body = load_body(name)
    assert body.name == body.robot.name == name
    assert body.is_mobile == ("base_vx" in body.robot.state_names)
    cameras = {view.name for view in body.views} | {arm.camera for arm in body.arms}
    assert cameras == set(body.robot.cameras)
    assert len(body.arms) == len(body.robot.grippers)
    base = 1 if body.is_mobile else 0  # the base's velocities stand for its joints in the robot's vectors
    assert body.robot.state_dim == len(body.joints) + len(body.arms)
    assert body.joints[:base] == ("base_x",)[:base]
    assert load_body(f"{name}_ee") is body


def test_an_unknown_body_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="unknown body 'bimanul'; did you mean 'bimanual'"):
        load_body("bimanul")


@pytest.mark.parametrize("name", BODIES)
def test_it_holds_its_pose_and_its_pictures_show_the_table(name):
    env = WorldEnv(draw(name), robot=load_body(name).robot)
    observation, info = env.reset_to(0)
    for _ in range(round(env.robot.control_hz)):
        info = env.advance(env.controller.encode(env.controller.command))
    assert np.abs(env.controller.measured() - env.controller.command.q).max() < 0.01
    assert info["collisions"] == 0 and not info["broken"] and env.redrawn == 0
    for camera, picture in observation["images"].items():
        assert picture.shape == (64, 64, 3) and len(np.unique(picture)) > (1 if camera == "back" else 10), camera
    env.close()


@pytest.mark.parametrize("name", ["arm", "mobile"])
def test_cameras_of_two_robots_of_one_make_differ_a_little(name):
    env = WorldEnv(draw(name), robot=load_body(name).robot)
    eyes = []
    for scene in (0, 1, 0):
        env.reset_to(scene)
        eyes.append(env.world.data.cam_xpos[env.world.id_of("camera", "front")].copy())
    assert np.array_equal(eyes[0], eyes[2]) and 0 < np.linalg.norm(eyes[0] - eyes[1]) < 0.1
    env.close()
