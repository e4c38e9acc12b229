"""Every file in `robots/` describes a robot that the pipeline can read, and whose commands come back unchanged."""

import numpy as np
import pytest
from contracts import examples

from pilot.data.pipeline import collate
from pilot.models.pi import pi05
from pilot.robots import load_robot, robot_names
from pilot.types import Robot


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


def test_actions_come_back_as_they_went_in(robot):
    config = pi05("debug", action_dim=32)
    pipeline = examples.pipeline(robot, config)
    sample = examples.sample(robot, horizon=config.action_horizon)
    row = pipeline.encode(sample)
    assert np.abs(row.actions[:, : robot.action_dim] - sample.actions).max() > 1e-3, "nothing was normalised"
    assert np.allclose(pipeline.decode_actions(row.actions, sample.state), sample.actions, atol=1e-5)


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
