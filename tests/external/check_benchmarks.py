"""The adapters of other people's benchmarks keep the simulator's contract, with the real packages.

Not part of the test suite: `make test-benchmarks` installs half a gigabyte, and runs this.
"""

import dataclasses
import importlib.util

import numpy as np
import pytest

from pilot.contracts import sim
from pilot.eval.suites import load_suite
from pilot.sims import libero_plus

needs_plus = pytest.mark.skipif(
    importlib.util.find_spec("liberoplus") is None, reason="LIBERO-Plus needs Python 3.11 or 3.12"
)
SUITES = (
    "pusht", "aloha-transfer-cube", "aloha-insertion", "metaworld-reach", "metaworld-mt10", "libero-object",
    "libero-pro-goal-task", pytest.param("libero-plus-object-robot", marks=needs_plus),
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


@needs_plus
def test_libero_plus_has_the_variants_that_its_authors_count():
    """10 030 less those of light, background and added objects."""
    counts = dict.fromkeys(libero_plus.AXES, 0)
    for suite in libero_plus.SUITES:
        counts[suite.axis] += len(suite.variants())
    assert counts == {"camera": 1599, "robot": 1550, "language": 1537, "noise": 1601, "moved": 696}


@needs_plus
def test_libero_plus_changes_one_thing():
    plain = first_observation("libero-object")
    seen = {axis: first_observation(f"libero-plus-object-{axis}") for axis in ("camera", "robot", "language", "moved")}
    differs = {
        axis: {
            "words": other["prompt"] != plain["prompt"],
            "state": not np.allclose(other["state"], plain["state"], atol=1e-4),
            **{camera: is_another(image, plain["images"][camera]) for camera, image in other["images"].items()},
        }
        for axis, other in seen.items()
    }
    assert {axis: {what for what, is_so in parts.items() if is_so} for axis, parts in differs.items()} == {
        "camera": {"image"},
        "robot": {"state", "image", "wrist_image"},
        "language": {"words"},
        "moved": {"state", "image", "wrist_image"},  # another of LIBERO's initial states, the hand a little elsewhere
    }


@needs_plus
def test_libero_plus_noise_is_in_one_picture():
    suite = load_suite("libero-plus-object-noise")
    try:
        suite.check_ready()
    except ImportError as error:
        pytest.skip(str(error))
    noisy, plain = (first_observation(name, image_size=256) for name in (suite.name, "libero-object"))
    assert is_another(noisy["images"]["image"], plain["images"]["image"])
    assert not is_another(noisy["images"]["wrist_image"], plain["images"]["wrist_image"])
    np.testing.assert_allclose(noisy["state"], plain["state"], atol=1e-4)


def first_observation(name, *, image_size=64):
    env = load_suite(name).make_env(image_size=image_size)
    observation, _ = env.reset_to(0)
    env.close()
    return observation


def is_another(image, other):
    """Return whether pictures differ by more than a few pixels along edges."""
    return np.abs(image.astype(int) - other).mean() > 0.5


def test_metaworld_experts_reach_the_goal():
    suite = load_suite("metaworld-mt10")
    env = suite.make_env(image_size=32)
    for scene in range(4):
        env.reset_to(scene)
        expert = suite.expert(env, np.random.default_rng(0))
        assert any(env.advance(expert.act())["success"] for _ in range(env.max_steps)), suite.task_of(scene)
    env.close()
