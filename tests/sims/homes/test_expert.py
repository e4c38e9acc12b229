"""The expert solves what it is given, from wherever it starts."""

import numpy as np
import pytest

from pilot.sims.homes import Expert, HomesEnv


def solve(env, expert) -> dict:
    for _ in range(env.max_steps):
        info = env.advance(expert.act())
        if info["success"]:
            break
    return info


@pytest.mark.parametrize(("level", "task", "homes"), [(1, "single", 6), (2, "single", 6), (2, "multi", 6)])
def test_it_succeeds(level, task, homes):
    """All of a few fixed starts."""
    env = HomesEnv(level=level, task=task, split="test")
    for home in range(homes):
        env.reset(options={"home": home, "episode": home})
        info = solve(env, Expert(env, np.random.default_rng(home)))
        assert info["success"] and not info["wrong_object"], env.episode.prompt
    env.close()


def test_it_recovers_from_a_wrong_object_in_the_gripper():
    env = HomesEnv(level=2)
    env.reset(options={"home": 3, "episode": 2})
    wrong = next(t.name for t in env.episode.things if t.name not in env.targets)
    misled = Expert(env, np.random.default_rng(0), order=[wrong])
    while env.advance(misled.act())["holding"] != wrong or env.world.gripper[2] < 0.15:
        pass
    expert = Expert(env, np.random.default_rng(1))
    assert expert.subtask[0] == f"pick up the {env.targets[0]}"
    assert solve(env, expert)["success"]
    assert not env.inside(env.find(wrong))
    env.close()


def test_it_follows_an_order():
    env = HomesEnv(level=2, task="multi")
    env.reset(options={"home": 1, "episode": 4})
    order = list(reversed(env.targets))
    expert, spoken = Expert(env, np.random.default_rng(0), order=order), []
    for _ in range(env.max_steps):
        if expert.subtask[0] not in spoken[-1:]:
            spoken.append(expert.subtask[0])
        if env.advance(expert.act())["success"]:
            break
    put = f"put it in the {env.episode.receptacle.name}"
    assert spoken == [text for name in order for text in (f"pick up the {name}", put)]
    env.close()


def test_actions_are_one_step_away():
    env = HomesEnv(level=1)
    env.reset(options={"home": 0, "episode": 0})
    expert = Expert(env, np.random.default_rng(0))
    for _ in range(15):
        action = expert.act()
        assert np.abs(action[:3] - env.world.gripper).max() <= 0.05 + 1e-9
        env.advance(action)
    env.close()


def test_unknown_orders_are_refused():
    env = HomesEnv(level=1)
    env.reset(options={"home": 0, "episode": 0})
    for order in ("farthest", ["pink elephant"]):
        with pytest.raises(ValueError):
            Expert(env, np.random.default_rng(0), order=order)
    env.close()
