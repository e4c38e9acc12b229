"""Bytes from the config are those that autograd keeps when the model runs."""

from dataclasses import replace

import pytest
import torch

from pilot.models.pi import Pi, pi0, pi0_fast, pi0_small, pi05
from pilot.nn.lora import LoraConfig
from pilot.train.config import OptimConfig
from pilot.train.distributed import Ranks, spread
from pilot.train.flops import Losses
from pilot.train.freezing import choose_learning
from pilot.train.optim import Optimizer
from pilot.train.plan_memory import FP32, Counts, Keeping, Kept, Layout, kept, memory
from train.counted_rows import rows_of, run_of, work_of

pytestmark = pytest.mark.usefixtures("no_shape_checks")
ROWS = 8
TOLERANCE = 0.05
ALONE = Layout(gpus=1, parallel="none", rows=ROWS, precision="fp32")
MODELS = {
    "pi05": pi05("nano"),
    "pi05 not insulated": pi05("nano", insulate=False),
    "pi0": pi0("nano"),
    "pi0_fast": pi0_fast("nano"),
    "pi0_small": pi0_small("nano"),
}
LOSSES = {"pi0_fast": ["text"], "pi0_small": ["flow"]}
HAVE = [(name, losses) for name in MODELS for losses in LOSSES.get(name, ["text flow", "flow", "text"])]


def kept_by(config, *, checkpointing="none") -> int:
    """Bytes that autograd keeps of `ROWS` rows."""
    model = spread(Pi(config.model), replace(config, checkpointing=checkpointing), Ranks())
    batch = rows_of(config.model, ROWS)
    draws = model.draw(ROWS, torch.Generator().manual_seed(0), flow_draws=config.flow_draws)
    with Kept(model) as found:
        model.loss_terms(batch, draws, losses=config.losses)
    return found.bytes


@pytest.mark.parametrize(("name", "losses"), HAVE)
def test_activations_are_what_autograd_keeps(name, losses):
    config = run_of(MODELS[name], losses=losses)
    told = sum(kept(config.model, work_of(config), losses=Losses.of(config), keeping=Keeping()).values())
    assert ROWS * told == pytest.approx(kept_by(config), rel=TOLERANCE)


def test_weights_gradients_optimizer_and_average():
    config = run_of(MODELS["pi05"])
    model = Pi(config.model)
    told = memory(
        config, Counts.of(model, config), work_of(config), Layout(gpus=1, parallel="none", rows=ROWS, precision="fp32")
    )
    numbers = sum(p.numel() for p in model.parameters())
    assert told.weights == told.gradients == told.average == FP32 * numbers
    assert told.optimizer == FP32 * 2 * numbers and told.copies == 0


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_optimizer_remembers_what_is_told(name):
    config = run_of(MODELS["pi05"], optim=OptimConfig(name=name))
    model = Pi(config.model)
    optimizer = Optimizer(model, config.optim, steps=10)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step(0)
    states = [state for part in optimizer.parts for state in part.state.values()]
    remembered = sum(t.nbytes for state in states for t in state.values() if t.ndim)
    told = memory(
        config, Counts.of(model, config), work_of(config), Layout(gpus=1, parallel="none", rows=1, precision="fp32")
    )
    assert told.optimizer == pytest.approx(remembered)


def test_lora_learns_little():
    config = run_of(MODELS["pi05"], lora=LoraConfig())
    layout = Layout(gpus=1, parallel="none", rows=1)
    whole = memory(config, Counts.of(Pi(config.model), config), work_of(config), layout)
    adapted = memory(
        config, Counts.of(choose_learning(Pi(config.model), lora=config.lora), config), work_of(config), layout
    )
    assert adapted.gradients < 0.5 * whole.gradients and adapted.weights > whole.weights


def test_shards_share_what_is_kept_between_steps():
    config = run_of(MODELS["pi05"])
    model = Pi(config.model)
    one, eight, hybrid = (
        memory(config, Counts.of(model, config), work_of(config), Layout(gpus=gpus, parallel=parallel, rows=4))
        for gpus, parallel in ((1, "none"), (8, "fsdp"), (32, "hsdp"))
    )
    assert eight.weights == hybrid.weights == one.weights / 8
    assert eight.activations == one.activations


@pytest.mark.parametrize("way", ["blocks", "selective"])
def test_checkpointing_keeps_less(way):
    config = run_of(MODELS["pi05"])
    told = {
        name: kept(config.model, work_of(config), losses=Losses.of(config), keeping=Keeping(checkpointing=name))
        for name in ("none", "selective", "blocks")
    }
    totals = {name: sum(parts.values()) for name, parts in told.items()}
    assert totals["blocks"] < totals["selective"] < totals["none"]
