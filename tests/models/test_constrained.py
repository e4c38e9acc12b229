"""Decoding under a grammar, with weights that know nothing: what is said can be read all the same, row by row."""

import numpy as np
import pytest
import torch

from pilot.data.layout import Kind, Observation
from pilot.models.pi import Pi, pi0_fast, pi05
from pilot.tokenizers.bins import BinsTokenizer
from pilot.tokenizers.fast import FastTokenizer
from pilot.tokenizers.grammar import ActionGrammar, LabelGrammar, TextGrammar
from pilot.tokenizers.prompts import decode_actions
from pilot.tokenizers.text import TextTokenizer, split_box

TEXT = TextTokenizer()
CONFIG = pi0_fast("debug")
DIM = 2
CHUNKS = np.random.default_rng(0).uniform(-1, 1, (100, CONFIG.action_horizon, DIM))


@pytest.fixture(scope="module", params=range(2))
def model(request):
    return Pi(CONFIG).initialize(torch.Generator().manual_seed(request.param)).eval()


def observation(kinds: list[list[int]]) -> Observation:
    generator = torch.Generator().manual_seed(0)
    batch, token_kinds = len(kinds), torch.tensor(kinds)
    return Observation(
        images={"room": torch.rand(batch, 16, 16, 3, generator=generator) * 2 - 1},
        image_masks={"room": torch.ones(batch, dtype=torch.bool)},
        state=torch.zeros(batch, CONFIG.action_dim),
        tokens=torch.randint(4, 1800, token_kinds.shape, generator=generator),
        token_kinds=token_kinds,
        token_loss=token_kinds >= Kind.TEXT,
    )


RAGGED = [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]


def spoken(model: Pi, grammar, *, eos=TEXT.eos_id, kind=Kind.TEXT, rows=RAGGED, most=60) -> list[list[int]]:
    obs = observation(rows)
    said, _ = model.generate(model.prefill(obs), obs, eos=eos, max_new_tokens=most, kind=kind, allowed=grammar)
    return [row[: row.index(eos) + 1] if eos in row else row for row in said.tolist()]


@pytest.mark.parametrize("kind", [FastTokenizer, BinsTokenizer])
def test_every_row_says_a_whole_chunk(model, kind):
    actions = kind.fit(CHUNKS, vocab_size=CONFIG.fast_vocab_size)
    options = {"horizon": CONFIG.action_horizon, "dim": DIM, "vocab_size": CONFIG.vocab_size}
    for said in spoken(model, ActionGrammar(TEXT, actions, **options), kind=Kind.FAST):
        assert decode_actions(TEXT, said, actions=actions, **options).ok
    unbound = spoken(model, None, kind=Kind.FAST, most=8)
    assert not all(decode_actions(TEXT, said, actions=actions, **options).ok for said in unbound), (
        "the test's own check"
    )


def test_answers_have_neither_places_nor_actions(model):
    grammar = TextGrammar(TEXT, vocab_size=CONFIG.vocab_size, end=TEXT.eos_id)
    words = set(TEXT.word_ids.tolist()) | {TEXT.eos_id}
    assert all(set(said) <= words for said in spoken(model, grammar, most=20))


def test_places_come_as_boxes(model):
    grammar = TextGrammar(TEXT, vocab_size=CONFIG.vocab_size, end=TEXT.eos_id, boxes="first")
    for said in spoken(model, grammar, most=8):
        box, words = split_box(TEXT.decode(said))
        assert "<loc" not in words and (box is not None) == (TEXT.decode(said[:1]).startswith("<loc"))


def test_each_row_chooses_among_its_own_labels(model):
    labels = [["red cup", "blue bowl"], ["sink", "basket", "tray"], ["done"]]
    grammars = [LabelGrammar(TEXT, names, vocab_size=CONFIG.vocab_size) for names in labels]
    said = spoken(model, grammars)
    assert all(TEXT.decode(row) in names and row[-1] == TEXT.eos_id for row, names in zip(said, labels, strict=True))


def test_a_row_says_the_same_alone_as_in_a_batch(model):
    grammar = LabelGrammar(TEXT, ["red cup", "blue bowl", "a green tray"], vocab_size=CONFIG.vocab_size)
    together, obs = spoken(model, grammar), observation(RAGGED)
    for i, expected in enumerate(together):
        alone = obs.map(lambda x, i=i: x[i : i + 1])
        said, _ = model.generate(model.prefill(alone), alone, eos=TEXT.eos_id, allowed=grammar)
        assert said[0].tolist() == expected


def test_a_chosen_label_is_the_likeliest_where_labels_are_one_token():
    model = Pi(pi05("debug")).initialize(torch.Generator().manual_seed(5)).eval()
    obs, labels = observation([[1, 1, 1]]), ["red", "green", "blue", "yellow"]
    said, _ = model.generate(
        model.prefill(obs), obs, eos=TEXT.eos_id, allowed=LabelGrammar(TEXT, labels, vocab_size=CONFIG.vocab_size)
    )
    logits = model.logits(model.prefill(obs).hidden[:, -1])[0]
    assert TEXT.decode(said[0]) == max(labels, key=lambda label: logits[TEXT.encode(label)[0]])
