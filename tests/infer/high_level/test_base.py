"""High levels by name, and what is refused of their options."""

import pytest

from infer.policies import LABELS, TOLD
from pilot.infer.high_level import HighLevel, ModelHighLevel, NoHighLevel, SayCan, make_high_level


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("saycan", {}, "'saycan' needs labels"),
        ("vlm", {"url": "http://x"}, "'vlm' needs model"),
        ("model", {"as_prompt": True}, "'model' has no option as_prompt; it has labels, keep_margin"),
        ("none", {"keep_margin": 1.0}, "'none' has no option keep_margin; it has no options"),
        ("saycan", {"labels": ["a"], "url": "x"}, "has no option url; it has labels"),
    ],
)
def test_options_of_a_name(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_high_level(name, **options)


def test_high_levels_by_name():
    assert make_high_level("none") == NoHighLevel() and make_high_level("model") == ModelHighLevel()
    assert make_high_level("model", labels=["a"], keep_margin=1.0) == ModelHighLevel(labels=("a",), keep_margin=1.0)
    assert make_high_level("saycan", labels=["a"]) == SayCan(labels=("a",))


def replaced(level: HighLevel, **changes) -> HighLevel:
    """As a person may write it, whom no types are checked for."""
    for name, value in changes.items():
        object.__setattr__(level, name, value)
    return level


@pytest.mark.parametrize(
    ("level", "message"),
    [
        (ModelHighLevel(temperature=-1.0), "0 or more, got -1.0"),
        (ModelHighLevel(temperature=float("nan")), "0 or more, got nan"),
        (ModelHighLevel(stop_probability=2.0), "a probability, 0 to 1, got 2.0"),
        (ModelHighLevel(keep_margin=-1.0), "0 or more, got 0.0 and -1.0"),
        (ModelHighLevel(labels=(TOLD,)), "words without a box"),
        (ModelHighLevel(labels=("word " * 40,)), "20 tokens at most"),
        (ModelHighLevel(labels=(" ",)), "empty text"),
        (replaced(ModelHighLevel(), labels=["done"]), "a tuple of words, got \\['done'\\]"),
        (replaced(ModelHighLevel(), labels="done"), "a tuple of words, got 'done'"),
        (SayCan(labels=()), "labels to score"),
        (SayCan(labels=LABELS, boxes=-1), "0 or more boxes"),
    ],
)
def test_what_cannot_work_is_said_at_once(policy, level, message):
    with pytest.raises(ValueError, match=message):
        policy.session(high_level=level)
