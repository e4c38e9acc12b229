"""The policies that ship act as they were recorded, and say what they are."""

import json
from pathlib import Path

import pytest

import pilot
from pilot.robots import load_robot

SHIPPED = sorted(path.parent for path in (Path(__file__).parents[1] / "checkpoints").glob("*/config.json"))


@pytest.fixture(scope="module", params=SHIPPED, ids=lambda folder: folder.name)
def folder(request):
    return request.param


def test_it_acts_as_it_was_recorded_and_its_card_names_its_robots(folder):
    policy = pilot.load_policy(folder, verify=True)
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n") and "**Limits.**" in card and "runs/" in card
    for robot in policy.robots:
        assert f"`{robot}`" in card
        assert load_robot(robot).action_dim == policy.session(robot=robot).robot.action_dim


def test_its_training_is_kept(folder):
    stages = sorted((folder / "training").iterdir())
    assert stages
    for stage in stages:
        assert "seed" in json.loads((stage / "config.json").read_text())
        assert (stage / "metrics.jsonl").read_text().count("\n") > 10


def test_it_is_small_enough_for_git(folder):
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 40e6
