"""The words of rooms, and the text model of policies that live there, `tokenizers/assets/rooms.model`.

`python -m pilot.sims.vocabulary` builds it anew, as `nano.model` is made (`tokenizers/train_text.py`), from all words
that rooms, the lab and the generated homes say: requests, held-out ones too, subtasks, names of things, questions. The
words of scenes are found by drawing some.
"""

import re
from collections.abc import Iterator

from pilot.sims.base import DONE
from pilot.sims.lab import language as lab_language
from pilot.sims.lab.suites import SUITES as LAB
from pilot.sims.lab.suites import task_of
from pilot.sims.rooms import language
from pilot.sims.rooms.suites import SUITES as ROOMS
from pilot.sims.world.things import FAMILIES, KINDS
from pilot.tokenizers.base import write_atomically
from pilot.tokenizers.text import ROOMS_MODEL
from pilot.tokenizers.train_text import build_text_model, nano_words

SCENES = 40  # of each suite, in which fixtures and subtasks are looked for
_WORD = re.compile(r"[a-z]+")


def spoken_words() -> list[str]:
    """Return the words of requests, subtasks, things and questions, in order and without repetition; no physics."""
    return _split(_fixed_texts())


def all_words() -> list[str]:
    """Return `spoken_words`, those of other names, and those of scenes that are drawn."""
    return list(dict.fromkeys([*spoken_words(), *_split(_other_names()), *_split(_scene_texts())]))


def _fixed_texts() -> Iterator[str]:
    yield from nano_words()
    yield DONE
    for request in language.REQUESTS.values():
        yield from (*request.known, *request.held_out)
    for suite in LAB:
        phrasings = task_of(suite.task).phrasings
        yield from (*phrasings.known, *phrasings.held_out)
    for kind in KINDS.values():
        yield from (kind.name, kind.many(), *kind.synonyms, *kind.colours, *kind.patterns)
    yield from FAMILIES
    yield "is the left or right of where would you grasp what would you do next room"


def _other_names() -> Iterator[str]:
    """Yield other names of places, and what is said for the verbs of the lab; the shipped model splits some of them."""
    for known, held_out in language.PLACES.values():
        yield from (*known, *held_out)
    for verb in lab_language.VERBS:
        for held_out in (False, True):
            yield from lab_language.utterances(f"{verb} it", held_out=held_out)


def _scene_texts() -> Iterator[str]:
    for suite in (*ROOMS, *LAB):
        for number in range(SCENES if suite in ROOMS else 4):
            try:
                scene = suite.draw(number, 0, 0)
            except ValueError:
                continue  # these numbers draw nothing
            yield scene.name
            yield scene.task.prompt
            yield from (text for step in scene.task.steps for text in step.subtasks)
            yield from scene.fixtures


def _split(texts: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(word for text in texts for word in _WORD.findall(text.lower())))


if __name__ == "__main__":
    write_atomically(ROOMS_MODEL, build_text_model(all_words()))
    print(f"wrote {ROOMS_MODEL}")
