"""Questions about pictures of homes, answered from the simulator's truth: what web data teaches a policy about words.

Answers are short. Dense detection ("list everything") names every object with its box and teaches the most per picture,
so it comes with every picture; the other kinds are drawn.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from pilot.data.formats.writer import encode_png
from pilot.sims.base import Question
from pilot.sims.homes.env import HomesEnv
from pilot.sims.homes.expert import Expert
from pilot.sims.homes.language import CATEGORIES, COLOURS
from pilot.sims.homes.odd_starts import wander, wander_with_wrong_object
from pilot.tokenizers.text import box_to_locs

Note = dict[str, Any]  # a row of HomesEnv.annotations()
QUESTIONS_PER_PICTURE = 6
PICTURES_PER_EPISODE = 4


def pictures_of_home(env: HomesEnv, home: int, *, rows: int, seed: int) -> list[tuple[bytes, list[Question]]]:
    """Return about `rows` questions on pictures of one home, as (PNG of the room, questions with answers).

    The pictures look like acting: between them the expert or chance moves the gripper, so things are held and placed.
    """
    rng = np.random.default_rng((seed, home, 1))
    pictures = []
    for episode in range(-(-rows // (QUESTIONS_PER_PICTURE * PICTURES_PER_EPISODE))):
        env.reset_to(home, episode=100_000 + episode, seed=int(rng.integers(2**31)))
        for _ in range(PICTURES_PER_EPISODE):
            _act_a_while(env, rng)
            picture = env.observe()["images"]["room"]
            pictures.append((encode_png(picture), ask(env.annotations(), rng, count=QUESTIONS_PER_PICTURE)))
    return pictures


def ask(notes: list[Note], rng: np.random.Generator, *, count: int) -> list[Question]:
    """Return `count` questions on a picture with these annotations: the dense one, and others drawn at random."""
    visible = [note for note in notes if note["box"] is not None]
    questions = {dense(visible)}
    kinds: list[tuple[float, Callable[[list[Note], np.random.Generator], Question | None]]] = [
        (0.30, detect_one), (0.10, detect_category), (0.18, name_at_box), (0.08, caption), (0.08, colour_of),
        (0.06, count_of), (0.10, is_in), (0.10, where_is),
    ]  # fmt: skip
    weights = np.array([weight for weight, _ in kinds])
    for _ in range(10 * count):
        if len(questions) == count:
            break
        question = kinds[rng.choice(len(kinds), p=weights / weights.sum())][1](visible, rng)
        if question is not None:
            questions.add(question)
    return sorted(questions)


def dense(notes: list[Note]) -> Question:
    """Ask for everything with its box, top to bottom and left to right."""
    return "list everything", _with_boxes(_raster(notes))


def detect_one(notes: list[Note], rng: np.random.Generator) -> Question | None:
    """Ask for the box of one thing."""
    note = _draw(notes, rng)
    return (f"detect {note['name']}", _with_boxes([note])) if note else None


def detect_category(notes: list[Note], rng: np.random.Generator) -> Question | None:
    """Ask for the boxes of all objects of a category, in raster order; the empty answer is "none"."""
    things = _things(notes)
    if not things:
        return None
    category = str(rng.choice(list(CATEGORIES)))
    members = [note for note in things if note["kind"] in CATEGORIES[category]]
    return f"detect {category}", _with_boxes(_raster(members)) or "none"


def name_at_box(notes: list[Note], rng: np.random.Generator) -> Question | None:
    """Ask what is in a box."""
    note = _draw(notes, rng)
    return (f"what is at {box_to_locs(note['box'])}", note["name"]) if note else None


def caption(notes: list[Note], rng: np.random.Generator) -> Question | None:
    """Ask for a caption: the names of everything."""
    return "caption", ", ".join(f"a {note['name']}" for note in _raster(notes))


def colour_of(notes: list[Note], rng: np.random.Generator) -> Question | None:
    """Ask for the colour of an object, where its kind says which one is meant."""
    things = _things(notes)
    kinds = [note["kind"] for note in things]
    note = _draw([note for note in things if kinds.count(note["kind"]) == 1], rng)
    return (f"what colour is the {note['kind']}", note["colour"]) if note else None


def count_of(notes: list[Note], rng: np.random.Generator) -> Question | None:
    """Ask how many objects there are, or how many of a colour."""
    colour = str(rng.choice(COLOURS))
    things = _things(notes)
    if rng.random() < 0.5:
        return "how many objects are there", str(len(things))
    return f"how many {colour} objects are there", str(sum(note["colour"] == colour for note in things))


def is_in(notes: list[Note], rng: np.random.Generator) -> Question | None:
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


def where_is(notes: list[Note], rng: np.random.Generator) -> Question | None:
    """Ask in which receptacle an object is."""
    placed = [thing for thing in _things(notes) if thing["in"]]
    note = _draw(placed if placed and rng.random() < 0.5 else _things(notes), rng)
    return (f"where is the {note['name']}", note["in"] or "table") if note else None


def _act_a_while(env: HomesEnv, rng: np.random.Generator) -> None:
    """Let the expert go on with the task, or go after another object, or let the gripper stray."""
    choice = rng.random()
    if choice < 0.65:
        expert = Expert(env, rng)
        for _ in range(int(rng.integers(3, 28))):
            env.advance(expert.act())
    elif choice < 0.85:
        wander_with_wrong_object(env, rng)
    else:
        wander(env, rng, steps=int(rng.integers(2, 10)))


def _with_boxes(notes: list[Note]) -> str:
    return ", ".join(f"{box_to_locs(note['box'])} {note['name']}" for note in notes)


def _raster(notes: list[Note]) -> list[Note]:
    return sorted(notes, key=lambda note: (round(note["box"][0] * 64), note["box"][1]))


def _things(notes: list[Note]) -> list[Note]:
    return [note for note in notes if not note["is_receptacle"]]


def _receptacles(notes: list[Note]) -> list[Note]:
    return [note for note in notes if note["is_receptacle"]]


def _draw(notes: list[Note], rng: np.random.Generator) -> Note | None:
    return notes[rng.integers(len(notes))] if notes else None
