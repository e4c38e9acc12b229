"""A learned codebook: every chunk of actions is the same small number of tokens (by default 8 of 256 codes).

Residual vector quantisation: the first code is roughly the chunk, each further one corrects what is left, and the sum
of the codes is the chunk. VQ-BeT (2403.03181) writes chunks of actions like this. The codebooks learn as in SoundStream
(2107.03312, section III-C): each code is a moving average of what was assigned to it, and a code that is never used is
replaced by a sample. Encoding searches for the best sum with a beam (additive quantisation, Babenko and Lempitsky, CVPR
2014), since the nearest code at each stage is rarely part of the best sum; on chunks that were not fitted to, this
takes a sixth off the error. There is no network around the codebooks: on the homes' chunks an encoder and a decoder
did not reduce the error.

Axes: `n` chunks, `t` steps, `d` action dims, `q` tokens of a chunk (stages), `v` codes of each, `c` values of a chunk.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from safetensors.numpy import load, save

from pilot.tokenizers.base import DecodeResult, check_chunks, check_count, check_ids, write_atomically
from pilot.tokenizers.text import Ids

CONFIG_FILE, CODES_FILE = "vq.json", "vq.safetensors"

STEPS, BATCH = 400, 512
DECAY = 0.98  # of the moving averages; each code remembers about the last 50 batches
DEAD = 0.03  # a code used less than this share of the average code is replaced
BEAM = 8  # sums that the search keeps at each stage


class VqTokenizer:
    """Codebooks: `codebooks[i]` are the codes that token `i` chooses from. All chunks have the length of the fit."""

    def __init__(self, codebooks: Float[np.ndarray, "q v c"], *, horizon: int, dim: int) -> None:
        if codebooks.ndim != 3 or codebooks.shape[2] != horizon * dim or not np.isfinite(codebooks).all():
            raise ValueError(f"codebooks {list(codebooks.shape)} do not fit chunks of {horizon} x {dim}, or hold NaN")
        self.codebooks = codebooks.astype(np.float32)
        self.horizon, self.dim = horizon, dim

    @property
    def vocab_size(self) -> int:
        """The codes of one stage. The stages share their ids; a token's position tells its stage."""
        return self.codebooks.shape[1]

    @property
    def tokens_per_chunk(self) -> int:
        """The number of stages."""
        return self.codebooks.shape[0]

    @classmethod
    def fit(
        cls,
        chunks: Float[np.ndarray, "n t d"],
        *,
        vocab_size: int = 256,
        tokens: int = 8,
        seed: int = 0,
        steps: int = STEPS,
    ) -> "VqTokenizer":
        """Learn the codebooks from chunks of normalised actions, in `steps` batches; a function of `seed`.

        Raises:
            ValueError: chunks with NaN, or no tokens or codes to write them with.
        """
        check_chunks(chunks, 3)
        if vocab_size < 2 or tokens < 1:
            raise ValueError(f"a codebook needs at least 1 token of 2 codes, got {tokens} of {vocab_size}")
        values = chunks.reshape(len(chunks), -1).astype(np.float32)
        fitting = _CodebookFit(values, tokens=tokens, codes=vocab_size, rng=np.random.default_rng(seed))
        for _ in range(steps):
            fitting.step(values)
        return cls(fitting.means, horizon=chunks.shape[1], dim=chunks.shape[2])

    def encode(self, chunk: Float[np.ndarray, "t d"]) -> list[int]:
        """Return the `tokens_per_chunk` ids of a chunk."""
        check_chunks(chunk, 2)
        return self.encode_batch(chunk[None])[0]

    def encode_batch(self, chunks: Float[np.ndarray, "n t d"]) -> list[list[int]]:
        """Return the ids of each chunk, whose codes are the best sum that a beam of `BEAM` finds.

        Raises:
            ValueError: chunks with NaN, or of another shape than those fitted to.
        """
        check_chunks(chunks, 3)
        if chunks.shape[1:] != (self.horizon, self.dim):
            raise ValueError(
                f"the chunk is {chunks.shape[1]} x {chunks.shape[2]} (steps x dims), this codebook was fitted to "
                f"{self.horizon} x {self.dim}; fit one on this data"
            )
        flat = chunks.reshape(len(chunks), -1).astype(np.float32)
        parts = np.array_split(flat, -(-len(flat) // BATCH))  # distances of all chunks at once would fill the memory
        return [ids for part in parts for ids in self._search(part).tolist()]

    def decode(self, ids: Ids, horizon: int, dim: int) -> DecodeResult:
        """Return the chunk `[horizon dim]` that `ids` stand for, or what is wrong with them."""
        if (horizon, dim) != (self.horizon, self.dim):
            fitted = f"this codebook was fitted to {self.horizon} x {self.dim}"
            return DecodeResult(error=f"a chunk of {horizon} x {dim} asked for, {fitted}")
        numbers = check_ids(ids, self.vocab_size)
        if isinstance(numbers, DecodeResult):
            return numbers
        if error := check_count(numbers, self.tokens_per_chunk):
            return error
        values = self.codebooks[np.arange(self.tokens_per_chunk), numbers].sum(0)
        return DecodeResult(actions=values.reshape(horizon, dim).astype(np.float64))

    def allowed(self, ids: Sequence[int], horizon: int, dim: int) -> Bool[np.ndarray, " v"]:
        """Allow every code, until there is one for each stage."""
        return np.full(self.vocab_size, len(ids) < self.tokens_per_chunk)

    def save(self, folder: str | Path) -> None:
        """Write the codebooks, and the configuration last: a half-written folder is not taken for one."""
        folder = Path(folder)
        (folder / CONFIG_FILE).unlink(missing_ok=True)
        write_atomically(folder / CODES_FILE, save({"codebooks": self.codebooks}))
        config = {"horizon": self.horizon, "dim": self.dim, "tokens": self.tokens_per_chunk, "codes": self.vocab_size}
        write_atomically(folder / CONFIG_FILE, json.dumps(config, indent=2).encode())

    @classmethod
    def load(cls, folder: str | Path) -> "VqTokenizer":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: a file is missing, as after an interrupted save.
            ValueError: a file is damaged, or the two do not fit each other.
        """
        folder = Path(folder)
        for name in (CONFIG_FILE, CODES_FILE):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"no {name} in {folder}: not a folder of a codebook, or its save was cut off")
        try:
            config = json.loads((folder / CONFIG_FILE).read_text())
            codebooks = load((folder / CODES_FILE).read_bytes())["codebooks"]
            shape = (config["tokens"], config["codes"], config["horizon"] * config["dim"])
            if codebooks.shape != shape:
                raise ValueError(f"codebooks {codebooks.shape} beside a config of {shape}")
            return cls(codebooks, horizon=config["horizon"], dim=config["dim"])
        except (ValueError, TypeError, KeyError, SafetensorError, RecursionError) as error:
            raise ValueError(f"the codebook in {folder} is damaged: {error!r}") from error

    def _search(self, values: Float[np.ndarray, "n c"]) -> Int[np.ndarray, "n q"]:
        row = np.arange(len(values))[:, None]
        left = values[:, None]  # [n beam c], what each sum of codes still lacks
        ids = np.zeros((len(values), 1, 0), np.int64)  # [n beam q]
        for codes in self.codebooks:
            distances = (left**2).sum(-1)[..., None] + _distances(left, codes)  # [n beam v]
            flat = distances.reshape(len(values), -1)
            best = np.argpartition(flat, min(BEAM, flat.shape[1]) - 1)[:, :BEAM]
            beam, code = best // len(codes), best % len(codes)
            left = left[row, beam] - codes[code]
            ids = np.concatenate((ids[row, beam], code[..., None]), axis=2)
        return ids[row[:, 0], (left**2).sum(-1).argmin(1)]


class _CodebookFit:
    """Codebooks while they are fitted: for each code, moving averages of how much was assigned to it and of its sum."""

    def __init__(self, values: Float[np.ndarray, "n c"], *, tokens: int, codes: int, rng: np.random.Generator) -> None:
        self.rng = rng
        self.sums = np.zeros((tokens, codes, values.shape[1]), np.float32)
        self.counts = np.ones((tokens, codes), np.float32)
        left = values
        for sums in self.sums:
            sums[:] = left[rng.integers(len(left), size=codes)]
            left = left - sums[_distances(left, sums).argmin(1)]

    @property
    def means(self) -> Float[np.ndarray, "q v c"]:
        return self.sums / self.counts[..., None]

    def step(self, values: Float[np.ndarray, "n c"]) -> None:
        """Learn from one batch: each stage moves towards what the stages before it leave."""
        left = values[self.rng.integers(len(values), size=min(BATCH, len(values)))]
        for sums, counts in zip(self.sums, self.counts, strict=True):
            codes = sums / counts[:, None]
            chosen = _distances(left, codes).argmin(1)
            assigned = (chosen == np.arange(len(codes))[:, None]).astype(np.float32)  # [v n]
            counts += (1 - DECAY) * (assigned.sum(1) - counts)
            sums += (1 - DECAY) * (assigned @ left - sums)
            dead = counts < DEAD * len(left) / len(codes)
            sums[dead], counts[dead] = left[self.rng.integers(len(left), size=dead.sum())], 1
            left = left - codes[chosen]


def _distances(values: Float[np.ndarray, "*n c"], codes: Float[np.ndarray, "v c"]) -> Float[np.ndarray, "*n v"]:
    """Return the squared distance of each value to each code, less the value's own square."""
    return (codes**2).sum(1) - 2 * values @ codes.T
