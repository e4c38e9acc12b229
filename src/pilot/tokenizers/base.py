"""What every action tokenizer is: chunks of normalised actions in, token ids out, and back.

A sequence that a model wrote itself may be malformed. `decode` then says so in its result; it never answers with
zeros, which a robot would take for a command.

Axes: `n` chunks, `t` steps of a chunk, `d` action dims.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from pilot.tokenizers.text import Ids


@dataclass(frozen=True, kw_only=True)
class DecodeResult:
    """Actions, or why there are none: exactly one of the two fields is set."""

    actions: Float[np.ndarray, "t d"] | None = None
    error: str | None = None

    @property
    def ok(self) -> bool:
        return self.error is None


@runtime_checkable
class ActionTokenizer(Protocol):
    """Maps a chunk of normalised actions (about [-1, 1]) to ids in `range(vocab_size)` and back."""

    @property
    def vocab_size(self) -> int: ...

    @classmethod
    def fit(cls, chunks: Float[np.ndarray, "n t d"], *, vocab_size: int) -> "ActionTokenizer": ...

    def encode(self, chunk: Float[np.ndarray, "t d"]) -> list[int]: ...

    def encode_batch(self, chunks: Float[np.ndarray, "n t d"]) -> list[list[int]]: ...

    def decode(self, ids: Ids, horizon: int, dim: int) -> DecodeResult: ...

    def save(self, folder: str | Path) -> None: ...

    @classmethod
    def load(cls, folder: str | Path) -> "ActionTokenizer": ...


def mirror_into_vocab(ids: Int[np.ndarray, " n"], vocab_size: int, *, offset: int) -> Int[np.ndarray, " n"]:
    """Place action ids at the top of a text vocabulary, id 0 highest; the same function brings them back.

    `offset` leaves the last ids of the vocabulary alone: 128 for the released π0-FAST weights (PaliGemma's `<seg>`
    tokens), 0 where the top of the table belongs to the actions. Source: FAST (2501.09747) as trained by openpi.
    """
    return vocab_size - 1 - offset - ids


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
