"""openpi's JAX folders: config read off the arrays, contradictions named, bits kept."""

from dataclasses import replace

import pytest
import torch

from pilot.convert import load_model, openpi_jax
from pilot.convert.keymap import export_arrays
from pilot.convert.orbax import OrbaxSource, write_orbax
from pilot.models.pi import Pi, PiConfig, pi0, pi0_fast, pi05


def model(config: PiConfig) -> Pi:
    return Pi(config).initialize(torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", [pi0, pi05, pi0_fast])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_there_and_back(family, dtype, tmp_path):
    made = model(family("debug")).to(dtype)
    openpi_jax.save(made, tmp_path, dtype=dtype)
    again = load_model(tmp_path, "openpi-jax", config=made.config, dtype=dtype)
    weights = again.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in made.state_dict().items())


@pytest.mark.parametrize("family", [pi0, pi05, pi0_fast])
def test_the_shape_is_read_off_the_arrays(family, tmp_path):
    config = family("debug")
    openpi_jax.save(model(config), tmp_path)
    source = OrbaxSource(tmp_path)
    assert openpi_jax.read_config(source, config) == config
    read = openpi_jax.read_config(source)
    assert (read.vision, read.vlm, read.action_expert) == (config.vision, config.vlm, config.action_expert)
    assert read.vocab_size == config.vocab_size and not read.insulate and read.action_horizon == 50


def test_a_config_that_contradicts_the_arrays_is_told_where(tmp_path):
    config = pi05("debug")
    openpi_jax.save(model(config), tmp_path)
    wrong = replace(config, vision=replace(config.vision, num_heads=4))
    with pytest.raises(ValueError, match=r"vision\.num_heads is 2 in the weights and 4 in the config"):
        load_model(tmp_path, "openpi-jax", config=wrong)


def test_every_array_is_used_or_named(tmp_path):
    config = pi0_fast("debug")
    made = model(config)
    arrays = dict(export_arrays(openpi_jax.key_map(config), made.state_dict(), dtype=torch.float32))
    lost = "PaliGemma/llm/layers/mlp/gating_einsum"
    del arrays[lost]
    write_orbax(tmp_path, [*arrays.items(), ("PaliGemma/llm/layers/attn/q_einsum/lora_a", torch.ones(2))])
    with pytest.raises(ValueError) as error:
        load_model(tmp_path, "openpi-jax", config=config)
    assert f"missing: {lost}" in str(error.value)
    assert "left over: PaliGemma/llm/layers/attn/q_einsum/lora_a" in str(error.value)


def test_published_names_and_shapes():
    shapes = openpi_jax.key_map(pi0()).shapes()
    assert shapes["PaliGemma/llm/layers/attn/kv_einsum_1/w"] == (18, 2, 1, 1024, 256)
    assert shapes["PaliGemma/llm/layers/mlp/gating_einsum"] == (18, 2, 2048, 16_384)
    attention = "PaliGemma/img/Transformer/encoderblock/MultiHeadDotProductAttention_0"
    assert shapes[f"{attention}/query/kernel"] == (27, 1152, 16, 72)
    assert len(shapes) == 50
