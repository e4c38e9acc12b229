"""An augmentation of robot rows: the state is shifted, and the actions lead back to the recorded trajectory.

In demonstrations the hand is usually near its goal, so a small policy learns to predict the goal from the position of
the hand: of an error in that position, half appeared again in the predicted goal (`docs/log.md`, 2026-11-29). With
shifted states the position says less about the goal. DART (1703.09327) and DAgger record such states; here they are
computed.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from pilot.types import Robot, Sample

SHARE = 0.5  # of the rows
SECONDS = 0.8  # until the actions are back on the recorded trajectory
GRIPS = 0.15  # a gripper whose opening changes by more than this, of 1, opens or closes


def shift_state(sample: Sample, robot: Robot, rng: np.random.Generator, *, deviation: float) -> Sample:
    """Return half of the samples with a shifted state and actions that lead back, the others unchanged.

    The dims whose actions are relative to the state are shifted, by Gaussian noise with the standard deviation
    `deviation`, in each dim's own unit (m, rad); so is the sample's past. Pictures of wrist cameras are left out,
    because they were taken at the recorded position. Samples without actions are unchanged, and so are those in which a
    gripper opens or closes before the hand is back: it would do so in the wrong place.
    """
    if sample.actions is None or sample.state is None or rng.random() >= SHARE:
        return sample
    dims = np.flatnonzero(robot.delta_mask)
    offset = rng.normal(0, deviation, len(dims)).astype(np.float32)
    back = max(1, round(SECONDS * robot.control_hz))
    if _grips(sample.actions[: back + 1], robot):
        return sample
    state, actions = np.array(sample.state, np.float32), np.array(sample.actions, np.float32)
    left = np.clip(1 - np.arange(1, len(actions) + 1) / back, 0, None).astype(np.float32)
    state[dims] += offset
    actions[:, dims] += left[:, None] * offset
    past = sample.past
    if past is not None:  # by the same, so that the movement between the two moments stays what it was
        earlier = np.array(past.state, np.float32)
        earlier[dims] += offset
        past = replace(past, state=earlier, images=_without_wrists(past.images, robot))
    return replace(sample, state=state, past=past, actions=actions, images=_without_wrists(sample.images, robot))


def _without_wrists(images: Mapping[str, np.ndarray], robot: Robot) -> dict[str, np.ndarray]:
    return {camera: image for camera, image in images.items() if camera not in robot.wrist_cameras}


def _grips(actions: np.ndarray, robot: Robot) -> bool:
    """Return whether a gripper opens or closes in a chunk."""
    opened = [gripper.openness(actions[:, robot.action_names.index(gripper.action)]) for gripper in robot.grippers]
    return any(np.ptp(one) > GRIPS for one in opened)
