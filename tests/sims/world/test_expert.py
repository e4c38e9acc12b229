"""The expert of all worlds, on a counter with a basket: it solves its tasks, and recovers from what goes wrong."""

import numpy as np
import pytest

from pilot.sims.world.expert import WorldExpert
from sims.world.counter_scene import make_env


def _expert(env, scene, seed=0):
    env.reset_to(scene)
    return WorldExpert(env, np.random.default_rng((seed, scene)))


def _finish(env, expert, steps=None):
    """Let the expert act until it succeeds; return how many steps that took."""
    for step in range(steps or env.max_steps):
        if env.advance(expert.act())["success"]:
            return step
    raise AssertionError(f"no success; {expert.failures}")


@pytest.mark.parametrize("body", ["arm", "bimanual", "mobile", "mobile_bimanual"])
def test_it_puts_a_thing_where_it_belongs(body):
    env = make_env(body)
    expert = _expert(env, 0)
    assert expert.subtask[0].startswith("pick up the")
    _finish(env, expert)
    assert expert.subtask[0] == "done"


def test_its_style_is_drawn_by_its_seed():
    def actions(seed):
        env = make_env("arm")
        expert, taken = _expert(env, 1, seed), []
        for _ in range(30):
            taken.append(expert.act())
            env.advance(taken[-1])
        return np.array(taken)

    first = actions(0)
    assert np.array_equal(first, actions(0))
    assert np.abs(first - actions(1)).max() > 0.01


def test_it_picks_up_again_what_was_taken_out_of_its_hand():
    env = make_env("arm")
    expert = _expert(env, 3)
    item = next(iter(env.scene.items.values()))
    while env.advance(expert.act())["holding"] != item.name:
        pass
    for _ in range(12):  # somebody opens the gripper on the way
        action = expert.act()
        action[-1] = 1.0
        env.advance(action)
    assert env.advance(expert.act())["holding"] is None
    _finish(env, expert)


def test_it_follows_a_thing_that_is_moved():
    env = make_env("arm", things=1)
    expert = _expert(env, 4)
    item = next(iter(env.scene.items.values()))
    for _ in range(25):
        env.advance(expert.act())
    start = env.world.pos(item.body)
    env.world.set_pose(item.body, start + [0.0, 0.2 if start[1] < 0 else -0.2, 0.0])
    env.world.forward()
    _finish(env, expert)


def test_it_takes_over_from_a_policy():
    """After any actions of somebody else, it knows what to do."""
    env = make_env("arm")
    expert, rng = _expert(env, 2), np.random.default_rng(0)
    goal = env.controller.state()
    for step in range(40):
        expert.act()
        if step % 10 == 0:
            goal = env.controller.state() + rng.uniform(-0.4, 0.4, 7).astype(np.float32)
        env.advance(env.controller.state() + np.clip(goal - env.controller.state(), -0.1, 0.1))
    _finish(env, expert)


def test_it_does_several_moves():
    env = make_env("arm", moves=2)
    _finish(env, _expert(env, 7))
    assert env.goal_states() == (True, True)


@pytest.mark.parametrize("kind", ["soup can", "cereal box"])
def test_it_picks_up_what_has_fallen_over(kind):
    env = make_env("arm", kinds=(kind, "block"), things=2)
    expert = _expert(env, 0)
    item = next(iter(env.scene.items.values()))
    half = np.sqrt(0.5)
    env.world.set_pose(item.body, env.world.pos(item.body) + [0.0, 0.0, 0.05], quat=(half, half, 0, 0))
    env.world.forward()
    _finish(env, expert)


def test_a_scene_with_a_thing_out_of_reach_is_drawn_again():
    env = make_env("arm", things=1)
    near, far = env.draw, []

    def draw(scene, episode, seed):
        drawn = near(scene, episode, seed)
        if not far:
            far.append(True)
            drawn.robot_pose = (-0.2, 0.0, 0.0)
        return drawn

    env.draw = draw
    env.reset_to(0)
    assert env.redrawn == 1 and "robot 'arm' does not reach the" in next(iter(env.reasons))
