"""Rows in which the robot stands elsewhere and comes back, made from demonstrations in which it does not.

In a demonstration the hand is near where it is going, so a policy learns to go on from where the hand is, wherever that
leads: half of what our flagship's hand was off came back in where it went next (`docs/log.md`, 2026-11-29). Here the
state is shifted, and the commands lead from there to where they led before. Only pictures can then tell where to go.
DART (1703.09327) and DAgger record such states; these are computed.
"""

from dataclasses import replace

import numpy as np

from pilot.types import Robot, Sample

SHARE = 0.5  # of the rows
SECONDS = 0.8  # until commands are back on their way
GRIPS = 0.15  # a gripper that opens or closes by more than this share is about to act


def shift_state(sample: Sample, robot: Robot, rng: np.random.Generator, *, deviation: float) -> Sample:
    """Return a sample with its state shifted and its commands leading back, or half of the time as it is.

    Shifted are the dims whose commands are relative to the state, by a normal `deviation` in their own unit (m, rad).
    Pictures of wrist cameras, which show the hand where it was, are left out. A sample without actions, or in which a
    gripper acts before the hand is back, stays as it is: it would act in the wrong place.
    """
    shifts = rng.random() < SHARE
    dims = np.flatnonzero(robot.delta_mask)
    offset = rng.normal(0, deviation, len(dims)).astype(np.float32)
    if not shifts or sample.actions is None or sample.state is None:
        return sample
    back = max(1, round(SECONDS * robot.control_hz))
    if _grips(sample.actions[: back + 1], robot):
        return sample
    state, actions = np.array(sample.state, np.float32), np.array(sample.actions, np.float32)
    left = np.clip(1 - np.arange(1, len(actions) + 1) / back, 0, None).astype(np.float32)
    state[dims] += offset
    actions[:, dims] += left[:, None] * offset
    images = {camera: image for camera, image in sample.images.items() if camera not in robot.wrist_cameras}
    return replace(sample, state=state, actions=actions, images=images)


def _grips(actions: np.ndarray, robot: Robot) -> bool:
    """Return whether a gripper opens or closes in a chunk."""
    opened = [gripper.openness(actions[:, robot.action_names.index(gripper.action)]) for gripper in robot.grippers]
    return any(np.ptp(one) > GRIPS for one in opened)
