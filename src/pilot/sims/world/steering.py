"""A person at the keys: from pushed axes to an action, and from planned actions to a line in the picture.

A person thinks of the hand, not of joints, whatever the robot's actions are. So axes move the hand of the first arm in
the robot's own frame, and the base where there is one; inverse kinematics finds the joints. All other arms stay.
"""

from collections.abc import Mapping

import numpy as np

from pilot.sims.world.bodies.base import Body
from pilot.sims.world.control import BodyController, JointCommand

HAND = ("hand right", "hand forward", "hand up")
BASE = ("turn left", "drive forward")
TURN = "turn hand"
SIDE = ("drive left", "lift")
HAND_SPEED, TURN_SPEED = 0.3, 1.5  # [m/s, rad/s] at full push
BASE_SPEED, BASE_TURN, LIFT_SPEED = 0.5, 0.8, 0.15  # [m/s, rad/s, m/s]
_ITERATIONS = 4  # of inverse kinematics per tick


def steering_axes(body: Body) -> tuple[str, ...]:
    """Return what a person can move of a body, the most used first."""
    return (*HAND, *BASE, TURN, *SIDE) if body.is_mobile else (*HAND, TURN)


def steer(controller: BodyController, axes: Mapping[str, float], *, is_open: bool) -> np.ndarray:
    """Return the action, float32 [ad], that moves a robot as the pushed axes say, from where it is commanded to be."""
    body, ik, dt = controller.body, controller.ik, controller.dt
    start = controller.command.q
    push = {name: float(np.clip(axes.get(name, 0.0), -1, 1)) for name in steering_axes(body)}
    before = ik.root(start)
    hands = {arm.tcp: ik.pose(start, arm) for arm in body.arms}
    q = start.copy()
    if body.is_mobile:
        ahead, left = BASE_SPEED * push["drive forward"], BASE_SPEED * push["drive left"]
        c, s = np.cos(q[2]), np.sin(q[2])
        q[:3] += np.array([c * ahead - s * left, s * ahead + c * left, BASE_TURN * push["turn left"]]) * dt
        q[3] += LIFT_SPEED * push["lift"] * dt
    after = ik.root(q)
    step = HAND_SPEED * dt * np.array([push["hand forward"], -push["hand right"], push["hand up"]])
    angle = TURN_SPEED * dt * push[TURN]
    turned = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    targets = {}
    for number, (site, (position, rotation)) in enumerate(hands.items()):
        place, facing = before[1].T @ (position - before[0]), before[1].T @ rotation
        if number == 0:
            place, facing = place + step, turned @ facing
        targets[site] = after[0] + after[1] @ place, after[1] @ facing
    rises = body.is_mobile and push["lift"] != 0
    if rises:  # the hand goes up and down with its mount
        lifted = np.array([0, 0, q[3] - start[3]])
        targets = {site: (position + lifted, rotation) for site, (position, rotation) in targets.items()}
    for _ in range(_ITERATIONS):
        q = ik.step(q, targets, dt=dt, lift=False, speed=10.0, turn=30.0, hurry=1.0, damping=0.01, lean=0.0)
    grip = controller.command.grip.copy()
    grip[0] = float(is_open)
    return controller.encode(JointCommand(np.clip(q, ik.lower, ik.upper), grip))


def planned_path(controller: BodyController, actions: np.ndarray) -> np.ndarray:
    """Return where actions [n ad] would take the first arm's hand in the world [n 3], if nothing is in the way."""
    body, ik = controller.body, controller.ik
    arm, q, points = body.arms[0], controller.command.q.copy(), []
    for action in np.asarray(actions, float):
        first = 0
        if body.is_mobile:
            c, s = np.cos(q[2]), np.sin(q[2])
            vx, vy, turn = action[:3]
            q[:3] += np.array([c * vx - s * vy, s * vx + c * vy, turn]) * controller.dt
            q[3], first = action[3], 4
        own = action[first:].reshape(len(body.arms), -1)
        if controller.by_hand:
            position, rotation = ik.root(q)
            points.append(position + rotation @ own[0][:3])
        else:
            q[first:] = own[:, :-1].ravel()
            points.append(ik.pose(np.clip(q, ik.lower, ik.upper), arm)[0])
    return np.array(points).reshape(-1, 3)
