"""What the robots of this repository declare that may be commanded, against the bodies that have to bear it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pilot.eval.suites import load_suite
from pilot.infer.safety import MotionFilter
from pilot.robots import limits_of, load_robot, robot_names
from pilot.sims.gl import mujoco
from pilot.sims.homes.mjcf import LIMITS as RAILS
from pilot.sims.world.bodies import load_body
from pilot.sims.world.bodies.base import READY
from pilot.sims.world.control import BASE_TOP_SPEED
from pilot.types import MotionLimits, Robot


def test_all_robots_declare_limits_that_a_filter_takes(monkeypatch):
    monkeypatch.setattr("pilot.robots._from_files", {})  # another test may have read a robot of its own
    declared = {name: load_robot(name) for name in robot_names()}
    assert {name for name, robot in declared.items() if robot.limits is None} == set()
    for robot in declared.values():
        assert robot.limits is not None
        MotionFilter(robot.limits, units=robot.action_units, hz=robot.control_hz)
        assert Robot.from_dict(robot.to_dict()) == robot


@pytest.mark.parametrize("name", ["bridge", "google_robot", "droid"])
def test_steps_may_change_from_one_end_of_their_range_to_the_other(name):
    robot = load_robot(name)
    assert robot.limits is not None
    limiter = MotionFilter(robot.limits, units=robot.action_units, hz=robot.control_hz)
    low, high = np.array(robot.limits.low), np.array(robot.limits.high)
    for command in (low, high, low, high):
        passed = limiter.apply(command)
        np.testing.assert_allclose(passed.action, command, atol=1e-12)
        assert passed.reasons == ()
    assert limiter.apply(3 * high).reasons


@pytest.mark.parametrize("name", ["arm", "bimanual", "mobile", "mobile_bimanual"])
def test_the_ranges_of_our_bodies_are_those_of_their_joints(name):
    body, robot = load_body(name), load_robot(name)
    model, limits = body.robot_model(), robot.limits
    for arm in body.arms:
        prefix = f"{arm.side}_" if len(body.arms) > 1 else ""
        for number, joint in enumerate(arm.joints, start=1):
            dim = robot.action_names.index(f"{prefix}joint_{number}")
            assert model.joint(joint).range.tolist() == pytest.approx([limits.low[dim], limits.high[dim]])
    if body.is_mobile:
        assert np.array(limits.high[:3]) == pytest.approx(BASE_TOP_SPEED)
        assert model.joint("lift").range.tolist() == pytest.approx([limits.low[3], limits.high[3]])


@pytest.mark.parametrize("name", ["arm", "bimanual", "mobile", "mobile_bimanual"])
def test_the_hands_of_our_bodies_are_where_their_workspaces_say(name):
    """Against MuJoCo's kinematics; the arm's frame is that of its mount where it does not drive."""
    body, limits, rng = load_body(name), load_robot(name).limits, np.random.default_rng(0)
    model, actions = body.robot_model(), rng.uniform(limits.low, limits.high, (5, len(limits.low)))
    assert len(limits.workspaces) == len(body.arms)
    data = mujoco.MjData(model)
    arms_first = 4 if body.is_mobile else 0
    for action in actions:
        joints = np.concatenate([action[arms_first + 7 * i :][:6] for i in range(len(body.arms))])
        data.qpos[:] = [0, 0, 0, action[3], *joints] if body.is_mobile else joints
        mujoco.mj_kinematics(model, data)
        for workspace, arm in zip(limits.workspaces, body.arms, strict=True):
            mount = np.zeros(3) if body.is_mobile else np.array(arm.mount)
            assert workspace.place(action) + mount == pytest.approx(data.site(arm.tcp).xpos, abs=1e-6)
    places = limits.workspaces[0].place(actions)
    assert places.shape == (5, 3) and places[2] == pytest.approx(limits.workspaces[0].place(actions[2]))


def test_only_one_gripper_is_commanded_by_force():
    pressing = {name for name in robot_names() if (limits := load_robot(name).limits) and any(limits.effort)}
    assert pressing == {"metaworld"}


def test_the_gantry_may_be_asked_for_every_place_that_it_reaches():
    limits = load_robot("homes").limits
    assert (np.array(limits.low[:3]) <= RAILS[0]).all() and (np.array(limits.high[:3]) >= RAILS[1]).all()


@pytest.mark.parametrize("scene", range(3))
def test_the_gantrys_expert_is_never_touched_however_it_is_pushed_about(scene):
    suite = load_suite("homes-l1")
    env, limits = suite.make_env(image_size=16), load_robot("homes").limits
    motion = MotionFilter(limits, units=suite.robot.action_units, hz=suite.robot.control_hz)
    env.reset_to(scene)
    rng = np.random.default_rng(scene)
    expert, disturbance = suite.expert(env, rng), suite.disturb(env, rng)
    motion.reset(env.state()[:4])
    for _ in range(40):
        command = np.asarray(expert.act(), np.float32)
        assert motion.apply(command).reasons == ()
        env.advance(disturbance.apply(env.state(), command)[0])
    env.close()


@pytest.mark.parametrize("name", ["arm", "bimanual", "mobile", "mobile_bimanual"])
def test_the_fastest_joints_of_an_expert_pass(name):
    """Inverse kinematics moves joints at `JOINT_SPEED` times 4 at most; grippers open and stop bases within a tick."""
    robot = load_robot(name)
    motion = MotionFilter(robot.limits, units=robot.action_units, hz=robot.control_hz)
    still = np.zeros(robot.action_dim)
    for dim, joint in enumerate(robot.action_names):
        if "joint_" in joint:  # above what it works on
            still[dim] = READY[int(joint[-1]) - 1]
    if "lift" in robot.action_names:
        still[robot.action_names.index("lift")] = 0.5
    motion.reset(still)
    fast = still.copy()
    for dim, (joint, unit) in enumerate(zip(robot.action_names, robot.action_units, strict=True)):
        fast[dim] += {"rad": 6.4 / robot.control_hz, "0 to 1": 1.0, "m": 0.02}.get(unit, 0.7)
        assert joint
    assert motion.apply(fast).reasons == () and motion.apply(still).reasons == ()


def test_a_checkpoint_that_is_older_than_the_limits_gets_those_of_the_robots_file():
    arm = load_robot("arm")
    assert limits_of(replace(arm, limits=None)) == arm.limits
    own = replace(arm.limits, on_violation="stop")
    assert limits_of(replace(arm, limits=own)) is own
    assert limits_of(replace(arm, limits=None, action_units=("deg",) * 6 + ("1",))) is None, "other numbers"
    assert limits_of(replace(arm, limits=None, name="my_arm")) is None
    assert MotionLimits.from_dict(json.loads(json.dumps(arm.limits.to_dict()))) == arm.limits
