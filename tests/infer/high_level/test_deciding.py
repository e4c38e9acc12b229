"""High levels that decide on what the model has read: options of the model's own, and SayCan."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from infer.policies import BOX, TOLD, observation, policy_of
from pilot.infer.engine.sampling import score
from pilot.infer.high_level import SUBTASK_TOKENS, HighLevel, Model, SayCan, Silent, named
from pilot.infer.policy import Policy
from pilot.models.pi import pi05
from pilot.tokenizers.prompts import encode_target

OLD = BOX + "wave"
LABELS = ("pick up the red cup", "pick up the blue cup", "done")


@pytest.fixture(scope="module")
def policy() -> Policy:
    return policy_of(pi05("debug", max_tokens=80))


def scores(policy: Policy, *subtasks: str, seed: int = 0) -> list[float]:
    """Log-probabilities, for the observation of this seed."""
    prefilled = policy.engine.prefill(policy.observe(policy.sample(observation(seed))), max_new_tokens=SUBTASK_TOKENS)
    said = [(0, encode_target(policy.bundle.text, "subtask", text=subtask)) for subtask in subtasks]
    return score(policy.engine, prefilled, said, eos=policy.subtask_end).tolist()


def decided(policy: Policy, level: HighLevel, *seeds: int) -> list[str | None]:
    """What one session says, turn by turn, with its places."""
    session, said = policy.session(high_level=level, subtask_seconds=0.0), []
    for seed in seeds:
        session.infer(observation(seed))
        said.append(session.subtask)
    return said


def words(temperature: float) -> Model:
    return Model(labels=LABELS, boxes="none", temperature=temperature)


def test_drawn_subtasks_repeat_themselves_and_differ(policy):
    first = decided(policy, Model(temperature=1.0), *[0] * 4)
    assert len(set(first)) > 1 and decided(policy, Model(temperature=1.0), *[0] * 4) == first
    assert decided(policy, words(1e-6), 0, 1) == decided(policy, words(0.0), 0, 1)


def test_drawing_words_leaves_the_noise_alone(policy):
    """A session's chunks start from the same noise, whether its subtasks are drawn or not."""
    drawn, greedy = policy.session(high_level=words(1.0)), policy.session(high_level=words(0.0))
    for session in (drawn, greedy):
        session.infer(observation())
    assert torch.equal(drawn.generator.get_state(), greedy.generator.get_state())
    assert not torch.equal(drawn.words_generator.get_state(), greedy.words_generator.get_state())


def test_what_a_robot_draws_does_not_depend_on_how_long_others_talk(policy):
    """Two robots, one of which is a turn ahead."""
    level = Model(labels=("done", "pick up the red cup in the sink"), boxes="none", temperature=50.0)
    alone = decided(policy, level, *[0] * 9)
    ahead, behind = (policy.session(high_level=level, subtask_seconds=0.0) for _ in range(2))
    ahead.infer(observation())
    for turn in range(8):
        policy.infer_many([ahead, behind], [observation()] * 2)
        assert [behind.subtask, ahead.subtask] == alone[turn : turn + 2]
    assert len(set(alone)) == 2


@pytest.mark.parametrize("level", [Model(labels=LABELS), Model(labels=LABELS, temperature=5.0)])
def test_only_labels_are_said(policy, level):
    for subtask in decided(policy, level, 0, 1, 2, 3):
        words, box = policy.pipeline.split_subtask(subtask)
        assert words in LABELS and ("<loc" in subtask) == (box is not None)


def test_boxes_are_optional(policy):
    for level in (words(0.0), Model(boxes="none", temperature=1.0)):
        assert all(said and "<loc" not in said for said in decided(policy, level, 0, 1, 2, 3))


def test_an_old_subtask_stays_unless_another_is_likelier_by_a_margin(policy):
    (new,) = decided(policy, words(0.0), 0)
    likelier = np.subtract(*scores(policy, new, OLD))
    assert likelier > 0.1
    for margin, want in ((likelier + 1e-2, OLD), (likelier - 1e-2, new), (None, new)):
        level = Model(labels=LABELS, boxes="none", keep_margin=margin)
        session, by_hand = policy.session(high_level=level, subtask_seconds=0.0), policy.session()
        for one in (session, by_hand):
            one.infer(observation(subtask=OLD))
        session.was_told = False  # as if the model had said it
        actions = session.infer(observation())["actions"]
        assert session.subtask == want
        if want == OLD:
            np.testing.assert_allclose(actions, by_hand.infer(observation(subtask=want))["actions"], atol=1e-4)


def test_what_has_ended_is_not_held_on_to(policy):
    (new,) = decided(policy, Model(), 0)
    for changes, want in (({}, OLD), ({"subtask_done": True}, new)):
        session = policy.session(high_level=Model(keep_margin=1e6), subtask_seconds=0.0)
        session.infer(observation(subtask=OLD))
        session.was_told = False
        session.infer(observation(**changes))
        assert session.subtask == want
    session = policy.session(high_level=Model(keep_margin=1e6), subtask_seconds=0.0)
    session.infer(observation(subtask=OLD))
    session.infer(observation())
    assert session.subtask == new, "nor is what a person had told it"


def test_what_is_never_kept_is_not(policy):
    (new,) = decided(policy, words(0.0), 0)
    for never, want in ((("wave",), new), (("done",), OLD)):
        level = replace(words(0.0), keep_margin=1e6, never_kept=never)
        session = policy.session(high_level=level, subtask_seconds=0.0)
        session.infer(observation(subtask=OLD))
        session.was_told = False
        session.infer(observation())
        assert session.subtask == want


def test_robots_hold_on_each_for_itself(policy):
    """In one batch as alone: one that keeps its subtask, one that has none yet, one that was told."""
    level = Model(keep_margin=1e6)
    sessions = [policy.session(high_level=level, subtask_seconds=0.0) for _ in range(3)]
    sessions[0].infer(observation(0, subtask=OLD))
    sessions[0].was_told = False
    shown = [observation(0), observation(1), observation(2, subtask=BOX + "wait")]
    answers = policy.infer_many(sessions, shown)
    (fresh,) = decided(policy, Model(), 1)
    assert [session.subtask for session in sessions] == [OLD, fresh, BOX + "wait"]
    alone = policy.session().infer(observation(1))
    np.testing.assert_allclose(answers[1]["actions"], alone["actions"], atol=1e-4)


def test_saycan_multiplies_the_models_probability_by_the_affordance(policy):
    likely = np.exp(scores(policy, *LABELS))
    answer = policy.session(high_level=SayCan(labels=LABELS, boxes=0)).infer(observation())
    np.testing.assert_allclose([answer["scores"][label] for label in LABELS], likely, rtol=1e-3)
    assert answer["subtask"] == LABELS[int(likely.argmax())] and answer["box"] is None
    feasible = np.array([1.0, 1.0, 1.0])
    feasible[int(likely.argmax())] = 0.0
    level = SayCan(labels=LABELS, boxes=0, affordance=lambda observation, labels: feasible)
    other = policy.session(high_level=level).infer(observation())
    assert other["subtask"] == LABELS[int((likely * feasible).argmax())] != answer["subtask"]
    np.testing.assert_allclose([other["scores"][label] for label in LABELS], likely * feasible, rtol=1e-3)


def test_saycan_counts_what_is_said_behind_boxes(policy, monkeypatch):
    """The boxes drawn are exchanged for known ones: the mean over them, times the chance that there is a box."""
    level, known = SayCan(labels=LABELS, boxes=2), [BOX, "<loc0000><loc0000><loc1023><loc1023>"]
    ids = [policy.bundle.text.encode(box) for box in known]
    monkeypatch.setattr("pilot.infer.high_level.deciding.Multinomial", lambda *_, **__: _dictated(ids))
    session = policy.session(high_level=level)
    answer = session.infer(observation())
    prefilled = policy.engine.prefill(policy.observe(policy.sample(observation())), max_new_tokens=SUBTASK_TOKENS)
    start, stop = policy.model.config.loc_start, policy.model.config.loc_start + 1024
    with torch.inference_mode():
        any_box = policy.model.logits(prefilled.hidden).softmax(-1)[0, start:stop].sum().item()
    places = [score(policy.engine, prefilled, [(0, box)], eos=-1).item() for box in ids]
    with_box = [np.exp(np.subtract(scores(policy, *(box + label for label in LABELS)), place))
                for box, place in zip(known, places, strict=True)]  # fmt: skip
    bare = np.exp(scores(policy, *LABELS))
    want = bare + any_box * np.mean(with_box, axis=0)
    np.testing.assert_allclose([answer["scores"][label] for label in LABELS], want, rtol=2e-3)
    best = int(want.argmax())
    in_front = known[int(np.argmax([row[best] for row in with_box]))] if want[best] > 2 * bare[best] else ""
    assert session.subtask == in_front + LABELS[best]


def _dictated(ids: list[list[int]]):
    from pilot.infer.engine.sampling import Forced

    return Forced(ids)


@pytest.mark.parametrize("boxes", [0, 3])
def test_saycan_of_many_robots_is_that_of_each(policy, boxes):
    level, shown = SayCan(labels=LABELS, boxes=boxes), [observation(0), observation(1, prompt="tidy up")]
    alone = [policy.session(high_level=level).infer(one) for one in shown]
    together = policy.infer_many([policy.session(high_level=level) for _ in shown], shown)
    for one, of_many in zip(alone, together, strict=True):
        assert of_many["subtask"] == one["subtask"]
        np.testing.assert_allclose(of_many["actions"], one["actions"], atol=1e-4)
        for label in LABELS:
            assert of_many["scores"][label] == pytest.approx(one["scores"][label], rel=1e-3)


def test_an_affordance_is_seen_and_checked(policy):
    seen = []

    def affordance(observation, labels):
        seen.append((observation["prompt"], labels))
        return values

    session = policy.session(high_level=SayCan(labels=LABELS, boxes=0, affordance=affordance), subtask_seconds=0.0)
    other = policy.session()
    for values, message in (  # noqa: B007 (the affordance gives them)
        ([1, 1], "for each of 3 labels"),
        ([1, 1, 2], "in 0…1"),
        ([1, 1, np.nan], "in 0…1"),
        ([0, 0, 0], "allows none of the labels"),
    ):
        answers = policy.infer_many([session, other], [observation(prompt="tidy")] * 2, errors="return")
        assert isinstance(answers[0], ValueError) and message in str(answers[0]) and "actions" in answers[1]
    assert seen[0] == ("tidy", LABELS)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("saycan", {}, "'saycan' needs labels"),
        ("vlm", {"url": "http://x"}, "'vlm' needs model"),
        ("none", {"keep_margin": 1.0}, "'none' has no option keep_margin; it has no options"),
        ("saycan", {"labels": ["a"], "url": "x"}, "has no option url; it has labels"),
    ],
)
def test_options_of_a_name(name, options, message):
    with pytest.raises(ValueError, match=message):
        named(name, **options)


def test_high_levels_by_name():
    assert named("none") == Silent() and named("model") == Model()
    assert named("model", labels=["a"], keep_margin=1.0) == Model(labels=("a",), keep_margin=1.0)
    assert named("saycan", labels=["a"]) == SayCan(labels=("a",))


def replaced(level: HighLevel, **changes) -> HighLevel:
    """As a person may write it, whom no types are checked for."""
    for name, value in changes.items():
        object.__setattr__(level, name, value)
    return level


@pytest.mark.parametrize(
    ("level", "message"),
    [
        (Model(temperature=-1.0), "0 or more, got -1.0"),
        (Model(temperature=float("nan")), "0 or more, got nan"),
        (Model(keep_margin=-1.0), "0 or more, got 0.0 and -1.0"),
        (Model(labels=(TOLD,)), "words without places"),
        (Model(labels=("word " * 40,)), "20 tokens at most"),
        (Model(labels=(" ",)), "empty text"),
        (replaced(Model(), labels=["done"]), "a tuple of words, got \\['done'\\]"),
        (replaced(Model(), labels="done"), "a tuple of words, got 'done'"),
        (SayCan(labels=()), "labels to score"),
        (SayCan(labels=LABELS, boxes=-1), "0 or more boxes"),
    ],
)
def test_what_cannot_work_is_said_at_once(policy, level, message):
    with pytest.raises(ValueError, match=message):
        policy.session(high_level=level)
