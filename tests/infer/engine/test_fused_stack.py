"""Stacks and towers in kernels make what those in PyTorch make, on a GPU or under Triton's interpreter."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from infer.engine.test_fast import RAGGED, SOME, WHOLE, noise, observation
from infer.weights import model
from nn.test_kernels import DEVICE, bfloat16_arithmetic  # noqa: F401
from pilot.infer.engine.fast import FastEngine
from pilot.infer.engine.fused_stack import FusedSiglip, FusedStack, can_fuse, tiles_for
from pilot.infer.engine.plain import PlainEngine
from pilot.infer.engine.stack import AngleTable, Cache
from pilot.models.pi import pi0, pi05
from pilot.nn.configs import GemmaConfig, SiglipConfig
from pilot.nn.gemma import Gemma
from pilot.nn.kernels import attention, passes, products, steps
from pilot.nn.siglip import Siglip

CLOSE = {"atol": 2e-5, "rtol": 2e-5}


class Stacks(FastEngine):
    """Every stack and tower in kernels, without graphs."""

    def stack(self, gemma: Gemma) -> FusedStack:
        return FusedStack(gemma)

    def embed_images(self, tower: nn.Module, pictures: Tensor) -> Tensor:
        return FusedSiglip(tower)(pictures)


BACKBONE = GemmaConfig(width=64, depth=2, mlp_dim=96, num_heads=2, head_dim=32)
EXPERT = GemmaConfig(width=32, depth=2, mlp_dim=64, num_heads=2, head_dim=32)
CONFIGS = {
    "pi05": replace(pi05("debug"), vlm=BACKBONE, action_expert=replace(EXPERT, cond_width=32)),
    "pi0": replace(pi0("debug"), vlm=BACKBONE, action_expert=EXPERT),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("case", ["one row", "ragged"])
def test_actions_are_those_of_the_model(config, case):
    pi = model(config).to(DEVICE)
    engine, plain = Stacks(pi), PlainEngine(pi)
    kinds, masks = ([WHOLE], {}) if case == "one row" else (RAGGED, SOME)
    obs = observation(config, kinds, masks=masks).map(lambda x: x.to(DEVICE))
    start = noise(config, len(kinds)).to(DEVICE)
    ours = engine.denoise(engine.prefill(obs), obs.state, noise=start, num_steps=2)
    torch.testing.assert_close(ours, plain.denoise(plain.prefill(obs), obs.state, noise=start, num_steps=2), **CLOSE)


def test_words_are_those_of_the_model():
    config = CONFIGS["pi05"]
    pi = model(config).to(DEVICE)
    engine, plain = Stacks(pi), PlainEngine(pi)
    obs = observation(config, RAGGED, masks=SOME).map(lambda x: x.to(DEVICE))
    ours, prefilled = engine.generate(engine.prefill(obs, max_new_tokens=3), eos=1, max_new_tokens=3)
    wanted, context = plain.generate(plain.prefill(obs, max_new_tokens=3), eos=1, max_new_tokens=3)
    assert torch.equal(ours, wanted)
    torch.testing.assert_close(prefilled.hidden, context.prefix.hidden[:, 0], **CLOSE)


@pytest.mark.parametrize("stop", [True, False])
def test_a_block_of_few_rows_is_at_most_six_launches(monkeypatch, stop):
    """Two of them are attention's, where keys are split."""
    launched: list[str] = []

    class Counted:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getitem__(self, grid: object) -> Any:
            return lambda *arguments, **options: launched.append(self.name)

    for module in (attention, passes, products, steps):
        for name in [name for name in vars(module) if name.endswith("_kernel")]:
            monkeypatch.setattr(module, name, Counted(name))
    config = pi05("2b")
    with torch.device("meta"), torch.inference_mode():
        stack = FusedStack(Gemma(config.vlm).bfloat16())
        tokens, slots = 50, 900
        cache = Cache.empty(config.vlm, batch=1, slots=slots, like=stack.like)
        angles = AngleTable(config.vlm.head_dim, torch.device("meta")).at(torch.zeros(1, tokens).long(), limit=1)
        span = stack.span(cache, slots - tokens, angles=angles)
        stack.run(stack.like.new_empty(tokens, config.vlm.width), span, norms=stack.norms, stop=stop)
    blocks = Counter(launched[1:] if stop else launched[1:-1])  # before: `begin`; after: the final norm
    assert launched[0] == "_begin_kernel" and blocks.total() == 6 * config.vlm.depth - 5 * stop, blocks


def test_vision():
    siglip = Siglip(SiglipConfig(image_size=16, patch_size=8, width=24, depth=2, mlp_dim=40, num_heads=2), 32)
    with torch.no_grad():
        for seed, p in enumerate(siglip.parameters()):
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(seed)) / 4)
    siglip.to(DEVICE)
    pictures = torch.rand(3, 16, 16, 3, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    with torch.inference_mode():
        torch.testing.assert_close(FusedSiglip(siglip)(pictures), siglip(pictures), **CLOSE)


def test_which_stacks_divide_into_tiles():
    assert can_fuse(pi05("2b").vlm) and can_fuse(pi05("nano").action_expert)
    assert not can_fuse(pi05("debug").action_expert), "24 columns do not"
    tiles = tiles_for(pi05("2b").action_expert)
    assert tiles.out.columns == tiles.down.columns == 32 and tiles.down.splits == 4
