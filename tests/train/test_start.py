"""What a run starts from decides some of its settings: where they differ, the run is refused, field by field."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pilot.models.bundle import Bundle, load_bundle, save_bundle
from pilot.models.pi import pi05
from pilot.robots import load_robot
from pilot.tokenizers.fast import FastTokenizer
from pilot.train.config import InitFrom, TrainConfig
from pilot.train.setup import prepare
from train.toy import changed, config

pytestmark = pytest.mark.filterwarnings("ignore:constant dims", "ignore:rarely moving")


def start(run: TrainConfig, out: Path) -> Bundle:
    return prepare(run, out, resume=True, progress=False).bundle


@pytest.fixture(scope="module")
def base(data, tmp_path_factory) -> Path:
    """A policy with a FAST tokenizer of its own."""
    folder = tmp_path_factory.mktemp("base")
    return save_bundle(start(config(data / "toy"), folder / "run"), folder / "policy")


@pytest.fixture(scope="module")
def bins(data, tmp_path_factory) -> Path:
    """A folder with another action tokenizer."""
    folder = tmp_path_factory.mktemp("bins")
    run = config(data / "toy", data={"action_tokenizer": "bins"})
    save_bundle(start(run, folder / "run"), folder / "policy")
    return folder / "policy" / "action_tokenizer"


OVERRIDDEN = {
    "robot": ({"robot": "pusht"}, r"no statistics of robot 'pusht': .* \(known here: homes\)"),
    "model.action_horizon": (
        {"model": pi05("debug", max_tokens=80, action_horizon=4)},
        "another shape than .* model.action_horizon is 6, not 4",
    ),
    "model.prompt": ({"model": pi05("debug", max_tokens=80, prompt="pi0")}, "model.prompt is subtask, not pi0"),
    "data.loc_stride": ({"data": {"loc_stride": 32}}, "set data.loc_stride=64"),
    "data.stats_per": ({"data": {"stats_per": "mixture"}}, "data.stats_per=mixture has no effect"),
    "data.action_tokenizer": ({"data": {"action_tokenizer": "vq"}}, "written by 'fast', this run asks for 'vq'"),
    "data.fast_scale": ({"data": {"fast_scale": 20.0}}, "has scale 10, this run asks for 20"),
}


@pytest.mark.parametrize("setting", OVERRIDDEN)
def test_a_setting_that_a_checkpoint_would_override_is_refused(setting, data, base, tmp_path):
    change, message = OVERRIDDEN[setting]
    run = changed(config(data / "toy"), init_from=InitFrom(str(base)))
    named = tuple(replace(source, robot="homes") for source in run.data.sources)
    with pytest.raises(ValueError, match=message):
        start(changed(changed(run, data={"sources": named}), **change), tmp_path)


@pytest.mark.parametrize("setting", ["data.action_tokenizer", "data.fast_scale"])
def test_so_is_one_that_weights_and_tokenizers_would_override(setting, data, base, tmp_path):
    change, message = OVERRIDDEN[setting]
    run = changed(config(data / "toy"), init_from=InitFrom(str(base), kind="weights"))
    with pytest.raises(ValueError, match=message):
        start(changed(run, **change), tmp_path)


def test_a_folder_of_a_tokenizer_must_be_the_checkpoint_s(data, base, bins, tmp_path):
    run = changed(config(data / "toy"), init_from=InitFrom(str(base)))
    own = changed(run, data={"action_tokenizer": str(base / "action_tokenizer")})
    assert start(own, tmp_path / "own").action_tokenizer is not None
    with pytest.raises(ValueError, match=r"has an action tokenizer of its own \(fast\), which is not the one in"):
        start(changed(run, data={"action_tokenizer": str(bins)}), tmp_path / "other")


def test_what_weights_leave_to_the_run_is_the_run_s(data, base, tmp_path):
    change = {"loc_stride": 32, "stats_per": "mixture"}
    run = changed(config(data / "toy"), init_from=InitFrom(str(base), kind="weights"), data=change)
    bundle = start(run, tmp_path)
    assert bundle.loc_stride == 32 and bundle.robot == load_robot("homes")


@pytest.mark.parametrize("kind", ["checkpoint", "weights"])
@pytest.mark.parametrize("fresh", [(), ("expert",)])
def test_weights_in_bf16_are_trained_in_fp32(kind, fresh, data, base, tmp_path):
    half = load_bundle(base)
    half.model.to(torch.bfloat16)
    save_bundle(half, tmp_path / "half")
    run = changed(config(data / "toy"), init_from=InitFrom(str(tmp_path / "half"), kind=kind, fresh=fresh))
    assert {weight.dtype for weight in start(run, tmp_path / "run").model.parameters()} == {torch.float32}


def test_actions_are_fitted_where_a_checkpoint_has_no_tokenizer_of_them(data, base, tmp_path):
    """Without one, no row would have FAST tokens and nothing would say so."""
    save_bundle(replace(load_bundle(base), action_tokenizer=None), tmp_path / "mute")
    run = changed(config(data / "toy"), init_from=InitFrom(str(tmp_path / "mute")))
    assert isinstance(start(run, tmp_path / "fast").action_tokenizer, FastTokenizer)
    assert start(changed(run, objective={"fast_weight": 0.0}), tmp_path / "flow").action_tokenizer is None


def test_a_run_s_own_settings_of_how_a_model_learns_are_taken(data, base, tmp_path):
    run = config(data / "toy")
    model = replace(run.model, insulate=not run.model.insulate, rtc_max_delay=2)
    assert start(changed(run, init_from=InitFrom(str(base)), model=model), tmp_path).model.config == model


def test_parts_that_start_from_nothing_need_a_checkpoint(data, tmp_path):
    run = changed(config(data / "toy"), init_from=InitFrom("paligemma", kind="paligemma", fresh=("expert",)))
    with pytest.raises(ValueError, match=r"init_from\.fresh is for the parts of a checkpoint"):
        start(run, tmp_path)
