"""What each grammar lets a model say: always something, and nothing that cannot be read."""

import numpy as np
import pytest
import torch
from contracts import gemma_like

from pilot.tokenizers.base import action_ids
from pilot.tokenizers.bins import BinsTokenizer
from pilot.tokenizers.fast import FastTokenizer
from pilot.tokenizers.grammar import ActionGrammar, LabelGrammar, TextGrammar, allowed_mask
from pilot.tokenizers.prompts import decode_actions, encode_actions, encode_target
from pilot.tokenizers.text import TextTokenizer, split_box

HORIZON, DIM, VOCAB = 6, 3, 2080
CHUNKS = np.random.default_rng(0).uniform(-1, 1, (100, HORIZON, DIM))


@pytest.fixture(scope="module")
def nano():
    return TextTokenizer()


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    return TextTokenizer(gemma_like.build(tmp_path_factory.mktemp("text") / "gemma.model"))


@pytest.fixture(scope="module")
def fast():
    return FastTokenizer.fit(CHUNKS, vocab_size=256)


def said_at_random(grammar, *, last, most=400, seed=0):
    """A row that draws uniformly from what is allowed, up to and with the token `last`."""
    rng, said = np.random.default_rng(seed), []
    while not said or said[-1] != last:
        mask = grammar.allowed(said)
        assert mask.any() and len(said) < most
        said.append(last if len(said) > 10 and mask[last] else int(rng.choice(np.flatnonzero(mask))))
    return said


@pytest.mark.parametrize("model", ["nano", "gemma"])
@pytest.mark.parametrize("seed", range(5))
def test_text_without_boxes_has_neither_places_nor_actions(model, seed, request):
    text = request.getfixturevalue(model)
    size = text.vocab_size + 256
    locs = {text.loc_id(n) for n in range(1024)}
    actions = action_ids(size, 400, offset=0)  # some of them lie over the text model's last pieces
    said = said_at_random(
        TextGrammar(text, vocab_size=size, end=text.eos_id, actions=actions), last=text.eos_id, seed=seed
    )
    assert not set(said) & (locs | set(actions) | {text.bos_id, text.pad_id})
    assert len(said) > 1 and "<loc" not in text.decode(said) and "<seg" not in text.decode(said)


@pytest.mark.parametrize("seed", range(10))
def test_a_subtask_is_at_most_one_box_and_words(nano, seed):
    (end,) = nano.encode(";\n")
    grammar = TextGrammar(nano, vocab_size=VOCAB, end=end, boxes="first")
    said = nano.decode(said_at_random(grammar, last=end, seed=seed))
    box, words = split_box(said)
    assert said.count("<loc") == (4 if box else 0), said
    assert words.removesuffix(";\n") and words.endswith(";\n")


def test_both_a_box_and_bare_words_may_begin_a_subtask(nano):
    grammar = TextGrammar(nano, vocab_size=VOCAB, end=nano.eos_id, boxes="first")
    first = grammar.allowed([])
    assert first[nano.loc_id(0)] and first[nano.encode("done")[0]] and not first[nano.eos_id]
    assert not grammar.allowed(nano.encode("done"))[nano.loc_id(0)]


def test_a_box_has_four_corners_in_order(nano):
    grammar = TextGrammar(nano, vocab_size=VOCAB, end=nano.eos_id, boxes="any")
    y0, x0, y1, x1 = (nano.loc_id(n) for n in (500, 100, 600, 1023))
    assert grammar.allowed([y0]).sum() == 1024
    assert np.flatnonzero(grammar.allowed([y0, x0])).tolist() == [nano.loc_id(n) for n in range(500, 1024)]
    assert np.flatnonzero(grammar.allowed([y0, x0, y1])).tolist() == [nano.loc_id(n) for n in range(100, 1024)]
    after = grammar.allowed([y0, x0, y1, x1])
    assert not after[nano.loc_id(0)] and not after[nano.eos_id] and after[nano.encode(" red")[0]]
    again = grammar.allowed([y0, x0, y1, x1, *nano.encode(" red cup, ")])
    assert again[nano.loc_id(0)] and again[nano.eos_id]


def test_labels_are_said_to_the_letter_and_nothing_else_is(nano):
    labels = ["red", "red cup", "red cup and bowl", "sink"]
    grammar = LabelGrammar(nano, labels, vocab_size=VOCAB)
    found = {nano.decode(said_at_random(grammar, last=nano.eos_id, seed=seed)) for seed in range(40)}
    assert found == set(labels)
    subtask = LabelGrammar(nano, ["done"], vocab_size=VOCAB, name="subtask")
    ids = encode_target(nano, "subtask", text="done")
    assert [np.flatnonzero(subtask.allowed(ids[:n])).tolist() for n in range(len(ids))] == [[i] for i in ids]
    with pytest.raises(ValueError, match="no labels"):
        LabelGrammar(nano, [], vocab_size=VOCAB)


def test_whatever_an_action_grammar_says_is_a_chunk(nano, fast):
    for actions in (fast, BinsTokenizer.fit(CHUNKS)):
        grammar = ActionGrammar(nano, actions, horizon=HORIZON, dim=DIM, vocab_size=VOCAB)
        for seed in range(5):
            said = said_at_random(grammar, last=nano.eos_id, seed=seed)
            decoded = decode_actions(nano, said, actions=actions, horizon=HORIZON, dim=DIM, vocab_size=VOCAB)
            assert decoded.ok and decoded.actions.shape == (HORIZON, DIM)


def test_what_training_teaches_is_allowed(nano, fast):
    grammar = ActionGrammar(nano, fast, horizon=HORIZON, dim=DIM, vocab_size=VOCAB)
    for chunk in CHUNKS[:10]:
        taught = encode_actions(nano, fast.encode(chunk), vocab_size=VOCAB)
        assert all(grammar.allowed(taught[:n])[token] for n, token in enumerate(taught))


def test_actions_may_lie_over_places_and_words(gemma, fast):
    """As in the released π0-FAST weights, where they end 128 ids below the top."""
    options = {"vocab_size": gemma.vocab_size, "offset": 128}
    grammar = ActionGrammar(gemma, fast, horizon=HORIZON, dim=DIM, **options)
    said = said_at_random(grammar, last=gemma.eos_id)
    assert any("<loc" in gemma.decode([i]) for i in said), "the test's own check"
    assert decode_actions(gemma, said, actions=fast, horizon=HORIZON, dim=DIM, **options).ok


def test_actions_over_their_own_end_are_an_error(gemma):
    too_many = BinsTokenizer(np.zeros(1), np.ones(1), vocab_size=gemma.vocab_size - 1)
    with pytest.raises(ValueError, match="raise vocab_size"):
        ActionGrammar(gemma, too_many, horizon=1, dim=1, vocab_size=gemma.vocab_size)


def test_what_is_no_chunk_says_why(nano, fast):
    options = {"actions": fast, "horizon": HORIZON, "dim": DIM, "vocab_size": VOCAB}
    good = encode_actions(nano, fast.encode(CHUNKS[0]), vocab_size=VOCAB)
    assert decode_actions(nano, good, **options).ok
    assert decode_actions(nano, good[1:], **options).error == "there is no 'Action: ' among the tokens"
    word = decode_actions(nano, [*good[:3], *nano.encode("cup"), *good[3:]], **options)
    assert (word.position, word.actions) == (2, None) and "action tokens" in word.error
    assert "needs 18" in decode_actions(nano, good[:-3], **options).error


def test_rows_of_a_batch_have_one_grammar_or_their_own(nano):
    red, blue = (LabelGrammar(nano, [label], vocab_size=VOCAB) for label in ("red", "blue"))
    first, end = ([torch.tensor([nano.encode(c)[0] for c in ("red", "blue")])], [nano.eos_id] * 2)
    running = torch.tensor([False, False])
    assert allowed_mask([red, blue], [], running).nonzero().tolist() == [[i, int(t)] for i, t in enumerate(first[0])]
    assert allowed_mask([red, blue], first, running).nonzero()[:, 1].tolist() == end
    assert allowed_mask(red, [], running).nonzero()[:, 1].tolist() == nano.encode("red") * 2
    assert allowed_mask([red, blue], [], torch.tensor([False, True])).sum(1).tolist() == [1, VOCAB]
    fixed = torch.ones(VOCAB, dtype=torch.bool)
    assert allowed_mask(fixed, [], running) is fixed
