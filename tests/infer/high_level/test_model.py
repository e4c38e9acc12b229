"""The model as its own high level: options of what it writes, and when the previous subtask stays."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from infer.policies import BOX, LABELS, observation, scores
from pilot.infer.high_level import HighLevel, ModelHighLevel
from pilot.infer.policy import Policy

OLD = BOX + "wave"


def decided(policy: Policy, level: HighLevel, *seeds: int) -> list[str | None]:
    """What one session says, turn by turn, with its places."""
    session, said = policy.session(high_level=level, subtask_seconds=0.0), []
    for seed in seeds:
        session.infer(observation(seed))
        said.append(session.subtask)
    return said


def words(temperature: float) -> ModelHighLevel:
    return ModelHighLevel(labels=LABELS, boxes="none", temperature=temperature)


def test_drawn_subtasks_repeat_themselves_and_differ(policy):
    first = decided(policy, ModelHighLevel(temperature=1.0), *[0] * 4)
    assert len(set(first)) > 1 and decided(policy, ModelHighLevel(temperature=1.0), *[0] * 4) == first
    assert decided(policy, words(1e-6), 0, 1) == decided(policy, words(0.0), 0, 1)


def test_drawing_words_leaves_the_noise_alone(policy):
    """A session's chunks start from the same noise, whether its subtasks are drawn or not."""
    drawn, greedy = policy.session(high_level=words(1.0)), policy.session(high_level=words(0.0))
    for session in (drawn, greedy):
        session.infer(observation())
    assert torch.equal(drawn.noise_generator.get_state(), greedy.noise_generator.get_state())
    assert not torch.equal(drawn.text_generator.get_state(), greedy.text_generator.get_state())


def test_what_a_robot_draws_does_not_depend_on_how_long_others_talk(policy):
    """Two robots, one of which is a turn ahead."""
    level = ModelHighLevel(labels=("done", "pick up the red cup in the sink"), boxes="none", temperature=50.0)
    alone = decided(policy, level, *[0] * 9)
    ahead, behind = (policy.session(high_level=level, subtask_seconds=0.0) for _ in range(2))
    ahead.infer(observation())
    for turn in range(8):
        policy.infer_many([ahead, behind], [observation()] * 2)
        assert [behind.subtask, ahead.subtask] == alone[turn : turn + 2]
    assert len(set(alone)) == 2


@pytest.mark.parametrize("level", [ModelHighLevel(labels=LABELS), ModelHighLevel(labels=LABELS, temperature=5.0)])
def test_only_labels_are_said(policy, level):
    for subtask in decided(policy, level, 0, 1, 2, 3):
        words, box = policy.pipeline.split_subtask(subtask)
        assert words in LABELS and ("<loc" in subtask) == (box is not None)


def test_boxes_are_optional(policy):
    for level in (words(0.0), ModelHighLevel(boxes="none", temperature=1.0)):
        assert all(said and "<loc" not in said for said in decided(policy, level, 0, 1, 2, 3))


def test_an_old_subtask_stays_unless_another_is_likelier_by_a_margin(policy):
    (new,) = decided(policy, words(0.0), 0)
    likelier = np.subtract(*scores(policy, new, OLD))
    assert likelier > 0.1
    for margin, want in ((likelier + 1e-2, OLD), (likelier - 1e-2, new), (None, new)):
        level = ModelHighLevel(labels=LABELS, boxes="none", keep_margin=margin)
        session, by_hand = policy.session(high_level=level, subtask_seconds=0.0), policy.session()
        for one in (session, by_hand):
            one.infer(observation(subtask=OLD))
        session.state = replace(session.state, was_told=False)  # as if the model had said it
        actions = session.infer(observation())["actions"]
        assert session.subtask == want
        if want == OLD:
            np.testing.assert_allclose(actions, by_hand.infer(observation(subtask=want))["actions"], atol=1e-4)


def test_what_has_ended_is_not_held_on_to(policy):
    (new,) = decided(policy, ModelHighLevel(), 0)
    for changes, want in (({}, OLD), ({"subtask_done": True}, new)):
        session = policy.session(high_level=ModelHighLevel(keep_margin=1e6), subtask_seconds=0.0)
        session.infer(observation(subtask=OLD))
        session.state = replace(session.state, was_told=False)
        session.infer(observation(**changes))
        assert session.subtask == want
    session = policy.session(high_level=ModelHighLevel(keep_margin=1e6), subtask_seconds=0.0)
    session.infer(observation(subtask=OLD))
    session.infer(observation())
    assert session.subtask == new, "nor is what a person had told it"


def test_what_is_never_kept_is_not(policy):
    (new,) = decided(policy, words(0.0), 0)
    for never, want in ((("wave",), new), (("done",), OLD)):
        level = replace(words(0.0), keep_margin=1e6, never_kept=never)
        session = policy.session(high_level=level, subtask_seconds=0.0)
        session.infer(observation(subtask=OLD))
        session.state = replace(session.state, was_told=False)
        session.infer(observation())
        assert session.subtask == want


def test_robots_hold_on_each_for_itself(policy):
    """In one batch as alone: one that keeps its subtask, one that has none yet, one that was told."""
    level = ModelHighLevel(keep_margin=1e6)
    sessions = [policy.session(high_level=level, subtask_seconds=0.0) for _ in range(3)]
    sessions[0].infer(observation(0, subtask=OLD))
    sessions[0].state = replace(sessions[0].state, was_told=False)
    shown = [observation(0), observation(1), observation(2, subtask=BOX + "wait")]
    answers = policy.infer_many(sessions, shown)
    (fresh,) = decided(policy, ModelHighLevel(), 1)
    assert [session.subtask for session in sessions] == [OLD, fresh, BOX + "wait"]
    alone = policy.session().infer(observation(1))
    np.testing.assert_allclose(answers[1]["actions"], alone["actions"], atol=1e-4)
