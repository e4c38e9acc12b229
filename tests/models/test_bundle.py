"""A checkpoint carries everything, whatever its parts are, and says what is wrong with it."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pilot.contracts import examples
from pilot.models.bundle import Bundle, load_bundle, save_bundle
from pilot.models.pi import Pi, PiConfig, pi0_small, pi05
from pilot.models.registry import config_from_dict
from pilot.models.trained_robots import one_robot
from pilot.robots.homes import ROBOT
from pilot.tokenizers.base import ActionTokenizer
from pilot.tokenizers.bins import BinsTokenizer
from pilot.tokenizers.fast import FastTokenizer
from pilot.tokenizers.text import TextTokenizer
from pilot.tokenizers.vq import VqTokenizer

pytestmark = pytest.mark.usefixtures("no_manifests")

CHUNKS = np.random.default_rng(0).uniform(-1, 1, (64, 6, 4)).astype(np.float32)
TOKENIZERS: dict[str, Callable[[], ActionTokenizer | None]] = {
    "none": lambda: None,
    "fast": lambda: FastTokenizer.fit(CHUNKS, vocab_size=200),
    "vq": lambda: VqTokenizer.fit(CHUNKS, vocab_size=16, tokens=2),
    "bins": lambda: BinsTokenizer.fit(CHUNKS, vocab_size=200),
}


def bundle(config: PiConfig | None = None, *, actions: ActionTokenizer | None = None) -> Bundle:
    model = Pi(config or pi05("debug", max_tokens=80)).initialize(torch.Generator().manual_seed(0))
    stats = examples.make_norm_stats(ROBOT)
    return Bundle(model=model, robots=one_robot(ROBOT, stats), text=TextTokenizer(), action_tokenizer=actions)


@pytest.fixture
def folder(tmp_path) -> Path:
    return save_bundle(bundle(), tmp_path / "toy")


@pytest.mark.parametrize("name", TOKENIZERS)
def test_any_action_tokenizer_comes_back(name, tmp_path):
    tokenizer = TOKENIZERS[name]()
    again = load_bundle(save_bundle(bundle(actions=tokenizer), tmp_path / "toy")).action_tokenizer
    assert type(again) is type(tokenizer)
    if tokenizer is not None and again is not None:
        assert again.encode(CHUNKS[0]) == tokenizer.encode(CHUNKS[0]) and again.vocab_size == tokenizer.vocab_size


def test_checkpoints_that_call_it_fast_are_read(folder):
    FastTokenizer.fit(CHUNKS, vocab_size=200).save(folder / "fast")
    assert isinstance(load_bundle(folder).action_tokenizer, FastTokenizer)


@pytest.mark.parametrize("config", [pi05("debug"), pi0_small("debug"), pi0_small("nano", vision_towers=("room",))])
def test_configs_survive_json(config):
    assert config_from_dict(json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize(
    ("format", "left_out", "missing"),
    [
        (1, {"rtc_max_delay", "action_stride", "replan_seconds"}, None),
        (2, {"action_stride", "replan_seconds"}, None),
        (3, {"replan_seconds"}, None),
        (2, {"rtc_max_delay"}, "rtc_max_delay"),
        (3, {"action_stride"}, "action_stride"),
        (4, {"replan_seconds"}, "replan_seconds"),
    ],
)
def test_a_config_may_lack_only_what_came_after_its_format(format, left_out, missing):
    config = pi05("debug")
    values = {name: value for name, value in asdict(config).items() if name not in left_out}
    if missing is None:
        assert config_from_dict(values, format=format) == config
    else:
        with pytest.raises(ValueError, match=f"the model config has no {missing}"):
            config_from_dict(values, format=format)


def test_bfloat16_weights_stay_so(folder):
    weights = load_file(folder / "model.safetensors")
    save_file({name: t.bfloat16() for name, t in weights.items()}, folder / "model.safetensors")
    assert {p.dtype for p in load_bundle(folder).model.parameters()} == {torch.bfloat16}


def test_a_robot_whose_cameras_have_no_towers_is_refused():
    with pytest.raises(
        ValueError, match=r"shows cameras \['wrist'\], .* make it with vision_towers=\('room', 'wrist'\)"
    ):
        bundle(pi0_small("debug", vision_towers=("room",)))


def change_config(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


CONFIG_CHANGES = {
    r"has no model, robot": lambda c: (c.pop("model"), c.pop("robot")),
    r"preprocessing version None": lambda c: c.pop("preprocessing_version"),
    r"has prompt 'pi7'; known: subtask, pi05": lambda c: c["model"].update(prompt="pi7"),
    r"unknown fields \['colour'\]": lambda c: c["model"].update(colour="red"),
    r"config.json: the model config has no vlm; fetch": lambda c: c["model"].pop("vlm"),
    r"the model config has no wrist_image_size; fetch": lambda c: c["model"].pop("wrist_image_size"),
    r"the model config has no vision.stem, rtc_max_delay; fetch": lambda c: [
        c["model"].pop("rtc_max_delay"),
        c["model"]["vision"].pop("stem"),
    ],
    r"model config is not one of this version of pilot: .*'hue'": lambda c: c["model"]["vision"].update(hue=1),
    r"model config is not one of this version of pilot: vlm.width is a whole number of 0 or more, not 32.0": lambda c: (
        c["model"]["vlm"].update(width=32.0)
    ),
    r"model config is not one of this version of pilot: action_dim is a whole number of 0 or more, not -8": lambda c: c[
        "model"
    ].update(action_dim=-8),
    r"model config is not one of this version of pilot: action_horizon is a whole number": lambda c: c["model"].update(
        action_horizon="ten"
    ),
    r"robot is not one of this version of pilot: .*'legs'": lambda c: c["robot"].update(legs=2),
    r"missing \['action_expert.blocks.2.*and \d+ more": lambda c: [
        c["model"][k].update(depth=4) for k in ("vlm", "action_expert")
    ],
    r"other shapes \['action_in.weight \(24, 8\) for \(24, 9\)'": lambda c: c["model"].update(action_dim=9),
    r"has 9 state dims, the model's action_dim is 8": lambda c: c["robot"].update(
        state_names=list("abcdefghi"), state_units=[], grippers=[]
    ),
}


@pytest.mark.parametrize("message", CONFIG_CHANGES)
def test_a_config_that_contradicts_the_rest_is_refused(folder, message, no_shape_checks):
    change_config(folder, CONFIG_CHANGES[message])
    with pytest.raises(ValueError, match=message):
        load_bundle(folder)


WEIGHT_CHANGES = {
    r"does not fit its config: missing \['action_in.bias'\]$": lambda w: w.pop("action_in.bias"),
    r"does not fit its config: left over \['head'\]$": lambda w: w.update(head=torch.zeros(2)),
    r"does not fit its config: other shapes \['action_in.bias \(3,\) for \(24,\)'\]$": lambda w: w.update(
        {"action_in.bias": torch.zeros(3)}
    ),
    r"holds float32 and float64; weights are all float32": lambda w: w.update(
        {"action_in.bias": torch.zeros(24, dtype=torch.float64)}
    ),
    r"holds NaN or infinity in 'action_in.bias'; fetch": lambda w: w.update({"action_in.bias": torch.full((24,), inf)}),
    r"holds float16;": lambda w: w.update({name: t.half() for name, t in w.items()}),
    r"holds int64;": lambda w: w.update({name: t.long() for name, t in w.items()}),
}


@pytest.mark.parametrize("message", WEIGHT_CHANGES)
def test_weights_that_do_not_fit_are_refused(folder, message):
    change_weights(folder, WEIGHT_CHANGES[message])
    with pytest.raises(ValueError, match=message):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "norm_stats.json", "text.model", "config.json"])
def test_a_truncated_file_is_named(folder, name):
    file = folder / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match=name):
        load_bundle(folder)


def test_tokens_that_would_overlap_are_refused():
    with pytest.raises(ValueError, match="they would overlap"):
        bundle(pi05("debug", max_tokens=80, vocab_size=1900), actions=TOKENIZERS["bins"]())
    with pytest.raises(ValueError, match=r"the text model nano.model has \d+ tokens, .* vocab_size is 500"):
        bundle(pi05("debug", max_tokens=80, vocab_size=500))


def test_a_failed_save_leaves_the_old_checkpoint(folder):
    def fail(path: Path) -> None:
        raise OSError("no space left")

    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    with pytest.raises(OSError, match="cannot write checkpoint"):
        save_bundle(bundle(), folder, finish=fail)
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_an_empty_model_takes_no_memory_and_no_compiler():
    """Torch imports its compiler to draw random numbers on the meta device: most of the time of a load, once."""
    code = """
import sys
from pilot.models.bundle import empty_model
from pilot.models.pi import pi05
before = set(sys.modules)
model = empty_model(pi05())
assert all(weight.is_meta for weight in model.state_dict().values())
assert not {name for name in set(sys.modules) - before if name.startswith("torch._dynamo")}
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]


def test_what_surrounds_a_model_is_read_without_its_weights(folder):
    whole, around = load_bundle(folder), load_bundle(folder, weights=False)
    assert all(weight.is_meta for weight in around.model.parameters())
    assert around.model.config == whole.model.config and around.robot == whole.robot
    assert around.pipeline().model.max_tokens == whole.pipeline().model.max_tokens
