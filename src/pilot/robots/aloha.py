"""ALOHA: two ViperX 300 arms with parallel grippers, four cameras, joint position targets at 50 Hz.

State and action: per arm six joints [rad] and a gripper, 0 closed to 1 open. The state's gripper is the normalised
opening of the fingers, the action's the normalised angle of their motor: ALOHA's own convention.

π's convention ("pi", what the released weights were trained in) differs in three joints of each arm, which turn the
other way, and in grippers, which are motor angles on another scale, in the state too. The finger slides on a crank of
radius `HORN` and a rod of length `ROD`: the law of cosines turns one into the other. The simulated ALOHA was trained
without it: `dataclasses.replace(ROBOT, adapter="")`.

Left out of a data set, `cam_low` is not missed: no model is shown it.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from pilot.types import Adapter, Gripper, MotionLimits, Robot, make_bool_mask

_JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
_NAMES = tuple(f"{arm}_{joint}" for arm in ("left", "right") for joint in _JOINTS)
_UNITS = (("rad",) * 6 + ("0 to 1",)) * 2

ROBOT = Robot(
    name="aloha",
    cameras=("cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist"),
    wrist_cameras=("cam_left_wrist", "cam_right_wrist"),
    slots=("base_0_rgb", None, "left_wrist_0_rgb", "right_wrist_0_rgb"),
    state_names=_NAMES,
    action_names=_NAMES,
    state_units=_UNITS,
    action_units=_UNITS,
    delta_mask=make_bool_mask(6, -1, 6, -1),
    grippers=tuple(
        Gripper(action=name, open=1.0, closed=0.0, state=name, state_open=1.0, state_closed=0.0)
        for name in ("left_gripper", "right_gripper")
    ),
    control_hz=50.0,
    # Joint ranges are those of the ViperX 300's model, π rad/s is the speed of its motors. The acceleration is ours: it
    # lets the jitter of demonstrations pass, and no jump.
    limits=MotionLimits(
        low=(-3.14158, -1.85005, -1.76278, -3.14158, -1.8675, -3.14158, -0.1) * 2,
        high=(3.14158, 1.25664, 1.6057, 3.14158, 2.23402, 3.14158, 1.1) * 2,
        speed=((3.14159,) * 6 + (20.0,)) * 2,
        acceleration=((150.0,) * 6 + (2000.0,)) * 2,
    ),
    adapter="pi",
)

SIGNS = np.where([joint in ("shoulder", "elbow") for joint in _JOINTS] * 2, -1.0, 1.0)
GRIPPERS = (6, 13)
FINGER_RANGE = (0.01844, 0.05800)  # [m] closed, open: where ALOHA's 0 and 1 lie
MOTOR_RANGE = (-0.6213, 1.4910)  # [rad] the same for its commands
PI_RANGE = (0.5476, 1.6296)  # [rad] where π's 0 and 1 lie
HORN, ROD = 0.022, 0.036  # [m]


def state_to_pi(state: Float[np.ndarray, "*b 14"]) -> Float[np.ndarray, "*b 14"]:
    """Flip joints, and turn finger openings into motor angles on π's scale."""
    return _with_grippers(state, lambda opening: _scaled(_angle(_unscaled(opening, FINGER_RANGE)), PI_RANGE))


def state_from_pi(state: Float[np.ndarray, "*b 14"]) -> Float[np.ndarray, "*b 14"]:
    """Invert `state_to_pi`."""
    return _with_grippers(state, lambda angle: _scaled(_finger(_unscaled(angle, PI_RANGE)), FINGER_RANGE))


def actions_to_pi(actions: Float[np.ndarray, "*b 14"]) -> Float[np.ndarray, "*b 14"]:
    """Flip joints, and move gripper commands, angles already, from ALOHA's zero to π's."""
    return _with_grippers(actions, lambda command: _unscaled(command, MOTOR_RANGE) - PI_RANGE[0])


def actions_from_pi(actions: Float[np.ndarray, "*b 14"]) -> Float[np.ndarray, "*b 14"]:
    """Invert `actions_to_pi`."""
    return _with_grippers(actions, lambda angle: _scaled(angle + PI_RANGE[0], MOTOR_RANGE))


ADAPTERS = {
    "pi": Adapter(
        state=state_to_pi, state_inverse=state_from_pi, actions=actions_to_pi, actions_inverse=actions_from_pi
    )
}  # fmt: skip


def _with_grippers(vector: np.ndarray, convert: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    out = vector * SIGNS.astype(vector.dtype)
    out[..., GRIPPERS] = convert(vector[..., GRIPPERS])
    return out


def _scaled(value: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    return (value - ends[0]) / (ends[1] - ends[0])


def _unscaled(value: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    return value * (ends[1] - ends[0]) + ends[0]


def _angle(finger: np.ndarray) -> np.ndarray:
    """Motor angle [rad] at a finger position [m]; at the crank's ends beyond them."""
    sine = (HORN**2 + finger**2 - ROD**2) / (2 * HORN * finger)
    return np.arcsin(np.clip(sine, -1.0, 1.0))


def _finger(angle: np.ndarray) -> np.ndarray:
    return HORN * np.sin(angle) + np.sqrt(np.maximum(ROD**2 - (HORN * np.cos(angle)) ** 2, 0.0))
