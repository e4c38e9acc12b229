"""Adapters: nothing changes at the start, only they learn, and folded in they are a model like any other."""

import math

import pytest
import torch

from pilot.models.bundle import empty_model
from pilot.models.pi import Pi, PiConfig, pi0, pi0_small, pi05
from pilot.nn.configs import LoraConfig, LoraGroup
from pilot.nn.lora import (
    AdapterDescription,
    LoraLinear,
    adapted_layers,
    adapter_scales,
    apply_adapters,
    matrices_in,
    merge_adapters,
    trainable_names,
)
from pilot.train.freezing import choose_learning

FAMILY = {"pi0": pi0("debug"), "pi05": pi05("debug"), "pi0_small": pi0_small("debug")}


def made(config: PiConfig, lora: LoraConfig | None = None, *, seed: int = 0, freeze: tuple[str, ...] = ()) -> Pi:
    model = Pi(config).initialize(torch.Generator().manual_seed(0))
    return choose_learning(model, lora=lora, freeze=freeze, seed=seed)


def shaken(model: Pi) -> Pi:
    """Adapters as after training: not zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in adapted_layers(model).values():
            layer.lora_b.normal_(0.0, 0.3, generator=generator)
    return model


@pytest.mark.parametrize("name", FAMILY)
def test_step_zero_is_the_base_model_and_merging_gives_the_same_model_as_the_detours(name):
    config = FAMILY[name]
    model = made(config, LoraConfig())
    base = made(config)
    merged = merge_adapters(model.state_dict(), adapter_scales(model))
    assert all(torch.equal(weight, base.state_dict()[n]) for n, weight in merged.items())
    shaken(model)
    merged = Pi(config)
    merged.load_state_dict(merge_adapters(model.state_dict(), adapter_scales(model)))
    generator = torch.Generator().manual_seed(2)
    for layer_name, layer in adapted_layers(model).items():
        x = torch.randn(3, layer.in_features, generator=generator)
        plain = merged.get_submodule(layer_name)
        assert not isinstance(plain, LoraLinear)
        torch.testing.assert_close(plain(x), layer(x), rtol=1e-5, atol=1e-5)
        assert not torch.allclose(plain(x), base.get_submodule(layer_name)(x), atol=1e-2)


def test_backbone_and_expert_have_them_the_time_mlp_too_and_nothing_else_of_theirs_learns():
    model = made(FAMILY["pi05"], LoraConfig())
    names = set(adapter_scales(model))
    layers = [f"{stack}.blocks.{i}.{part}" for stack in ("vlm", "action_expert") for i in (0, 1) for part in
              ("qkv", "out", "gate_up", "down")]  # fmt: skip
    assert names == {*layers, "time_mlp_in", "time_mlp_out"}
    of_stacks = [n for n in trainable_names(model) if n.split(".")[0] not in ("vision", "action_in", "action_out")]
    assert of_stacks and all("lora_" in name for name in of_stacks)
    assert [n for n in trainable_names(model) if n.startswith(("vision.", "action_in.", "action_out."))]
    assert not model.embedding.weight.requires_grad and not model.vlm.final_norm.weight.requires_grad


def test_ranks_scales_and_targets_are_fields():
    lora = LoraConfig(
        language=LoraGroup(rank=2, alpha=6.0), expert=LoraGroup(rank=0, alpha=1.0), vision=LoraGroup(rank=4, alpha=4.0),
        targets=("qkv", "up"), rank_stabilized=True,
    )  # fmt: skip
    model = made(FAMILY["pi05"], lora)
    assert {n.rpartition(".")[2] for n in adapted_layers(model)} == {"qkv", "up"}
    qkv = adapted_layers(model)["vlm.blocks.0.qkv"]
    assert qkv.scale == pytest.approx(6 / math.sqrt(2)) and qkv.lora_b.shape[1] == 2
    assert {n.split(".")[0] for n in trainable_names(model) if "lora_" not in n} == {
        "action_expert", "action_in", "action_out", "time_mlp_in", "time_mlp_out"
    }  # fmt: skip


def test_each_head_and_gate_and_up_has_a_detour_of_its_own():
    model = made(FAMILY["pi05"])
    assert matrices_in(model.vlm.blocks[0], "qkv") == 2 + 2  # two heads of queries, one of keys and one of values
    assert matrices_in(model.vlm.blocks[0], "gate_up") == 2 and matrices_in(model.vlm.blocks[0], "down") == 1
    assert matrices_in(model.vision.blocks[0], "qkv") == 3 * 2


def test_openpi_s_ranks_at_the_published_size_are_the_default():
    """gemma_2b_lora and gemma_300m_lora: 16 and 32, scaled by 1; the number of adapter weights follows."""
    model = choose_learning(empty_model(pi0()), lora=LoraConfig())
    scales = {layer.scale for layer in adapted_layers(model).values()}
    assert scales == {1.0}

    def per_layer(width: int, mlp: int, rank: int) -> int:
        heads = (8 + 2) * (width + 256) * rank  # of queries, keys and values
        return heads + (8 * 256 + width) * rank + 2 * (width + mlp) * rank + (mlp + width) * rank

    count = {
        part: sum(p.numel() for n, p in model.named_parameters() if n.startswith(f"{part}.") and "lora_" in n)
        for part in ("vlm", "action_expert")
    }
    assert count == {"vlm": 18 * per_layer(2048, 16_384, 16), "action_expert": 18 * per_layer(1024, 4096, 32)}


def test_frozen_parts_get_no_adapters():
    model = made(FAMILY["pi05"], LoraConfig(), freeze=("language",))
    assert {name.split(".")[0] for name in adapted_layers(model)} == {"action_expert", "time_mlp_in", "time_mlp_out"}
    assert not [name for name in trainable_names(model) if name.startswith(("vlm.", "embedding."))]


def test_base_weights_of_half_precision_take_detours_in_full():
    base = torch.nn.Linear(6, 4).bfloat16()
    layer = LoraLinear(base, rank=2, scale=1.0, generator=torch.Generator().manual_seed(0))
    y = layer(torch.ones(1, 6, dtype=torch.bfloat16))
    assert y.dtype == torch.bfloat16 and layer.lora_a.dtype == torch.float32
    y.sum().backward()
    assert layer.weight.grad is None and layer.lora_b.grad is not None


def test_what_was_learned_is_small_and_added_to_a_base():
    lora = LoraConfig(language=LoraGroup(rank=2, alpha=2.0), expert=LoraGroup(rank=2, alpha=2.0))
    base, model = made(FAMILY["pi05"]).state_dict(), shaken(made(FAMILY["pi05"], lora, freeze=("vision",)))
    own = {name: weight + 1.0 for name, weight in model.state_dict().items() if name in trainable_names(model)}
    assert sum(w.numel() for w in own.values()) < sum(w.numel() for w in base.values()) / 5
    result = apply_adapters(base, own, scales=adapter_scales(model))
    whole = merge_adapters(model.state_dict() | own, adapter_scales(model))
    assert result.keys() == base.keys() and all(torch.equal(weight, whole[name]) for name, weight in result.items())
    assert torch.equal(result["action_in.bias"], base["action_in.bias"] + 1.0)


def test_a_description_comes_back(tmp_path):
    description = AdapterDescription(base="checkpoints/base", scales={"vlm.blocks.0.qkv": 0.5})
    description.save(tmp_path)
    assert AdapterDescription.load(tmp_path) == description


def test_what_does_not_fit_is_said(tmp_path):
    model = made(FAMILY["pi05"], LoraConfig())
    base, scales = made(FAMILY["pi05"]).state_dict(), adapter_scales(model)
    own = {name: weight for name, weight in model.state_dict().items() if name in trainable_names(model)}
    with pytest.raises(
        ValueError, match=r"adapters of vlm\.blocks\.0\.qkv do not fit their base: .*lora_a' is missing"
    ):
        apply_adapters(base, {n: w for n, w in own.items() if n != "vlm.blocks.0.qkv.lora_a"}, scales=scales)
    with pytest.raises(ValueError, match=r"add up to \(64, 32\), the weight of their base is \(32, 32\)"):
        apply_adapters(base | {"vlm.blocks.0.qkv.weight": torch.zeros(32, 32)}, own, scales=scales)
    AdapterDescription(base="", scales={}).save(tmp_path)
    with pytest.raises(ValueError, match="whose base was never a checkpoint; use the run's folder policy"):
        AdapterDescription.load(tmp_path)
    (tmp_path / "adapters.json").write_text('{"base": ""')
    with pytest.raises(ValueError, match=r"adapters\.json is damaged"):
        AdapterDescription.load(tmp_path)
    with pytest.raises(ValueError, match="no layer of this model is among the LoRA targets nothing"):
        made(FAMILY["pi05"], LoraConfig(targets=("nothing",)))
    with pytest.raises(ValueError, match="alpha above 0"):
        LoraGroup(rank=2, alpha=0.0)
