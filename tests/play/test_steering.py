"""From keys to actions for robots whose simulator has no axes of its own: each dim is an axis."""

from types import SimpleNamespace

import numpy as np
import pytest

from pilot.play.steering import Steering
from pilot.robots import load_robot


def steering_of(name):
    return Steering(SimpleNamespace(robot=load_robot(name)))


def test_positions_go_on_from_where_the_robot_is():
    steering = steering_of("homes")
    assert steering.axes == ("x", "y", "z")
    steering.begin(np.array([0.1, 0.2, 0.3, 1.0, 0.0], np.float32), last=np.array([0.5, 0.5, 0.5, 1.0]))
    assert not steering.is_open, "suction stays on"
    assert np.allclose(steering.action(), [0.1, 0.2, 0.3, 1.0])
    steering.push({"x": 1.0, "z": -0.5}, is_open=True)
    for _ in range(10):  # a second
        action = steering.action()
    assert np.allclose(action, [0.1 + 0.3, 0.2, 0.3 - 0.15, 0.0])
    steering.push({})
    assert np.allclose(steering.action(), action), "without a push it stays"


def test_a_target_that_ran_ahead_is_brought_back():
    steering = steering_of("homes")
    state = np.zeros(5, np.float32)
    steering.begin(state, last=None)
    steering.push({"y": 1.0})
    for _ in range(30):
        steering.action()
        steering.settle(state)
    assert 0 < steering.target[1] <= 0.07


def test_steps_are_zero_while_nothing_is_pushed():
    steering = steering_of("libero")
    state = np.zeros(load_robot("libero").state_dim, np.float32)
    steering.begin(state, last=np.full(7, 0.7))
    assert np.allclose(steering.action()[:6], 0.0)
    first = steering.axes[0]
    steering.push({first: -1.0})
    assert steering.action()[0] == -0.5 and np.allclose(steering.action()[1:6], 0.0)


@pytest.mark.parametrize(
    ("axes", "words"), [({"w": 1}, "it has x, y, z"), ({"x": 1.5}, "−1 to 1"), ({"x": True}, "−1 to 1")]
)
def test_axes_and_pushes_are_checked(axes, words):
    steering = steering_of("homes")
    steering.push({"x": 0.5})
    with pytest.raises(ValueError, match=words):
        steering.push(axes)
    assert steering.held == {"x": 0.5}
