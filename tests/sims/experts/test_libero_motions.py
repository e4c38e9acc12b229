"""The motions of LIBERO's hand, on a hand that goes where it is told."""

import numpy as np
import pytest

from pilot.sims.experts.libero.motions import (
    LiberoHand,
    Missed,
    over,
    pointing_down,
    reach,
    set_grip,
    turn_between,
    turn_onto,
)
from pilot.sims.experts.libero.skills import nearest_yaw


class StubScene:
    """A hand in empty space: it moves by a share of each action; its fingers close on something 3 cm wide."""

    def __init__(self, *, share=1.0):
        self.pos, self.rotation, self.share, self.fingers, self.path = np.zeros(3), pointing_down(0.5), share, 0.08, []

    def hand(self):
        return self.pos.copy(), self.rotation.copy()

    def gap(self):
        return self.fingers

    def play(self, motion):
        for action in motion:
            assert np.abs(action).max() <= 1
            self.pos = self.pos + 0.05 * self.share * action[:3]
            self.rotation = rotation_about(0.5 * action[3:6]) @ self.rotation
            self.fingers = np.clip(self.fingers - 0.02 * action[6], 0.03, 0.08)
            self.path.append(self.pos)


def rotation_about(turn):
    angle = np.linalg.norm(turn)
    if angle == 0:
        return np.eye(3)
    x, y, z = turn / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def test_a_hand_reaches_a_pose():
    scene = StubScene(share=0.5)
    hand = LiberoHand(scene, speed=0.8)
    scene.play(reach(hand, (np.array([0.2, -0.1, 0.3]), pointing_down(1.2)), near=0.005))
    assert np.linalg.norm(scene.pos - [0.2, -0.1, 0.3]) < 0.005
    assert abs(hand.yaw - 1.2) < 0.06


def test_a_hand_that_is_stuck_gives_up():
    hand = LiberoHand(StubScene(share=0.0), speed=0.8)
    target = np.array([0.2, 0, 0]), pointing_down(0.5)
    with pytest.raises(Missed, match="cannot get there"):
        hand.scene.play(reach(hand, target))
    hand.scene.play(reach(hand, target, lenient=True))


def test_a_hand_goes_up_before_it_goes_over():
    scene = StubScene(share=0.5)
    hand = LiberoHand(scene, speed=1.0)
    scene.play(over(hand, (np.array([0.4, 0, 0.0]), pointing_down(0.5)), height=0.2))
    path = np.array(scene.path)
    assert path[path[:, 0] > 0.02, 2].min() > 0.15 and path[-1, 0] > 0.38


def test_fingers_close_until_they_stand_still():
    hand = LiberoHand(StubScene(), speed=1.0)
    hand.scene.play(set_grip(hand, 1.0))
    assert hand.grip == 1.0 and hand.scene.gap() == 0.03 and len(hand.scene.path) < 12


def test_turns_lead_from_one_rotation_to_another():
    start, end = pointing_down(0.3), rotation_about(np.array([0.4, -0.2, 0.9])) @ pointing_down(0.3)
    np.testing.assert_allclose(turn_between(start, end), [0.4, -0.2, 0.9], atol=1e-9)
    np.testing.assert_allclose(turn_between(start, start), 0, atol=1e-12)
    up, aside = np.array([0, 0, 1.0]), np.array([0, 0.6, 0.8])
    np.testing.assert_allclose(turn_onto(up, aside) @ up, aside, atol=1e-12)


def test_two_fingers_are_alike():
    assert np.isclose(nearest_yaw(2.0, 0.0), np.pi) and np.isclose(nearest_yaw(1.5, 1.4), 1.4)
    assert np.isclose(nearest_yaw(0.3, 3.1), 3.1 - np.pi)


def test_the_wrist_is_not_turned_too_far():
    assert np.isclose(nearest_yaw(0.0, np.pi / 2 - np.pi), np.pi / 2), "the nearer one is beyond its limit"
