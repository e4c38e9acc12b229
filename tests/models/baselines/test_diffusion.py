"""Noise levels and the way down them."""

import math

import pytest
import torch

from pilot.models.baselines import diffusion


def test_levels_keep_less_and_less():
    a = diffusion.alphas_cumprod(100)
    assert 0.999 < a[0] < 1 and 0 < a[-1] < 1e-6 and (a.diff() < 0).all()
    half = math.cos((0.5 + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    assert a[49].item() == pytest.approx(half, rel=1e-5)


def test_a_noisy_chunk_keeps_its_variance():
    generator = torch.Generator().manual_seed(0)
    actions, noise = torch.randn(2, 20, 500, 8, generator=generator)
    x = diffusion.add_noise(actions, noise, torch.arange(20), levels=20)
    assert x.var((1, 2)).tolist() == pytest.approx([1.0] * 20, abs=0.06)
    assert (x[0] - actions[0]).abs().max() < 0.5 and (x[-1] - noise[-1]).abs().max() < 0.1


def test_it_looks_from_the_highest_level_down():
    assert diffusion.ddim_levels(100, 5) == [99, 79, 59, 39, 19]
    assert diffusion.ddim_levels(20, 50) == list(range(19, -1, -1))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        diffusion.ddim_levels(20, 0)


@pytest.mark.parametrize("num_steps", [1, 4, 20])
def test_who_knows_the_noise_finds_the_actions(num_steps):
    generator = torch.Generator().manual_seed(0)
    actions = torch.rand(2, 6, 3, generator=generator) * 2 - 1
    a = diffusion.alphas_cumprod(20)

    def oracle(x: torch.Tensor, level: int) -> torch.Tensor:
        return (x - a[level].sqrt() * actions) / (1 - a[level]).sqrt()

    start = torch.randn(2, 6, 3, generator=generator)
    found = diffusion.ddim(oracle, start, levels=20, num_steps=num_steps, clip=1.0)
    assert torch.allclose(found, actions, atol=0.1 if num_steps == 1 else 1e-4)


def test_actions_stay_where_actions_can_be():
    start = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    found = diffusion.ddim(lambda x, level: -5 * x, start, levels=20, num_steps=6, clip=0.7)
    assert found.abs().max() == pytest.approx(0.7)
