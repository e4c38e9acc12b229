"""The engine in kernels acts as the model does: graphs are played as in `test_graphs.py`, or captured on a GPU."""

from dataclasses import replace

import pytest
import torch

from infer.engine.test_fast import BATCHES, WHOLE, noise, observation, padded_dims
from infer.engine.test_fused_stack import BACKBONE, CLOSE, CONFIGS, EXPERT
from infer.weights import model
from nn.test_kernels import DEVICE, bfloat16_arithmetic  # noqa: F401
from pilot.infer.engine import fused_stack
from pilot.infer.engine.fused import FusedEngine, can_fuse_model
from pilot.infer.engine.fused_stack import ExtraRows
from pilot.infer.engine.plain import PlainEngine
from pilot.models.pi import pi0_fast, pi05
from pilot.nn.kernels import passes

STATE_TOKEN = replace(
    pi05("debug", state_input="token"), vlm=BACKBONE, action_expert=replace(EXPERT, cond_width=EXPERT.width)
)


@pytest.mark.parametrize(
    ("config", "solver"),
    [(CONFIGS["pi05"], "midpoint"), (CONFIGS["pi0"], "euler"), (STATE_TOKEN, "euler")],
    ids=["pi05", "pi0", "pi05-state-token"],
)
def test_actions_are_those_of_the_model(config, solver):
    pi = model(config).to(DEVICE)
    engine, plain = FusedEngine(pi), PlainEngine(pi)
    kinds, masks = BATCHES["ragged"]
    obs = observation(config, kinds, masks=masks).map(lambda x: x.to(DEVICE))
    start = noise(config, len(kinds)).to(DEVICE)
    steps = {"noise": start, "num_steps": 1, "solver": solver}
    if config is not STATE_TOKEN:
        steps["padded_dims"] = padded_dims(config).to(DEVICE)
    ours = engine.denoise(engine.prefill(obs), obs.state, **steps)
    wanted = plain.denoise(plain.prefill(obs), obs.state, **steps)
    torch.testing.assert_close(ours, wanted, **CLOSE)


def test_words_are_those_of_the_model():
    config = CONFIGS["pi05"]
    pi = model(config).to(DEVICE)
    engine, plain = FusedEngine(pi), PlainEngine(pi)
    kinds, masks = BATCHES["ragged"]
    obs = observation(config, kinds, masks=masks).map(lambda x: x.to(DEVICE))
    ours, _ = engine.generate(engine.prefill(obs, max_new_tokens=5), eos=1, max_new_tokens=5)
    assert torch.equal(ours, plain.generate(plain.prefill(obs, max_new_tokens=5), eos=1, max_new_tokens=5)[0])


def test_products_may_have_more_rows_than_there_are_tokens(monkeypatch):
    monkeypatch.setattr(fused_stack, "MAX_ROWS", 8)
    config = CONFIGS["pi05"]
    pi = model(config).to(DEVICE)
    engine, more = FusedEngine(pi), FusedEngine(pi)
    more.vlm.extra = ExtraRows(qkv=3, gate_up=8, down=1)
    obs = some_observation(config)
    ours, theirs = (e.prefill(obs) for e in (more, engine))
    torch.testing.assert_close(
        ours.cache.keys[..., : ours.length, :], theirs.cache.keys[..., : ours.length, :], **CLOSE
    )


def test_fp8_is_near(monkeypatch):
    """The products of FP8 in PyTorch, since not every machine without a GPU has them."""

    def scaled(x, weight, *, x_scale, weight_scale, out):
        assert x.dtype == weight.dtype == torch.float8_e4m3fn
        out.copy_((x.float() * x_scale) @ (weight.float() * weight_scale).T)

    monkeypatch.setattr(fused_stack, "MAX_ROWS", 8)
    if not torch.cuda.is_available():
        monkeypatch.setattr(fused_stack, "scaled_mm", scaled)
        monkeypatch.setattr(passes, "add_norm", passes.plain_add_norm)
        monkeypatch.setattr(passes, "gelu_product", passes.plain_gelu_product)
    config = CONFIGS["pi05"]
    pi = model(config).to(DEVICE)
    engine, fp8, obs = FusedEngine(pi), FusedEngine(pi), some_observation(config)
    fp8.quantize([obs])
    assert [layer is not None for layer in fp8.vlm.fp8] == [True, False], "the last layer ends at keys and values"
    ours, theirs = (e.prefill(obs).cache.values[-1, :, :, :16] for e in (fp8, engine))
    error = (ours - theirs).norm() / theirs.norm()
    assert 1e-4 < error < 0.05, "the last layer's values are behind one MLP"


def some_observation(config):
    return observation(config, [WHOLE], masks={"side": [False]}).map(lambda x: x.to(DEVICE))


def test_which_models_have_kernels():
    assert can_fuse_model(pi05("2b")) and can_fuse_model(pi05("nano")) and can_fuse_model(pi0_fast("2b"))
    assert not can_fuse_model(pi05("debug")), "24 columns do not divide into tiles"
