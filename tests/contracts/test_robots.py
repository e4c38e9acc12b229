"""Every robot in `robots/` keeps the contract of robots, and the contract notices one that does not."""

import dataclasses

import numpy as np
import pytest

from pilot.contracts import examples
from pilot.contracts import robot as contract
from pilot.robots import load_robot, robot_names
from pilot.types import Gripper, Robot


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", robot_names())
def test_robot(name, check):
    check(load_robot(name))


@pytest.mark.parametrize("name", robot_names())
def test_it_is_called_like_its_file(name):
    assert load_robot(name).name == name


ARM = load_robot("ur5")
GRIPPER = Gripper(action="gripper", open=1.0, closed=1.0)


def changed(**changes: object) -> Robot:
    return dataclasses.replace(ARM, **changes)


@pytest.mark.parametrize(
    ("check", "robot", "message"),
    [
        (contract.check_vectors, changed(state_units=()), "state_units has 0 units for 7 dims"),
        (contract.check_vectors, changed(state_names=("gripper", *ARM.state_names[:-1])), "dim 0 of the state is"),
        (contract.check_cameras, changed(slots=(None, None)), "no model is shown any"),
        (contract.check_cameras, changed(slots=("left_wrist_0_rgb", "base_0_rgb")), "in this order"),
        (contract.check_grippers, changed(grippers=(GRIPPER,)), "is commanded 1.0 for open and closed"),
        (contract.check_grippers, changed(delta_mask=(True,) * 7), "clear its delta_mask"),
    ],
)
def test_a_broken_rule_is_named(check, robot, message):
    with pytest.raises(ValueError, match=message):
        check(robot)


@pytest.mark.parametrize(("open", "closed"), [(0.07, 0.01), (0.6, 0.05), (1000.0, 0.0)])
def test_the_ends_of_a_gripper_may_be_any_numbers(open, closed):
    robot = changed(grippers=(dataclasses.replace(ARM.grippers[0], open=open, closed=closed),))
    contract.check_grippers(robot)
    contract.check_adapter(robot)


def test_an_adapter_that_does_not_lead_back_is_named(monkeypatch):
    lossy = dataclasses.replace(contract.load_adapter(ARM), actions=lambda actions: np.round(actions))
    monkeypatch.setattr(contract, "load_adapter", lambda robot: lossy)
    with pytest.raises(ValueError, match=r"actions comes back 0\.\d+ from what it was"):
        contract.check_adapter(ARM)


def test_examples_are_random_but_reproducible():
    first, again, other = (examples.make_sample(ARM, horizon=4, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first.actions, again.actions) and not np.array_equal(first.actions, other.actions)
