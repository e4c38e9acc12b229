"""A policy as ONNX files computes what PyTorch does, for any number of rows and with cameras missing."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import jaxtyping
import numpy as np
import pytest
import torch

from pilot import robots
from pilot.contracts import examples
from pilot.infer.onnx_export import (
    ACTION_STEP,
    EMBEDDING,
    PREFIX,
    ActionStep,
    OnnxModel,
    PrefixEmbedding,
    PrefixPass,
    compare_with_torch,
    describe_export,
    example_observation,
    export_onnx,
    exportable_model,
    onnx_inputs,
    require_onnx,
    write_description,
)
from pilot.infer.policy import Policy
from pilot.infer.record import dummy_observation
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


class PartsInTorch:
    """Stands in for onnxruntime where it is not installed: each file's part of the model, run by PyTorch."""

    def __init__(self, policy):
        model = exportable_model(policy)
        self.parts = {EMBEDDING: PrefixEmbedding(model), PREFIX: PrefixPass(model), ACTION_STEP: ActionStep(model)}

    def get_available_providers(self):
        return []

    def InferenceSession(self, file, *, providers):
        return SimpleNamespace(run=lambda _, inputs: self.run(self.parts[Path(file).name], inputs))

    @torch.no_grad()
    def run(self, part, inputs):
        tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
        images = tuple(
            tensors.pop(name) for name in list(tensors) if name.startswith("image_") and name != "image_masks"
        )
        outputs = part(*([images] if images else []), *tensors.values())
        return [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize("integrate_padded_dims", [False, True])
def test_the_files_act_as_the_policy_does_for_the_same_noise(integrate_padded_dims, monkeypatch, tmp_path):
    """Also where the model has more action dims than the robot, which has 4."""
    policy = make_policy(pi05("debug", max_tokens=80, integrate_padded_dims=integrate_padded_dims))
    policy.high_level = "none"
    monkeypatch.setitem(sys.modules, "onnxruntime", PartsInTorch(policy))
    example, dims = example_observation(policy, robot=ROBOT, rows=1), policy.model.config.action_dim
    described = describe_export(policy, policy.bundle.pi, example, robot=ROBOT)
    assert described["robot_action_dim"] == 4 < dims
    assert described["padded_dims"] == ([] if integrate_padded_dims else list(range(4, dims)))
    write_description(tmp_path, described)
    files, shown = OnnxModel(tmp_path), dummy_observation(policy, robot=ROBOT, seed=0)
    noise = policy.noise(torch.Generator().manual_seed(policy.seed)).numpy()
    chunk = files.actions(
        files.prefix(onnx_inputs(example)), state=example.state.numpy(), noise=noise, num_steps=policy.num_steps
    )
    actions = policy.pipeline.decode_actions(chunk[0], shown["state"])
    np.testing.assert_allclose(actions, policy.infer(shown)["actions"], atol=1e-3)  # they reach 5
    assert compare_with_torch(policy, tmp_path, robot=ROBOT, rows=1)["actions"] < 1e-3


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
