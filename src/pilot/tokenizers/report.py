"""How many tokens an action tokenizer needs and how much it loses, to choose `vocab_size` and `scale` by."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pilot.tokenizers.base import ActionTokenizer, check_chunks


@dataclass(frozen=True, kw_only=True)
class TokenizerReport:
    """Tokens and errors on a set of chunks. Errors are in the chunks' own (normalised) units, per action dim."""

    names: tuple[str, ...]  # of the action dims
    chunks: int
    tokens_mean: float
    tokens_p99: float
    tokens_max: int
    compression: float  # action values per token
    share_over_budget: float | None  # None where no budget was given
    share_undecodable: float
    rms_error: Float[np.ndarray, " d"]
    max_error: Float[np.ndarray, " d"]

    def __str__(self) -> str:
        lines = [
            f"{self.chunks} chunks: {self.tokens_mean:.1f} tokens each (99 % within {self.tokens_p99:.0f}, "
            f"at most {self.tokens_max}), {self.compression:.1f} values per token",
            f"chunks that do not decode: {self.share_undecodable:.2%}",
        ]
        if self.share_over_budget is not None:
            lines.append(f"chunks over the token budget: {self.share_over_budget:.2%}")
        width = max(map(len, self.names))
        for name, rms, worst in zip(self.names, self.rms_error, self.max_error, strict=True):
            lines.append(f"  {name:{width}}  rms error {rms:.4f}, largest {worst:.4f}")
        return "\n".join(lines)


def report(
    tokenizer: ActionTokenizer,
    chunks: Float[np.ndarray, "n t d"],
    *,
    budget: int | None = None,
    names: Sequence[str] | None = None,
) -> TokenizerReport:
    """Encode and decode every chunk, and report tokens and errors.

    `budget` is the most tokens that a model leaves for a chunk, `names` are those of the dims.
    """
    check_chunks(chunks, 3)
    n, t, d = chunks.shape
    ids = tokenizer.encode_batch(chunks)
    lengths = np.array([len(i) for i in ids])
    decoded = [tokenizer.decode(i, t, d).actions for i in ids]
    errors = [np.abs(actions - chunk) for actions, chunk in zip(decoded, chunks, strict=True) if actions is not None]
    error = np.stack(errors) if errors else np.full((1, t, d), np.nan)
    return TokenizerReport(
        names=tuple(names or (f"dim {i}" for i in range(d))),
        chunks=n,
        tokens_mean=float(lengths.mean()),
        tokens_p99=float(np.quantile(lengths, 0.99)),
        tokens_max=int(lengths.max()),
        compression=t * d / float(lengths.mean()),
        share_over_budget=float((lengths > budget).mean()) if budget is not None else None,
        share_undecodable=1 - len(errors) / n,
        rms_error=np.sqrt((error**2).mean((0, 1))),
        max_error=error.max((0, 1)),
    )
