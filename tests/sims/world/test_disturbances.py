"""What goes wrong in demonstrations is marked, bounded and drawn by a seed; experts recover from it."""

import numpy as np

from pilot.sims.world.disturbances import WorldDisturbance, odd_start
from pilot.sims.world.expert import WorldExpert
from pilot.sims.world.mishaps import Mishaps
from sims.world.counter_scene import make_env


def _disturbance(env, seed, **noise):
    return WorldDisturbance(env, np.random.default_rng(seed), Mishaps(**noise))


def _none():
    return {"bursts": 0.0, "missed_grasps": 0.0, "shoves": 0.0, "jitter": 0.0}


def test_without_noise_nothing_changes():
    env = make_env()
    env.reset_to(0)
    state, action = env.state(), env.state() + 0.01
    executed, perturbed = _disturbance(env, 0, **_none()).apply(state, action)
    assert np.array_equal(executed, action) and not perturbed


def test_jitter_is_small_unmarked_and_leaves_grippers_alone():
    env = make_env()
    env.reset_to(0)
    state = env.state()
    disturbance = _disturbance(env, 1, **_none() | {"jitter": 0.004})
    executed = [disturbance.apply(state, state) for _ in range(50)]
    off = np.array([action - state for action, _ in executed])
    assert 0 < np.abs(off).max() < 0.03 and np.all(off[:, -1] == 0)
    assert not any(perturbed for _, perturbed in executed)


def test_bursts_are_marked():
    env = make_env()
    env.reset_to(0)
    state = env.state()
    disturbance = _disturbance(env, 2, **_none() | {"bursts": 1.0, "burst_rate": 5.0})
    executed = [disturbance.apply(state, state) for _ in range(100)]
    moved = [np.abs(action - state).max() > 0.005 for action, _ in executed]
    assert any(moved) and moved == [perturbed for _, perturbed in executed]


def test_a_missed_grasp_closes_beside_the_thing():
    env = make_env()
    env.reset_to(0)
    disturbance = _disturbance(env, 3, **_none() | {"missed_grasps": 1.0})
    state = env.state()
    closing = state.copy()
    closing[-1] = 0.0
    executed = [disturbance.apply(state, closing) for _ in range(13)]
    assert all(perturbed for _, perturbed in executed)
    assert executed[0][0][-1] == 1.0 and executed[-1][0][-1] == 0.0
    assert np.abs(executed[0][0][:6] - state[:6]).max() > 0.1
    assert not disturbance.apply(state, closing)[1]  # once


def test_bursts_turn_hands_and_move_grippers():
    env = make_env("arm_ee")
    env.reset_to(0)
    state = env.state()
    disturbance = _disturbance(env, 2, **_none() | {"bursts": 1.0, "burst_rate": 5.0, "burst_grips": 1.0})
    off = np.abs([disturbance.apply(state, state)[0] - state for _ in range(100)]).max(axis=0)
    assert np.all(off[:3] > 0.01) and np.all(off[3:9] > 0.01) and off[-1] > 0.5


def test_a_hand_that_misses_closes_centimetres_aside():
    env = make_env("arm_ee")
    env.reset_to(0)
    disturbance = _disturbance(env, 3, **_none() | {"missed_grasps": 1.0})
    start = env.state()
    for _ in range(13):  # an expert would close here, and goes on from where it is
        action = env.controller.encode(env.controller.command)
        action[-1] = 0.0
        env.advance(disturbance.apply(env.state(), action)[0])
    aside = np.linalg.norm((env.state() - start)[:2])
    assert 0.05 < aside < 0.2 and env.state()[-1] < 0.3


def test_odd_starts_move_the_robot_and_repeat():
    def start(seed):
        env = make_env("mobile")
        env.reset_to(1)
        before = env.controller.measured()
        odd_start(env, np.random.default_rng(seed), mishaps=Mishaps(odd_starts=1.0))
        return before, env.controller.measured()

    before, after = start(0)
    assert np.abs(after - before).max() > 0.05
    assert np.array_equal(after, start(0)[1])


def test_the_expert_recovers():
    env = make_env("arm")
    env.reset_to(9)
    expert = WorldExpert(env, np.random.default_rng(9))
    disturbance = _disturbance(env, 6, bursts=1.0, missed_grasps=1.0, shoves=1.0)
    marked = 0
    for _ in range(env.max_steps):
        action, perturbed = disturbance.apply(env.state(), expert.act())
        marked += perturbed
        if env.advance(action)["success"]:
            break
    assert marked > 5 and env.goal_states() == (True,)
