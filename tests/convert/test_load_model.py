"""One function for every source: the same weights in the folders of four projects are the same model."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import pilot
from pilot.contracts import examples
from pilot.convert import lerobot_export, openpi_jax, openpi_torch
from pilot.models.bundle import Bundle, save_bundle
from pilot.models.pi import Pi, pi05
from pilot.models.trained_robots import one_robot
from pilot.robots.homes import ROBOT
from pilot.tokenizers.text import TextTokenizer


@pytest.fixture(scope="module")
def model() -> Pi:
    return Pi(pi05("debug")).initialize(torch.Generator().manual_seed(0))


def bundle(model: Pi) -> Bundle:
    stats = examples.make_norm_stats(ROBOT)
    return Bundle(model=model, robots=one_robot(ROBOT, stats), text=TextTokenizer(), action_tokenizer=None)


def save_own(model: Pi, folder: Path) -> None:
    save_bundle(bundle(model), folder)


WRITERS = {
    "openpi-torch": lambda model, folder: openpi_torch.save(model, folder, dtype=torch.float32),
    "openpi-jax": openpi_jax.save,
    "lerobot": lambda model, folder: lerobot_export.save_bundle(bundle(model), folder, dtype=torch.float32),
    "pilot": save_own,
}


@pytest.mark.parametrize("source", WRITERS)
def test_every_source_gives_the_same_model(source, model, tmp_path):
    WRITERS[source](model, tmp_path / "checkpoint")
    read = pilot.convert.load_model(tmp_path / "checkpoint", source=source, config=model.config)
    weights = read.state_dict()
    assert weights.keys() == model.state_dict().keys() and read.config == model.config
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    half = pilot.convert.load_model(tmp_path / "checkpoint", source, config=model.config, dtype=torch.bfloat16)
    assert torch.equal(half.embedding.weight, model.embedding.weight.bfloat16())


def test_a_checkpoint_of_pilots_own_has_its_config(model, tmp_path):
    save_own(model, tmp_path / "own")
    with pytest.raises(ValueError, match="contradicts that of"):
        pilot.convert.load_model(tmp_path / "own", "pilot", config=replace(model.config, action_horizon=7))


def test_an_unknown_source_and_a_missing_folder_are_named(tmp_path):
    with pytest.raises(ValueError, match="no checkpoint source 'jax'; there are openpi-torch, openpi-jax"):
        pilot.convert.load_model(tmp_path, "jax")  # type: ignore[arg-type]
    for source in WRITERS:
        with pytest.raises(FileNotFoundError):
            pilot.convert.load_model(tmp_path / "nowhere", source)
