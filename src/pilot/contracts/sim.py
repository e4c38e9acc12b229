"""The contract of a simulator: it resets reproducibly, keeps physics and pictures apart, and refuses nonsense."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from pilot.contracts import require

METHODS = ("reset", "step", "advance", "observe", "annotations", "close")
"""The methods of `pilot.sims.base.SimEnv`."""

MakeEnv = Callable[[], Any]


def find_in(module: ModuleType) -> dict[str, MakeEnv]:
    """Return the environments that a module or its package defines: classes with the methods of `SimEnv`, by name."""
    classes = {name: value for name, value in vars(module).items() if inspect.isclass(value)}
    own = {name: value for name, value in classes.items() if value.__module__.startswith(module.__name__)}
    return {name: value for name, value in own.items() if all(hasattr(value, method) for method in METHODS)}


def check_observations(make: MakeEnv) -> None:
    """Observations have the cameras and dims that the robot declares, a prompt, and whether it succeeded."""
    with opened(make) as env:
        robot, (observation, info) = env.robot, env.reset(seed=0)
        cameras = tuple(observation["images"])
        require(cameras == robot.cameras, f"cameras are {cameras}, the robot declares {robot.cameras}")
        for camera, image in observation["images"].items():
            proper = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
            require(proper, f"camera '{camera}' gives {image.dtype} {image.shape}; it should be uint8 [h w 3]")
        state = observation["state"]
        proper = state.shape == (robot.state_dim,) and state.dtype == np.float32
        require(proper, f"the state is {state.dtype} {state.shape}; it should be float32 ({robot.state_dim},)")
        shape = env.action_space.shape
        require(shape == (robot.action_dim,), f"action_space is {shape}, the robot has {robot.action_dim} action dims")
        require(isinstance(observation["prompt"], str), f"the prompt is {observation['prompt']!r}; it should be words")
        require("success" in info, f"info lacks 'success'; it has {sorted(info)}")
        require(env.max_steps > 0, f"max_steps is {env.max_steps}")


def check_seed(make: MakeEnv) -> None:
    """The same seed is the same start, to the bit, and another seed is another."""
    with opened(make) as env:
        first, other = env.reset(seed=3)[0], env.reset(seed=4)[0]
        require(is_same(first, env.reset(seed=3)[0]), "seed 3 gave two different starts; draw all from the seed")
        require(not is_same(first, other), "seeds 3 and 4 gave the same start")


def check_episode(make: MakeEnv) -> None:
    """The same seed and the same actions are the same episode."""
    ends = []
    with opened(make) as env:
        for _ in range(2):
            env.reset(seed=3)
            for _ in range(5):
                info = env.advance(resting_action(env))
            ends.append((env.observe(), info))
    require(is_same(ends[0][0], ends[1][0]), "five equal actions led to different observations")
    require(ends[0][1] == ends[1][1], f"five equal actions led to different infos: {ends[0][1]} and {ends[1][1]}")


def check_step(make: MakeEnv) -> None:
    """`step` is `advance`, then `observe`."""
    with opened(make) as env:
        env.reset(seed=5)
        stepped, _, _, _, info = env.step(resting_action(env))
        env.reset(seed=5)
        require(info == env.advance(resting_action(env)), "advance gives another info than step")
        require(is_same(stepped, env.observe()), "advance and observe give another observation than step")


def check_boxes(make: MakeEnv) -> None:
    """Annotated boxes lie in the picture: y0, x0, y1, x1 from 0 to 1."""
    with opened(make) as env:
        env.reset(seed=6)
        for item in env.annotations():
            if item["box"] is not None:
                y0, x0, y1, x1 = item["box"]
                require(0 <= y0 < y1 <= 1 and 0 <= x0 < x1 <= 1, f"a box is not in the picture: {item}")


def check_nonsense(make: MakeEnv) -> None:
    """Actions of another shape, and NaN, are refused with a ValueError."""
    with opened(make) as env:
        env.reset(seed=0)
        good = resting_action(env)
        for what, action in (("of another shape", good[:-1]), ("of NaN", np.full_like(good, np.nan))):
            try:
                env.step(action)
            except ValueError:
                continue
            raise ValueError(f"step took an action {what}; raise a ValueError")


@contextmanager
def opened(make: MakeEnv) -> Iterator[Any]:
    """Make an environment for a block, and close it after."""
    env = make()
    try:
        yield env
    finally:
        env.close()


def resting_action(env: Any) -> np.ndarray:
    """Return the middle of the action space."""
    low, high = env.action_space.low, env.action_space.high
    return ((low + high) / 2).astype(np.float32)


def is_same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Return whether two observations are equal to the bit."""
    pictures = all(np.array_equal(a["images"][camera], b["images"][camera]) for camera in a["images"])
    return pictures and np.array_equal(a["state"], b["state"]) and a["prompt"] == b["prompt"]


CHECKS = (check_observations, check_seed, check_episode, check_step, check_boxes, check_nonsense)
