"""Grammars as tensors allow what `tokenizers/grammar.py` allows, token after token."""

import numpy as np
import pytest
import torch

from pilot.infer.engine.device_grammar import FixedMask, compile_grammar
from pilot.tokenizers.bins import BinsTokenizer
from pilot.tokenizers.fast import FastTokenizer
from pilot.tokenizers.grammar import ActionGrammar, LabelGrammar, TextGrammar
from pilot.tokenizers.text import TextTokenizer

TEXT = TextTokenizer()
HORIZON, DIM, VOCAB = 6, 3, 2080
# Coefficients far apart need characters of two bytes, which tokens may cut.
CHUNKS = np.random.default_rng(0).uniform(-1, 1, (200, HORIZON, DIM)) * 40


def tables(grammar, *, batch: int = 1):
    return compile_grammar(grammar, batch=batch, vocab_size=VOCAB, device=torch.device("cpu"))


def follow_at_random(grammar, *, last: int, seeds: range) -> list[list[int]]:
    """Generate a row for each seed, uniformly from what is allowed; both say the same before every token."""
    compiled = tables(grammar, batch=len(seeds))
    assert compiled is not None
    compiled.start()
    draws, rows = [np.random.default_rng(seed) for seed in seeds], [[] for _ in seeds]
    while any(last not in row for row in rows):
        assert max(map(len, rows)) < 200
        masks = compiled.allowed().expand(len(rows), -1)
        for row, mask, draw in zip(rows, masks.numpy(), draws, strict=True):
            if last in row:
                row.append(0)
                continue
            wanted = grammar.allowed(row)
            np.testing.assert_array_equal(mask, wanted)
            row.append(last if len(row) > 20 and wanted[last] else int(draw.choice(np.flatnonzero(wanted))))
        compiled.advance(torch.tensor([row[-1] for row in rows]))
    return rows


@pytest.mark.parametrize("boxes", ["none", "first", "any"])
def test_words_and_boxes(boxes):
    grammar = TextGrammar(TEXT, vocab_size=VOCAB, end=TEXT.eos_id, boxes=boxes, actions=range(2000, VOCAB))
    rows = follow_at_random(grammar, last=TEXT.eos_id, seeds=range(12))
    assert any(set(row) & set(grammar.loc_ids) for row in rows) == (boxes != "none")


@pytest.mark.parametrize("offset", [0, 3])
def test_action_tokens(offset):
    fast = FastTokenizer.fit(CHUNKS, vocab_size=300)
    assert len(fast.character_tables()[0]) > 1, "some tokens leave a character unfinished"
    grammar = ActionGrammar(TEXT, fast, horizon=HORIZON, dim=DIM, vocab_size=VOCAB, offset=offset)
    rows = follow_at_random(grammar, last=TEXT.eos_id, seeds=range(6))
    assert len({len(row[: row.index(TEXT.eos_id)]) for row in rows}) > 1, "rows of different lengths"


def test_a_second_text_begins_anew():
    grammar = TextGrammar(TEXT, vocab_size=VOCAB, end=TEXT.eos_id, boxes="first")
    compiled = tables(grammar)
    compiled.advance(torch.tensor([TEXT.loc_id(7)]))
    compiled.start()
    np.testing.assert_array_equal(compiled.allowed()[0].numpy(), grammar.allowed([]))


def test_which_grammars_have_tables():
    bins = ActionGrammar(TEXT, BinsTokenizer.fit(CHUNKS), horizon=HORIZON, dim=DIM, vocab_size=VOCAB)
    labels = LabelGrammar(TEXT, ["sink"], vocab_size=VOCAB)
    words = TextGrammar(TEXT, vocab_size=VOCAB, end=TEXT.eos_id)
    assert tables(bins) is None and tables(labels) is None and tables([words, labels]) is None
    assert tables([words, words], batch=2) is not None
    assert isinstance(tables(None), FixedMask) and isinstance(tables(torch.ones(VOCAB, dtype=torch.bool)), FixedMask)
