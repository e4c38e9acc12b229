"""Which tokens a model may write next, so that what it writes can be parsed.

A grammar answers for one row: given the ids that it has generated so far, which ids of the model's vocabulary may
follow. A decoder that obeys it (`Pi.generate`) writes words without `<loc>` or action tokens, boxes of four `<loc>`,
one of a list of labels, or action tokens that decode to a whole chunk; the model only chooses among these. Each id is
of one kind only: where action ids lie over words or `<loc>` tokens of the text model, as in the released π0-FAST
weights, they are not words.

Axes: `b` rows, `v` the model's vocabulary.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from pilot.tokenizers.base import ActionTokenizer, action_ids, mirror_into_vocab
from pilot.tokenizers.prompts import ACTION_END, ACTION_START, encode_target
from pilot.tokenizers.text import LOC_BINS, TextTokenizer


@runtime_checkable
class Grammar(Protocol):
    """A restriction of what a decoder writes: `TextGrammar`, `LabelGrammar`, `ActionGrammar`, or your own."""

    def allowed(self, generated: Sequence[int]) -> Bool[np.ndarray, " v"]:
        """Return the ids that may follow `generated`, at least one. The caller may not write into the mask."""
        ...


Allowed = Bool[Tensor, " v"] | Grammar | Sequence[Grammar]
"""What may be generated: a mask over the vocabulary, or a grammar for all rows or for each."""


class TextGrammar:
    """Words, then `end`; `boxes` tells where a box may stand.

    `none`: nowhere. `first`: before the first word (a subtask). `any`: before any word (the answer of a detection). A
    box is four `<loc>` in the order y0 x0 y1 x1 with y0 ≤ y1 and x0 ≤ x1, and is followed by a word. `actions` are ids
    of the model's vocabulary that belong to actions: none of them is a word.
    """

    def __init__(
        self,
        text: TextTokenizer,
        *,
        vocab_size: int,
        end: int,
        boxes: Literal["none", "first", "any"] = "none",
        actions: Sequence[int] = (),
    ) -> None:
        self.boxes = boxes
        self.loc_ids = np.array([text.loc_id(n) for n in range(LOC_BINS)] if boxes != "none" else [], np.int64)
        self.bins = {int(i): n for n, i in enumerate(self.loc_ids)}
        self.word = np.zeros(vocab_size, bool)
        self.word[text.word_ids] = True
        self.word[list(actions)] = False
        self.word[end] = False
        self.loc_mask = np.zeros(vocab_size, bool)
        self.loc_mask[self.loc_ids] = True
        self.word_or_loc = self.word | self.loc_mask
        self.after_word = self.word_or_loc.copy() if boxes == "any" else self.word.copy()
        self.after_word[end] = True

    def allowed(self, generated: Sequence[int]) -> Bool[np.ndarray, " v"]:
        corners = [self.bins[i] for i in takewhile(self.bins.__contains__, reversed(generated))][::-1]
        if not generated:
            return self.word_or_loc
        if not corners:
            return self.after_word
        if len(corners) >= 4:
            return self.word
        return self.loc_mask if len(corners) == 1 else self._from(corners[len(corners) - 2])

    def _from(self, corner: int) -> Bool[np.ndarray, " v"]:
        """Return the `<loc>` tokens that are not before `corner`, the edge on the opposite side."""
        mask = np.zeros_like(self.loc_mask)
        mask[self.loc_ids[corner:]] = True
        return mask


class LabelGrammar:
    """One of `labels`, written and ended as the target of prompt format `name`: the model chooses, it cannot invent.

    With `boxes`, a grammar that has boxes, one may stand in front of the label.
    """

    def __init__(
        self,
        text: TextTokenizer,
        labels: Sequence[str],
        *,
        vocab_size: int,
        name: str = "web",
        boxes: TextGrammar | None = None,
    ) -> None:
        if not labels:
            raise ValueError("no labels to choose from")
        self.vocab_size, self.boxes = vocab_size, boxes
        self._next: dict[tuple[int, ...], set[int]] = {}
        for label in labels:
            ids = encode_target(text, name, text=label)
            for n, following in enumerate(ids):
                self._next.setdefault(tuple(ids[:n]), set()).add(following)

    def allowed(self, generated: Sequence[int]) -> Bool[np.ndarray, " v"]:
        if self.boxes is None:
            return _only(self.vocab_size, *self._next[tuple(generated)])
        corners = sum(1 for _ in takewhile(self.boxes.bins.__contains__, generated))
        if 0 < corners < 4:
            return self.boxes.allowed(generated)
        mask = _only(self.vocab_size, *self._next[tuple(generated[corners:])])
        return mask if generated else mask | self.boxes.loc_mask


class WithoutGrammar:
    """Another grammar, of which nothing begins with one of `texts` (the ids of each)."""

    def __init__(self, grammar: Grammar, texts: Sequence[Sequence[int]]) -> None:
        self.grammar = grammar
        self.texts = [list(ids) for ids in texts]

    def allowed(self, generated: Sequence[int]) -> Bool[np.ndarray, " v"]:
        mask = self.grammar.allowed(generated)
        if last := [ids[-1] for ids in self.texts if ids[:-1] == list(generated)]:
            mask = mask.copy()
            mask[last] = False
        return mask


class ActionGrammar:
    """`Action: `, the tokens of one whole chunk, `|<eos>`: what `prompts.encode_actions` writes.

    Raises:
        ValueError: action ids that lie over the tokens that end them.
    """

    def __init__(
        self,
        text: TextTokenizer,
        actions: ActionTokenizer,
        *,
        horizon: int,
        dim: int,
        vocab_size: int,
        offset: int = 0,
    ) -> None:
        self.actions, self.horizon, self.dim = actions, horizon, dim
        self.vocab_size, self.offset = vocab_size, offset
        self.start, self.end = text.encode(ACTION_START), text.encode(ACTION_END, add_eos=True)
        self.ids = action_ids(vocab_size, actions.vocab_size, offset=offset)
        if shared := [i for i in self.end if i in self.ids]:
            raise ValueError(
                f"tokens {shared} would mean actions and the end of actions; raise vocab_size or the offset"
            )

    def allowed(self, generated: Sequence[int]) -> Bool[np.ndarray, " v"]:
        if len(generated) < len(self.start):
            return _only(self.vocab_size, self.start[len(generated)])
        chunk = list(takewhile(self.ids.__contains__, generated[len(self.start) :]))
        ended = len(generated) - len(self.start) - len(chunk)
        following = self.actions.allowed(self._mirror(chunk), self.horizon, self.dim) if not ended else np.zeros(0)
        if not following.any():
            return _only(self.vocab_size, self.end[ended])
        return _only(self.vocab_size, *self._mirror(np.flatnonzero(following)))

    def _mirror(self, ids: Sequence[int] | np.ndarray) -> list[int]:
        return mirror_into_vocab(np.array(ids, np.int64), self.vocab_size, offset=self.offset).tolist()


def allowed_mask(
    allowed: Allowed, generated: Sequence[Int[Tensor, " b"]], finished: Bool[Tensor, " b"]
) -> Bool[Tensor, "*b v"]:
    """Return what each row of a batch may write next, by a fixed mask, one grammar for all rows, or one for each.

    `generated` holds the tokens of the steps so far. A row that has `finished` may write anything: it is discarded.
    """
    if isinstance(allowed, Tensor):
        return allowed
    done = finished.tolist()
    grammars = [allowed] * len(done) if isinstance(allowed, Grammar) else allowed
    rows = torch.stack(list(generated), 1).tolist() if generated else [[] for _ in done]
    masks = [None if d else g.allowed(row) for g, row, d in zip(grammars, rows, done, strict=True)]
    size = next(len(mask) for mask in masks if mask is not None)
    return torch.from_numpy(np.stack([np.ones(size, bool) if m is None else m for m in masks])).to(finished.device)


def _only(vocab_size: int, *ids: int) -> Bool[np.ndarray, " v"]:
    mask = np.zeros(vocab_size, bool)
    mask[list(ids)] = True
    return mask
