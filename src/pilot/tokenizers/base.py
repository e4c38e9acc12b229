"""What every action tokenizer does: it turns chunks of normalised actions into token ids, and back.

A sequence that a model wrote may be malformed. The result of `decode` then says so, and where; it is never zeros, which
a robot would take for a command. `allowed` keeps a decoder from writing such a sequence at all.

Axes: `n` chunks, `t` steps of a chunk, `d` action dims, `v` ids.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from pilot.tokenizers.text import Ids


@dataclass(frozen=True, kw_only=True)
class DecodeResult:
    """Actions, or why there are none: exactly one of `actions` and `error` is set."""

    actions: Float[np.ndarray, "t d"] | None = None
    error: str | None = None
    position: int | None = None  # the first token that cannot belong to a chunk, or where the sequence ends too soon

    @property
    def ok(self) -> bool:
        """Whether there are actions."""
        return self.error is None


@runtime_checkable
class ActionTokenizer(Protocol):
    """Maps a chunk of normalised actions (about [-1, 1]) to ids in `range(vocab_size)` and back."""

    @property
    def vocab_size(self) -> int:
        """The number of ids."""
        ...

    @classmethod
    def fit(cls, chunks: Float[np.ndarray, "n t d"], *, vocab_size: int) -> "ActionTokenizer":
        """Make a tokenizer for data like these chunks."""
        ...

    def encode(self, chunk: Float[np.ndarray, "t d"]) -> list[int]:
        """Return the ids of one chunk."""
        ...

    def encode_batch(self, chunks: Float[np.ndarray, "n t d"]) -> list[list[int]]:
        """Return the ids of each chunk."""
        ...

    def decode(self, ids: Ids, horizon: int, dim: int) -> DecodeResult:
        """Return the chunk `[horizon dim]` that `ids` stand for, or what is wrong with them."""
        ...

    def allowed(self, ids: Sequence[int], horizon: int, dim: int) -> Bool[np.ndarray, " v"]:
        """Return which ids may follow `ids` on the way to a chunk `[horizon dim]`; none, once it is whole."""
        ...

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer into a folder."""
        ...

    @classmethod
    def load(cls, folder: str | Path) -> "ActionTokenizer":
        """Read what `save` wrote."""
        ...


def mirror_into_vocab(ids: Int[np.ndarray, " n"], vocab_size: int, *, offset: int) -> Int[np.ndarray, " n"]:
    """Map action ids to the top of a text vocabulary, id 0 highest; the same function maps them back.

    `offset` leaves the last ids of the vocabulary alone: 128 for the released π0-FAST weights (PaliGemma's `<seg>`
    tokens), 0 where the top of the table belongs to the actions. Source: FAST (2501.09747) as trained by openpi.
    """
    return vocab_size - 1 - offset - ids


def action_ids(vocab_size: int, actions: int, *, offset: int = 0) -> range:
    """Return the ids of `actions` action tokens in a model's vocabulary."""
    return range(vocab_size - offset - actions, vocab_size - offset)


def check_ids(ids: Ids, vocab_size: int) -> list[int] | DecodeResult:
    """Return `ids` as a list, or the error of the first one outside `range(vocab_size)`."""
    numbers = [int(i) for i in ids]
    position = next((n for n, i in enumerate(numbers) if not 0 <= i < vocab_size), None)
    if position is None:
        return numbers
    error = f"token {numbers[position]} is none of the {vocab_size} action tokens"
    return DecodeResult(error=error, position=position)


def check_count(numbers: list[int], count: int) -> DecodeResult | None:
    """Return the error of a sequence that has not the length `count`; None where it has."""
    if len(numbers) == count:
        return None
    return DecodeResult(error=f"{len(numbers)} tokens, a chunk needs {count}", position=min(len(numbers), count))


def check_chunks(chunks: np.ndarray, ndim: int) -> None:
    """Raise ValueError unless `chunks` is a non-empty array of `ndim` axes (`[n] t d`) of finite numbers."""
    if chunks.ndim != ndim or chunks.size == 0:
        wanted = "[t d]" if ndim == 2 else "[n t d]"
        raise ValueError(f"an action tokenizer takes a non-empty array {wanted}, got shape {list(chunks.shape)}")
    if not np.isfinite(chunks).all():
        raise ValueError("actions hold NaN or infinity; drop these frames, or check the normalisation statistics")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: under another name first, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(f"cannot write {path}: {error.strerror}; is the disk full or read-only?") from error
