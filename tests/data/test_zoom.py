"""Crops of pictures with questions: what boxes named before is where they say afterwards."""

import re

import numpy as np
import pytest

from pilot.data.transforms import unpad_box
from pilot.data.zoom import zoom_in
from pilot.tokenizers.text import box_to_locs, split_box

PIXELS = 64
COLOURS = {"red apple": (255, 0, 0), "green pear": (0, 255, 0), "blue plum": (0, 0, 255)}
PLACES = {"red apple": (8, 8, 16, 20), "green pear": (20, 40, 32, 52), "blue plum": (48, 30, 60, 38)}


def locs(name: str) -> str:
    return box_to_locs([edge / PIXELS for edge in PLACES[name]], stride=16)


def picture() -> np.ndarray:
    image = np.full((PIXELS, PIXELS, 3), 128, np.uint8)
    for name, (y0, x0, y1, x1) in PLACES.items():
        image[y0:y1, x0:x1] = COLOURS[name]
    return image


def is_shown(image: np.ndarray, locs: str, name: str) -> bool:
    """Whether a box holds the colour of a thing, and ends where the colour ends."""
    box, _ = split_box(locs)
    assert box is not None
    height, width = image.shape[:2]
    box = unpad_box(box, (height, width))
    y0, x0, y1, x1 = (round(edge * side) for edge, side in zip(box, (height, width) * 2, strict=True))
    rows, columns = np.nonzero((image == COLOURS[name]).all(-1))
    found = (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
    # Boxes are as exact as their grid, 1/64 of what the crop shows.
    return all(abs(a - b) <= 1 for a, b in zip(found, (y0, x0, y1, x1), strict=True))


def test_boxes_follow_the_crop():
    answer = ", ".join(f"{locs(name)} {name}" for name in PLACES)
    counts = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        image, question, new = zoom_in(picture(), "list everything", answer, rng, smallest=0.3, loc_stride=16)
        parts = [part.split("> ") for part in new.split(", ")]
        assert question == "list everything" and parts, new
        assert all(is_shown(image, f"{box}>", name) for box, name in parts)
        # What is in view as a whole is still in the answer.
        for name, (y0, x0, y1, x1) in PLACES.items():
            whole = (image == COLOURS[name]).all(-1).sum() == (y1 - y0) * (x1 - x0)
            assert not whole or name in new
        counts.add(len(parts))
    assert counts == {1, 2, 3}  # also crops that leave something out


def test_boxes_of_a_wide_picture_follow_the_crop():
    """They are relative to a square of 128 pixels, in the middle of which its 64 rows lie."""
    wide = np.concatenate([picture(), np.full_like(picture(), 128)], axis=1)
    edges = {name: [(y0 + 32) / 128, x0 / 128, (y1 + 32) / 128, x1 / 128] for name, (y0, x0, y1, x1) in PLACES.items()}
    answer = ", ".join(f"{box_to_locs(box, stride=8)} {name}" for name, box in edges.items())
    heights = set()
    for seed in range(60):
        image, _, new = zoom_in(wide, "detect", answer, np.random.default_rng(seed), smallest=0.3, loc_stride=8)
        parts = [part.split("> ") for part in new.split(", ")]
        assert parts and all(is_shown(image, f"{box}>", name) for box, name in parts)
        heights.add(image.shape[0])
    assert min(heights) < 40


def test_crops_have_all_sizes():
    rngs = map(np.random.default_rng, range(200))
    sides = [
        zoom_in(picture(), f"what is at {locs('red apple')}", "red apple", rng, smallest=0.3)[0].shape[0]
        for rng in rngs
    ]
    assert min(sides) < 0.35 * PIXELS and max(sides) > 0.95 * PIXELS
    assert 0.45 * PIXELS < np.median(sides) < 0.65 * PIXELS  # even on a logarithmic scale: √0.3 = 0.55


def test_a_box_in_the_question_stays_in_view():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        question = f"what is at {locs('blue plum')}"
        image, question, answer = zoom_in(picture(), question, "blue plum", rng, smallest=0.3, loc_stride=16)
        assert answer == "blue plum"
        assert is_shown(image, question.removeprefix("what is at "), "blue plum")


def test_two_boxes_in_a_question_are_both_in_view_or_nothing_changes():
    both = f"is {locs('red apple')} left of {locs('blue plum')}"
    changed = 0
    for seed in range(60):
        image, question, answer = zoom_in(
            picture(), both, "yes", np.random.default_rng(seed), smallest=0.5, loc_stride=16
        )
        assert answer == "yes"
        boxes = re.findall(r"(?:<loc\d{4}>){4}", question)
        assert is_shown(image, boxes[0], "red apple") and is_shown(image, boxes[1], "blue plum")
        changed += image.shape[0] < PIXELS
    assert 0 < changed < 60


INVERTED = "<loc0900><loc0100><loc0200><loc0300> red apple"


@pytest.mark.parametrize("answer", ["a red apple, a green pear", "yes", INVERTED])
def test_words_without_boxes_or_with_a_wrong_one_keep_their_picture(answer):
    rng = np.random.default_rng(0)
    image, question, same = zoom_in(picture(), "caption", answer, rng, smallest=0.3)
    assert (image == picture()).all() and (question, same) == ("caption", answer)


def test_a_box_larger_than_every_crop_keeps_the_picture():
    answer = box_to_locs((0.0, 0.0, 1.0, 1.0)) + " table"
    image, _, same = zoom_in(picture(), "detect table", answer, np.random.default_rng(0), smallest=0.3)
    assert image.shape == (PIXELS, PIXELS, 3) and same == answer
