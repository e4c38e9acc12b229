"""The adapters of other people's benchmarks keep the simulator's contract, with the real packages.

Not part of the test suite: `make test-benchmarks` installs half a gigabyte, and runs this.
"""

import dataclasses

import numpy as np
import pytest

from pilot.contracts import sim
from pilot.eval.suites import load_suite

SUITES = (
    "pusht", "aloha-transfer-cube", "aloha-insertion", "metaworld-reach", "metaworld-mt10", "libero-object",
    "libero-pro-goal-task",
)  # fmt: skip


@pytest.mark.parametrize("check", sim.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", SUITES)
def test_contract(name, check):
    check(load_suite(name))


def test_aloha_counts_stages():
    env = load_suite("aloha-transfer-cube").make_env(image_size=64)
    env.reset_to(0)
    info = env.advance(env.observe()["state"])
    assert (info["placed"], info["targets"], info["progress"]) == (0, 4, 0.0)
    env.close()


def test_libero_pictures_are_its_own_turned_by_180_degrees():
    from robosuite.utils.binding_utils import MjRenderContextOffscreen

    env = dataclasses.replace(load_suite("libero-object"), effects=True).make_env(image_size=64)
    ours = env.reset_to(0)[0]["images"]["image"].astype(int)
    MjRenderContextOffscreen(env._env.sim, -1, 64, 64).vopt.geomgroup[:2] = 0, 1
    theirs = env._env.sim.render(width=64, height=64, camera_name="agentview")[::-1, ::-1]
    assert np.abs(ours - theirs).mean() < 0.1
    env.close()


def test_libero_instructions_of_the_pro_splits_come_from_their_files():
    assert load_suite("libero-object").prompt(0) == "pick up the alphabet soup and place it in the basket"
    assert load_suite("libero-pro-object-task").prompt(0) == "pick the cream cheese and place it in the basket"


def test_metaworld_experts_reach_the_goal():
    suite = load_suite("metaworld-mt10")
    env = suite.make_env(image_size=32)
    for scene in range(4):
        env.reset_to(scene)
        expert = suite.expert(env, np.random.default_rng(0))
        assert any(env.advance(expert.act())["success"] for _ in range(env.max_steps)), suite.task_of(scene)
    env.close()
