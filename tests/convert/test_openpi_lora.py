"""LoRA checkpoints of openpi: merged on reading, as its own einsums add them up."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pilot.convert import load_model, openpi_jax, openpi_lora
from pilot.convert.keymap import export_arrays
from pilot.convert.orbax import write_orbax
from pilot.models.pi import Pi, pi05

LAYERS, RANK = "PaliGemma/llm/layers", 3
ARRAYS = {
    "attn/q_einsum/w": "BTD,NDL->BTNL  BTNL,NLH->BTNH  BTD,NDH->BTNH",
    "attn/kv_einsum/w": "BTD,2KDL->2BTKL  2BTKL,2KLH->2BTKH  BTD,2KDH->2BTKH",
    "attn/attn_vec_einsum/w": "BTNH,NHL->BTL  BTL,NLD->BTD  BTNH,NHD->BTD",
    "mlp/gating_einsum": "BTD,2DL->2BTL  2BTL,2LM->2BTM  BTD,2DM->2BTM",
    "mlp/linear": "BTM,ML->BTL  BTL,LD->BTD  BTM,MD->BTD",
}
"""Into the adapter, out of it, and past it: what openpi's lora.py makes of its equations."""


def renamed(key: str, suffix: str) -> str:
    """The array of the other stack."""
    block, name = key.split("/", 1)
    head, *tail = name.split("/")
    return f"{block}/{head}{suffix}/{'/'.join(tail)}" if block == "attn" else f"{block}{suffix}/{name}"


def adapters(key: str, shape: tuple[int, ...], generator: torch.Generator) -> dict[str, Tensor]:
    stem = key.removesuffix("w") if key.endswith("/w") else f"{key}_"
    shapes = {"lora_a": (*shape[:-1], RANK), "lora_b": (*shape[:-2], RANK, shape[-1])}
    return {stem + name: torch.randn(s, generator=generator) for name, s in shapes.items()}


def written(made: Pi, path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The base arrays and their adapters, as they lie at `path`."""
    base = dict(export_arrays(openpi_jax.key_map(made.config), made.state_dict(), dtype=torch.float32))
    generator, added = torch.Generator().manual_seed(1), {}
    for key in ARRAYS:
        for suffix in ("", "_1"):
            name = f"{LAYERS}/{renamed(key, suffix)}"
            added |= adapters(name, tuple(base[name].shape), generator)
    write_orbax(path / "params", [*base.items(), *added.items()])
    return base, added


def einsum(equation: str, x: Tensor, w: Tensor) -> Tensor:
    return torch.einsum(equation.replace("2", "z"), x, w)


def test_merged_as_openpi_adds_them_up(tmp_path):
    made = Pi(pi05("debug")).initialize(torch.Generator().manual_seed(0))
    base, added = written(made, tmp_path)
    merged = dict(
        export_arrays(
            openpi_jax.key_map(made.config),
            load_model(tmp_path, "openpi-jax", config=made.config).state_dict(),
            dtype=torch.float32,
        )
    )
    generator = torch.Generator().manual_seed(2)
    for key, equations in ARRAYS.items():
        into, out, past = equations.split()
        for suffix in ("", "_1"):
            name = f"{LAYERS}/{renamed(key, suffix)}"
            a, b = (added[half] for half in openpi_lora.adapters_of(name))
            for layer in range(len(base[name])):
                sizes = dict(zip(past.split(",")[1].split("->")[0], base[name][layer].shape, strict=True))
                x = torch.randn([{"B": 2, "T": 3, **sizes}[axis] for axis in past.split(",")[0]], generator=generator)
                detour = einsum(out, einsum(into, x, a[layer]), b[layer])
                want = einsum(past, x, base[name][layer]) + detour
                torch.testing.assert_close(einsum(past, x, merged[name][layer]), want, rtol=1e-4, atol=1e-3)
    untouched = [name for name in base if "einsum" not in name and "linear" not in name]
    assert untouched and all(torch.equal(base[name], merged[name]) for name in untouched)


def test_half_an_adapter_is_named(tmp_path):
    made = Pi(pi05("debug")).initialize(torch.Generator().manual_seed(0))
    base, added = written(made, tmp_path / "whole")
    lost = f"{LAYERS}/attn/q_einsum/lora_b"
    del added[lost]
    write_orbax(tmp_path / "half" / "params", [*base.items(), *added.items()])
    with pytest.raises(ValueError, match=r"left over: .*q_einsum/lora_a"):
        load_model(tmp_path / "half", "openpi-jax", config=made.config)
    added[lost] = torch.zeros(2, 2, RANK, 5)
    write_orbax(tmp_path / "odd" / "params", [*base.items(), *added.items()])
    with pytest.raises(ValueError, match=r"adapters of .*q_einsum/w add up to \(2, 2, 32, 5\)"):
        load_model(tmp_path / "odd", "openpi-jax", config=made.config)
