"""Ways of saying the same thing: templates with alternatives, and which of them only the test split may use.

`expand("{stack|pile} the bowls{| up}")` gives "stack the bowls", "stack the bowls up", "pile the bowls" and "pile the
bowls up". Alternatives do not nest; names such as `<thing>` are filled in later by `str.replace`.
"""

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

_CHOICE = re.compile(r"\{([^{}]*)\}")


def expand(*templates: str) -> tuple[str, ...]:
    """Return every sentence that the templates allow, in order and without repetition."""
    sentences: dict[str, None] = {}
    for template in templates:
        pieces = _CHOICE.split(template)  # fixed text at even places, alternatives at odd ones
        options = [piece.split("|") if place % 2 else [piece] for place, piece in enumerate(pieces)]
        for words in itertools.product(*options):
            sentences[" ".join("".join(words).split())] = None
    return tuple(sentences)


@dataclass(frozen=True)
class Phrasings:
    """The sentences for one request. `held_out` ones are read by the test split alone, `known` ones by all splits."""

    known: tuple[str, ...]
    held_out: tuple[str, ...]

    @classmethod
    def of(cls, templates: Iterable[str], *, held_out: Iterable[str]) -> "Phrasings":
        """Expand templates.

        Raises:
            ValueError: a held-out sentence is among the known ones.
        """
        known, new = expand(*templates), expand(*held_out)
        if both := set(known) & set(new):
            raise ValueError(f"held-out phrasings that training would hear: {sorted(both)}")
        return cls(known, new)

    def draw(self, rng: np.random.Generator, *, held_out: bool = False) -> str:
        """Draw a sentence from the known or from the held-out ones."""
        sentences = self.held_out if held_out else self.known
        return sentences[int(rng.integers(len(sentences)))]
