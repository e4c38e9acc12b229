"""The adapters of other people's benchmarks, on stand-ins that record what they are asked (the real packages:
`make test-benchmarks`)."""

import math
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from pilot.eval.suites import all_suites, load_suite
from pilot.sims import aloha, libero, metaworld, pusht
from sims.fake_libero import FakeArm, FakeRenderer

NAMES = ("pusht", "aloha-insertion", "metaworld-mt10", "libero-object")
ROBOTS = ("pusht", "aloha_sim", "metaworld", "libero")
EXTRAS = {**dict(zip(NAMES, ("pusht", "aloha", "metaworld", "libero"))), "libero-plus-object-camera": "libero-plus"}


def test_there_are_five_suites_of_libero_and_sixteen_of_libero_pro():
    names = [suite.name for suite in libero.SUITES]
    assert sum(name.startswith("libero-pro-") for name in names) == 16 and len(names) == 21
    assert libero.MAX_STEPS == {"spatial": 220, "object": 280, "goal": 300, "10": 520, "90": 400}


def test_metaworld_has_fifty_tasks_in_four_groups():
    groups = (metaworld.EASY, metaworld.MEDIUM, metaworld.HARD, metaworld.VERY_HARD)
    assert [len(group) for group in groups] == [28, 11, 6, 5]
    assert len(set(metaworld.MT50)) == 50 and set(metaworld.MT10) < set(metaworld.MT50)


def test_names_are_listed_without_the_packages():
    assert {"pusht", "aloha-insertion", "metaworld-mt50", "libero-pro-10-swap"} <= set(all_suites())
    assert not {"libero", "liberoplus", "metaworld", "gym_aloha", "gym_pusht"} & set(sys.modules)


@pytest.mark.parametrize(("name", "extra"), EXTRAS.items(), ids=EXTRAS)
def test_a_package_that_is_missing_is_named_with_its_extra(name, extra, monkeypatch):
    for module in ("gym_pusht.envs.pusht", "gym_aloha.env", "metaworld", "libero.libero.benchmark"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"pip install 'pilot\[{extra}\]'"):
        load_suite(name).make_env()


def test_scenes_go_round_the_tasks():
    suite = load_suite("metaworld-mt10")
    assert [suite.locate(scene) for scene in (0, 9, 10, 499)] == [
        ("reach", 0), ("window-close", 0), ("reach", 1), ("window-close", 49),
    ]  # fmt: skip
    assert suite.labels(scene=11, episode=0)["group"] == "push"
    with pytest.raises(ValueError, match="500 scenes"):
        suite.locate(500)


def test_the_robots_fit_the_suites():
    for name, robot in zip(NAMES, ROBOTS):
        assert load_suite(name).robot.name == robot


class FakePlane:
    """PushT's plane: remembers seeds and actions."""

    def __init__(self, **options):
        self.options, self.seeds, self.actions, self.coverage = options, [], [], 0.0

    def reset(self, seed):
        self.seeds.append(seed)
        return np.array([1.0, 2, 3, 4, 0]), {}

    def step(self, action):
        self.actions.append(action)
        return np.array([5.0, 6, 0, 0, 0]), 0.0, False, False, {"coverage": self.coverage}

    def _render(self, visualize):
        return np.zeros((96, 96, 3), np.uint8)


@pytest.fixture
def plane(monkeypatch):
    monkeypatch.setitem(sys.modules, "gym_pusht.envs.pusht", SimpleNamespace(PushTEnv=FakePlane))
    return load_suite("pusht").make_env(image_size=96)


def test_pusht_starts_from_the_seeds_of_the_papers_evaluation(plane):
    plane.reset_to(7)
    assert plane._env.seeds == [100_007]
    plane.reset_to(7, episode=1)
    assert plane._env.seeds[1] != 100_007


def test_pusht_succeeds_beyond_95_percent_and_clips_to_the_plane(plane):
    plane.reset_to(0)
    plane._env.coverage = 0.95
    assert plane.advance(np.array([600.0, -3.0])) == {"success": False, "progress": 1.0}
    plane._env.coverage = 0.951
    assert plane.advance(np.zeros(2))["success"] is True
    np.testing.assert_array_equal(plane._env.actions[0], [512, 0])
    np.testing.assert_array_equal(plane.observe()["state"], [5, 6])


def test_actions_that_are_no_numbers_are_refused(plane):
    with pytest.raises(ValueError, match="2 finite numbers"):
        plane.advance(np.array([np.nan, 0]))
    with pytest.raises(ValueError, match="2 finite numbers"):
        plane.advance(np.zeros(3))
    assert plane._env.actions == []


@pytest.fixture
def arm(monkeypatch):
    benchmark = SimpleNamespace(
        get_task_init_states=lambda index: [f"state {n}" for n in range(50)],
        get_task_bddl_file_path=lambda index: f"{index}.bddl",
        get_task=lambda index: SimpleNamespace(language=f"do {index}"),
    )
    modules = {
        "libero.libero.benchmark": SimpleNamespace(get_benchmark=lambda name: lambda: benchmark),
        "libero.libero.envs.env_wrapper": SimpleNamespace(ControlEnv=FakeArm),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("pilot.sims.gl.Renderer", FakeRenderer)
    return load_suite("libero-object").make_env(image_size=2)


def test_libero_settles_for_ten_steps_with_the_gripper_open(arm):
    arm.reset_to(23)
    assert arm._env.state == "state 2" and arm.observe()["prompt"] == "do 3"
    np.testing.assert_array_equal(arm._env.actions, np.tile([0, 0, 0, 0, 0, 0, -1.0], (10, 1)))


def test_libero_demonstrates_from_other_states_than_it_tests(arm):
    drawn = {}
    for split in ("train", "validation"):
        env = replace(load_suite("libero-object"), split=split).make_env(image_size=2)
        for seed in (0, 1):
            env.reset_to(23, seed=seed)
            assert env._env.state is None
            drawn[split, seed] = env._env.drawn_from
    assert len(set(drawn.values())) == 4
    arm.reset_to(23, seed=1)
    assert arm._env.state == "state 3"


def test_libero_pictures_have_their_columns_turned(arm):
    images = arm.reset_to(0)[0]["images"]
    assert images["image"][0, 1, 0] == 1 and images["wrist_image"][0, 1, 0] == 2
    assert arm._renderer.options["effects"] is False


def test_libero_state_is_position_axis_angle_and_fingers(arm):
    state = arm.reset_to(0)[0]["state"]
    np.testing.assert_allclose(state, [0.1, 0.2, 0.3, 0, 0, math.pi / 2, 0.04, -0.04], atol=1e-6)


def test_axis_angles_are_robosuites():
    np.testing.assert_array_equal(libero.quaternion_to_axis_angle(np.array([0, 0, 0, 1.0])), np.zeros(3))
    half = math.sqrt(0.5)  # robosuite takes the long way round where w is negative
    np.testing.assert_allclose(
        libero.quaternion_to_axis_angle(np.array([half, 0, 0, -half])), [1.5 * math.pi, 0, 0], atol=1e-6
    )


def test_prompts_need_no_physics():
    assert load_suite("aloha-insertion").prompt(3) == aloha.PROMPTS["insertion"]
    assert load_suite("metaworld-mt10").prompt(3) == "door open"
    assert load_suite("pusht").prompt(0) == pusht.PROMPT


def test_experts_are_there_for_the_suites_whose_goals_they_know():
    taught = {suite.base for suite in libero.SUITES if suite.has_expert}
    assert taught == {"spatial", "object", "goal"}
    assert all(suite.has_expert for suite in aloha.SUITES)
