"""Every task of the lab: what it draws, what it asks, and that its expert can do it."""

import contextlib

import numpy as np
import pytest

from pilot.sims.lab import SUITES, LabSuite, language
from pilot.sims.lab.suites import task_of
from pilot.sims.world.scene import ImpossibleSceneError

BY_TASK = {suite.task: suite for suite in SUITES if suite.level == 2}
each_suite = pytest.mark.parametrize("suite", BY_TASK.values(), ids=lambda suite: suite.name)


def suite_of(task: str, body: str = "bimanual", *, level: int = 1, split: str = "train") -> LabSuite:
    return LabSuite(name="x", title="x", task=task, arms=("arm", "bimanual"), body=body, level=level, split=split)


def first_that_works(suite: LabSuite):
    """Return the scene of the first seed with which all things fit on the table."""
    for seed in range(20):
        with contextlib.suppress(ImpossibleSceneError):
            return suite.draw(0, 0, seed)
    raise AssertionError(f"nothing fits for {suite}")


def run_expert(suite: LabSuite, scene: int) -> dict:
    """Let the expert act in one episode until a second after it is done; return what is known at the end."""
    env = suite.make_env(image_size=32)
    _, info = env.reset_to(scene)
    expert, rested = suite.expert(env, np.random.default_rng(scene)), 0
    for _ in range(env.max_steps):
        info = env.advance(expert.act())
        rested = rested + 1 if info["success"] else 0
        if rested > env.robot.control_hz or info["broken"]:
            break
    env.close()
    return info


@each_suite
def test_a_task_begins_undone_and_the_same_each_time(suite):
    env = suite.make_env(image_size=32)
    first, info = env.reset_to(5)
    assert not info["success"] and info["progress"] < 1
    assert info["subtask"] in {words for step in env.scene.task.steps for words in step.subtasks}
    assert first["prompt"] in suite.phrasings.known + suite.phrasings.held_out
    qpos = env.world.data.qpos.copy()
    again, _ = env.reset_to(5)
    assert np.array_equal(qpos, env.world.data.qpos) and again["prompt"] == first["prompt"]
    assert all(np.array_equal(first["images"][name], again["images"][name]) for name in first["images"])
    env.reset_to(6)
    assert len(qpos) != len(env.world.data.qpos) or not np.array_equal(qpos, env.world.data.qpos)
    env.close()


@each_suite
def test_a_task_can_be_drawn_for_all_of_its_bodies_and_levels(suite):
    for body in suite.bodies:
        for level in (1, 2):
            scene = first_that_works(suite_of(suite.task, body, level=level))
            scene.task.check(scene)
            assert all(step.skill in {*task_of(suite.task).skills, "move"} for step in scene.task.steps)


@each_suite
def test_a_task_is_asked_in_many_ways_and_some_are_kept_for_tests(suite):
    assert len(suite.phrasings.known) >= 20
    assert len(suite.phrasings.held_out) >= 3
    assert not set(suite.phrasings.known) & set(suite.phrasings.held_out)


@pytest.mark.parametrize("split, has_them", [("train", False), ("test", True)])
def test_only_the_test_split_has_held_out_words_and_kinds(split, has_them):
    suite, prompts, kinds = suite_of("bus_table", split=split), set(), set()
    for seed in range(12):
        with contextlib.suppress(ImpossibleSceneError):
            scene = suite.draw(0, 0, seed)
            prompts.add(scene.task.prompt)
            kinds.update(item.kind.name for item in scene.items.values() if item.kind.is_held_out)
    assert bool(prompts & set(suite.phrasings.held_out)) == has_them
    assert bool(kinds) == has_them


@pytest.mark.parametrize(
    "task, body, scene",
    [
        ("stack_bowls", "arm", 0),
        ("paper_roll", "arm", 1),
        ("fold_towel", "bimanual", 0),
        ("assemble_box", "bimanual", 0),
    ],
)
def test_the_expert_does_the_task(task, body, scene):
    info = run_expert(suite_of(task, body), scene)
    assert info["success"] and info["placed"] == info["targets"]


@each_suite
def test_a_supervisor_has_many_words_for_each_subtask(suite):
    scene = first_that_works(suite_of(suite.task, suite.bodies[0], level=2))
    for subtask in {words for step in scene.task.steps for words in step.subtasks}:
        said, only_tests_hear = suite.utterances(subtask), language.utterances(subtask, held_out=True)
        assert subtask in said and len(said) >= 20
        assert only_tests_hear and not set(said) & set(only_tests_hear)


def test_words_of_a_supervisor_for_done_and_for_nonsense():
    assert language.utterances("done") == ()
    with pytest.raises(ValueError, match="juggle the eggs"):
        language.utterances("juggle the eggs")


def test_a_body_that_cannot_do_a_task_is_refused():
    with pytest.raises(ValueError, match="arm"):
        BY_TASK["fold_towel"].with_robot("arm")
    assert BY_TASK["stack_bowls"].with_robot("arm").robot.name == "arm"
