"""A step of training asks the device for nothing, once the indices of a batch are found."""

from dataclasses import replace

import pytest
import torch

from models.test_pi import ROBOT_ROW, model, observation
from nothing_asked import NothingAsked
from pilot.data.layout import Batch
from pilot.models.pi import pi0, pi05
from pilot.train.config import OptimConfig
from pilot.train.ema import Ema
from pilot.train.optim import Optimizer

WEB_ROW = [1, 1, 2, 2, 0, 0, 0]
LOSSES = frozenset({"text", "fast", "flow"})


def mixed_batch() -> Batch:
    """A robot row with both cameras, one with one, and a web row."""
    masks = {"room": [True, True, True], "wrist": [True, False, False]}
    mask = torch.ones(3, 6, 8, dtype=torch.bool)
    mask[2] = False
    obs = observation([ROBOT_ROW, ROBOT_ROW, WEB_ROW], masks=masks)
    return Batch(observation=obs, actions=torch.randn(3, 6, 8), action_mask=mask, sources=("a", "a", "web"))


@pytest.mark.parametrize("config", [pi05("debug"), pi0("debug"), pi05("debug", rtc_max_delay=2)])
def test_a_batch_with_indices_has_the_same_losses_and_asks_the_device_for_nothing(config, no_shape_checks):
    pi, batch = model(config).train(), mixed_batch()
    draws = pi.draw(3, torch.Generator().manual_seed(0), flow_draws=2)
    wanted = pi.loss_terms(batch, draws, losses=LOSSES)
    indexed = batch.with_indices().map(torch.clone)
    optimizer, ema = Optimizer(pi, OptimConfig(), steps=10), Ema(pi, decay=0.9)
    with NothingAsked():
        terms = pi.loss_terms(indexed, draws, losses=LOSSES)
        torch.stack([total.sum() for total, _ in terms.values()]).sum().backward()
        optimizer.step(0)
        ema.update()
    for name, (total, count) in wanted.items():
        assert torch.equal(total, terms[name][0]) and torch.equal(count, terms[name][1]), name


def test_nothing_is_copied_from_the_host_in_a_step(no_shape_checks):
    """On a device other than the host, after a first step: such a copy would wait for all that came before it."""
    pi, batch = model().train().to("meta"), mixed_batch()
    draws = {name: t.to("meta") for name, t in pi.draw(3, torch.Generator().manual_seed(0)).items()}
    there = batch.with_indices().map(lambda t: t.to("meta"))
    pi.loss_terms(there, draws, losses=LOSSES)
    with NothingAsked():
        terms = pi.loss_terms(there, draws, losses=LOSSES)
        torch.stack([total.sum() for total, _ in terms.values()]).sum().backward()
    with NothingAsked(), pytest.raises(AssertionError, match="a copy from the host"):
        torch.ones(3).to("meta")


def test_without_indices_the_device_is_asked(no_shape_checks):
    """The test above would notice a question to the device."""
    pi, batch = model(), mixed_batch()
    draws = pi.draw(3, torch.Generator().manual_seed(0))
    with NothingAsked(), pytest.raises(AssertionError, match="nonzero"):
        pi.loss_terms(batch, draws, losses=LOSSES)
    partly = replace(batch, observation=batch.observation.with_indices())
    with NothingAsked(), pytest.raises(AssertionError, match="nonzero"):
        pi.loss_terms(partly, draws, losses=LOSSES)
