"""Grammars as tensors, so that a GPU applies them while it generates and the host need not be asked for each token.

`tokenizers/grammar.py` says what may follow and is the specification; here the same answers come from small tables and
a few numbers for each row, which change in place. Grammars that have no tables yet (labels, one for each row) are
applied by the host.

Axes: `b` batch, `v` the model's vocabulary, `a` action tokens, `p` unfinished characters.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from pilot.tokenizers.fast import FastTokenizer
from pilot.tokenizers.grammar import ActionGrammar, Allowed, TextGrammar


class DeviceGrammar(Protocol):
    """The tokens that each row may write next, by tensors (`state`) that change in place."""

    @property
    def state(self) -> list[Tensor]:
        """The tensors that change as tokens are written; a CUDA graph needs them at fixed addresses."""
        ...

    def start(self) -> None:
        """Go back to where nothing has been written."""
        ...

    def allowed(self) -> Bool[Tensor, "*b v"]:
        """Return which tokens may come next, for all rows or for each."""
        ...

    def advance(self, token: Int[Tensor, " b"]) -> None:
        """Take in the token that each row has written."""
        ...


def compile_grammar(
    allowed: Allowed | None, *, batch: int, vocab_size: int, device: torch.device
) -> DeviceGrammar | None:
    """Return the tensors of a grammar; None if it has to be applied by the host."""
    if allowed is None:
        return FixedMask(torch.ones(vocab_size, dtype=torch.bool, device=device))
    if isinstance(allowed, Tensor):
        return FixedMask(allowed.to(device))
    if isinstance(allowed, Sequence):
        same = len(set(map(id, allowed))) == 1
        return compile_grammar(allowed[0], batch=batch, vocab_size=vocab_size, device=device) if same else None
    if isinstance(allowed, TextGrammar):
        return TextTables(allowed, batch=batch, device=device)
    if isinstance(allowed, ActionGrammar) and isinstance(allowed.actions, FastTokenizer):
        return FastTables(allowed, allowed.actions, batch=batch, device=device)
    return None


class FixedMask:
    """The same tokens at any time."""

    def __init__(self, mask: Bool[Tensor, " v"]) -> None:
        self.mask, self.state = mask, list[Tensor]()

    def start(self) -> None:
        pass

    def allowed(self) -> Bool[Tensor, " v"]:
        return self.mask

    def advance(self, token: Int[Tensor, " b"]) -> None:
        pass


class TextTables:
    """A `TextGrammar`: whether a row has begun, and the corners of the box that it is in."""

    def __init__(self, grammar: TextGrammar, *, batch: int, device: torch.device) -> None:
        masks = [grammar.word_or_loc, grammar.after_word, grammar.loc_mask, grammar.word]
        self.first, self.after_word, self.locs, self.word = (torch.from_numpy(m).to(device) for m in masks)
        bins = np.full(len(grammar.loc_mask), -1)
        bins[grammar.loc_ids] = np.arange(len(grammar.loc_ids))
        self.bins = torch.from_numpy(bins).to(device)
        self.begun = torch.zeros(batch, dtype=torch.bool, device=device)
        self.count = torch.zeros(batch, dtype=torch.long, device=device)
        self.corners = torch.zeros(batch, 4, dtype=torch.long, device=device)
        self.state = [self.begun, self.count, self.corners]

    def start(self) -> None:
        for number in self.state:
            number.zero_()

    def allowed(self) -> Bool[Tensor, "b v"]:
        """Return words, or in an open box `<loc>` tokens: the third and fourth not before the edge across."""
        count = self.count[:, None]
        words = torch.where(self.begun[:, None], self.after_word, self.first)
        edge = self.corners.gather(1, (count - 2).clamp(min=0))
        edge = torch.where(count > 1, edge, 0)
        locs = self.locs & (self.bins >= edge)
        return torch.where(count == 0, words, torch.where(count < 4, locs, self.word))

    def advance(self, token: Int[Tensor, " b"]) -> None:
        corner = self.bins[token]
        self.corners.scatter_(1, self.count.clamp(max=3)[:, None], corner[:, None])
        self.count.copy_(torch.where(corner < 0, 0, (self.count + 1).clamp(max=4)))
        self.begun.fill_(True)


class FastTables:
    """An `ActionGrammar` of FAST tokens: how many characters a row has written, and which one is unfinished."""

    def __init__(
        self, grammar: ActionGrammar, tokenizer: FastTokenizer, *, batch: int, device: torch.device
    ) -> None:  # fmt: skip
        def to_device(values: np.ndarray | list[int]) -> Tensor:
            return torch.from_numpy(np.asarray(values)).long().to(device)

        self.begins, self.ends = to_device(grammar.start), to_device(grammar.end)
        self.size, self.ids = grammar.vocab_size, grammar.ids
        # the highest id of the vocabulary is action 0
        needed, written, following = (np.flip(table, 1).copy() for table in tokenizer.character_tables())
        self.needed, self.written, self.following = map(to_device, (needed, written, following))
        self.limit = grammar.horizon * grammar.dim
        self.step, self.ended, self.count, self.pending = (
            torch.zeros(batch, dtype=torch.long, device=device) for _ in range(4)
        )
        self.state = [self.step, self.ended, self.count, self.pending]

    def start(self) -> None:
        for number in self.state:
            number.zero_()

    def actions(self) -> Bool[Tensor, "b a"]:
        """Return the action tokens that may follow what a row has written."""
        needed = self.needed[self.pending]
        return (needed > 0) & (self.count[:, None] + needed <= self.limit)

    def allowed(self) -> Bool[Tensor, "b v"]:
        actions, vocabulary = self.actions(), torch.arange(self.size, device=self.count.device)
        begins = self.step[:, None] < len(self.begins)
        over = ~actions.any(1, keepdim=True) | (self.ended[:, None] > 0)
        first = self.begins[self.step.clamp(max=len(self.begins) - 1)][:, None]
        last = self.ends[self.ended.clamp(max=len(self.ends) - 1)][:, None]
        forced = torch.where(begins, first, torch.where(over, last, -1))
        mask = vocabulary == forced
        free = ~begins & ~over
        mask[:, self.ids.start : self.ids.stop] |= actions & free
        return mask

    def advance(self, token: Int[Tensor, " b"]) -> None:
        begun = self.step >= len(self.begins)
        action = (token >= self.ids.start) & (token < self.ids.stop) & begun
        at = (token - self.ids.start).clamp(0, len(self.ids) - 1)
        self.count.add_(torch.where(action, self.written[self.pending, at], 0))
        self.pending.copy_(torch.where(action, self.following[self.pending, at], self.pending))
        self.ended.add_(begun & ~action)
        self.step.add_(~begun)
