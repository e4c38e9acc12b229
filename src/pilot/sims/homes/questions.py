"""Questions about pictures of homes, answered from the simulator's truth."""

import numpy as np

from pilot.data.formats.writer import encode_png
from pilot.sims import questions
from pilot.sims.base import Question
from pilot.sims.homes.env import HomesEnv
from pilot.sims.homes.expert import Expert
from pilot.sims.homes.language import CATEGORIES, COLOURS
from pilot.sims.homes.odd_starts import wander, wander_with_wrong_object
from pilot.sims.questions import AskFn, Note, Words

QUESTIONS_PER_PICTURE = 6
PICTURES_PER_EPISODE = 4
WORDS = Words(categories=CATEGORIES, colours=COLOURS)
KINDS_OF_QUESTIONS: tuple[tuple[float, AskFn], ...] = (
    (0.30, questions.detect_one), (0.10, questions.detect_category), (0.18, questions.name_at_box),
    (0.08, questions.caption), (0.08, questions.colour_of), (0.06, questions.count_of), (0.10, questions.is_in),
    (0.10, questions.where_is),
)  # fmt: skip


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
    return questions.ask(notes, rng, WORDS, count=count, kinds=KINDS_OF_QUESTIONS)


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
