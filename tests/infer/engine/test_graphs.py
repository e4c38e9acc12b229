"""Graphs say and do what the model says and does, whatever was read in their places before.

There is no GPU here: a graph is a recording of operations on fixed tensors, played again (`Recording`). As in a CUDA
graph, whatever Python decided while it was recorded is decided for good.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from infer.engine.test_fast import (
    ACTING,
    BATCHES,
    CLOSE,
    EOS,
    GROUPED,
    RAGGED,
    SOME,
    WHOLE,
    noise,
    observation,
    padded_dims,
)  # fmt: skip
from infer.weights import model
from nothing_asked import NothingAsked
from pilot.data.layout import Kind
from pilot.infer.engine import graphs
from pilot.infer.engine.graphs import GraphEngine
from pilot.infer.engine.plain import PlainEngine
from pilot.infer.engine.sampling import Multinomial, select_rows
from pilot.models.pi import pi05
from pilot.tokenizers.grammar import TextGrammar
from pilot.tokenizers.text import TextTokenizer

TEXT = TextTokenizer()


class Recording(graphs.Graph):
    """The operations of one call, played again on what lies at the same places now."""

    def __init__(self, function: Callable[[], Any], *, changes: Any = (), **rest: Any) -> None:
        before = [tensor.clone() for tensor in changes]
        with Tape() as tape:
            self.result = function()
        for tensor, was in zip(changes, before, strict=True):
            tensor.copy_(was)
        self.played = tape.played

    def __call__(self) -> Any:
        made: dict[int, Any] = {}  # what an operation made then: what it makes now

        def now(value: Any) -> Any:
            return made.get(id(value), value)

        for func, args, kwargs, out in self.played:
            again = func(*tree_map(now, args), **tree_map(now, kwargs))
            made.update(zip(map(id, tree_leaves(out)), tree_leaves(again), strict=True))
        return tree_map(now, self.result)


class Tape(NothingAsked):
    """Remembers every operation, down to those that are made of no others."""

    def __init__(self) -> None:
        super().__init__()
        self.played: list[tuple[Any, Any, Any, Any]] = []  # keeps all that was made, so that no `id` comes twice

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with self:
            out = func.decompose(*args, **(kwargs or {}))
        if out is NotImplemented:
            out = super().__torch_dispatch__(func, types, args, kwargs)
            self.played.append((func, args, kwargs or {}, out))
        return out


@pytest.fixture(autouse=True)
def recorded(monkeypatch) -> None:
    monkeypatch.setattr(graphs, "Graph", Recording)


CONFIGS = {name: ACTING[name] for name in ("pi0", "pi05-state-token", "grouped-heads")}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_actions_are_those_of_the_model_whatever_was_there_before(config):
    pi = model(config)
    engine, plain = GraphEngine(pi), PlainEngine(pi)
    for seed, (kinds, masks) in enumerate(BATCHES[name] for name in ("ragged", "some told", "ragged")):
        obs, start = observation(config, kinds, masks=masks, seed=seed), noise(config, 3) + seed
        ours = engine.denoise(engine.prefill(obs), obs.state, noise=start, num_steps=2)
        torch.testing.assert_close(
            ours, plain.denoise(plain.prefill(obs), obs.state, noise=start, num_steps=2), **CLOSE
        )
    (buffers,) = engine.buffers_by_kind.values()
    assert len(buffers.graphs) == 3, "read with and without words to be heard in turn; act"


def test_padded_dims_are_an_input_and_a_graph_of_their_own():
    config = CONFIGS["pi05-state-token"]
    pi = model(config)
    engine, plain = GraphEngine(pi), PlainEngine(pi)
    start = noise(config, 3)
    for seed, padded in enumerate((padded_dims(config), None, padded_dims(config).flip(0), padded_dims(config)[:1])):
        obs = observation(config, BATCHES["whole"][0], seed=seed)
        steps = {"noise": start, "num_steps": 2, "padded_dims": padded}
        ours = engine.denoise(engine.prefill(obs), obs.state, **steps)
        torch.testing.assert_close(ours, plain.denoise(plain.prefill(obs), obs.state, **steps), **CLOSE)
    (buffers,) = engine.buffers_by_kind.values()
    assert [key for key in buffers.graphs if key[0] == "denoise"] == [
        ("denoise", 2, "euler", True),
        ("denoise", 2, "euler", False),
    ]


def test_words_are_those_of_the_model_and_rows_end_at_different_times():
    config = GROUPED
    pi = model(config)
    engine, plain = GraphEngine(pi), PlainEngine(pi)
    for seed, (kinds, masks) in enumerate(BATCHES[name] for name in ("whole", "some told", "whole")):
        obs = observation(config, kinds, masks=masks, seed=seed)
        first = plain.generate(plain.prefill(obs, max_new_tokens=4), eos=EOS, max_new_tokens=4)[0]
        eos = int(first[seed % 3, 1])
        ours, after = engine.generate(engine.prefill(obs, max_new_tokens=4), eos=eos, max_new_tokens=4)
        wanted, context = plain.generate(plain.prefill(obs, max_new_tokens=4), eos=eos, max_new_tokens=4)
        assert torch.equal(ours, wanted)
        going = ~(ours == eos).any(1)
        torch.testing.assert_close(after.hidden[going], context.prefix.hidden[going, 0], **CLOSE)


def test_rows_that_are_silent_stay_as_they_are():
    config = pi05("debug")
    pi = model(config)
    engine, plain = GraphEngine(pi), PlainEngine(pi)
    for seed, skip_rows in enumerate(([True, False, True], [False, True, False])):
        obs, options = observation(config, RAGGED, masks=SOME, seed=seed), {"skip_rows": torch.tensor(skip_rows)}
        generated, _ = engine.generate(engine.prefill(obs, max_new_tokens=4), eos=EOS, max_new_tokens=4, **options)
        assert torch.equal(
            generated, plain.generate(plain.prefill(obs, max_new_tokens=4), eos=EOS, max_new_tokens=4, **options)[0]
        )


@pytest.mark.parametrize("boxes", ["none", "any"])
def test_grammars_are_applied_in_the_graph_and_what_follows_the_end_is_left_out(boxes):
    config = pi05("debug")
    pi, grammar = model(config), TextGrammar(TEXT, vocab_size=config.vocab_size, end=TEXT.eos_id, boxes=boxes)
    engine, plain = GraphEngine(pi), PlainEngine(pi)
    for seed, most in enumerate((9, 6, 9)):
        obs = observation(config, RAGGED, masks=SOME, seed=seed)
        options = {"eos": TEXT.eos_id, "max_new_tokens": most}
        free = plain.generate(plain.prefill(obs, max_new_tokens=9), allowed=grammar, **options)[0]
        options["eos"] = int(free[0, seed])  # rows that say it early stop there
        ours, after = engine.generate(engine.prefill(obs, max_new_tokens=9), allowed=[grammar] * 3, **options)
        wanted, context = plain.generate(plain.prefill(obs, max_new_tokens=9), allowed=grammar, **options)
        assert torch.equal(ours, wanted) and after.length == engine_length(engine) + wanted.shape[1]
        start = noise(config, 3)
        actions = engine.denoise(after, obs.state, noise=start, num_steps=2)
        torch.testing.assert_close(actions, plain.denoise(context, obs.state, noise=start, num_steps=2), **CLOSE)
    (buffers,) = engine.buffers_by_kind.values()
    assert len(buffers.grammars) == 1, "one grammar for all rows, met again"


def engine_length(engine: GraphEngine) -> int:
    (buffers,) = engine.buffers_by_kind.values()
    return buffers.length


def test_other_samplers_are_asked_for_each_token_and_share_one_graph():
    config = pi05("debug")
    pi = model(config)
    engine, plain = GraphEngine(pi), PlainEngine(pi)
    obs = observation(config, RAGGED, masks=SOME)

    def sampled(engine: Any) -> Tensor:
        sampler = Multinomial(0.7, generators=[torch.Generator().manual_seed(row) for row in range(3)])
        prefilled = engine.prefill(obs, max_new_tokens=5)
        return engine.generate(prefilled, eos=EOS, max_new_tokens=5, sampler=sampler)[0]

    assert torch.equal(sampled(engine), sampled(plain))
    (buffers,) = engine.buffers_by_kind.values()
    assert [key for key in buffers.graphs if key[0] == "decode"] == [("decode", Kind.TEXT, EOS)]


def test_graphs_and_grammars_are_few(monkeypatch):
    monkeypatch.setattr(graphs, "MAX_GRAPHS", 2)
    monkeypatch.setattr(graphs, "MAX_GRAMMARS", 2)
    config = pi05("debug")
    engine, obs = GraphEngine(model(config)), observation(config, [WHOLE])
    for mask in [torch.ones(config.vocab_size, dtype=torch.bool) for _ in range(4)]:
        engine.generate(engine.prefill(obs, max_new_tokens=2), eos=EOS, max_new_tokens=2, allowed=mask)
        (buffers,) = engine.buffers_by_kind.values()
        assert len(buffers.graphs) <= 2 and len(buffers.grammars) <= 2


def test_acting_on_what_was_said():
    config = pi05("debug")
    pi = model(config)
    engine, plain = GraphEngine(pi), PlainEngine(pi)
    for seed, tokens in enumerate((4, 2, 4)):
        obs, start = observation(config, *[BATCHES["ragged"][0]], masks=SOME, seed=seed), noise(config, 3)
        generated, ours = engine.generate(engine.prefill(obs, max_new_tokens=4), eos=EOS, max_new_tokens=tokens)
        wanted, theirs = plain.generate(plain.prefill(obs, max_new_tokens=4), eos=EOS, max_new_tokens=tokens)
        assert torch.equal(generated, wanted)
        actions = engine.denoise(ours, obs.state, noise=start, num_steps=3, solver="midpoint")
        expected = plain.denoise(theirs, obs.state, noise=start, num_steps=3, solver="midpoint")
        torch.testing.assert_close(actions, expected, **CLOSE)
        torch.testing.assert_close(
            engine.denoise(ours, obs.state, noise=start, num_steps=3, solver="midpoint"), actions
        )
    (buffers,) = engine.buffers_by_kind.values()
    assert sorted(key[:2] for key in buffers.graphs) == [
        ("denoise", 3), ("generate", 2), ("generate", 4), ("prefill", False),
    ]  # fmt: skip


def test_prompts_of_about_the_same_length_share_graphs_and_few_kinds_are_kept(monkeypatch):
    monkeypatch.setattr(graphs, "STEP", 8)
    config = pi05("debug")
    engine = GraphEngine(model(config))
    for words in (1, 2, 5):
        engine.prefill(observation(config, [[1] * words + [0] * (6 - words)]))
    assert [len(buffers.graphs) for buffers in engine.buffers_by_kind.values()] == [1]
    monkeypatch.setattr(graphs, "MAX_BUFFERS", 2)
    for batch in (2, 3):
        engine.prefill(observation(config, [[1] * 6] * batch))
    assert [len(buffers.order) for buffers in engine.buffers_by_kind.values()] == [2, 3], "the oldest made room"


def test_a_reading_made_of_others_is_worked_without_graphs():
    config = pi05("debug")
    pi = model(config)
    engine, plain = GraphEngine(pi), PlainEngine(pi)
    obs, start = observation(config, [[1] * 6] * 3), noise(config, 2)
    chosen = select_rows(engine.prefill(obs, max_new_tokens=2), [2, 0])
    generated, chosen = engine.generate(chosen, eos=EOS, max_new_tokens=2)
    two = obs.map(lambda x: x[[2, 0]])
    wanted, context = plain.generate(plain.prefill(two, max_new_tokens=2), eos=EOS, max_new_tokens=2)
    assert torch.equal(generated, wanted)
    actions = engine.denoise(chosen, two.state, noise=start, num_steps=2)
    torch.testing.assert_close(actions, plain.denoise(context, two.state, noise=start, num_steps=2), **CLOSE)


def test_longer_than_the_angles_that_are_there(monkeypatch):
    monkeypatch.setattr(graphs, "LONGEST", 40)
    config = pi05("debug")
    with pytest.raises(ValueError, match="16 tokens to prefill and 32 to generate are more than 40"):
        GraphEngine(model(config)).prefill(observation(config, [[1] * 6]), max_new_tokens=1)
