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


def test_the_box_of_what_is_hidden_now_is_remembered(policy):
    (new,) = decided(policy, words(0.0), 0)
    box = "<loc0100><loc0200><loc0300><loc0400>"
    for before, remembers, want in (
        (box + new, True, box + new),
        (box + new, False, new),
        (box + OLD, True, new),  # other words: another thing
        (new, True, new),
    ):
        level = replace(words(0.0), remember_boxes=remembers)
        session, by_hand = policy.session(high_level=level, subtask_seconds=0.0), policy.session()
        for one in (session, by_hand):
            one.infer(observation(subtask=before))
        session.state = replace(session.state, was_told=False)  # as if the model had said it
        actions = session.infer(observation())["actions"]
        assert session.subtask == want
        if want != new:
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


def test_a_stop_is_taken_only_by_those_who_are_sure(policy):
    (stop,) = decided(policy, replace(words(0.0), stop_probability=0.0), 0)
    rest = tuple(label for label in LABELS if label != stop)
    (other,) = decided(policy, replace(words(0.0), labels=rest), 0)
    sure = np.exp(scores(policy, stop)[0])
    for least, want in ((sure * 0.99, stop), (sure * 1.01, other)):
        level = replace(words(0.0), stop_words=(stop,), stop_probability=least)
        assert decided(policy, level, 0) == [want]
        assert decided(policy, replace(level, keep_margin=0.0), 0) == [want]
    drawn = words(1.0)
    assert decided(policy, replace(drawn, stop_words=LABELS), *range(5)) == decided(policy, drawn, *range(5))


def test_free_words_do_not_stop_either(policy):
    codec = policy.subtask_codec
    stop, other = codec.encode("done"), codec.encode("wave")
    free, bound = (codec.grammar(boxes="none", without=words) for words in ((), ("done",)))
    last = len(stop) - 2  # of the word; behind it is the end
    assert free.allowed(stop[:last])[stop[last]] and not bound.allowed(stop[:last])[stop[last]]
    assert all(bound.allowed(other[:n])[token] for n, token in enumerate(other))


def test_a_changed_stop_is_acted_on_and_leaves_neighbours_alone(policy):
    level = replace(words(0.0), stop_probability=0.0)
    (stop,) = decided(policy, level, 0)
    doubtful = replace(level, stop_words=(stop,), stop_probability=1.0)
    (other,) = decided(policy, doubtful, 0)
    says_nothing_else = policy.session(high_level=replace(words(0.0), labels=(other,)))
    ahead = policy.session(high_level=doubtful, subtask_seconds=9.0)
    first = ahead.infer(observation(1))
    going_on = policy.session(high_level=doubtful, subtask_seconds=9.0)
    assert going_on.infer(observation(1))["subtask"] == first["subtask"]
    fresh = policy.session(high_level=doubtful)
    changed, stayed = policy.infer_many([fresh, ahead], [observation(0), observation(2)])
    assert (changed["subtask"], stayed["subtask"]) == (other, first["subtask"])
    wanted = says_nothing_else.infer(observation(0))["actions"]
    np.testing.assert_allclose(changed["actions"], wanted, atol=1e-4)
    np.testing.assert_allclose(stayed["actions"], going_on.infer(observation(2))["actions"], atol=1e-4)


def test_stop_words_are_not_held_on_to(policy):
    (new,) = decided(policy, words(0.0), 0)
    for stops, want in ((("wave",), new), (("done",), OLD)):
        level = replace(words(0.0), keep_margin=1e6, stop_words=stops)
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


def test_a_subtask_never_begins_the_actions(policy):
    """A model that has learned rows without a subtask would, and nobody could act on such words."""
    codec = policy.subtask_codec
    (start,) = policy.bundle.text.encode("Action: ")
    for boxes in ("first", "none"):
        grammar = codec.grammar(boxes=boxes)
        assert not grammar.allowed([])[start] and not grammar.allowed(codec.encode("wave")[:-1])[start]
        assert grammar.allowed([])[codec.encode("wave")[0]]
