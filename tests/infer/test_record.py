"""A checkpoint that acts otherwise than it was recorded says what differs, by how much, and since which versions."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pilot.contracts import examples
from pilot.data import transforms
from pilot.infer.policy import Policy, export, load_policy
from pilot.infer.record import FILE, Record, differences, dummy_observation
from pilot.models.bundle import Bundle, ordered_tokens, save_bundle
from pilot.models.pi import Pi, PiConfig, pi0, pi0_fast, pi0_small, pi05
from pilot.models.trained_robots import one_robot
from pilot.robots.homes import ROBOT
from pilot.tokenizers.text import TextTokenizer


def bundle(config: PiConfig) -> Bundle:
    text, generator = TextTokenizer(), torch.Generator().manual_seed(0)
    model = Pi(config).initialize(generator, ordered_tokens=ordered_tokens(text))
    for name, weight in model.named_parameters():  # a fresh model has closed gates, and its actions are its noise
        if not weight.any() and "action" in name:
            torch.nn.init.normal_(weight, std=0.1, generator=generator)
    pipeline = examples.make_pipeline(ROBOT, config, with_fast=config.action_expert is None)
    stats, actions = pipeline.norm_stats, pipeline.action_tokenizer
    return Bundle(model=model, robots=one_robot(ROBOT, stats), text=text, action_tokenizer=actions)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    return export(bundle(pi05("debug", max_tokens=80)), tmp_path_factory.mktemp("checkpoints") / "toy")


@pytest.fixture
def folder(recorded, tmp_path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "copy"))


def test_what_was_exported_verifies_and_acts_the_same(folder):
    checked, unchecked = load_policy(folder, verify=True), load_policy(folder)
    observation = dummy_observation(checked)
    assert np.array_equal(checked.infer(observation)["actions"], unchecked.infer(observation)["actions"])
    assert np.array_equal(checked.infer(observation)["actions"], Record.load(folder).outcome.actions)


@pytest.mark.parametrize("config", [pi0("debug"), pi0_small("debug"), pi0_fast("debug", prompt="pi0_fast")])
def test_other_members_of_the_family_have_records(config, tmp_path):
    assert load_policy(export(bundle(config), tmp_path / "other"), verify=True).model.config == config


def test_a_bfloat16_policy_has_a_record_of_its_own(tmp_path):
    original = bundle(pi05("debug", max_tokens=80))
    weights = {name: weight.bfloat16() for name, weight in original.model.state_dict().items()}
    folder = export(original, tmp_path / "short", weights=weights)
    assert Record.load(folder).dtype == "bfloat16"
    load_policy(folder, verify=True)


def test_a_record_keeps_its_observation_and_its_choices(folder):
    kept, policy = Record.load(folder), load_policy(folder, num_steps=3, seed=7)
    assert (kept.num_steps, kept.seed, kept.dtype) == (10, 0, "float32")
    assert re.fullmatch(r"pilot \S+, torch \S+, preprocessing version \d+, cpu", kept.versions)
    assert all(
        np.array_equal(kept.observation["images"][c], dummy_observation(policy)["images"][c]) for c in ROBOT.cameras
    )
    Record.of(policy).save(folder)
    again = Record.load(folder)
    assert (again.num_steps, again.seed) == (3, 7)
    assert load_policy(folder, verify=True).num_steps == 10  # checked with the record's, used with one's own


def test_the_made_up_observation_is_hard_and_within_range(folder):
    policy = load_policy(folder)
    row = policy.pipeline.encode(policy.make_sample(dummy_observation(policy)), with_fast=False)
    size = policy.model.config.image_size(wrist=False)
    assert dummy_observation(policy)["images"]["room"].shape[:2] != (size, size)
    assert np.abs(row.state[: ROBOT.state_dim]).max() <= 1


def test_no_record_is_said_and_not_verifying_is_the_default(tmp_path):
    path = save_bundle(bundle(pi05("debug", max_tokens=80)), tmp_path / "bare")
    assert isinstance(load_policy(path), Policy)
    with pytest.raises(FileNotFoundError, match=r"no record.safetensors .* verify=False"):
        load_policy(path, verify=True)


def test_a_changed_weight_is_noticed_by_its_checksum(folder):
    weights = load_file(folder / "model.safetensors")
    weights["action_out.bias"][2] += 1e-5
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"model.safetensors .* was written"):
        load_policy(folder)


@pytest.mark.usefixtures("no_manifests")
def test_a_changed_weight_is_noticed(folder):
    weights = load_file(folder / "model.safetensors")
    weights["action_out.bias"][2] += 0.05
    save_file(weights, folder / "model.safetensors")
    message = r"does not act as it was recorded: the actions: off by up to 0.\d+ of a dim's range .* in dim 'z' "
    with pytest.raises(ValueError, match=message + r"\(tolerance 0.001\). Recorded with pilot .*, torch .*, cpu"):
        load_policy(folder, verify=True)


@pytest.mark.usefixtures("no_manifests")
def test_a_weight_changed_within_the_tolerance_is_not(folder):
    weights = load_file(folder / "model.safetensors")
    weights["action_out.bias"] += 1e-5
    save_file(weights, folder / "model.safetensors")
    load_policy(folder, verify=True)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "resize_with_pad",
            lambda right: lambda image, size: right(image[::-1], size),
            r"picture of camera 'room': off",
        ),
        (
            "normalize",
            lambda right: lambda x, stats, *kind: right(x, stats, *kind) + np.float32(0.02),
            "normalised state",
        ),
        ("unnormalize", lambda right: lambda x, stats, *kind: right(x, stats, *kind) * 1.01, "the actions: off"),
    ],
)
def test_a_changed_pipeline_is_noticed(folder, monkeypatch, no_shape_checks, name, change, message):
    monkeypatch.setattr(transforms, name, change(getattr(transforms, name)))
    with pytest.raises(ValueError, match=message):
        load_policy(folder, verify=True)


def test_a_changed_prompt_or_noise_is_noticed(folder, monkeypatch):
    sample, noise = Policy.make_sample, Policy.noise
    with monkeypatch.context() as patch:
        patch.setattr(
            Policy, "make_sample", lambda self, o, **k: replace(sample(self, o, **k), prompt="put the red cup in")
        )
        with pytest.raises(ValueError, match="the prompt is now tokens"):
            load_policy(folder, verify=True)
    monkeypatch.setattr(Policy, "noise", lambda self, generator: noise(self, generator) * 0.9)
    with pytest.raises(ValueError, match="the noise: off"):
        load_policy(folder, verify=True)


def test_differences_name_all_that_differs(folder):
    right, of = Record.load(folder).outcome, load_policy(folder).pipeline
    assert differences(right, right, of, tolerance=1e-3) == []
    one_level = {camera: picture // 255 + picture for camera, picture in right.pictures.items()}
    assert differences(right, replace(right, pictures=one_level), of, tolerance=1e-3) == []
    wrong = replace(
        right, tokens=[2], subtask="dance", actions=right.actions * np.nan, state=right.state + np.float32(1)
    )
    found = differences(right, wrong, of, tolerance=1e-3)
    assert [sentence.split(" now ")[0].split(":")[0] for sentence in found] == [
        "the prompt is", "the normalised state", "the subtask is", "the actions",
    ]  # fmt: skip


def test_a_damaged_record_is_refused(folder):
    whole = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(whole[:-20])
    with pytest.raises(ValueError, match="damaged"):
        load_policy(folder, verify=True)
    save_file({"tokens": torch.zeros(1)}, folder / FILE, {"note": json.dumps({"seed": 0})})
    with pytest.raises(ValueError, match="damaged"):
        load_policy(folder, verify=True)


def test_nothing_is_written_when_the_policy_cannot_answer(tmp_path):
    cannot = bundle(pi05("debug", max_tokens=8))  # its prompts do not fit
    with pytest.raises(ValueError, match="max_tokens"):
        export(cannot, tmp_path / "never")
    assert not list(tmp_path.iterdir())
