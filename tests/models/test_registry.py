"""Models by kind, and what each of them declares that it can do."""

import json
from dataclasses import asdict

import pytest

from pilot.models.baselines.configs import act, diffusion_policy, octo
from pilot.models.bundle import empty_model
from pilot.models.pi import pi0, pi0_fast, pi0_small, pi05
from pilot.models.registry import MODEL_KINDS, model_kind, read_config, require_pi

CAN = {
    "pi05": (pi05, {"has_flow", "samples_actions", "generates_text"}),
    "pi0": (pi0, {"has_flow", "samples_actions", "generates_text"}),
    "pi0_fast": (pi0_fast, {"generates_text"}),
    "pi0_small": (pi0_small, {"has_flow", "samples_actions"}),
    "act": (act, {"samples_actions", "needs_all_cameras"}),
    "diffusion_policy": (diffusion_policy, {"samples_actions", "needs_all_cameras"}),
    "octo": (octo, {"samples_actions", "needs_all_cameras"}),
}


@pytest.mark.parametrize("name", CAN)
def test_models_declare_what_they_can_do(name):
    constructor, abilities = CAN[name]
    model = empty_model(constructor("debug"))
    declared = ("has_flow", "samples_actions", "generates_text", "needs_all_cameras")
    assert {ability for ability in declared if getattr(model, ability)} == abilities
    if "generates_text" not in abilities:
        assert not model.config.generates_text, "the pipeline asks the config"


def test_a_config_knows_its_kind():
    assert [model_kind(make("debug")) for make in (pi05, act, diffusion_policy, octo)] == list(MODEL_KINDS)
    assert require_pi(pi0_small("debug")) == pi0_small("debug")
    with pytest.raises(ValueError, match="this is for the π0 family, and the model is of kind 'act'"):
        require_pi(act("debug"))


def test_only_act_loads_published_image_weights(tmp_path):
    with pytest.raises(ValueError, match=r"weights of torchvision are for ACT.*not for Octo"):
        empty_model(octo("debug")).load_image_weights(tmp_path / "resnet18.pth")
    with pytest.raises(FileNotFoundError, match=r"resnet18\.pth is not there"):
        empty_model(act("debug")).load_image_weights(tmp_path / "resnet18.pth")


def test_a_config_is_read_from_a_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json does not exist; give the folder of a checkpoint"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"kind": "act", "model": asdict(act("debug")), "format": 2}))
    assert read_config(tmp_path) == act("debug")


@pytest.mark.parametrize("damaged", ["{}", '{"model": 3}', '{"model": {}, "format": "two"}', "{"])
def test_a_damaged_config_is_said(tmp_path, damaged):
    (tmp_path / "config.json").write_text(damaged)
    with pytest.raises(ValueError, match=r"config\.json.*fetch the checkpoint again|config\.json is not valid JSON"):
        read_config(tmp_path)
