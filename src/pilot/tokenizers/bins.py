"""Uniform bins: every action dim of every step is one token (RT-2, 2307.15818; OpenVLA, 2406.09246).

This is the plain tokenizer that FAST is compared with. Each dim's range, from its 1 % to its 99 % quantile, is cut into
`vocab_size` bins; an action outside takes the first or last bin.

Axes: `n` chunks, `t` steps, `d` action dims, `v` bins.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from pilot.tokenizers.base import DecodeResult, check_chunks, check_count, check_ids, write_atomically
from pilot.tokenizers.text import Ids

CONFIG_FILE = "bins.json"


class BinsTokenizer:
    """Bins between `low` and `high` of each action dim; decoding returns the middle of a bin."""

    def __init__(self, low: Float[np.ndarray, " d"], high: Float[np.ndarray, " d"], *, vocab_size: int = 256) -> None:
        if low.shape != high.shape or not (low < high).all() or vocab_size < 2:
            raise ValueError(f"bins need low < high per dim and at least 2 of them, got {low}, {high}, {vocab_size}")
        self.low, self.high = low.astype(np.float64), high.astype(np.float64)
        self._vocab_size = vocab_size

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @classmethod
    def fit(cls, chunks: Float[np.ndarray, "n t d"], *, vocab_size: int = 256) -> "BinsTokenizer":
        """Find the range of each dim."""
        check_chunks(chunks, 3)
        low, high = np.quantile(chunks.reshape(-1, chunks.shape[-1]).astype(np.float64), [0.01, 0.99], axis=0)
        still = high - low < 1e-6  # a dim that never moves still needs bins
        return cls(np.where(still, low - 0.5, low), np.where(still, high + 0.5, high), vocab_size=vocab_size)

    def encode(self, chunk: Float[np.ndarray, "t d"]) -> list[int]:
        """Return `t · d` ids, all dims of the first step first."""
        check_chunks(chunk, 2)
        return self.encode_batch(chunk[None])[0]

    def encode_batch(self, chunks: Float[np.ndarray, "n t d"]) -> list[list[int]]:
        """Return the ids of each chunk."""
        check_chunks(chunks, 3)
        if chunks.shape[-1] != len(self.low):
            raise ValueError(f"the chunk has {chunks.shape[-1]} action dims, these bins were fitted to {len(self.low)}")
        bins = np.floor((chunks - self.low) / (self.high - self.low) * self.vocab_size)
        # Clipped before they are whole numbers, which would wrap around.
        return np.clip(bins, 0, self.vocab_size - 1).astype(np.int64).reshape(len(chunks), -1).tolist()

    def decode(self, ids: Ids, horizon: int, dim: int) -> DecodeResult:
        """Return the chunk `[horizon dim]` that `ids` stand for, or what is wrong with them."""
        if dim != len(self.low):
            return DecodeResult(error=f"{dim} action dims asked for, these bins were fitted to {len(self.low)}")
        numbers = check_ids(ids, self.vocab_size)
        if isinstance(numbers, DecodeResult):
            return numbers
        if error := check_count(numbers, horizon * dim):
            return error
        middles = (np.array(numbers).reshape(horizon, dim) + 0.5) / self.vocab_size
        return DecodeResult(actions=self.low + middles * (self.high - self.low))

    def allowed(self, ids: Sequence[int], horizon: int, dim: int) -> Bool[np.ndarray, " v"]:
        """Allow every bin, until there is one for each value."""
        return np.full(self.vocab_size, len(ids) < horizon * dim)

    def save(self, folder: str | Path) -> None:
        """Write the bins into a folder."""
        config = {"low": self.low.tolist(), "high": self.high.tolist(), "vocab_size": self.vocab_size}
        write_atomically(Path(folder) / CONFIG_FILE, json.dumps(config, indent=2).encode())

    @classmethod
    def load(cls, folder: str | Path) -> "BinsTokenizer":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: no bins in `folder`.
            ValueError: the file is damaged.
        """
        path = Path(folder) / CONFIG_FILE
        if not path.is_file():
            raise FileNotFoundError(f"no {CONFIG_FILE} in {folder}: not a folder of bins")
        try:
            config = json.loads(path.read_text())
            return cls(np.array(config["low"]), np.array(config["high"]), vocab_size=int(config["vocab_size"]))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"{path} is damaged: {error!r}") from error
