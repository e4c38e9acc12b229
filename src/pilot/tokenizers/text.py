"""Text tokens: any SentencePiece model, `<loc>` tokens, and boxes written with them.

A box is `(y0, x0, y1, x1)` in [0, 1] of its picture and becomes four tokens in that order, each one of 1024 bins:
PaliGemma's convention (2407.07726, section 3.2). Of a picture that is not square it is the square that the model sees,
padding included (`pilot.data.transforms.pad_box`). This module loads PaliGemma's own model and the small one that ships
here alike.
"""

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import SupportsInt

import numpy as np
import sentencepiece
from jaxtyping import Int

from pilot.names import suggest_names

Box = tuple[float, float, float, float]
Ids = Iterable[SupportsInt]  # a list, an array or a tensor of token ids

LOC_BINS = 1024
NANO_MODEL = Path(__file__).parent / "assets" / "nano.model"
ROOMS_MODEL = NANO_MODEL.with_name("rooms.model")
"""The small text models that ship: with the words of the generated homes, and with those of rooms and the lab too."""

TEXT_MODELS = {"nano": NANO_MODEL, "rooms": ROOMS_MODEL}

_NO_WORD = re.compile(r"<(loc\d{4}|seg\d{3})>")
BOX_LOCS = re.compile(r"((?:<loc\d{4}>){4})")
"""The four `<loc>` tokens of a box (y0 x0 y1 x1), anywhere in a text."""
_BOX_FIRST = re.compile(BOX_LOCS.pattern + r"(?!<loc)(.*)", re.DOTALL)


class TextTokenizer:
    """A SentencePiece model. Encoding and decoding are exact inverses, except that a literal "▁" becomes a space.

    Raises:
        FileNotFoundError: no file at `path`.
        ValueError: the file is no SentencePiece model.
    """

    def __init__(self, path: str | Path = NANO_MODEL) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            beside = sorted(path.name for path in self.path.parent.glob("*.model"))
            ours = f"the small model that ships with pilot is {NANO_MODEL}"
            hint = suggest_names(self.path.name, beside, listed="beside it there are") if beside else ours
            raise FileNotFoundError(f"no SentencePiece model at {self.path}; {hint}")
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_file=str(self.path))
            self._processor.id_to_piece(list(range(self._processor.vocab_size())))  # every piece is a text
        except (RuntimeError, OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.path} is not a SentencePiece model (truncated or of another kind)") from error
        self.vocab_size: int = self._processor.vocab_size()
        self.bos_id: int = self._processor.bos_id()
        self.eos_id: int = self._processor.eos_id()
        self.pad_id: int = self._processor.pad_id()

    def encode(self, text: str, *, add_bos: bool = False, add_eos: bool = False) -> list[int]:
        """Return the ids of `text`.

        Raises:
            ValueError: `<bos>` or `<eos>` asked of a model that has none.
        """
        if (add_bos and self.bos_id < 0) or (add_eos and self.eos_id < 0):
            raise ValueError(f"{self.path} has no <bos> or no <eos>; take a model of PaliGemma's kind")
        return self._processor.encode(text, add_bos=add_bos, add_eos=add_eos)

    def decode(self, ids: Ids) -> str:
        """Return the text of `ids`; `<pad>`, `<bos>` and `<eos>` leave no trace in it.

        Raises:
            ValueError: an id outside the vocabulary.
        """
        numbers = [int(i) for i in ids]
        if wrong := [i for i in numbers if not 0 <= i < self.vocab_size]:
            raise ValueError(f"ids {wrong[:5]} are not text: the vocabulary of {self.path.name} has {self.vocab_size}")
        return self._processor.decode(numbers)

    def piece(self, token: int) -> str:
        """Return the piece that an id stands for; a space in it is written "▁".

        Raises:
            ValueError: an id outside the vocabulary.
        """
        if not 0 <= token < self.vocab_size:
            raise ValueError(f"{token} is not text: the vocabulary of {self.path.name} has {self.vocab_size}")
        return self._processor.id_to_piece(token)

    def token_id(self, piece: str) -> int:
        """Return the id of one whole piece, written as `piece` returns it.

        Raises:
            ValueError: the model has no such piece.
        """
        index = self._processor.piece_to_id(piece)
        if index == self._processor.unk_id():
            raise ValueError(f"{self.path} has no piece {piece!r}")
        return index

    def loc_id(self, n: int) -> int:
        """Return the id of `<loc{n}>`.

        Raises:
            ValueError: `n` outside [0, 1023], or a model without `<loc>` tokens.
        """
        return self.token_id(loc_token(n))

    @cached_property
    def word_ids(self) -> Int[np.ndarray, " n"]:
        """The ids that are text: neither control tokens nor PaliGemma's `<loc>` (positions) and `<seg>` (outlines)."""
        ids, processor = list(range(self.vocab_size)), self._processor
        silent = np.array([processor.is_control(ids), processor.is_unknown(ids), processor.is_unused(ids)]).any(0)
        marked = np.array([_NO_WORD.fullmatch(piece) is not None for piece in processor.id_to_piece(ids)])
        return np.flatnonzero(~silent & ~marked)


def loc_token(n: int) -> str:
    """Return the text of a `<loc>` token.

    Raises:
        ValueError: `n` outside [0, 1023].
    """
    if not 0 <= n < LOC_BINS:
        raise ValueError(f"a <loc> bin is in [0, {LOC_BINS - 1}], got {n}")
    return f"<loc{n:04d}>"


def box_to_locs(box: Sequence[float], *, stride: int = 1) -> str:
    """Write a box `(y0, x0, y1, x1)` in [0, 1] as "<loc…><loc…><loc…><loc…>".

    `stride` snaps to every stride-th bin (16 puts edges on the pixels of a 64² picture, so a small model meets 64
    tokens and not 1024); the far edge of the picture is always bin 1023.

    Raises:
        ValueError: not four numbers in [0, 1], or y0 > y1 or x0 > x1.
    """
    if len(box) != 4 or not all(0.0 <= edge <= 1.0 for edge in box):
        raise ValueError(f"a box is (y0, x0, y1, x1) with every edge in [0, 1] of the picture, got {tuple(box)}")
    y0, x0, y1, x1 = (float(edge) for edge in box)
    if y0 > y1 or x0 > x1:
        raise ValueError(f"box {(y0, x0, y1, x1)} is inverted: the order is (y0, x0, y1, x1), top left first")
    if not 1 <= stride <= LOC_BINS:
        raise ValueError(f"stride is in [1, {LOC_BINS}], got {stride}")
    cells = LOC_BINS / stride
    return "".join(loc_token(min(int(edge * cells + 0.5) * stride, LOC_BINS - 1)) for edge in (y0, x0, y1, x1))


def split_boxes(text: str) -> tuple[str, list[tuple[Box | None, str]]]:
    """Split a text at its boxes: what stands before the first, then each box with the words behind it.

    A box is None if its four `<loc>` tokens are not a valid box.
    """
    before, *parts = BOX_LOCS.split(text)
    return before, [(split_box(locs)[0], words) for locs, words in zip(parts[::2], parts[1::2], strict=True)]


def split_box(text: str) -> tuple[Box | None, str]:
    """Split off the box in front of `text`; `(None, text)` unless exactly four `<loc>` make a real box."""
    match = _BOX_FIRST.fullmatch(text)
    if not match:
        return None, text
    y0, x0, y1, x1 = (int(n) for n in re.findall(r"\d{4}", match[1]))
    if max(y0, x0, y1, x1) >= LOC_BINS or y0 > y1 or x0 > x1:
        return None, text
    return (_edge(y0), _edge(x0), _edge(y1), _edge(x1)), match[2]


def _edge(n: int) -> float:
    return 1.0 if n == LOC_BINS - 1 else n / LOC_BINS
