"""Saying things otherwise than greedily, against the plain model and against what the draws should be."""

import numpy as np
import pytest
import torch

from infer.policies import TOLD, observation, policy_of
from pilot.data.layout import Kind
from pilot.data.pipeline import collate
from pilot.infer.engine.fast import FastEngine
from pilot.infer.engine.graphs import GraphEngine
from pilot.infer.engine.sampling import Forced, Multinomial, Scored, score, select_rows, teacher_force
from pilot.infer.high_level import SUBTASK_TOKENS
from pilot.infer.policy import Policy
from pilot.models.generation import Greedy
from pilot.models.pi import pi05
from pilot.tokenizers.prompts import encode_target

pytestmark = pytest.mark.usefixtures("no_shape_checks")  # as in the tests of graphs


@pytest.fixture(scope="module", params=[FastEngine, GraphEngine])
def policy(request) -> Policy:
    made = policy_of(pi05("debug", max_tokens=80))
    made.engine = request.param(made.model)
    return made


def tokens(policy: Policy, *subtasks: str) -> list[list[int]]:
    return [encode_target(policy.bundle.text, "subtask", text=subtask) for subtask in subtasks]


def prefilled(policy: Policy, *seeds: int):
    """Of prompts of different lengths, so that rows are padded."""
    prompts = ["put the red cup in the sink", "tidy up"]
    samples = [policy.make_sample(observation(seed, prompt=prompts[seed % 2])) for seed in seeds]
    rows = [policy.pipeline.encode(sample, with_fast=False) for sample in samples]
    return policy.engine.prefill(collate(rows).observation, max_new_tokens=SUBTASK_TOKENS)


def plain_score(policy: Policy, seed: int, subtask: str) -> float:
    """The plain model reads prompt and subtask at once."""
    sample = policy.make_sample(
        observation(seed, prompt=["put the red cup in the sink", "tidy up"][seed % 2]), subtask=subtask
    )
    observed = policy.make_observation(sample)
    with torch.inference_mode():
        hidden = policy.model.prefill(observed).hidden
        likely = policy.model.logits(hidden).log_softmax(-1)[0]
    generated = tokens(policy, subtask)[0]
    first = observed.tokens.shape[1] - len(generated)
    return sum(float(likely[first + n - 1, token]) for n, token in enumerate(generated))


def test_a_score_is_the_plain_models_log_probability(policy):
    subtasks = [TOLD, "done", "pick up the red cup"]
    generated = [(row, ids) for row in (0, 1) for ids in tokens(policy, *subtasks)]
    got = score(policy.engine, prefilled(policy, 0, 1), generated, eos=policy.subtask_codec.end)
    want = [plain_score(policy, seed, subtask) for seed in (0, 1) for subtask in subtasks]
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)


def test_what_is_dictated_is_read_as_if_it_had_been_said(policy):
    read = prefilled(policy, 0, 1)
    after = teacher_force(policy.engine, read, tokens(policy, TOLD, "done"), eos=policy.subtask_codec.end)
    state, noise = torch.zeros(2, 32), torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0))
    state, noise = state[:, : policy.model.config.action_dim], noise[..., : policy.model.config.action_dim]
    got = policy.engine.denoise(after, state, noise=noise)[-1]
    for row, subtask in enumerate((TOLD, "done")):
        prompt = ["put the red cup in the sink", "tidy up"][row]
        written = policy.make_observation(policy.make_sample(observation(row, prompt=prompt), subtask=subtask))
        alone = policy.engine.denoise(policy.engine.prefill(written), state[row : row + 1], noise=noise[row : row + 1])[
            -1
        ]
        torch.testing.assert_close(got[row : row + 1], alone, atol=1e-4, rtol=1e-4)


def test_ways_on_leave_what_was_read_as_it_was(policy):
    state = torch.zeros(2, policy.model.config.action_dim)
    noise = torch.randn(2, 6, policy.model.config.action_dim, generator=torch.Generator().manual_seed(0))
    untouched, used = prefilled(policy, 0, 1), prefilled(policy, 0, 1)
    score(policy.engine, used, [(row, ids) for row in (1, 0, 1) for ids in tokens(policy, TOLD)], eos=9)
    torch.testing.assert_close(
        policy.engine.denoise(used, state, noise=noise), policy.engine.denoise(untouched, state, noise=noise)
    )
    twice = select_rows(used, [1, 1])
    assert twice.batch_size == 2 and torch.equal(twice.hidden[0], used.hidden[1])


def test_scores_do_not_depend_on_how_many_fit_at_once(policy, monkeypatch):
    generated = [
        (row % 2, ids) for row, ids in enumerate(tokens(policy, TOLD, "done", "tidy", "pick up the red cup", "a"))
    ]
    whole = score(policy.engine, prefilled(policy, 0, 1), generated, eos=policy.subtask_codec.end)
    monkeypatch.setattr("pilot.infer.engine.sampling.MAX_ROWS", 2)
    torch.testing.assert_close(
        score(policy.engine, prefilled(policy, 0, 1), generated, eos=policy.subtask_codec.end), whole
    )


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_draws_have_the_models_distribution_and_stay_within_what_is_allowed():
    logits = torch.tensor([0.0, 1.0, 2.0, 9.0]).expand(1, -1)
    allowed = torch.tensor([True, True, True, False])
    for temperature in (1.0, 0.5):
        sampler = Multinomial(temperature, generators=generators(0))
        drawn = torch.cat([sampler(logits, allowed) for _ in range(4000)])
        want = (logits[0, :3] / temperature).softmax(-1)
        torch.testing.assert_close(drawn.bincount(minlength=4)[:3] / 4000, want, atol=0.03, rtol=0)
        assert not (drawn == 3).any()


def test_nothing_that_is_not_allowed_is_drawn_even_where_a_draw_is_zero(monkeypatch):
    """On some machines an exponential draw can be exactly 0."""
    monkeypatch.setattr(
        torch.Tensor, "exponential_", lambda waits, generator: waits.fill_(1.0).put_(torch.tensor(3), torch.tensor(0.0))
    )
    sampler, logits = Multinomial(1.0, generators=generators(0)), torch.tensor([[0.0, 1.0, 2.0, 9.0]])
    assert sampler(logits, torch.tensor([True, True, True, False])).item() == 2


def test_each_row_draws_for_itself():
    """Its draws are a function of its own generator, whoever is beside it."""
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(1))
    together = Multinomial(1.0, generators=generators(5, 6, 7))
    alone = Multinomial(1.0, generators=generators(6))
    for _ in range(5):
        assert together(logits, None)[1] == alone(logits[1:2], None)[0]


def test_a_row_that_has_ended_is_not_scored_on():
    sampler = Scored(Forced([[3, 1], [2, 3]]), eos=3)
    logits = torch.zeros(2, 4)
    for _ in range(2):
        sampler(logits, None)
    torch.testing.assert_close(sampler.scores, torch.tensor([-np.log(4), -2 * np.log(4)]).float())


def test_greedily_by_a_pick_is_greedily(policy):
    places = policy.model.config.loc_token_range(Kind.TEXT)
    for rows in ((0,), (0, 1)):
        options = {
            "eos": policy.subtask_codec.end,
            "max_new_tokens": SUBTASK_TOKENS,
            "allowed": policy.subtask_codec.grammar(),
        }
        want, _ = policy.engine.generate(prefilled(policy, *rows), **options)
        got, _ = policy.engine.generate(prefilled(policy, *rows), **options, sampler=Greedy(places))
        assert torch.equal(got, want)
