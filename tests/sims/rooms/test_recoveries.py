"""Experts recover from injected failures, also where they control an arm by the pose of its hand."""

from dataclasses import replace

import numpy as np
import pytest

from pilot.eval.suites import load_suite
from pilot.sims.demonstrate import Demonstration, demonstrate


@pytest.mark.parametrize("home", [1002, 1012])
def test_an_arm_that_is_led_by_its_hand_gets_out_of_where_a_failure_left_it(home):
    """The joints that a plan ends in cannot be commanded there: the hand goes where they would bring it."""
    suite = replace(load_suite("rooms-move-l1@mobile_ee"), split="train")
    env = suite.make_env()
    try:
        result = demonstrate(suite, env, scene=home, episode=0, seed=1000, picture_every=10_000)
    finally:
        env.close()
    assert isinstance(result, Demonstration), result
    assert np.isfinite(result.actions[-1]).all()
