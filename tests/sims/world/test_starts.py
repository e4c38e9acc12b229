"""Starts beside a thing, or with it in hand, are drawn by the numbers of the episode; experts go on from there."""

from typing import get_args, get_type_hints

import numpy as np

from pilot.sims.world.expert import WorldExpert
from pilot.sims.world.starts import STARTS, start_beside, start_holding
from pilot.sims.world.suites import WorldSuite
from sims.world.counter_scene import make_env


def _near_start(seed):
    env = make_env("arm_ee")
    env.begin = start_beside
    env.reset_to(3, seed=seed)
    item = env.scene.items[env.scene.task.steps[0].goal.item]
    away = env.world.site(env.scene.body.arms[0].tcp)[0] - env.world.pos(item.body)
    return env, float(np.linalg.norm(away))


def test_starts_beside_put_a_hand_beside_the_thing_at_any_opening():
    starts = [_near_start(seed) for seed in range(12)]
    assert sum(away < 0.4 for _, away in starts) >= 7  # the others are beside another thing
    assert max(away for _, away in starts) < 1.0
    openings = [float(env.state()[-1]) for env, _ in starts]
    assert min(openings) < 0.1 and max(openings) > 0.9
    assert np.array_equal(starts[0][0].state(), _near_start(0)[0].state())  # drawn by the seed alone


def test_a_hand_beside_the_thing_does_not_rise_first():
    rises = []
    for env, _ in [start for start in map(_near_start, range(16)) if start[1] < 0.25]:
        expert, began = WorldExpert(env, np.random.default_rng(0)), float(env.state()[2])
        heights = [began]
        for _ in range(120):
            action = expert.act()
            if action[-1] < 0.1:  # it closes
                break
            env.advance(action)
            heights.append(float(env.state()[2]))
        rises.append(max(heights) - began)
    assert len(rises) > 4 and np.median(rises) < 0.12  # some have something in the way, or are turned too far


def _held_start(seed):
    env = make_env("arm_ee")
    env.begin = start_holding
    _, info = env.reset_to(3, seed=seed)
    return env, info


def test_starts_with_the_thing_in_hand_are_finished_by_the_expert():
    starts = [_held_start(seed) for seed in range(6)]
    hands = np.array([env.state()[:3] for env, _ in starts])
    assert all(info["holding"] and not info["success"] for _, info in starts)
    assert np.ptp(hands, axis=0).max() > 0.1  # somewhere on the way
    assert np.array_equal(starts[0][0].state(), _held_start(0)[0].state())  # drawn by the seed alone
    for env, _ in starts:
        expert = WorldExpert(env, np.random.default_rng(0))
        assert any(env.advance(expert.act())["success"] for _ in range(env.max_steps))


def test_suites_name_their_starts():
    assert set(get_args(get_type_hints(WorldSuite)["begins"])) == set(STARTS)
