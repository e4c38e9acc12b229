"""Where a run starts from: PaliGemma's weights, or a checkpoint that lies elsewhere."""

import shutil
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from convert.lerobot_files import CONFIGS, model
from pilot.contracts import examples
from pilot.convert import openpi_jax
from pilot.convert.keymap import export_arrays
from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.writer import LeRobotWriter
from pilot.infer.policy import load_policy
from pilot.models.bundle import Bundle, load_bundle, save_bundle
from pilot.models.pi import Pi, PiConfig, pi0, pi05
from pilot.models.trained_robots import one_robot
from pilot.robots import load_robot
from pilot.robots.homes import ROBOT
from pilot.tokenizers.text import NANO_MODEL, TextTokenizer
from pilot.train.config import DataConfig, InitFrom, ObjectiveConfig, Source, TrainConfig
from pilot.train.embodiments import update_description
from pilot.train.setup import prepare
from pilot.types import Robot
from train.toy import changed

BASE = CONFIGS["pi0_fast"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path, rng = tmp_path_factory.mktemp("data") / "toy", np.random.default_rng(0)
    with LeRobotWriter(path, ROBOT, ROBOT.control_hz) as writer:
        pictures = rng.integers(0, 256, (2, 24, 16, 16, 3), dtype=np.uint8)
        frames = {
            fmt.STATE: rng.normal(size=(24, 5)).astype(np.float32),
            fmt.ACTION: rng.normal(size=(24, 4)).astype(np.float32),
            fmt.IMAGES + "room": pictures[0],
            fmt.IMAGES + "wrist": pictures[1],
        }
        writer.add_episode(frames, task="put the red cup in the sink")
    return path


@pytest.fixture(scope="module")
def paligemma(tmp_path_factory) -> tuple[Path, Pi]:
    """An npz as published, its text model beside it."""
    folder, base = tmp_path_factory.mktemp("paligemma"), model(BASE)
    arrays = export_arrays(openpi_jax.key_map(BASE), base.state_dict(), dtype=torch.float32)
    np.savez(folder / "pt.npz", **{key.replace("PaliGemma/", "params/"): array.numpy() for key, array in arrays})
    shutil.copy(NANO_MODEL, folder / "paligemma_tokenizer.model")
    return folder, base


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """`memory://…` of whatever folder is put there."""
    monkeypatch.setenv("PILOT_CACHE", str(tmp_path / "cache"))
    store = fsspec.filesystem("memory")

    def put(folder: Path) -> str:
        for file in folder.iterdir():
            store.pipe(f"/bucket/{folder.name}/{file.name}", file.read_bytes())
        return f"memory://bucket/{folder.name}"

    yield put
    store.store.clear()


def config(data: Path, **changes: object) -> TrainConfig:
    base = TrainConfig(
        name="toy", model=pi05("debug", max_tokens=80), robot="homes", steps=1, batch_size=2,
        data=DataConfig(sources=(Source(path=str(data)),), frame_cache=False),
        objective=ObjectiveConfig(text_weight=0.0),
    )  # fmt: skip
    return changed(base, **changes)


def start(config: TrainConfig, out: Path) -> Bundle:
    return prepare(config, out, resume=True, progress=False).bundle


@pytest.mark.filterwarnings("ignore:constant dims", "ignore:rarely moving")
def test_a_run_starts_from_paligemma(data, paligemma, tmp_path, stored):
    folder, base = paligemma
    for i, path in enumerate((folder, stored(folder))):
        bundle = start(config(data, init_from=InitFrom(str(path), kind="paligemma")), tmp_path / str(i))
        assert torch.equal(bundle.model.embedding.weight, base.embedding.weight)
        assert torch.equal(bundle.model.vlm.blocks[1].down.weight, base.vlm.blocks[1].down.weight)
        assert bundle.model.action_in.weight.any() and not bundle.model.action_in.bias.any()
        assert bundle.text.path.name == "paligemma_tokenizer.model"


def test_a_run_says_what_paligemma_lacks(data, paligemma, tmp_path):
    (tmp_path / "base").mkdir()
    shutil.copy(paligemma[0] / "pt.npz", tmp_path / "base")
    with pytest.raises(FileNotFoundError, match="put PaliGemma's beside its weights"):
        start(config(data, init_from=InitFrom(f"{tmp_path}/base", kind="paligemma")), tmp_path / "out")
    with pytest.raises(ValueError, match=r"vision\.depth is 1 in the weights and 2 in the config"):
        start(
            config(data, init_from=InitFrom(str(paligemma[0]), kind="paligemma"), model=pi05("nano")), tmp_path / "out"
        )


def test_a_run_and_a_policy_start_from_a_stored_checkpoint(data, tmp_path, stored):
    made = pi05("debug", max_tokens=80)
    bundle = Bundle(
        model=model(made),
        robots=one_robot(ROBOT, examples.make_norm_stats(ROBOT)),
        text=TextTokenizer(),
        action_tokenizer=None,
    )
    address = stored(save_bundle(bundle, tmp_path / "policy"))
    started = start(config(data, init_from=InitFrom(address)), tmp_path / "out")
    assert torch.equal(started.model.embedding.weight, bundle.model.embedding.weight)
    assert torch.equal(load_policy(address, device="cpu").model.embedding.weight, bundle.model.embedding.weight)


def require_pi(config: PiConfig, tmp_path: Path, *, robot: Robot = ROBOT) -> Path:
    bundle = Bundle(
        model=model(config), robots=one_robot(robot, examples.make_norm_stats(robot)), text=TextTokenizer(),
        action_tokenizer=None,
    )  # fmt: skip
    return save_bundle(bundle, tmp_path / "base")


@pytest.mark.filterwarnings("ignore:constant dims", "ignore:rarely moving")
def test_a_start_takes_units_and_grippers_of_the_robots_file_which_may_be_newer(data, tmp_path):
    """The checkpoint is of before its robot declared them; what gives numbers their meaning stays as it was learned."""
    old = replace(ROBOT, state_units=(), action_units=(), grippers=(), delta_mask=(False,) * ROBOT.action_dim)
    made = pi05("debug", max_tokens=80)
    folder = require_pi(made, tmp_path, robot=old)
    bundle = start(config(data, init_from=InitFrom(str(folder)), model=made), tmp_path / "out")
    assert bundle.robot == replace(ROBOT, delta_mask=old.delta_mask)
    other = replace(ROBOT, action_names=("a", "b", "c", "d"), grippers=())
    assert update_description(other, ROBOT) == other, "another robot of that name"


@pytest.mark.filterwarnings("ignore:constant dims", "ignore:rarely moving")
def test_a_checkpoint_of_another_robot_is_added_to_or_lends_its_weights_alone(data, tmp_path):
    made = pi05("debug", max_tokens=80)
    folder = require_pi(made, tmp_path, robot=load_robot("pusht"))
    added = start(config(data, init_from=InitFrom(str(folder))), tmp_path / "whole")
    assert list(added.robots) == ["pusht", "homes"] and added.action_tokenizer is not None, "fitted: it had none"
    want = replace(made, action_horizon=3, prompt="pi05")
    bundle = start(config(data, init_from=InitFrom(str(folder), kind="weights"), model=want), tmp_path / "weights")
    assert bundle.robot == ROBOT and bundle.model.config == want
    assert torch.equal(bundle.model.action_in.weight, load_bundle(folder).model.action_in.weight)
    assert len(bundle.norm_stats["state"].mean) == ROBOT.state_dim and bundle.action_tokenizer is not None


@pytest.mark.filterwarnings("ignore:constant dims", "ignore:rarely moving")
def test_an_expert_starts_from_nothing_where_there_was_none_or_another(data, tmp_path):
    want = pi05("debug", max_tokens=80)
    for i, held in enumerate((replace(want, action_expert=None), pi0("debug", max_tokens=80), want)):
        folder = require_pi(held, tmp_path / str(i))
        run = config(data, init_from=InitFrom(str(folder), fresh=("expert",)), model=want, seed=7)
        own, base = start(run, tmp_path / f"out{i}").model, load_bundle(folder).model
        assert own.config == want
        assert torch.equal(own.vlm.blocks[1].qkv.weight, base.vlm.blocks[1].qkv.weight)
        assert own.action_out.weight.any() and not own.action_expert.final_norm.modulation.weight.any()
        if held is want:
            assert not torch.equal(own.action_in.weight, base.action_in.weight)
        again = start(run, tmp_path / f"again{i}").model
        assert torch.equal(own.action_in.weight, again.action_in.weight)


def test_weights_that_do_not_fit_are_named(data, tmp_path):
    folder = require_pi(replace(pi05("debug", max_tokens=80), action_expert=None), tmp_path)
    want = config(data, init_from=InitFrom(str(folder), kind="weights"))
    with pytest.raises(ValueError, match=r"do not fit the model that this run asks for: action_expert\..*in `fresh`"):
        start(want, tmp_path / "out")
    with pytest.raises(ValueError, match="fresh names 'experts', which the model has not; did you mean 'expert'"):
        start(changed(want, init_from={"fresh": ("experts",)}), tmp_path / "out")
