"""The contract of a simulator: its suites start reproducibly, keep physics and pictures apart, and refuse nonsense."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np

from pilot.contracts import require
from pilot.sims.base import DONE, SimEnv, Suite


def find_in(module: ModuleType) -> dict[str, Suite]:
    """Return the suites in a module's `SUITES`, by name."""
    return {suite.name: suite for suite in getattr(module, "SUITES", ()) if isinstance(suite, Suite)}


def check_observations(suite: Suite) -> None:
    """Observations have the cameras and dims that the robot declares, and the prompt that the suite gives."""
    robot = suite.robot
    with open_env(suite) as env:
        require(env.robot == robot, f"the environment has robot '{env.robot.name}', the suite '{robot.name}'")
        observation, _ = env.reset_to(0)
        cameras = tuple(observation["images"])
        require(cameras == robot.cameras, f"cameras are {cameras}, the robot declares {robot.cameras}")
        for camera, image in [*observation["images"].items(), ("render", env.render())]:
            proper = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
            require(proper, f"camera '{camera}' gives {image.dtype} {image.shape}; it should be uint8 [h w 3]")
        state = observation["state"]
        proper = state.shape == (robot.state_dim,) and state.dtype == np.float32
        require(proper, f"the state is {state.dtype} {state.shape}; it should be float32 ({robot.state_dim},)")
        prompt = observation["prompt"]
        require(isinstance(prompt, str), f"the prompt is {prompt!r}; it should be words")
        require(prompt == suite.prompt(0), f"the prompt is '{prompt}', the suite says '{suite.prompt(0)}'")
        require(env.max_steps > 0, f"max_steps is {env.max_steps}")


def check_info(suite: Suite) -> None:
    """Info says whether the episode succeeded, which it has not at its start, and the subtask if there are subtasks."""
    with open_env(suite) as env:
        info = env.reset_to(0)[1]
        require("success" in info, f"info lacks 'success'; it has {sorted(info)}")
        require(info["success"] is False, "the episode has succeeded before it begins")
        lacking = [name for name in ("subtask", "box") if suite.has_subtasks and name not in info]
        require(not lacking, f"the suite has subtasks, but info lacks {lacking}")
        if box := info.get("box"):
            y0, x0, y1, x1 = box
            require(0 <= y0 < y1 <= 1 and 0 <= x0 < x1 <= 1, f"the box {box} is not in the picture")


def check_starts(suite: Suite) -> None:
    """The same scene, episode and seed are the same start, to the bit; another scene is another, or another seed."""
    with open_env(suite) as env:
        first, other = env.reset_to(3, episode=1, seed=7)[0], env.reset_to(4, episode=1, seed=7)[0]
        again = env.reset_to(3, episode=1, seed=7)[0]
        require(is_same(first, again), "scene 3 gave two different starts; draw everything from the numbers")
        require(not is_same(first, other), "scenes 3 and 4 gave the same start")
    if suite.has_expert:
        try:
            with open_env(replace(suite, split="train")) as env:
                first, other = env.reset_to(3, episode=1, seed=7)[0], env.reset_to(3, episode=1, seed=8)[0]
        except ValueError:  # a suite of novel things: they are in tests alone
            return
        require(not is_same(first, other), "seeds 7 and 8 gave the same start; demonstrations have their own")


def check_episode(suite: Suite) -> None:
    """The same start and the same actions are the same episode."""
    ends = []
    with open_env(suite) as env:
        for _ in range(2):
            env.reset_to(3)
            for _ in range(5):
                info = env.advance(some_action(env))
            ends.append((env.observe(), info))
    require(is_same(ends[0][0], ends[1][0]), "five equal actions led to different observations")
    require(ends[0][1] == ends[1][1], f"five equal actions led to different infos: {ends[0][1]} and {ends[1][1]}")


def check_expert(suite: Suite) -> None:
    """The expert, if the suite has one, reaches the goal, and a supervisor has words for its subtasks.

    Experts may fail now and then: one that misses the goal of scene 1 has to reach those of scenes 2 and 3.
    """
    if not suite.has_expert:
        return
    with open_env(suite) as env:
        if _reaches_goal(suite, env, scene=1):
            return
        for scene in (2, 3):
            reached = _reaches_goal(suite, env, scene=scene)
            require(reached, f"the expert did not reach the goals of scenes 1 and {scene} in {env.max_steps} steps")


def _reaches_goal(suite: Suite, env: SimEnv, *, scene: int) -> bool:
    """Let the expert act in a scene, listen to its words, and return whether it reached the goal."""
    env.reset_to(scene)
    expert = suite.expert(env, np.random.default_rng(0))
    for _ in range(env.max_steps):
        words, _ = expert.subtask
        require(words is not None or not suite.has_subtasks, "the suite has subtasks, but its expert names none")
        if suite.has_supervisor and words is not None and words != DONE:
            require(bool(suite.utterances(words)), f"the supervisor has no words for '{words}'")
        if env.advance(expert.act())["success"]:
            return True
    return False


def check_nonsense(suite: Suite) -> None:
    """Actions of another shape, and NaN, are refused with a ValueError."""
    with open_env(suite) as env:
        env.reset_to(0)
        good = some_action(env)
        for what, action in (("of another shape", good[:-1]), ("of NaN", np.full_like(good, np.nan))):
            try:
                env.advance(action)
            except ValueError:
                continue
            raise ValueError(f"advance took an action {what}; raise a ValueError")


@contextmanager
def open_env(suite: Suite) -> Iterator[SimEnv]:
    """Make an environment for a block, and close it after."""
    env = suite.make_env()
    try:
        yield env
    finally:
        env.close()


def some_action(env: SimEnv) -> np.ndarray:
    """Return a small action."""
    return np.full(env.robot.action_dim, 0.1, np.float32)


def is_same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Return whether two observations are equal to the bit."""
    pictures = all(np.array_equal(a["images"][camera], b["images"][camera]) for camera in a["images"])
    return pictures and np.array_equal(a["state"], b["state"]) and a["prompt"] == b["prompt"]


CHECKS = (check_observations, check_info, check_starts, check_episode, check_expert, check_nonsense)
