"""Ways to generate that are not greedy: drawn at a temperature, or forced; and how likely a text is.

An engine asks a `Sampler` for the next token of each row. A sampler may remember the tokens before: take a new one for
each text.

Axes: `b` batch, `v` vocabulary, `n` texts that are scored.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pilot.data.layout import Kind
from pilot.infer.engine.protocol import Engine
from pilot.infer.engine.stack import Cache
from pilot.infer.engine.state import PrefillState
from pilot.models.generation import Sampler, mask_logits

MAX_ROWS = 64  # texts that are scored at once, each with a copy of the cache


class Multinomial:
    """A draw from the model's distribution, sharper for temperatures below 1; a generator (of the CPU) per row."""

    def __init__(self, temperature: float, *, generators: Sequence[torch.Generator]) -> None:
        self.temperature = temperature
        self.generators = generators

    def __call__(self, logits: Float[Tensor, "b v"], allowed: Bool[Tensor, "*b v"] | None) -> Int[Tensor, " b"]:
        # The smallest of exponential waiting times, each divided by its rate, is a draw by the rates. It takes one
        # number per token and row, so that a row draws the same in any batch and on any device.
        waits = torch.stack([torch.empty(logits.shape[1]).exponential_(generator=g) for g in self.generators])
        return mask_logits(logits.float() / self.temperature - waits.log().to(logits.device), allowed).argmax(-1)


class Forced:
    """Given tokens, whatever the model thinks of them; 0 behind the end of a row."""

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        self.length = max(map(len, rows))
        self.tokens = torch.tensor([[*row, *[0] * (self.length - len(row))] for row in rows])
        self.step = 0

    def __call__(self, logits: Float[Tensor, "b v"], allowed: Bool[Tensor, "*b v"] | None) -> Int[Tensor, " b"]:
        self.step += 1
        return self.tokens[:, self.step - 1].to(logits.device)


class Scored:
    """Another sampler, with the log-probability in `scores` of each row's tokens up to and with `eos`."""

    def __init__(self, sampler: Sampler, *, eos: int) -> None:
        self.sampler = sampler
        self.eos = eos
        self.scores: Any = 0.0
        self.finished: Any = False

    def __call__(self, logits: Float[Tensor, "b v"], allowed: Bool[Tensor, "*b v"] | None) -> Int[Tensor, " b"]:
        token = self.sampler(logits, allowed)
        log_prob = logits.float().log_softmax(-1).gather(1, token[:, None])[:, 0]
        # The end token itself counts, what is written behind it does not.
        running = torch.as_tensor(self.finished, device=token.device).logical_not().expand_as(token)
        self.scores = self.scores + torch.where(running, log_prob, 0.0)
        self.finished = self.finished | (token == self.eos)
        return token


def select_rows(prefilled: PrefillState, rows: Sequence[int]) -> PrefillState:
    """Copy rows of what is prefilled, each as often as it is named, without what has been generated behind them."""
    index = torch.tensor(rows, device=prefilled.kinds.device)
    kinds = prefilled.kinds[index]
    # Copies start anew: what was generated behind the prefill belongs to another text.
    kinds[:, prefilled.length :] = int(Kind.PAD)
    cache = Cache(prefilled.cache.keys[:, index], prefilled.cache.values[:, index])
    hidden = None if prefilled.hidden is None else prefilled.hidden[index]
    return replace(prefilled, cache=cache, kinds=kinds, hidden=hidden)


@torch.inference_mode()
def teacher_force(
    engine: Engine,
    prefilled: PrefillState,
    rows: Sequence[Sequence[int]],
    *,
    eos: int,
    skip_rows: Bool[Tensor, " b"] | None = None,
) -> PrefillState:
    """Return the state after these tokens of each row; `skip_rows` stay as they are."""
    sampler = Forced(rows)
    return engine.generate(
        prefilled, eos=eos, max_new_tokens=sampler.length, sampler=sampler, skip_rows=skip_rows
    )[1]  # fmt: skip


@torch.inference_mode()
def score(
    engine: Engine, prefilled: PrefillState, texts: Sequence[tuple[int, Sequence[int]]], *, eos: int
) -> Float[Tensor, " n"]:
    """Compute the log-probability of each `(row, tokens)`: that these tokens come next in that row."""
    scores = []
    for start in range(0, len(texts), MAX_ROWS):
        some = texts[start : start + MAX_ROWS]
        sampler = Scored(Forced([tokens for _, tokens in some]), eos=eos)
        longest = max(len(tokens) for _, tokens in some)
        copies = select_rows(prefilled, [row for row, _ in some])
        engine.generate(copies, eos=eos, max_new_tokens=longest, sampler=sampler)
        scores.append(sampler.scores)
    return torch.cat(scores).cpu()
