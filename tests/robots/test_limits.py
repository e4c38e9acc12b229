"""What the robots of this repository declare that may be commanded, against the bodies that have to bear it."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from pilot.infer.safety import MotionFilter
from pilot.robots import limits_of, load_robot, robot_names
from pilot.sims.homes.mjcf import LIMITS as RAILS
from pilot.sims.world.bodies import load_body
from pilot.sims.world.control import BASE_TOP_SPEED
from pilot.types import MotionLimits, Robot

UNKNOWN = {"bridge", "google_robot"}  # whose makers' numbers we do not know for certain


def test_all_robots_but_two_declare_limits_that_a_filter_takes(monkeypatch):
    monkeypatch.setattr("pilot.robots._from_files", {})  # another test may have read a robot of its own
    declared = {name: load_robot(name) for name in robot_names()}
    assert {name for name, robot in declared.items() if robot.limits is None} == UNKNOWN
    for robot in declared.values():
        if robot.limits is not None:
            MotionFilter(robot.limits, units=robot.action_units, hz=robot.control_hz)
            assert Robot.from_dict(robot.to_dict()) == robot


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


def test_the_gantry_may_be_asked_for_every_place_that_it_reaches():
    limits = load_robot("homes").limits
    assert (np.array(limits.low[:3]) <= RAILS[0]).all() and (np.array(limits.high[:3]) >= RAILS[1]).all()


@pytest.mark.parametrize("name", ["arm", "bimanual", "mobile", "mobile_bimanual"])
def test_the_fastest_joints_of_an_expert_pass(name):
    """Inverse kinematics moves joints at `JOINT_SPEED` times 4 at most; grippers open and stop bases within a tick."""
    robot = load_robot(name)
    motion = MotionFilter(robot.limits, units=robot.action_units, hz=robot.control_hz)
    still = np.zeros(robot.action_dim)
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
    assert MotionLimits.from_dict(asdict(arm.limits)) == arm.limits
