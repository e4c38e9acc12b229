"""Rows that begin elsewhere and come back."""

import numpy as np
import pytest

from pilot.data.state_shift import SHARE, shift_state
from pilot.robots import load_robot
from pilot.types import Moment, Sample

ROBOT = load_robot("arm_ee")  # at 20 Hz, 0.8 s are 16 steps


def make_sample(grip: np.ndarray | float = 1.0) -> Sample:
    actions = np.zeros((50, 10), np.float32)
    actions[:, :3] = np.linspace(0.1, 0.4, 50)[:, None]
    actions[:, 9] = grip
    images = {camera: np.zeros((8, 8, 3), np.uint8) for camera in ROBOT.cameras}
    return Sample(images=images, prompt="", state=np.zeros(10, np.float32), actions=actions)


def shifted(sample: Sample, seed: int) -> bool:
    return shift_state(sample, ROBOT, np.random.default_rng(seed), deviation=0.06) is not sample


def test_commands_lead_from_elsewhere_to_where_they_led_before():
    sample = make_sample()
    seed = next(seed for seed in range(100) if shifted(sample, seed))
    moved = shift_state(sample, ROBOT, np.random.default_rng(seed), deviation=0.06)
    offset = moved.state - sample.state
    assert (np.abs(offset[:3]) > 0).all() and (offset[3:] == 0).all(), "only what is relative to the state"
    change = moved.actions - sample.actions
    np.testing.assert_allclose(change[0], offset * 15 / 16, atol=1e-6)
    assert (np.diff(np.abs(change[:16, 0])) < 0).all(), "nearer with every step"
    assert (change[15:] == 0).all()
    assert set(moved.images) == {"front"}, "the wrist's picture would show the hand where it was"
    assert (sample.state == 0).all(), "the sample itself stays"


def test_the_past_is_elsewhere_too():
    sample = make_sample()
    sample.past = Moment(images=dict(sample.images), state=np.full(10, 0.1, np.float32))
    seed = next(seed for seed in range(100) if shifted(sample, seed))
    moved = shift_state(sample, ROBOT, np.random.default_rng(seed), deviation=0.06)
    np.testing.assert_allclose(moved.past.state - sample.past.state, moved.state - sample.state, atol=1e-6)
    assert set(moved.past.images) == {"front"}


def test_half_of_the_rows_move_by_the_deviation():
    sample = make_sample()
    rows = [shift_state(sample, ROBOT, np.random.default_rng(seed), deviation=0.06) for seed in range(400)]
    moved = np.array([row.state[:3] for row in rows if row is not sample])
    assert len(moved) == pytest.approx(SHARE * 400, rel=0.2)
    assert moved.std() == pytest.approx(0.06, rel=0.1)


@pytest.mark.parametrize(("closes_at", "may_move"), [(5, False), (15, False), (30, True)])
def test_a_gripper_that_acts_before_the_hand_is_back_stays_where_it_is(closes_at, may_move):
    sample = make_sample(np.where(np.arange(50) < closes_at, 1.0, 0.0))
    assert any(shifted(sample, seed) for seed in range(20)) == may_move


def test_what_has_no_actions_stays_as_it_is():
    question = Sample(images={}, prompt="what is this?", answer="a cup")
    assert not any(shifted(question, seed) for seed in range(20))
