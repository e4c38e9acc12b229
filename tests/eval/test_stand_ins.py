"""High levels that read the simulator: what a person and a stub say when, and what SayCan is told is feasible."""

import numpy as np
import pytest

from eval.checkpoints import save_random_policy
from pilot.eval.evaluate import evaluate
from pilot.eval.runner import Job, Runner
from pilot.eval.settings import Settings
from pilot.eval.stand_ins import SimulatedAffordance, study_high_level
from pilot.eval.suites import load_suite
from pilot.tokenizers.text import split_box

SUITE = load_suite("homes-l2")
BOX = (0.25, 0.25, 0.5, 0.5)


class Scripted:
    """An environment at 10 Hz in which the subtask changes after 20 steps."""

    robot, max_steps = SUITE.robot, 80

    def __init__(self) -> None:
        self.step = 0

    def info(self) -> dict:
        return {"success": False, "subtask": "pick up the red cup" if self.step < 20 else "done", "box": BOX}

    def reset_to(self, scene, *, episode=0, seed=0):
        self.step = 0
        return {"state": 0}, self.info()

    def advance(self, action):
        self.step += 1
        return self.info()

    def feasible_subtasks(self):
        return {"pick up the red cup": 1.0, "put it in the sink": 0.0, "done": 1.0}


def said(name: str, *, steps: int = 40) -> list[str | None]:
    """What a high level says before each of the first steps."""
    level = study_high_level(name, suite=SUITE, endpoint=None).for_episode()
    with pytest.raises(ValueError, match="reads the simulator, so it works in evaluations only"):
        level.advisor().advise(None, now=0, event=False, history=())
    env = level.watch(Scripted(), SUITE, loc_stride=1)
    env.reset_to(3)
    advisor, heard = level.advisor(), []
    for _ in range(steps):
        heard.append(advisor.advise(None, now=0, event=False, history=()))
        env.advance(np.zeros(4))
    return heard


def test_a_person_says_the_truth_after_the_reaction_time():
    assert said("person-1s") == [None] * 10 + ["pick up the red cup"] * 20 + ["done"] * 10
    assert said("person-0.5s", steps=6) == [None] * 5 + ["pick up the red cup"]


def test_a_person_does_not_follow_what_is_true_for_a_moment(monkeypatch):
    flickers = ["pick up the red cup", "pick up the blue cup"]
    monkeypatch.setattr(
        Scripted, "info", lambda self: {"success": False, "subtask": flickers[self.step > 20 and self.step % 3 == 0],
                                        "box": BOX})  # fmt: skip
    assert said("person-0.5s") == [None] * 5 + ["pick up the red cup"] * 35


def test_a_person_notices_a_change_that_comes_and_goes(monkeypatch):
    """A grasp that is lost for a moment every third step was never whole for half a second."""
    words = ["pick up the red cup", "put it in the sink"]
    monkeypatch.setattr(
        Scripted, "info", lambda self: {"success": False, "subtask": words[self.step > 20 and self.step % 3 > 0],
                                        "box": BOX})  # fmt: skip
    assert said("person-0.5s")[35:] == ["put it in the sink"] * 5


def test_a_person_may_point_or_give_an_instruction():
    box, words = split_box(said("person-0s-pointing", steps=1)[0])
    assert words == "pick up the red cup" and np.allclose(box, BOX, atol=2e-3)
    assert said("person-0s-prompt", steps=21) == ["grab the red cup"] * 20 + [None], "nobody says 'done' as a wish"


def test_the_stub_is_late_and_wrong_as_often_as_it_says():
    heard = said("vlm-stub", steps=2000)
    assert heard[:10] == [None] * 10, "the first answer comes after a second"
    assert all(len(set(heard[k : k + 10])) == 1 for k in range(0, 2000, 10)), "one answer a second"
    truth = ["pick up the red cup" if k < 30 else "done" for k in range(2000)]
    wrong = np.mean([a != b for a, b in zip(heard[10:], truth[10:], strict=True)])
    assert 0.1 < wrong < 0.3 and heard == said("vlm-stub", steps=2000), "the same answers each time"


def test_names_and_suites_that_do_not_fit_are_told_so():
    with pytest.raises(ValueError, match="unknown high level 'persn'"):
        study_high_level("persn", suite=SUITE, endpoint=None)
    with pytest.raises(ValueError, match="does not say what is feasible, which 'saycan' needs"):
        study_high_level("saycan", suite=load_suite("lab-bus-table"), endpoint=None)
    with pytest.raises(ValueError, match="--vlm URL"):
        study_high_level("vlm", suite=SUITE, endpoint=None)
    assert study_high_level("", suite=SUITE, endpoint=None) is None
    assert study_high_level("vlm", suite=SUITE, endpoint=("http://localhost:1/v1", "any")).endpoint.model == "any"


def test_an_affordance_is_the_simulators():
    labels = ("done", "pick up the red cup", "put it in the sink", "pick up the blue hat")
    feasible = Scripted().feasible_subtasks()
    np.testing.assert_array_equal(SimulatedAffordance()({"feasible": feasible}, labels), [1, 1, 0, 0])
    env = SUITE.make_env()
    env.reset_to(0)
    here = SUITE.feasible_subtasks(env)
    env.close()
    assert set(here) < set(SUITE.known_subtasks()) and here["done"] == 1.0
    assert {here[words] for words in here if words.startswith("put")} == {0.0}, "the hand is empty"


def test_a_high_level_watches_the_environments_of_an_evaluation(tmp_path):
    policy = save_random_policy(tmp_path / "policy")
    level = study_high_level("person-1s-pointing", suite=SUITE, endpoint=None)
    result = evaluate(str(policy), suite=SUITE, episodes=1, high_level=level, workers=1, progress=False)
    (record,) = result.records
    assert record.subtasks[0][0] == 10 and record.subtasks[0][1].startswith("pick up the ")
    runner = Runner(str(policy), Settings(high_level=level))
    job = Job(suite=SUITE, control="none", scene=0, seed=0, episodes=1)
    assert runner.run(job)[0].subtasks == record.subtasks
    runner.leave()
