"""Names of suites and controls, and what the suites ask."""

import pytest

from pilot.eval.suites import SUITES, check_control, get_suite


def test_an_unknown_suite_gets_the_nearest_name():
    with pytest.raises(ValueError, match=r"homes-l2-mult'.*did you mean 'homes-l2-multi'"):
        get_suite("homes-l2-mult")


def test_an_unknown_control_is_named():
    with pytest.raises(ValueError, match=r"blank_image'.*blank_images"):
        check_control("blank_image")


@pytest.mark.parametrize("name", SUITES)
def test_prompts_are_known_without_building_the_home(name):
    suite = SUITES[name]
    env = suite.make_env()
    for home in (0, 5):
        observation, _ = env.reset(seed=0, options={"home": home, "episode": 0})
        assert suite.prompt(home) == observation["prompt"]
    env.close()
