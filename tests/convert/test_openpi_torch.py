"""openpi's PyTorch files: config read off the weights, contradictions and damage named, bits kept."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from pilot.convert import load_model, openpi_torch
from pilot.models.pi import Pi, PiConfig, pi0, pi0_fast, pi05


def model(config: PiConfig) -> Pi:
    return Pi(config).initialize(torch.Generator().manual_seed(0))


def same(a: Pi, b: Pi) -> bool:
    weights = b.state_dict()
    return all(torch.equal(tensor, weights[name]) for name, tensor in a.state_dict().items())


@pytest.mark.parametrize("family", [pi0, pi05])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_there_and_back(family, dtype, tmp_path):
    made = model(family("debug")).to(dtype)
    openpi_torch.save(made, tmp_path, dtype=dtype)
    again = load_model(tmp_path, "openpi-torch", config=made.config, dtype=dtype)
    assert same(made, again) and again.dtype == dtype and not again.training


def test_the_shape_is_read_off_the_weights(tmp_path):
    """All but the number of heads of a vision tower that is not So400m's."""
    for family in (pi0, pi05):
        config = family("debug")
        openpi_torch.save(model(config), tmp_path)
        source = openpi_torch.SafetensorsSource(tmp_path)
        with pytest.raises(ValueError, match="how many heads a vision tower of width 16 has"):
            openpi_torch.read_config(source)
        assert openpi_torch.read_config(source, config) == config


def test_a_config_that_contradicts_the_weights_is_told_where(tmp_path):
    config = pi05("debug")
    openpi_torch.save(model(config), tmp_path)
    wrong = replace(config, vlm=replace(config.vlm, num_heads=1), vocab_size=9)
    with pytest.raises(ValueError) as error:
        load_model(tmp_path, "openpi-torch", config=wrong)
    assert "vlm.num_heads is 2 in the weights and 1 in the config" in str(error.value)
    assert "vocab_size is 2080 in the weights and 9 in the config" in str(error.value)
    with pytest.raises(ValueError, match=r"missing: action_time_mlp_in\.weight"):
        load_model(tmp_path, "openpi-torch", config=pi0("debug"))


def test_every_array_is_used_or_named(tmp_path):
    config = pi05("debug")
    file = openpi_torch.save(model(config), tmp_path)
    arrays = load_file(file)
    lost, unused = "time_mlp_in.bias", "paligemma_with_expert.gemma_expert.lm_head.weight"
    del arrays[lost]
    save_file(arrays | {"lora_a": torch.ones(1)}, file)
    with pytest.raises(ValueError) as error:
        load_model(tmp_path, "openpi-torch", config=config)
    assert f"missing: {lost}" in str(error.value) and "left over: lora_a" in str(error.value)
    assert unused not in str(error.value)


def test_what_is_no_such_checkpoint_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        load_model(tmp_path, "openpi-torch")
    save_file({"x": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"has no action_in_proj\.weight"):
        load_model(tmp_path, "openpi-torch")
    with pytest.raises(ValueError, match="openpi's PyTorch has no π0-FAST"):
        openpi_torch.key_map(pi0_fast("debug"))


def test_published_names_and_shapes():
    """A few of the names that the published files have, at the published size."""
    shapes = openpi_torch.key_map(pi05()).shapes()
    prefix = "paligemma_with_expert.paligemma.model."
    assert shapes[f"{prefix}vision_tower.vision_model.embeddings.patch_embedding.weight"] == (1152, 3, 14, 14)
    assert shapes[f"{prefix}language_model.layers.17.self_attn.k_proj.weight"] == (256, 2048)
    assert shapes["paligemma_with_expert.gemma_expert.model.norm.dense.weight"] == (3072, 1024)
    assert shapes["paligemma_with_expert.paligemma.lm_head.weight"] == (257_152, 2048)
    assert len(shapes) == 811
