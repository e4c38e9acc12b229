"""The contract of a robot: the pipeline can read what it describes, and its commands come back unchanged."""

import json
from types import ModuleType

import numpy as np

from pilot.contracts import examples, require
from pilot.data.pipeline import collate
from pilot.models.pi import PiConfig, pi05
from pilot.robots import load_adapter
from pilot.types import Robot

OPENPI_SLOTS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
WORLD_SLOTS = ("front", "back", "left_wrist", "right_wrist")  # what all bodies of `sims/world` call their cameras
ROUNDING = 2e-5


def find_in(module: ModuleType) -> dict[str, Robot]:
    """Return the robots of a module by the names that they have in it."""
    return {name: value for name, value in vars(module).items() if isinstance(value, Robot)}


def check_vectors(robot: Robot) -> None:
    """Each dim of state and action has a name of its own and a unit; a delta is relative to the dim of its name."""
    require(robot.control_hz > 0, f"control_hz is {robot.control_hz}; give the rate of its commands")
    for what, names, units in (
        ("state", robot.state_names, robot.state_units),
        ("action", robot.action_names, robot.action_units),
    ):
        require(len(set(names)) == len(names), f"{what}_names name a dim twice: {names}")
        require(len(units) == len(names), f"{what}_units has {len(units)} units for {len(names)} dims; give one each")
    for i, is_delta in enumerate(robot.delta_mask):
        same = not is_delta or robot.state_names[i : i + 1] == robot.action_names[i : i + 1]
        require(same, f"action dim {i} ('{robot.action_names[i]}') is a delta, but dim {i} of the state is another")


def check_cameras(robot: Robot) -> None:
    """A model is shown at least one camera, each slot holds one, and wrist cameras stand in wrist slots."""
    require(bool(robot.cameras), "it has no cameras")
    shown = robot.shown_cameras
    require(bool(shown), f"no model is shown any of {robot.cameras}: all slots are None")
    require(len(set(shown.values())) == len(shown), f"two cameras have the same slot: {shown}")
    if not robot.slots:
        return
    orders = [[slot for slot in known if slot in shown.values()] for known in (OPENPI_SLOTS, WORLD_SLOTS)]
    proper = list(shown.values()) in orders
    require(proper, f"slots should be among {OPENPI_SLOTS} or {WORLD_SLOTS}, in this order; they are {shown}")
    for camera, slot in shown.items():
        fits = ("wrist" in slot) == (camera in robot.wrist_cameras)
        require(fits, f"camera '{camera}' has the slot '{slot}', and wrist_cameras are {robot.wrist_cameras}")


def check_grippers(robot: Robot) -> None:
    """Each gripper has two ends, and its commands are learned as they are, not as deltas."""
    for gripper in robot.grippers:
        require(gripper.open != gripper.closed, f"'{gripper.action}' is commanded {gripper.open} for open and closed")
        require(gripper.state_open != gripper.state_closed, f"'{gripper.state}' reads the same open and closed")
        ends = np.array([gripper.open, gripper.closed, (gripper.open + gripper.closed) / 2, 2 * gripper.open + 9])
        openness = gripper.openness(ends)
        is_right = np.allclose(openness[:3], [1.0, 0.0, 0.5], rtol=0, atol=1e-6)
        require(is_right, f"'{gripper.action}' is {openness[:3]} open at its ends and half-way")
        require(0 <= openness[3] <= 1, f"'{gripper.action}' is {openness[3]} open beyond its end")
        is_delta = robot.delta_mask[robot.action_names.index(gripper.action)]
        require(not is_delta, f"'{gripper.action}' is a gripper; clear its delta_mask")


def check_checkpoint(robot: Robot) -> None:
    """The robot is the same after it was written into a checkpoint and read again."""
    again = Robot.from_dict(json.loads(json.dumps(robot.to_dict())))
    require(again == robot, f"it comes back from JSON as {again}")


def check_adapter(robot: Robot) -> None:
    """The robot's adapter leads back to the numbers that it was given, and leaves the given arrays unchanged."""
    adapter, sample = load_adapter(robot), examples.make_sample(robot, horizon=20)
    assert sample.state is not None and sample.actions is not None
    for what, vector, there, back in (
        ("state", sample.state, adapter.state, adapter.state_inverse),
        ("actions", sample.actions, adapter.actions, adapter.actions_inverse),
    ):
        before = vector.copy()
        again, dtype = back(there(vector)), there(vector).dtype
        off = np.abs(again - vector)
        require(_is_rounding(off, vector), f"{what} comes back {off.max():g} from what it was")
        require(np.array_equal(vector, before), f"the adapter changes the {what} that it is given; return a new array")
        require(dtype == vector.dtype, f"the adapter turns {what} from {vector.dtype} to {dtype}")


def check_round_trip(robot: Robot) -> None:
    """Actions come back from the pipeline as they went in."""
    config = _model()
    pipeline, sample = examples.make_pipeline(robot, config), examples.make_sample(robot, horizon=config.action_horizon)
    assert sample.state is not None and sample.actions is not None
    row = pipeline.encode(sample)
    change = np.abs(row.actions[:, : robot.action_dim] - sample.actions).max()
    require(change > 1e-3, "the pipeline left the actions as they were: nothing was normalised")
    again = pipeline.decode_actions(row.actions, sample.state)
    off = np.abs(again - sample.actions).max(axis=0)
    worst = robot.action_names[int(off.argmax())]
    require(_is_rounding(off, sample.actions), f"'{worst}' comes back {off.max():g} from what it was")


def _is_rounding(off: np.ndarray, values: np.ndarray) -> bool:
    """Return whether numbers that are `off` from `values` are the same but for rounding, which grows with them."""
    return bool((off <= ROUNDING * np.maximum(1.0, np.abs(values).max())).all())


def check_padding(robot: Robot) -> None:
    """Dims and steps that are padded have no loss, all others do."""
    config = _model()
    sample = examples.make_sample(robot, horizon=config.action_horizon)
    batch = collate([examples.make_pipeline(robot, config).encode(sample)])
    expected = np.zeros((config.action_horizon, config.action_dim), bool)
    expected[:-1, : robot.action_dim] = True
    require(np.array_equal(batch.action_mask[0].numpy(), expected), "the mask of the action loss is another")


def check_unknown_camera(robot: Robot) -> None:
    """A picture of a camera that the robot does not declare is refused by name."""
    config = _model()
    sample = examples.make_sample(robot, horizon=config.action_horizon)
    sample.images["periscope"] = sample.images[robot.cameras[0]]
    try:
        examples.make_pipeline(robot, config).encode(sample)
    except ValueError as error:
        require("periscope" in str(error), f"the error does not name the camera: {error}")
    else:
        raise ValueError("the pipeline took a picture of camera 'periscope'")


def _model() -> PiConfig:
    return pi05("debug", action_dim=32)


CHECKS = (
    check_vectors,
    check_cameras,
    check_grippers,
    check_checkpoint,
    check_adapter,
    check_round_trip,
    check_padding,
    check_unknown_camera,
)
