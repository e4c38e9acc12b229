"""Every file in `robots/` describes a robot that the pipeline can read, and whose commands come back unchanged."""

import dataclasses
import json

import numpy as np
import pytest
from contracts import examples

from pilot.data.pipeline import collate
from pilot.models.pi import pi05
from pilot.robots import load_adapter, load_robot, robot_names
from pilot.types import Robot

OPENPI_SLOTS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")


@pytest.fixture(params=robot_names())
def robot(request) -> Robot:
    return load_robot(request.param)


def test_it_is_called_like_its_file(robot):
    assert robot.name in robot_names()


def test_it_is_complete(robot):
    assert robot.cameras and robot.control_hz > 0
    assert len(set(robot.state_names)) == robot.state_dim and len(set(robot.action_names)) == robot.action_dim
    relative = [i for i, is_delta in enumerate(robot.delta_mask) if is_delta]
    assert all(robot.action_names[i] == robot.state_names[i] for i in relative), "a delta is relative to the same dim"
    assert len(robot.state_units) == robot.state_dim and len(robot.action_units) == robot.action_dim


def test_each_slot_is_one_cameras_and_wrists_stand_in_wrist_slots(robot):
    shown = [robot.slot(camera) for camera in robot.cameras if robot.slot(camera) is not None]
    assert shown and len(set(shown)) == len(shown)
    if robot.slots:
        assert set(shown) <= set(OPENPI_SLOTS) and shown == sorted(shown, key=OPENPI_SLOTS.index)
        for camera in robot.cameras:
            assert robot.slot(camera) is None or ("wrist" in robot.slot(camera)) == (camera in robot.wrist_cameras)


def test_its_grippers_have_two_ends(robot):
    for gripper in robot.grippers:
        ends = np.array([gripper.open, gripper.closed, (gripper.open + gripper.closed) / 2, 2 * gripper.open + 9])
        assert gripper.open != gripper.closed and gripper.state_open != gripper.state_closed
        assert gripper.openness(ends)[:3].tolist() == [1.0, 0.0, 0.5] and 0 <= gripper.openness(ends)[3] <= 1
        assert not robot.delta_mask[robot.action_names.index(gripper.action)], "grippers are learned as they are"


def test_it_survives_the_way_through_a_checkpoint(robot):
    assert Robot.from_dict(json.loads(json.dumps(dataclasses.asdict(robot)))) == robot


def test_its_adapter_goes_back(robot):
    """State and actions of its own range, one or many."""
    adapter, sample = load_adapter(robot), examples.sample(robot, horizon=20)
    for vector, there, back in (
        (sample.state, adapter.state, adapter.state_inverse),
        (sample.actions, adapter.actions, adapter.actions_inverse),
    ):
        before = vector.copy()
        np.testing.assert_allclose(back(there(vector)), vector, atol=2e-5)
        np.testing.assert_array_equal(vector, before), "an adapter leaves what it is given alone"
        assert there(vector).dtype == vector.dtype


def test_actions_come_back_as_they_went_in(robot):
    config = pi05("debug", action_dim=32)
    pipeline = examples.pipeline(robot, config)
    sample = examples.sample(robot, horizon=config.action_horizon)
    row = pipeline.encode(sample)
    assert np.abs(row.actions[:, : robot.action_dim] - sample.actions).max() > 1e-3, "nothing was normalised"
    assert np.allclose(pipeline.decode_actions(row.actions, sample.state), sample.actions, atol=2e-5)


def test_what_is_padded_is_masked(robot):
    config = pi05("debug", action_dim=32)
    sample = examples.sample(robot, horizon=config.action_horizon)
    batch = collate([examples.pipeline(robot, config).encode(sample)])
    expected = np.zeros((config.action_horizon, 32), bool)
    expected[:-1, : robot.action_dim] = True
    assert np.array_equal(batch.action_mask[0].numpy(), expected)


def test_a_wrong_camera_is_named(robot):
    pipeline = examples.pipeline(robot, pi05("debug", action_dim=32))
    sample = examples.sample(robot, horizon=6)
    sample.images["periscope"] = sample.images[robot.cameras[0]]
    with pytest.raises(ValueError, match="periscope"):
        pipeline.encode(sample)
