"""A tiny policy for tests of evaluation: the debug model with random weights, in the folder that a run would write."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pilot.models.bundle import Bundle, save_bundle
from pilot.models.pi import Pi, pi05
from pilot.models.trained_robots import TrainedRobot, by_name
from pilot.robots.homes import ROBOT
from pilot.tokenizers.text import TextTokenizer
from pilot.types import NormStats, Robot


def unit_stats(dims: int) -> NormStats:
    return NormStats(mean=np.zeros(dims), std=np.ones(dims), q01=-np.ones(dims), q99=np.ones(dims))


def save_random_policy(path: Path, *robots: Robot, **options: Any) -> Path:
    """A policy of these robots, or of the homes' alone."""
    generator = torch.Generator().manual_seed(0)
    model = Pi(pi05("debug", max_tokens=80, **options)).initialize(generator)
    torch.nn.init.normal_(model.action_out.weight, std=0.1, generator=generator)  # starts at zero: nothing would flow
    trained = [
        TrainedRobot(
            robot=robot, norm_stats={"state": unit_stats(robot.state_dim), "actions": unit_stats(robot.action_dim)}
        )
        for robot in robots or (ROBOT,)
    ]
    bundle = Bundle(model=model, robots=by_name(trained), text=TextTokenizer(), action_tokenizer=None)
    return save_bundle(bundle, path)
