"""An action is decoded to the command that it was encoded from, whatever the body and however it is controlled."""

import numpy as np
import pytest

from pilot.robots import load_robot
from pilot.sims.world.bodies import body_names
from pilot.sims.world.control import BASE_AHEAD, JointCommand, opening_for
from pilot.sims.world.env import WorldEnv
from sims.world.small_scene import draw


@pytest.fixture
def make_env():
    envs = []

    def make(name, body=None):
        envs.append(WorldEnv(draw(body or name), robot=load_robot(name)))
        envs[-1].reset_to(0)
        return envs[-1]

    yield make
    for env in envs:
        env.close()


@pytest.mark.parametrize("suffix", ["", "_ee"])
@pytest.mark.parametrize("name", body_names())
def test_decode_gives_back_what_was_encoded(make_env, name, suffix):
    controller, rng = make_env(name + suffix, name).controller, np.random.default_rng(3)
    for _ in range(20):
        q = controller.command.q + rng.uniform(-0.01, 0.01, len(controller.command.q))
        command = JointCommand(
            np.clip(q, controller.ik.lower, controller.ik.upper), rng.uniform(0, 1, 2)[: len(controller.body.arms)]
        )
        action = controller.encode(command)
        again = controller.decode(action)
        assert action.dtype == np.float32 and action.shape == (controller.robot.action_dim,)
        assert np.abs(again.q - command.q).max() < (2e-7 if not suffix else 3e-4)
        assert again.grip == pytest.approx(command.grip, abs=1e-6)
        controller.apply(again)


@pytest.mark.parametrize("name", ["arm", "mobile_bimanual"])
def test_nonsense_is_refused(make_env, name):
    env = make_env(name)
    good = env.controller.encode(env.controller.command)
    for bad in (good[:-1], good[None], np.full_like(good, np.nan), np.full_like(good, np.inf)):
        with pytest.raises(ValueError, match=f"an action of '{name}' is {len(good)} finite numbers"):
            env.advance(bad)


@pytest.mark.parametrize("name", ["arm", "mobile", "mobile_ee"])
def test_wild_actions_do_no_harm(make_env, name):
    env = make_env(name, name.removesuffix("_ee"))
    rng, info = np.random.default_rng(0), {}
    for _ in range(40):
        info = env.advance(rng.uniform(-50, 50, env.robot.action_dim))
    measured, command = env.controller.measured(), env.controller.command.q
    assert not info["broken"] and np.abs(measured - command).max() < 0.6
    assert (measured > env.controller.ik.lower - 0.05).all() and (measured < env.controller.ik.upper + 0.05).all()


def test_a_base_drives_in_its_own_frame(make_env):
    controller = make_env("mobile").controller
    q = controller.command.q.copy()
    q[:3] = (-0.5, 0, np.pi / 2)
    controller.reset(q)
    action = controller.encode(controller.command)
    assert not action[:3].any()
    for _ in range(20):
        controller.apply(controller.decode(action + np.eye(len(action))[0] * 0.3))
    moved = controller.measured()[:2] - q[:2]
    assert abs(moved[0]) < 0.01 and 0.2 < moved[1] < 0.31
    assert controller.state()[:3] == pytest.approx([0.3, 0, 0], abs=0.02)


def test_a_blocked_base_is_not_commanded_away(make_env):
    controller = make_env("mobile").controller
    forward = controller.encode(controller.command) + np.eye(controller.robot.action_dim, dtype=np.float32)[0] * 0.5
    for _ in range(60):
        controller.apply(controller.decode(forward))
    ahead = controller.command.q[0] - controller.measured()[0]
    assert controller.measured()[0] < 0.25  # the edge of the table stops the column
    assert ahead <= BASE_AHEAD + 0.06


def test_grippers_open_as_far_as_asked(make_env):
    env = make_env("bimanual")
    controller = env.controller
    for width in (0.0, 0.04, 0.09):
        command = JointCommand(controller.command.q, np.array([opening_for(width), 1.0]))
        for _ in range(60):
            controller.apply(command)
        assert controller.measured_grip() == pytest.approx([width / 0.09, 1.0], abs=0.03)
        assert controller.state()[[6, 13]] == pytest.approx([width / 0.09, 1.0], abs=0.03)


def test_a_recorded_action_replays_what_was_done(make_env):
    ends, actions = [], []
    for replay in (False, True):
        env = make_env("arm")
        controller, rng = env.controller, np.random.default_rng(1)
        for t in range(15):
            if not replay:
                q = controller.command.q + rng.uniform(-0.03, 0.03, 6)
                actions.append(controller.encode(JointCommand(q, np.array([0.5]))))
            env.advance(actions[t])
        ends.append(env.world.data.qpos.copy())
    assert np.array_equal(*ends)
