"""Checkpoints that the reference wrote are read to the recorded weights, and written again bit for bit."""

import os
from pathlib import Path

import pytest
import torch
from parity.cases import FOLDER, cases, load_case
from safetensors import safe_open

from pilot.convert import load_model, openpi_jax, openpi_torch
from pilot.convert.orbax import OrbaxSource
from pilot.convert.tensor_files import SafetensorsSource
from pilot.models.pi import Pi

CASES = {load_case(path).stem: load_case(path) for path in cases("pi0", "pi05", "pi0_fast")}
ORBAX = sorted(path.parent.parent for path in FOLDER.glob("orbax/*/*/params/_METADATA"))
TORCH = sorted(path.parent for path in FOLDER.glob("torch_ckpt/*/model.safetensors"))


def weights_of(model: Pi, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    return {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a)


@pytest.mark.skipif("PILOT_GOLDEN" in os.environ, reason="another folder need not have all")
def test_there_are_checkpoints_in_every_layout():
    assert {path.name for path in ORBAX} == {"released", "train_state_value"} and TORCH


@pytest.mark.parametrize("path", ORBAX, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_orbax(path, tmp_path):
    case = CASES[path.parent.name]
    model = load_model(path, "openpi-jax", config=case.config)
    assert same(weights_of(model), weights_of(case.model()))
    read = load_model(path / "params", "openpi-jax").config
    assert read.vision == case.config.vision and read.vlm == case.config.vlm
    assert read.action_expert == case.config.action_expert and not read.insulate
    openpi_jax.save(model, tmp_path)
    ours, theirs = OrbaxSource(tmp_path), OrbaxSource(path)
    assert sorted(ours.keys()) == sorted(theirs.keys())
    assert all(torch.equal(ours.read(key), theirs.read(key)) for key in theirs.keys())  # noqa: SIM118


@pytest.mark.parametrize("path", TORCH, ids=lambda path: path.name)
def test_torch(path, tmp_path):
    stem, dtype = path.name.rsplit("_", 1)
    case, kind = CASES[stem], getattr(torch, dtype)
    model = load_model(path, "openpi-torch", config=case.config)
    assert same(weights_of(model, kind), weights_of(case.model(), kind))
    written = openpi_torch.save(model, tmp_path, dtype=kind)
    ours, theirs = SafetensorsSource(written), SafetensorsSource(path)
    assert ours.keys() == theirs.keys()
    dead = openpi_torch.key_map(case.config).unused
    for key in theirs.keys():  # noqa: SIM118
        assert (ours.shape(key), ours.dtype(key)) == (theirs.shape(key), theirs.dtype(key))
        assert torch.equal(ours.read(key), theirs.read(key)) or (key in dead and not ours.read(key).any()), key
    assert tied(written) == tied(path / "model.safetensors")


def tied(file: Path) -> dict[str, str]:
    """The names that a file says are another's."""
    with safe_open(file, "pt") as opened:
        return {name: of for name, of in (opened.metadata() or {}).items() if name.endswith("weight")}
