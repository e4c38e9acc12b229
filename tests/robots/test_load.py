"""Robots are found by the name of their file, by a path, or by an entry point; checkpoints carry them."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from pilot import robots
from pilot.robots import load_adapter, load_robot, read_openpi, robot_names
from pilot.types import Robot

ARM = """
from pilot.robots import load_robot
from dataclasses import replace
from pilot.types import Adapter

ROBOT = replace(load_robot("ur5"), name="{name}"{more})


def negate(values):
    return -values


def from_openpi(raw):
    return {{"images": {{}}, "state": raw["joints"], "prompt": None}}


ADAPTERS = {{"negative": Adapter(actions=negate, actions_inverse=negate)}}
"""


@pytest.fixture
def arm_file(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(robots, "_from_files", {})
    file = tmp_path / "arm_of_my_own.py"
    file.write_text(ARM.format(name="my_arm", more=", adapter='negative'"))
    yield file
    sys.modules.pop("arm_of_my_own", None)


def test_the_folder_is_the_list():
    assert "homes" in robot_names()
    assert load_robot("homes").action_names == ("x", "y", "z", "suction")


def test_an_unknown_robot_gets_the_nearest_name():
    with pytest.raises(ValueError, match="did you mean 'homes'"):
        load_robot("home")


def test_a_file_of_ones_own_is_a_robot_with_all_that_belongs_to_it(arm_file):
    robot = load_robot(str(arm_file))
    assert robot.name == "my_arm" and load_robot("my_arm") is robot and "my_arm" in robot_names()
    assert load_adapter(robot).actions(np.ones(2)).tolist() == [-1, -1]
    assert read_openpi(robot, {"joints": 3})["state"] == 3


def test_a_checkpoints_robot_needs_its_file_only_for_an_adapter(arm_file, monkeypatch):
    carried = Robot.from_dict(json.loads(json.dumps(dataclasses.asdict(load_robot(str(arm_file))))))
    monkeypatch.setattr(robots, "_from_files", {})
    assert load_adapter(dataclasses.replace(carried, adapter="")).actions(np.ones(1)).tolist() == [1]
    with pytest.raises(ValueError, match=r"needs the adapter 'negative' of its file.*entry point"):
        load_adapter(carried)


def test_a_name_that_is_taken_is_refused(tmp_path, arm_file):
    arm_file.write_text(ARM.format(name="ur5", more=", control_hz=3.0"))
    with pytest.raises(ValueError, match="another robot is called 'ur5'"):
        load_robot(str(arm_file))
