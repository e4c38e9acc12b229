"""The loop that generates text and action tokens, one token of each row at a time; the model and all engines share it.

Axes: `b` batch, `v` vocabulary, `d` width.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pilot.tokenizers.grammar import Allowed, allowed_mask

DecodeStep = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Reads a token [b] of each row; returns the hidden states [b d] after it, and which rows [b] have finished."""


@runtime_checkable
class Sampler(Protocol):
    """A way to choose the next token of each row."""

    def __call__(self, logits: Float[Tensor, "b v"], allowed: Bool[Tensor, "*b v"] | None) -> Int[Tensor, " b"]:
        """Choose the next token of each row, given the model's scores and the tokens that are allowed."""
        ...


class Greedy:
    """Chooses the most likely token, where all `<loc>` tokens first compete together (`argmax_token`)."""

    def __init__(self, loc_range: tuple[int, int] | None) -> None:
        self.loc_range = loc_range

    def __call__(self, logits: Float[Tensor, "b v"], allowed: Bool[Tensor, "*b v"] | None) -> Int[Tensor, " b"]:
        return argmax_token(mask_logits(logits, allowed), loc_range=self.loc_range)


def generate_tokens(
    hidden: Float[Tensor, "b d"],
    finished: Bool[Tensor, " b"],
    *,
    decode_step: DecodeStep,
    logits: Callable[[Tensor], Tensor],
    max_new_tokens: int,
    sampler: Sampler,
    allowed: Allowed | None,
) -> list[Int[Tensor, " b"]]:
    """Generate tokens of each row until all have finished, 0 for those that have.

    `hidden` are the states after the last token of each row, from which `logits` makes scores of the next.
    """
    tokens: list[Tensor] = []
    while len(tokens) < max_new_tokens and not finished.all():
        mask = None if allowed is None else allowed_mask(allowed, tokens, finished)
        token = sampler(logits(hidden), mask)
        # The batch goes on until the last row is done; what rows write after their end is thrown away.
        tokens.append(token.masked_fill(finished, 0))
        hidden, finished = decode_step(tokens[-1])
    return tokens


def argmax_token(logits: Float[Tensor, "b v"], *, loc_range: tuple[int, int] | None) -> Int[Tensor, " b"]:
    """Return the most likely token, where all `<loc>` tokens together first compete with each word.

    "Somewhere here" spreads its probability over many `<loc>` tokens, each of which may be less likely than a word that
    is wrong. Nothing changes where no word competes with them, or without a `loc_range` (`PiConfig.loc_token_range`).
    """
    if loc_range is None:
        return logits.argmax(-1)
    start, stop = loc_range
    # The likelihood that any box edge comes next, against that of the best single word.
    any_loc = logits[:, start:stop].logsumexp(-1)
    best_word = torch.cat((logits[:, :start], logits[:, stop:]), dim=1).amax(-1)
    words_only = logits.clone()
    words_only[:, start:stop] = -torch.inf
    best_loc = logits[:, start:stop].argmax(-1) + start
    return torch.where(any_loc > best_word, best_loc, words_only.argmax(-1))


def mask_logits(logits: Float[Tensor, "b v"], allowed: Bool[Tensor, "*b v"] | None) -> Float[Tensor, "b v"]:
    """Set the scores of tokens that are not allowed to minus infinity."""
    return logits if allowed is None else logits.where(allowed, -torch.inf)
