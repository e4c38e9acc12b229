"""Names of suites and controls, and what the suites ask."""

import pytest

from pilot.eval.suites import all_suites, check_control, lesson_for, load_suite, suites_for
from pilot.sims.homes import LESSON, SUITES


def test_an_unknown_suite_gets_the_nearest_name():
    with pytest.raises(ValueError, match=r"homes-l2-mult'.*did you mean 'homes-l2-multi'"):
        load_suite("homes-l2-mult")


def test_an_unknown_control_is_named():
    with pytest.raises(ValueError, match=r"blank_image'.*blank_images"):
        check_control("blank_image")


def test_suites_of_a_robot():
    assert suites_for("homes") == list(SUITES) == list(all_suites().values())[: len(SUITES)]
    assert lesson_for("homes") is LESSON
    with pytest.raises(ValueError, match=r"no simulator has a suite for robot 'ur5'; there are suites for 'homes'"):
        suites_for("ur5")
    with pytest.raises(ValueError, match=r"there is no demo for robot 'ur5'; there is one for 'homes'"):
        lesson_for("ur5")


@pytest.mark.parametrize("suite", [*SUITES, LESSON.new], ids=lambda suite: suite.name)
def test_prompts_are_known_without_building_the_home(suite):
    env = suite.make_env()
    for home in (0, 5):
        observation, _ = env.reset_to(home)
        assert suite.prompt(home) == observation["prompt"]
    env.close()


def test_a_suite_is_given_another_robot_by_its_name():
    own, other = load_suite("rooms-move"), load_suite("rooms-move@bimanual_ee")
    assert own.robot.name == "mobile" and own.name == "rooms-move"
    assert (other.name, other.robot.name, other.robot.control_mode) == (
        "rooms-move@bimanual_ee",
        "bimanual_ee",
        "end_effector",
    )
    assert load_suite("rooms-move@mobile") == own
    assert other in suites_for("bimanual_ee") and own in suites_for("mobile")
    with pytest.raises(ValueError, match=r"unknown robot of suite 'rooms-move' 'bimanul'; did you mean 'bimanual'"):
        load_suite("rooms-move@bimanul")
    with pytest.raises(ValueError, match=r"unknown robot of suite 'homes-l1' 'arm'; known: homes"):
        load_suite("homes-l1@arm")
