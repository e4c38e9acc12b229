"""Ways to say something that are not greedy: drawn, or word for word; how likely it was; several ways on at once.

`Engine.generate` asks a `Sampler` for the next token of each row. A sampler may remember the tokens before: take a
new one for each text.

Axes: `b` batch, `v` vocabulary, `n` said tokens.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pilot.data.layout import Kind
from pilot.infer.engine.stack import Cache
from pilot.models.pi import argmax_token

if TYPE_CHECKING:
    from pilot.infer.engine.fast import Engine, PrefillState

MAX_ROWS = 64  # ways on that are scored at once, each with a copy of what has been read


@runtime_checkable
class Sampler(Protocol):
    def __call__(self, logits: Float[Tensor, "b v"], allowed: Bool[Tensor, "*b v"] | None) -> Int[Tensor, " b"]:
        """The next token of each row, given the model's scores and what may be said."""
        ...


class Greedy:
    """The likeliest, all places together weighed against each word (`models.pi.argmax_token`)."""

    def __init__(self, places: tuple[int, int] | None) -> None:
        self.places = places

    def __call__(self, logits: Float[Tensor, "b v"], allowed: Bool[Tensor, "*b v"] | None) -> Int[Tensor, " b"]:
        return argmax_token(masked(logits, allowed), loc_range=self.places)


class Multinomial:
    """A draw from the model's distribution, sharper for temperatures below 1; a generator (of the CPU) per row."""

    def __init__(self, temperature: float, *, generators: Sequence[torch.Generator]) -> None:
        self.temperature, self.generators = temperature, generators

    def __call__(self, logits: Float[Tensor, "b v"], allowed: Bool[Tensor, "*b v"] | None) -> Int[Tensor, " b"]:
        waits = torch.stack([torch.empty(logits.shape[1]).exponential_(generator=g) for g in self.generators])
        return masked(logits.float() / self.temperature - waits.log().to(logits.device), allowed).argmax(-1)


class Forced:
    """These tokens, whatever the model thinks of them; 0 behind the end of a row."""

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        self.length = max(map(len, rows))
        self.tokens = torch.tensor([[*row, *[0] * (self.length - len(row))] for row in rows])
        self.step = 0

    def __call__(self, logits: Float[Tensor, "b v"], allowed: Bool[Tensor, "*b v"] | None) -> Int[Tensor, " b"]:
        self.step += 1
        return self.tokens[:, self.step - 1].to(logits.device)


class Scored:
    """What another pick picks; `scores` are the log-probabilities of all that each row said, up to and with `eos`."""

    def __init__(self, sampler: Sampler, *, eos: int) -> None:
        self.sampler, self.eos = sampler, eos
        self.scores: Any = 0.0
        self.finished: Any = False

    def __call__(self, logits: Float[Tensor, "b v"], allowed: Bool[Tensor, "*b v"] | None) -> Int[Tensor, " b"]:
        token = self.sampler(logits, allowed)
        likely = logits.float().log_softmax(-1).gather(1, token[:, None])[:, 0]
        running = torch.as_tensor(self.finished, device=token.device).logical_not().expand_as(token)
        self.scores = self.scores + torch.where(running, likely, 0.0)
        self.finished = self.finished | (token == self.eos)
        return token


def masked(logits: Float[Tensor, "b v"], allowed: Bool[Tensor, "*b v"] | None) -> Float[Tensor, "b v"]:
    return logits if allowed is None else logits.where(allowed, -torch.inf)


def rows_of(reading: "PrefillState", index: Sequence[int]) -> "PrefillState":
    """A reading of its own with these rows, each as often as it is named; nothing has been said in it yet."""
    at = torch.tensor(index, device=reading.kinds.device)
    kinds = reading.kinds[at]
    kinds[:, reading.length :] = int(Kind.PAD)
    cache = Cache(reading.cache.keys[:, at], reading.cache.values[:, at])
    return replace(reading, cache=cache, kinds=kinds, hidden=None if reading.hidden is None else reading.hidden[at])


@torch.inference_mode()
def teacher_force(
    engine: "Engine", reading: "PrefillState", rows: Sequence[Sequence[int]], *, eos: int
) -> "PrefillState":
    """The reading that goes on with these tokens of each row."""
    sampler = Forced(rows)
    return engine.generate(reading, eos=eos, max_new_tokens=sampler.length, sampler=sampler)[1]


@torch.inference_mode()
def score(
    engine: "Engine", reading: "PrefillState", said: Sequence[tuple[int, Sequence[int]]], *, eos: int
) -> Float[Tensor, " n"]:
    """The log-probability of each `(row, tokens)`: that this row of the reading goes on with these tokens."""
    scores = []
    for start in range(0, len(said), MAX_ROWS):
        some = said[start : start + MAX_ROWS]
        sampler = Scored(Forced([tokens for _, tokens in some]), eos=eos)
        longest = max(len(tokens) for _, tokens in some)
        engine.generate(rows_of(reading, [row for row, _ in some]), eos=eos, max_new_tokens=longest, sampler=sampler)
        scores.append(sampler.scores)
    return torch.cat(scores).cpu()
