"""Questions about a picture whose contents are known: what web data teaches a policy about words.

A simulator gives `Note`s, what is in the picture with its box, and the `Words` that its questions use. Answers are
short. Dense detection ("list everything") names every object with its box and teaches the most per picture, so it comes
with every picture; the other kinds are drawn.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pilot.sims.base import Question
from pilot.tokenizers.text import box_to_locs

Note = dict[str, Any]
"""Something in a picture: `name`, `kind`, `colour` (or None), `box`, `is_receptacle`, and `in`: the receptacle that
holds it (or None). Where a simulator knows it: `grasp`, the box of the place to grasp it at."""

AskFn = Callable[[list[Note], np.random.Generator, "Words"], Question | None]


@dataclass(frozen=True, kw_only=True)
class Words:
    """What questions speak of. `ground`: where a thing is that is in no receptacle; `next`: a task and its subtask."""

    categories: Mapping[str, Sequence[str]]  # kinds of each
    colours: Sequence[str]
    ground: str = "table"
    next: tuple[str, str] | None = None


def ask(
    notes: list[Note], rng: np.random.Generator, words: Words, *, count: int, kinds: Sequence[tuple[float, AskFn]]
) -> list[Question]:
    """Return `count` questions on a picture: the dense one, and others drawn from weighted `kinds`."""
    visible = [note for note in notes if note["box"] is not None]
    questions = {dense(visible)}
    weights = np.array([weight for weight, _ in kinds])
    for _ in range(10 * count):
        if len(questions) == count:
            break
        question = kinds[rng.choice(len(kinds), p=weights / weights.sum())][1](visible, rng, words)
        if question is not None:
            questions.add(question)
    return sorted(questions)


def dense(notes: list[Note]) -> Question:
    """Ask for everything with its box, top to bottom and left to right; the empty answer is "none"."""
    return "list everything", _with_boxes(_raster(notes)) or "none"


def detect_one(notes: list[Note], rng: np.random.Generator, words: Words) -> Question | None:
    """Ask for the box of one thing."""
    note = _draw(notes, rng)
    return (f"detect {note['name']}", _with_boxes([note])) if note else None


def detect_category(notes: list[Note], rng: np.random.Generator, words: Words) -> Question | None:
    """Ask for the boxes of all objects of a category, in raster order; the empty answer is "none"."""
    things = _things(notes)
    if not things:
        return None
    category = str(rng.choice(list(words.categories)))
    members = [note for note in things if note["kind"] in words.categories[category]]
    return f"detect {category}", _with_boxes(_raster(members)) or "none"


def name_at_box(notes: list[Note], rng: np.random.Generator, words: Words) -> Question | None:
    """Ask what is in a box."""
    note = _draw(notes, rng)
    return (f"what is at {box_to_locs(note['box'])}", note["name"]) if note else None


def caption(notes: list[Note], rng: np.random.Generator, words: Words) -> Question | None:
    """Ask for a caption: the names of everything."""
    return ("caption", ", ".join(f"a {note['name']}" for note in _raster(notes))) if notes else None


def colour_of(notes: list[Note], rng: np.random.Generator, words: Words) -> Question | None:
    """Ask for the colour of an object, where its kind says which one is meant."""
    things = _things(notes)
    kinds = [note["kind"] for note in things]
    note = _draw([note for note in things if kinds.count(note["kind"]) == 1 and note["colour"]], rng)
    return (f"what colour is the {note['kind']}", note["colour"]) if note else None


def count_of(notes: list[Note], rng: np.random.Generator, words: Words) -> Question | None:
    """Ask how many objects there are, or how many of a colour."""
    colour = str(rng.choice(words.colours))
    things = _things(notes)
    if rng.random() < 0.5:
        return "how many objects are there", str(len(things))
    return f"how many {colour} objects are there", str(sum(note["colour"] == colour for note in things))


def is_in(notes: list[Note], rng: np.random.Generator, words: Words) -> Question | None:
    """Ask whether an object is in a receptacle."""
    note, receptacle = _draw(_things(notes), rng), _draw(_receptacles(notes), rng)
    if note is None or receptacle is None:
        return None
    placed = [thing for thing in _things(notes) if thing["in"]]
    if placed and rng.random() < 0.6:  # most things are on the table: without this, "no" would nearly always be right
        note = placed[rng.integers(len(placed))]
        receptacle = next((r for r in _receptacles(notes) if r["name"] == note["in"]), receptacle)
    inside = note["in"] == receptacle["name"]
    return f"is the {note['name']} in the {receptacle['name']}", "yes" if inside else "no"


def where_is(notes: list[Note], rng: np.random.Generator, words: Words) -> Question | None:
    """Ask in which receptacle an object is."""
    placed = [thing for thing in _things(notes) if thing["in"]]
    note = _draw(placed if placed and rng.random() < 0.5 else _things(notes), rng)
    return (f"where is the {note['name']}", note["in"] or words.ground) if note else None


def left_or_right(notes: list[Note], rng: np.random.Generator, words: Words) -> Question | None:
    """Ask on which side of another an object is, seen in the picture, where that is plain."""
    things = _things(notes)
    if len(things) < 2:
        return None
    first, second = (things[i] for i in rng.choice(len(things), 2, replace=False))
    gap = _middle(first)[1] - _middle(second)[1]
    if abs(gap) < 0.05:
        return None
    return f"is the {first['name']} left or right of the {second['name']}", "left" if gap < 0 else "right"


def grasp_at(notes: list[Note], rng: np.random.Generator, words: Words) -> Question | None:
    """Ask where one would grasp an object: the answer is a small box."""
    note = _draw([note for note in _things(notes) if note.get("grasp")], rng)
    return (f"where would you grasp the {note['name']}", box_to_locs(note["grasp"])) if note else None


def do_next(notes: list[Note], rng: np.random.Generator, words: Words) -> Question | None:
    """Ask what to do next for a task."""
    return (f"what would you do next: {words.next[0]}", words.next[1]) if words.next else None


def _with_boxes(notes: list[Note]) -> str:
    return ", ".join(f"{box_to_locs(note['box'])} {note['name']}" for note in notes)


def _raster(notes: list[Note]) -> list[Note]:
    return sorted(notes, key=lambda note: (round(note["box"][0] * 64), note["box"][1]))


def _middle(note: Note) -> tuple[float, float]:
    y0, x0, y1, x1 = note["box"]
    return (y0 + y1) / 2, (x0 + x1) / 2


def _things(notes: list[Note]) -> list[Note]:
    return [note for note in notes if not note["is_receptacle"]]


def _receptacles(notes: list[Note]) -> list[Note]:
    return [note for note in notes if note["is_receptacle"]]


def _draw(notes: list[Note], rng: np.random.Generator) -> Note | None:
    return notes[rng.integers(len(notes))] if notes else None
