"""One checkpoint for many robots: what it holds of each, on disk and in memory, and what cannot be one checkpoint."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pilot.contracts import examples
from pilot.models.build import build_model
from pilot.models.bundle import Bundle, load_bundle, save_bundle
from pilot.models.pi import Pi, pi0_small, pi05
from pilot.models.trained_robots import TrainedRobot, by_name
from pilot.robots import load_robot
from pilot.robots.homes import ROBOT as HOMES
from pilot.tokenizers.text import TextTokenizer
from pilot.types import Robot

ARM = replace(examples.ARM, name="arm", control_mode="end_effector")
DISC = load_robot("pusht")


def bundle(*robots: Robot, config=None) -> Bundle:
    config = config or pi05("debug", max_tokens=80)
    trained = [TrainedRobot(robot=robot, norm_stats=examples.make_norm_stats(robot)) for robot in robots]
    model = build_model(config) if not hasattr(config, "vlm") else Pi(config)
    model.initialize(torch.Generator().manual_seed(0))
    return Bundle(model=model, robots=by_name(trained), text=TextTokenizer(), action_tokenizer=None)


@pytest.fixture
def folder(tmp_path) -> Path:
    return save_bundle(bundle(ARM, DISC, HOMES), tmp_path / "toy")


def test_every_robot_comes_back_with_its_own_statistics(folder):
    written, again = bundle(ARM, DISC, HOMES), load_bundle(folder)
    assert list(again.robots) == ["arm", "pusht", "homes"]
    for name, trained in again.robots.items():
        assert trained.robot == written.robots[name].robot
        for part, stats in written.robots[name].norm_stats.items():
            np.testing.assert_array_equal(trained.norm_stats[part].q99, stats.q99)
    assert again.robots["arm"].robot.control_mode == "end_effector"
    assert not (folder / "norm_stats.json").exists(), "whose would they be?"


def test_a_checkpoint_of_one_robot_is_written_as_it_always_was(tmp_path):
    robot = replace(HOMES, limits=None)  # of before robots declared them
    folder = save_bundle(bundle(robot), tmp_path / "toy")
    config = json.loads((folder / "config.json").read_text())
    assert "robots" not in config and not {"control_mode", "limits"} & set(config["robot"])
    assert (folder / "norm_stats.json").is_file() and not (folder / "robots").exists()
    again = load_bundle(folder)
    assert list(again.robots) == ["homes"] and again.robot == robot and again.norm_stats.keys() == {"state", "actions"}


def test_a_robot_is_named_where_there_are_several(folder):
    again = load_bundle(folder, weights=False)
    for ask in (lambda: again.robot, lambda: again.norm_stats, again.pipeline, again.find_robot):
        with pytest.raises(ValueError, match=r"for robots arm, pusht, homes; name one: robot='arm'"):
            ask()
    assert again.pipeline("pusht").robot == DISC
    assert again.select_robot("homes").robot == HOMES
    with pytest.raises(
        ValueError, match=r"not trained on robot 'push'; did you mean 'pusht'\?.* statistics \(pilot data"
    ):
        again.find_robot("push")


@pytest.mark.usefixtures("no_manifests")
def test_statistics_that_are_missing_are_named(folder):
    (folder / "robots/pusht/norm_stats.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"it has no robots/pusht/norm_stats\.json"):
        load_bundle(folder)


@pytest.mark.usefixtures("no_manifests")
def test_robots_that_are_damaged_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    twice = config | {"robots": [config["robots"][0]] * 2}
    odd = config | {"robots": [config["robots"][0] | {"control_mode": "telepathy"}]}
    for values, message in ((twice, r"names the robots \['arm', 'arm'\]"), (odd, "control mode 'telepathy'")):
        (folder / "config.json").write_text(json.dumps(values))
        with pytest.raises(ValueError, match=message):
            load_bundle(folder)


TOGETHER = {
    "show their cameras in different orders": replace(ARM, name="other", cameras=("wrist", "room")),
    r"camera 'room' of robot 'other' is \d+ pixels wide": replace(ARM, name="other", wrist_cameras=("room", "wrist")),
    "robot 'a/b': the name of one of several": replace(ARM, name="a/b"),
    "robot 'other' has 9 state dims, the model's action_dim is 8": replace(
        ARM, name="other", state_names=tuple("abcdefghi"), grippers=()
    ),
}


@pytest.mark.parametrize("message", TOGETHER)
def test_what_cannot_be_in_one_batch_is_refused(message):
    with pytest.raises(ValueError, match=message):
        bundle(ARM, TOGETHER[message], config=pi05("nano", max_tokens=80))


def test_robots_need_the_towers_of_their_cameras():
    with pytest.raises(ValueError, match=r"robot 'pusht' shows cameras \['base_0_rgb'\]"):
        bundle(ARM, DISC, config=pi0_small("debug"))


def test_a_bundle_without_robots_is_refused():
    with pytest.raises(ValueError, match="needs a robot"):
        bundle()


@pytest.mark.parametrize("mode", ["", "joint", "end_effector"])
def test_the_control_mode_is_said_to_the_model(mode):
    robot = replace(ARM, control_mode=mode)
    pipeline = bundle(robot, config=pi05("debug", max_tokens=120)).pipeline()
    row = pipeline.encode(examples.make_sample(robot, horizon=6), with_fast=False)
    text = pipeline.text.decode(row.tokens)
    said = f" <control mode> {mode.replace('_', ' ')} <control mode>" if mode else ""
    assert text.startswith(f"Task: put the red cup in the sink{said}, State: ")
