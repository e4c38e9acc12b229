"""SayCan: how likely a label is by the model, times how feasible it is."""

import numpy as np
import pytest
import torch

from infer.policies import BOX, LABELS, observation, scores
from pilot.infer.engine.sampling import score
from pilot.infer.high_level import SUBTASK_TOKENS, SayCan


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


def test_labels_that_are_not_feasible_are_not_scored(policy, monkeypatch):
    asked = []

    def probabilities(engine, prefilled, texts, *, eos):
        asked.append(len(texts))
        return np.full(len(texts), 0.5)

    monkeypatch.setattr("pilot.infer.high_level.saycan.probabilities", probabilities)
    feasible = np.array([0.0, 1.0, 0.0])
    level = SayCan(labels=LABELS, boxes=2, affordance=lambda *_: feasible)
    answer = policy.session(high_level=level).infer(observation())
    assert answer["subtask"] == LABELS[1] and asked == [1, 2], "without a box, and behind each of two"
    assert [answer["scores"][label] > 0 for label in LABELS] == [False, True, False]


def test_saycan_counts_what_is_said_behind_boxes(policy, monkeypatch):
    """The boxes drawn are exchanged for known ones: the mean over them, times the chance that there is a box."""
    level, known = SayCan(labels=LABELS, boxes=2), [BOX, "<loc0000><loc0000><loc1023><loc1023>"]
    ids = [policy.bundle.text.encode(box) for box in known]
    monkeypatch.setattr("pilot.infer.high_level.saycan.Multinomial", lambda *_, **__: _dictated(ids))
    session = policy.session(high_level=level)
    answer = session.infer(observation())
    prefilled = policy.engine.prefill(
        policy.make_observation(policy.make_sample(observation())), max_new_tokens=SUBTASK_TOKENS
    )
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
