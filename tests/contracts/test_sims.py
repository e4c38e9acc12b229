"""Every suite of every simulator keeps the contract of simulators; a simulator from elsewhere is judged by the same."""

import subprocess
import sys
from dataclasses import dataclass

import gymnasium
import numpy as np
import pytest

from pilot.contracts import sim as contract
from pilot.eval.suites import all_suites, simulators
from pilot.sims.homes import SUITES, HomesEnv
from sims import foreign

FOREIGN = contract.find_in(foreign)
INSTALLED = {name: suite for name, suite in all_suites().items() if suite.is_installed and not suite.is_part}
KNOWN = INSTALLED | FOREIGN


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", KNOWN)
def test_simulator(name, check):
    check(KNOWN[name])


def test_the_names_of_suites_are_known_without_physics():
    assert {suite.name for suite in SUITES} <= set(all_suites()) and list(FOREIGN) == ["dots"]
    heavy = "mujoco", "gymnasium", "torch"
    listing = "import sys; from pilot.eval.suites import all_suites; all_suites(); "
    code = listing + f"print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_lessons_are_about_one_robot():
    lessons = [module.LESSON for _, module in simulators() if hasattr(module, "LESSON")]
    assert lessons
    for lesson in lessons:
        assert lesson.new.robot == lesson.known.robot == lesson.questions.robot
        assert lesson.new.has_expert and lesson.known.has_expert and lesson.questions.has_questions


def test_a_simulator_that_forgets_its_numbers_is_named():
    class Forgetful(foreign.DotEnv):
        def reset_to(self, scene, *, episode=0, seed=0):
            return super().reset_to(0)

    @dataclass(frozen=True, kw_only=True)
    class ForgetfulSuite(foreign.DotSuite):
        def make_env(self, *, image_size=64):
            return Forgetful()

    with pytest.raises(ValueError, match="scenes 3 and 4 gave the same start"):
        contract.check_starts(ForgetfulSuite(name="forgetful", title=""))


def test_homes_are_a_gymnasium_environment_whose_step_is_advance_then_observe():
    env = HomesEnv()
    assert isinstance(env, gymnasium.Env) and env.action_space.shape == (env.robot.action_dim,)
    action = np.full(4, 0.1, np.float32)
    env.reset(seed=5)
    stepped, _, _, _, info = env.step(action)
    env.reset(seed=5)
    assert info == env.advance(action)
    assert contract.is_same(stepped, env.observe())
    assert contract.is_same(env.reset(seed=5)[0], env.reset(seed=5)[0])
    env.close()
