"""Random but proper inputs for any robot, so that contracts need no data set."""

import numpy as np

from pilot.data.pipeline import Pipeline
from pilot.models.pi import PiConfig
from pilot.robots import load_adapter
from pilot.tokenizers.fast import FastTokenizer
from pilot.tokenizers.text import TextTokenizer
from pilot.types import Gripper, NormStats, Robot, Sample, make_bool_mask

ARM = Robot(
    name="example",
    cameras=("room", "wrist"),
    wrist_cameras=("wrist",),
    state_names=("x", "y", "z", "gripper", "force"),
    action_names=("x", "y", "z", "gripper"),
    delta_mask=make_bool_mask(3, -1),
    grippers=(Gripper(action="gripper", open=0.0, closed=1.0, state="gripper"),),
    control_hz=10.0,
)
"""A robot for models, which must work with any; its cameras are the `vision_towers` of the debug sizes."""


def make_sample(robot: Robot, *, horizon: int, seed: int = 0) -> Sample:
    """Return a sample of random pictures and numbers, within what the robot's grippers can do."""
    rng = np.random.default_rng(seed)
    state = rng.uniform(-1, 1, robot.state_dim).astype(np.float32)
    actions = rng.uniform(-1, 1, (horizon, robot.action_dim)).astype(np.float32)
    for gripper in robot.grippers:
        dim = robot.action_names.index(gripper.action)
        low, high = sorted((gripper.open, gripper.closed))
        actions[:, dim] = rng.uniform(low, high, horizon)
        if gripper.state is not None:
            low, high = sorted((gripper.state_open, gripper.state_closed))
            state[robot.state_names.index(gripper.state)] = rng.uniform(low, high)
    return Sample(
        images={camera: rng.integers(0, 256, (24, 32, 3), dtype=np.uint8) for camera in robot.cameras},
        prompt="put the red cup in the sink",
        subtask="pick up the red cup",
        state=state,
        actions=actions,
        action_is_pad=np.arange(horizon) >= horizon - 1,
        source="example",
    )


def make_norm_stats(robot: Robot) -> dict[str, NormStats]:
    """Return statistics that differ from dim to dim, so that a pipeline that mixes dims up is noticed."""

    def make_uneven(dims: int) -> NormStats:
        centre, width = np.linspace(-0.5, 0.5, dims), np.linspace(1.0, 3.0, dims)
        return NormStats(mean=centre, std=width / 2, q01=centre - width, q99=centre + width)

    return {"state": make_uneven(robot.state_dim), "actions": make_uneven(robot.action_dim)}


def make_pipeline(robot: Robot, config: PiConfig, *, with_fast: bool = False) -> Pipeline:
    """Return the pipeline of `robot` for a model; `with_fast` fits it a FAST tokenizer to random chunks."""
    chunks = np.random.default_rng(1).uniform(-1, 1, (64, config.action_horizon, robot.action_dim)).astype(np.float32)
    fast = FastTokenizer.fit(chunks, vocab_size=config.fast_vocab_size) if with_fast else None
    return Pipeline(
        robot,
        config,
        norm_stats=make_norm_stats(robot),
        text=TextTokenizer(),
        action_tokenizer=fast,
        adapter=load_adapter(robot),
    )
