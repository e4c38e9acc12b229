"""Every entry of `datasets/` keeps the contract of data sets, has a folder of its own, and agrees with the run that
makes it."""

import dataclasses
import re
from pathlib import Path

import pytest

from pilot.cli import main
from pilot.contracts import dataset as contract
from pilot.datasets import Dataset, all_datasets, load_dataset

ROOT = Path(__file__).parents[2]
DATASETS = all_datasets()


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", DATASETS)
def test_dataset(name, check):
    check(load_dataset(name))


@pytest.fixture(params=DATASETS)
def dataset(request) -> Dataset:
    return load_dataset(request.param)


def collected() -> dict[str, dict]:
    """The arguments that `runs/*.sh` collect with, by folder."""
    scripts = [path.read_text() for path in (ROOT / "runs").glob("*.sh")]
    lines = [line for script in scripts for line in re.findall(r"\$pilot (collect .+)", script)]
    parsed = [vars(main.build_parser().parse_args(line.split())) for line in lines]
    return {str(arguments["out"].relative_to("data")): arguments for arguments in parsed}


def test_no_two_share_a_folder():
    paths = [dataset.path for dataset in DATASETS.values()]
    assert len(set(paths)) == len(paths)


def test_no_two_share_a_home():
    made = [d.collect for d in DATASETS.values() if d.collect]
    scenes = [scene for c in made for scene in range(c["first_scene"], c["first_scene"] + c["scenes"])]
    assert len(set(scenes)) == len(scenes)


def test_the_run_collects_what_the_entry_says(dataset):
    arguments = collected().get(dataset.path)
    if not dataset.collect or arguments is None:
        pytest.skip("made elsewhere")
    names = {"episodes_per_scene": "episodes", "rows": "web"}
    differ = {k: (v, arguments[names.get(k, k)]) for k, v in dataset.collect.items() if arguments[names.get(k, k)] != v}
    assert not differ, f"entry and run: {differ}"


def test_cameras_that_the_robot_lacks_are_named():
    bridge = load_dataset("bridge")
    layout = dataclasses.replace(bridge.layout, cameras={"periscope": "observation/image"})
    with pytest.raises(ValueError, match="periscope"):
        contract.check_layout(dataclasses.replace(bridge, layout=layout))


def test_an_unknown_name_suggests_the_nearest():
    name = next(iter(DATASETS))
    with pytest.raises(ValueError, match=f"did you mean '{name}'"):
        load_dataset(name + "x")
