"""The hands of ALOHA's expert, on an arm of the same joints that is made here."""

import numpy as np
import pytest

from pilot.sims.experts.aloha import JOINTS, PINCH, ViperHand
from pilot.sims.gl import mujoco

AXES = ("0 0 1", "0 1 0", "0 1 0", "1 0 0", "0 1 0", "1 0 0")
OFFSETS = ("0 0 .1", "0 0 .05", ".06 0 .3", ".2 0 0", ".1 0 0", ".07 0 0")
START = (0, -0.96, 1.16, 0, -0.3, 0)


def arm_xml() -> str:
    """Six hinges in a row, and a finger 12 cm long whose tip is 12 cm ahead of the hand."""
    finger = (
        "<body><joint name='vx300s_left/left_finger' type='slide' axis='0 1 0'/>"
        "<geom name='vx300s_left/10_left_gripper_finger' type='mesh' mesh='finger'/></body>"
    )
    body = finger
    for name, axis, offset in reversed(list(zip(JOINTS, AXES, OFFSETS, strict=True))):
        label = "name='vx300s_left/gripper_link'" if name == "wrist_rotate" else ""
        joint = f"<joint name='vx300s_left/{name}' axis='{axis}' range='-3 3'/>"
        body = f"<body {label} pos='{offset}'>{joint}<inertial pos='0 0 0' mass='1' diaginertia='1 1 1'/>{body}</body>"
    mesh = "<mesh name='finger' vertex='0 0 0  .12 0 0  0 .02 0  0 0 .02'/>"
    return (
        f"<mujoco><compiler angle='radian' balanceinertia='true'/><asset>{mesh}</asset>"
        f"<worldbody>{body}</worldbody></mujoco>"
    )


@pytest.fixture
def hand():
    model = mujoco.MjModel.from_xml_string(arm_xml())
    data = mujoco.MjData(model)
    data.qpos[:6] = START
    mujoco.mj_forward(model, data)
    return ViperHand(model, data, side="left")


def test_a_hand_begins_where_it_is(hand):
    pos, rotation = hand.pose
    np.testing.assert_allclose(pos, hand.data.body("vx300s_left/gripper_link").xpos + (0.12 - PINCH) * rotation[:, 0])
    np.testing.assert_allclose(hand.q, START)


def test_joints_follow_a_pose(hand):
    goal = hand.pose[0] + [0.05, 0.08, -0.1]
    level, down = hand.rotation(), hand.rotation(down=0.8, roll=0.5)
    np.testing.assert_allclose(level, np.eye(3), atol=1e-12)
    start = hand.pose[0]
    for share in np.linspace(0, 1, 40):
        hand.follow(start + share * (goal - start), down)
    pos, rotation = hand._forward(hand.q)
    np.testing.assert_allclose(pos, goal, atol=0.002)
    np.testing.assert_allclose(rotation, down, atol=0.02)


def test_an_action_is_the_joints_and_the_grip(hand):
    hand.follow(hand.pose[0] + [0.01, 0, 0], hand.pose[1])
    hand.grip = 0.4
    assert hand.action().shape == (7,) and hand.action()[6] == 0.4
    np.testing.assert_array_equal(hand.action()[:6], hand.q)
    assert not np.array_equal(hand.q, START)
