"""Skills beyond pick and place: what opens, what is pushed, what is wiped."""

import numpy as np
import pytest

from pilot.sims.world.expert import WorldExpert
from pilot.sims.world.opening import open_fixture
from pilot.sims.world.planner import Planner
from pilot.sims.world.scene import openness
from sims.world.cabinet_scene import make_env


def _play(*steps, scene=0, **options):

    env = make_env(*steps, **options)
    env.reset_to(scene)
    expert = WorldExpert(env, np.random.default_rng(scene))
    for _ in range(env.max_steps):
        if env.advance(expert.act())["success"]:
            break
    assert all(env.goal_states()), expert.failures
    return env, expert


@pytest.mark.parametrize("what", ["drawer", "door"])
def test_what_opens_is_opened(what):
    env, expert = _play(f"open {what}")
    fixture = env.scene.fixtures[what]
    assert env.world.joint(what) / fixture.open_at > 0.75
    assert expert.subtask[0] == "done"


@pytest.mark.parametrize("what", ["drawer", "door"])
def test_what_stands_open_is_closed(what):
    env, _ = _play(f"close {what}")
    assert openness(env.world, env.scene.fixtures[what]) <= 0.08


def test_a_thing_is_pushed_where_it_should_be():
    env, _ = _play("push")
    assert np.linalg.norm(env.world.centre("block")[:2] - (0.86, -0.62)) < 0.05


def test_a_spill_is_wiped_with_the_sponge():
    env, expert = _play("wipe")
    assert not any("fell" in why for why in expert.failures)
    assert env.scene.effects[0].items == ("sponge",)


def test_a_fixture_without_a_joint_is_refused():

    env = make_env("push")
    env.reset_to(0)
    planner = Planner(env.world, env.controller, env.scene)
    with pytest.raises(ValueError, match="'table' does not open"):
        next(open_fixture(planner, env.scene.fixtures["table"], rng=np.random.default_rng(0)))
