"""Schedule, weight decay, Muon, moving average."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from pilot.train.config import OptimConfig
from pilot.train.ema import Ema
from pilot.train.muon import Muon, orthogonalize
from pilot.train.optim import Optimizer, learning_rate

CONFIG = OptimConfig(peak_lr=1.0, final_lr=0.1, warmup_steps=4)


def test_schedule_warms_up_to_the_peak_and_decays_to_the_end():
    rates = [learning_rate(CONFIG, step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.2) and rates[4] == pytest.approx(1.0) and rates[100] == pytest.approx(0.1)
    assert rates[52] == pytest.approx(0.55)  # half-way down
    assert all(a < b for a, b in pairwise(rates[:5]))
    assert all(a >= b for a, b in pairwise(rates[4:]))


def test_the_decay_may_end_elsewhere_than_the_run():
    """openpi's cosine is 30 000 steps long, and its shorter runs stop on the way down."""
    long = replace(CONFIG, decay_steps=200)
    assert [learning_rate(long, step, 100) for step in range(101)] == [
        learning_rate(CONFIG, step, 200) for step in range(101)
    ]
    constant = replace(CONFIG, final_lr=CONFIG.peak_lr, decay_steps=1000)
    assert {learning_rate(constant, step, 100) for step in range(4, 101)} == {1.0}


def test_decay_touches_matrices_only():
    model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 3), nn.LayerNorm(3))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    Optimizer(model, OptimConfig(peak_lr=0.1, warmup_steps=0, weight_decay=0.5), steps=10).step(0)
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"1.weight"}


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_state_goes_on_where_it_was(name):
    def run(stop: int | None) -> torch.Tensor:
        torch.manual_seed(0)
        model = nn.Linear(4, 4)
        config = OptimConfig(name=name, peak_lr=0.1, warmup_steps=2)
        optimizer = Optimizer(model, config, steps=10)
        for step in range(6):
            if step == stop:
                saved = {key: tensor.clone() for key, tensor in optimizer.state().items()}
                optimizer = Optimizer(model, config, steps=10)
                optimizer.allocate_state(saved)
                for key, tensor in optimizer.state().items():
                    tensor.copy_(saved[key])
            (model(torch.ones(1, 4)) ** 2).sum().backward()
            optimizer.step(step)
        return model.weight.detach()

    assert torch.equal(run(None), run(3))


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 8)])
def test_muon_brings_all_singular_values_near_one(shape):
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(matrices))
    assert values.min() > 0.6 and values.max() < 1.3, values
    one = orthogonalize(matrices[1:2])[0]
    torch.testing.assert_close(orthogonalize(matrices)[1], one)


def test_muon_takes_the_same_step_in_threads():
    def run(threads: int) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        weights = [torch.randn(shape, generator=generator) for shape in [(4, 6)] * 3 + [(8, 2), (5, 5)]]
        parameters = [nn.Parameter(weight) for weight in weights]
        with ThreadPoolExecutor(2) as pool:
            optimizer = Muon(parameters, lr=0.1, pool=pool if threads else None, threads=threads)
            for _ in range(3):
                for p in parameters[1:]:  # the first has no gradient
                    p.grad = torch.randn(p.shape, generator=generator)
                optimizer.step()
        assert torch.equal(parameters[0], weights[0])
        return [p.detach() for p in parameters]

    for alone, shared in zip(run(0), run(2), strict=True):
        torch.testing.assert_close(shared, alone)


def test_gradients_are_clipped_and_the_norm_is_the_one_before():
    model = nn.Linear(2, 1, bias=False)
    model.weight.grad = torch.tensor([[30.0, 40.0]])
    _, norm = Optimizer(model, OptimConfig(clip_norm=1.0), steps=10).step(0)
    assert norm == pytest.approx(50.0)


def test_average_follows_the_weights():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    ema = Ema(model, decay=0.9)
    model.weight.data.fill_(1.0)
    ema.update()
    assert ema.weights["weight"].item() == pytest.approx(1 - 2 / 11)  # the first updates forget the start quickly
    for _ in range(200):
        ema.update()
    assert ema.weights["weight"].item() == pytest.approx(1.0, abs=1e-4)


def test_average_without_a_warm_up_is_openpi_s():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    ema = Ema(model, decay=0.9, warmup=False)
    model.weight.data.fill_(1.0)
    for _ in range(3):
        ema.update()
    assert ema.weights["weight"].item() == pytest.approx(1 - 0.9**3)
