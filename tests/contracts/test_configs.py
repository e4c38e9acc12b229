"""Every run in `configs/` can be built: its model on paper, its robot and its sources by name."""

import dataclasses
import json

import pytest
import torch

from pilot import configs
from pilot.models.registry import build_model
from pilot.robots import robot_names
from pilot.train.config import TrainConfig


@pytest.fixture(params=configs.names())
def config(request) -> TrainConfig:
    return configs.get(request.param)


def test_it_is_called_like_its_function(config):
    assert config.name in configs.names()
    assert configs.get(config.name) == config


def test_its_model_builds_without_memory(config):
    with torch.device("meta"):
        model = build_model(config.model)
    assert sum(weight.numel() for weight in model.parameters()) > 1000


def test_its_numbers_make_sense(config):
    assert config.robot in robot_names()
    assert config.optim.warmup_steps < config.steps or config.steps < 100
    assert config.optim.final_lr <= config.optim.peak_lr
    assert config.alpha == 0 or getattr(config.model, "action_expert", True) is not None, "a flow needs an expert"
    assert config.sources and len({source.path for source in config.sources}) == len(config.sources)
    weights = [source.weight for source in config.sources]
    assert all(w is None for w in weights) or sum(w for w in weights if w) == pytest.approx(1.0)


def test_each_loss_is_taught_by_a_source_and_each_source_teaches_one(config):
    taught = {loss for source in config.sources for loss in (source.teaches if source.kind == "robot" else ("text",))}
    asked = {name for name in ("text", "fast", "flow") if config.weight_of(name) > 0}
    assert asked <= taught or config.losses == {"name"}
    assert all(set(source.teaches) & asked for source in config.sources if source.kind == "robot") or not asked


def test_it_survives_json(config):
    """A run writes its config beside its checkpoints, and compares it when it goes on."""
    assert json.loads(json.dumps(dataclasses.asdict(config)))["steps"] == config.steps


def test_an_unknown_run_suggests_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'nano_stage1'"):
        configs.get("nano_stage_1")
