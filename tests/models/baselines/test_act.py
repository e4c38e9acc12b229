"""ACT: the paper's size, its style, and how it looks."""

from dataclasses import replace

import pytest
import torch

from models.baseline_rows import rows
from pilot.models.baselines.act import Act
from pilot.models.baselines.configs import act


def model() -> Act:
    return Act(act("debug")).initialize(torch.Generator().manual_seed(0))


def test_the_papers_size():
    """The paper says around 80 M; what its code builds for one camera and prints is 83.92 M."""
    with torch.device("meta"):
        paper = Act(act())
    assert sum(p.numel() for p in paper.parameters()) == pytest.approx(83.92e6, rel=1e-3)
    assert paper.words is None and paper.config.action_horizon == 100


def test_the_style_is_told_from_the_steps_that_are_there():
    it, batch = model(), rows(act("debug"))
    mean, _ = it.style(batch.observation.state, batch.actions, batch.action_mask)
    changed = batch.actions.clone()
    changed[:, -1] += 1.0  # padding
    assert not batch.action_mask[:, -1].any()
    assert torch.equal(mean, it.style(batch.observation.state, changed, batch.action_mask)[0])
    changed[:, 0] += 1.0
    assert not torch.allclose(mean, it.style(batch.observation.state, changed, batch.action_mask)[0])


def test_the_divergence_is_that_of_two_normal_distributions():
    it, batch = model(), rows(act("debug"))
    with torch.no_grad():
        mean, log_variance = it.style(batch.observation.state, batch.actions, batch.action_mask)
        terms = it.loss_terms(batch, it.draw(3, torch.Generator().manual_seed(0)), losses=frozenset())
    style = torch.distributions.Normal(mean, (log_variance / 2).exp())
    wanted = torch.distributions.kl_divergence(style, torch.distributions.Normal(0.0, 1.0)).sum(-1)
    assert torch.allclose(terms["kl"][0], wanted, rtol=1e-4) and terms["kl"][1].tolist() == [1, 1, 1]


def test_acting_is_decoding_the_mean_style():
    it, batch = model(), rows(act("debug"))
    with torch.no_grad():
        chunk = it.sample_actions(batch.observation, noise=torch.ones_like(batch.actions))
        assert torch.equal(chunk, it.decode(batch.observation, torch.zeros(3, it.config.style_dim)))
        assert not torch.allclose(chunk, it.decode(batch.observation, torch.ones(3, it.config.style_dim)))


def test_without_a_prompt_encoder_the_prompt_does_not_matter():
    it, batch = Act(act("debug", reads_text=False)).initialize(torch.Generator().manual_seed(0)), rows(act("debug"))
    other = batch.observation.tokens + 1
    with torch.no_grad():
        chunk = it.sample_actions(batch.observation, noise=batch.actions)
        assert torch.equal(chunk, it.sample_actions(replace(batch.observation, tokens=other), noise=batch.actions))
