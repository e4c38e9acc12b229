"""Questions about pictures whose contents are known."""

import numpy as np
import pytest

from pilot.sims import questions
from pilot.sims.questions import Words, ask
from pilot.tokenizers.text import box_to_locs

WORDS = Words(categories={"toys": ["ball"], "dishes": ["cup"]}, colours=("red", "blue"), next=("tidy up", "pick up it"))
NOTES = [
    {"name": "red ball", "kind": "ball", "colour": "red", "is_receptacle": False, "in": "bin",
     "box": (0.1, 0.6, 0.2, 0.7), "grasp": (0.1, 0.64, 0.14, 0.66)},
    {"name": "blue cup", "kind": "cup", "colour": "blue", "is_receptacle": False, "in": None,
     "box": (0.5, 0.1, 0.6, 0.2)},
    {"name": "hidden cup", "kind": "cup", "colour": "red", "is_receptacle": False, "in": None, "box": None},
    {"name": "bin", "kind": "bin", "colour": None, "is_receptacle": True, "in": None, "box": (0.05, 0.5, 0.3, 0.8)},
]  # fmt: skip
SEEN = [note for note in NOTES if note["box"]]


def answers(kind, tries=40):
    rng = np.random.default_rng(0)
    return {answer for _ in range(tries) if (answer := kind(SEEN, rng, WORDS)) is not None}


def test_everything_is_listed_from_top_to_bottom_without_what_is_hidden():
    question, answer = questions.dense(SEEN)
    boxes = [box_to_locs(SEEN[i]["box"]) for i in (2, 0, 1)]
    assert question == "list everything"
    assert answer == f"{boxes[0]} bin, {boxes[1]} red ball, {boxes[2]} blue cup"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (questions.detect_category, ("detect toys", f"{box_to_locs(SEEN[0]['box'])} red ball")),
        (questions.name_at_box, (f"what is at {box_to_locs(SEEN[1]['box'])}", "blue cup")),
        (questions.caption, ("caption", "a bin, a red ball, a blue cup")),
        (questions.colour_of, ("what colour is the ball", "red")),
        (questions.count_of, ("how many objects are there", "2")),
        (questions.is_in, ("is the red ball in the bin", "yes")),
        (questions.where_is, ("where is the blue cup", "table")),
        (questions.left_or_right, ("is the blue cup left or right of the red ball", "left")),
        (questions.grasp_at, ("where would you grasp the red ball", box_to_locs(SEEN[0]["grasp"]))),
        (questions.do_next, ("what would you do next: tidy up", "pick up it")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_kind_of_question_has_the_true_answer(kind, expected):
    asked = answers(kind)
    assert expected in asked
    assert len({question for question, _ in asked}) == len(asked)  # one question never has two answers


def test_the_dense_question_comes_with_every_picture_and_no_question_twice():
    kinds = [(0.5, questions.detect_one), (0.5, questions.colour_of)]
    for seed in range(10):
        asked = ask(NOTES, np.random.default_rng(seed), WORDS, count=4, kinds=kinds)
        assert len(asked) == len(set(asked)) == 4 and "list everything" in dict(asked)
        assert not any("hidden" in answer for _, answer in asked)
    assert len(ask([], np.random.default_rng(0), WORDS, count=4, kinds=kinds)) == 1


def test_a_picture_of_nothing_has_an_answer_all_the_same():
    asked = ask([], np.random.default_rng(0), WORDS, count=3, kinds=[(1.0, questions.caption)])
    assert asked == [("list everything", "none")]
