"""A policy as ONNX files computes what PyTorch does, for any number of rows and with cameras missing."""

import json
import sys
from types import SimpleNamespace

import jaxtyping
import numpy as np
import pytest
import torch

from pilot import robots
from pilot.contracts import examples
from pilot.infer.onnx_export import OnnxModel, compare_with_torch, export_onnx, exportable_model, require_onnx
from pilot.infer.policy import Policy
from pilot.models.bundle import Bundle
from pilot.models.pi import Pi, pi0_small, pi05
from pilot.models.trained_robots import one_robot

ROBOT = "homes"


def make_policy(config) -> Policy:
    robot = robots.load_robot(ROBOT)
    pipeline = examples.make_pipeline(robot, config, with_fast=True)
    model, generator = Pi(config).initialize(torch.Generator().manual_seed(0)), torch.Generator().manual_seed(1)
    with torch.no_grad():  # the head begins at zero, and so would every velocity
        model.action_out.weight.normal_(0, 0.3, generator=generator)
        for weight in (w for name, w in model.named_parameters() if "modulation" in name):
            weight.normal_(0, 0.1, generator=generator)
    return Policy(
        Bundle(
            model=model,
            robots=one_robot(robot, pipeline.norm_stats),
            text=pipeline.text,
            action_tokenizer=pipeline.action_tokenizer,
        )
    )


@pytest.fixture(scope="module")
def policy():
    return make_policy(pi05("debug", max_tokens=80))


@pytest.fixture(scope="module")
def exported(policy, tmp_path_factory):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    jaxtyping.config.update("jaxtyping_disable", True)  # a tracer's stand-ins have no shapes to check
    yield export_onnx(policy, tmp_path_factory.mktemp("onnx"))
    jaxtyping.config.update("jaxtyping_disable", False)


def test_the_files_compute_what_torch_does(policy, exported):
    described = json.loads((exported / "export.json").read_text())
    assert set(described["differences"]) == {"keys", "values", "logits", "velocity", "actions"}
    assert max(described["differences"].values()) < 1e-4
    assert list(described["cameras"]) == ["room", "wrist"] and described["max_tokens"] == 80
    for rows in (1, 4):
        assert max(compare_with_torch(policy, exported, robot=ROBOT, rows=rows).values()) < 1e-4
    model = OnnxModel(exported)
    with pytest.raises(Exception, match="image_room"):
        model.prefix({"tokens": np.zeros((1, 80), np.int64)})


def test_other_weights_are_noticed(policy, exported):
    """The check can fail: files of one model do not pass for another."""
    other = make_policy(pi05("debug", max_tokens=80))
    with torch.no_grad():
        other.bundle.pi.action_out.weight.mul_(1.5)
    differences = compare_with_torch(other, exported, robot=ROBOT)
    assert differences["keys"] < 1e-4 and differences["actions"] > 0.01


@pytest.mark.usefixtures("no_shape_checks")
def test_a_model_with_another_expert_is_refused():
    policy = SimpleNamespace(model=SimpleNamespace(config=pi0_small(vision_towers=("room",))))
    with pytest.raises(ValueError, match="π0-small"):
        exportable_model(policy)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'pilot\[onnx\]'"):
        require_onnx()
