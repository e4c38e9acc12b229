"""How long a policy of each size takes for a chunk of actions on this machine, with weights drawn at random.

Random weights cost what trained ones do, save that a trained model says its subtask in fewer tokens.
"""

import time
from collections.abc import Callable

import numpy as np
import torch

from pilot.infer.policy import Policy
from pilot.infer.record import dummy_observation
from pilot.models.bundle import Bundle, empty_model
from pilot.models.pi import PiConfig, pi0_small, pi05
from pilot.models.trained_robots import one_robot
from pilot.robots import load_robot
from pilot.tokenizers.text import TextTokenizer
from pilot.types import NormStats

ROBOT = "droid"  # one outer camera and one on the wrist, which every size has room for
SLOTS = ("base_0_rgb", "left_wrist_0_rgb")
SIZES: dict[str, Callable[[], PiConfig]] = {
    "π0.5 nano": lambda: pi05("nano"),
    "π0-small 470m": lambda: pi0_small("470m", vision_towers=SLOTS),
    "π0.5 2b": pi05,
}
CALLS = 5
ENOUGH_SECONDS = 10.0  # of calls: a slow size is measured fewer times


def weight_bytes(config: PiConfig, *, device: str) -> int:
    """Return the bytes of a model's weights: bf16 on a GPU, fp32 on a CPU."""
    count = sum(weight.numel() for weight in empty_model(config).parameters())
    return count * (2 if device.startswith("cuda") else 4)


def measure(config: PiConfig, *, device: str) -> float:
    """Return the median seconds that a policy of this config takes from an observation to its robot's commands."""
    policy = random_policy(config, device=device)
    session, observation = policy.session(subtask_seconds=0.0), dummy_observation(policy)
    seconds = []
    for _ in range(CALLS + 1):  # the first prepares what the others use
        start = time.perf_counter()
        session.infer(observation)
        seconds.append(time.perf_counter() - start)
        if sum(seconds) > ENOUGH_SECONDS:
            break
    return float(np.median(seconds[1:] or seconds))


def random_policy(config: PiConfig, *, device: str) -> Policy:
    """Return a policy of `ROBOT` whose weights are drawn on the device, in the precision that it computes in."""
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    model = empty_model(config).to(dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, 0.02, generator=generator)
    robot = load_robot(ROBOT)
    dims = {"state": robot.state_dim, "actions": robot.action_dim}
    stats = {
        name: NormStats(mean=np.zeros(d), std=np.ones(d), q01=-np.ones(d), q99=np.ones(d)) for name, d in dims.items()
    }
    bundle = Bundle(model=model, robots=one_robot(robot, stats), text=TextTokenizer(), action_tokenizer=None)
    return Policy(bundle, device=device)
