"""Every simulator in `sims/` resets reproducibly, keeps physics and pictures apart, and refuses nonsense."""

import importlib
import inspect
import pkgutil

import gymnasium
import numpy as np
import pytest

import pilot.sims


def env_classes() -> dict[str, type]:
    """Gymnasium environments by the sub-package that defines them."""
    found = {}
    for info in pkgutil.iter_modules(pilot.sims.__path__):
        module = importlib.import_module(f"pilot.sims.{info.name}")
        for item in vars(module).values():
            is_env = inspect.isclass(item) and issubclass(item, gymnasium.Env)
            if is_env and item.__module__.startswith(module.__name__):
                found[info.name] = item
    return found


ENVS = env_classes()


@pytest.fixture(params=ENVS)
def env(request):
    env = ENVS[request.param]()
    yield env
    env.close()


def resting_action(env) -> np.ndarray:
    low, high = env.action_space.low, env.action_space.high
    return ((low + high) / 2).astype(np.float32)


def same(a: dict, b: dict) -> bool:
    pictures = all(np.array_equal(a["images"][camera], b["images"][camera]) for camera in a["images"])
    return pictures and np.array_equal(a["state"], b["state"]) and a["prompt"] == b["prompt"]


def test_there_are_simulators():
    assert "homes" in ENVS


def test_observations_are_what_the_robot_declares(env):
    observation, info = env.reset(seed=0)
    assert tuple(observation["images"]) == env.robot.cameras
    assert all(image.dtype == np.uint8 and image.shape[2] == 3 for image in observation["images"].values())
    assert observation["state"].shape == (env.robot.state_dim,) and observation["state"].dtype == np.float32
    assert env.action_space.shape == (env.robot.action_dim,)
    assert isinstance(observation["prompt"], str) and "success" in info and env.max_steps > 0


def test_a_seed_is_a_start(env):
    first = env.reset(seed=3)[0]
    other = env.reset(seed=4)[0]
    assert same(first, env.reset(seed=3)[0])
    assert not same(first, other)


def test_a_seed_and_actions_are_an_episode(env):
    ends = []
    for _ in range(2):
        env.reset(seed=3)
        for _ in range(5):
            info = env.advance(resting_action(env))
        ends.append((env.observe(), info))
    assert same(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]


def test_step_is_advance_then_observe(env):
    env.reset(seed=5)
    stepped, _, _, _, info = env.step(resting_action(env))
    env.reset(seed=5)
    assert info == env.advance(resting_action(env))
    assert same(stepped, env.observe())


def test_boxes_lie_in_the_picture(env):
    env.reset(seed=6)
    for item in env.annotations():
        if item["box"] is not None:
            y0, x0, y1, x1 = item["box"]
            assert 0 <= y0 < y1 <= 1 and 0 <= x0 < x1 <= 1, item


@pytest.mark.parametrize("wrong", ["shape", "nan"])
def test_nonsense_actions_are_refused(env, wrong):
    env.reset(seed=0)
    action = resting_action(env)
    action = action[:-1] if wrong == "shape" else np.full_like(action, np.nan)
    with pytest.raises(ValueError):
        env.step(action)
