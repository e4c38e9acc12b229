"""Sets that pilot writes go through LeRobot's own tools and come back: merged, split, and with episodes deleted.

Not part of the test suite: `make test-lerobot` installs LeRobot in an environment of its own, and runs this.
"""

import importlib.util
import json
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is asked of the network

import numpy as np
import pyarrow.parquet as pq
import pytest
from data.recordings import ROBOT, episode, number_of, numbered
from lerobot.datasets.aggregate import aggregate_datasets
from lerobot.datasets.dataset_tools import delete_episodes, split_dataset
from lerobot.datasets.lerobot_dataset import LeRobotDataset as TheirDataset

from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.lerobot import LeRobotDataset
from pilot.data.formats.writer import LeRobotWriter

LENGTHS = ((5, 8, 6), (7, 4))  # of the episodes of two sets


@pytest.fixture(params=["image", "video"])
def sets(request, tmp_path) -> list[Path]:
    """Two sets whose frames are numbered through both, in the picture of the room and in the state."""
    rng, start, paths = np.random.default_rng(0), 0, []
    for number, lengths in enumerate(LENGTHS):
        paths.append(tmp_path / f"set{number}")
        with LeRobotWriter(paths[-1], ROBOT, 10, image_format=request.param) as writer:
            for task, length in enumerate(lengths):
                frames = episode(rng, length)
                # SVT-AV1, with which LeRobot cuts videos, crashes on pictures of less than 64 pixels.
                frames[fmt.IMAGES + "room"] = numbered(length, start, height=64)
                frames[fmt.IMAGES + "wrist"] = np.full((length, 64, 64, 3), 90, np.uint8)
                frames[fmt.STATE][:, 0] = np.arange(start, start + length)
                writer.add_episode(frames, task=f"task {number} {task % 2}")
                start += length
        if importlib.util.find_spec("lerobot.datasets.language") is None:
            leave_out_language(paths[-1])
    return paths


def leave_out_language(path: Path) -> None:
    """Take the columns of texts out of a set, for a LeRobot that is older than they are (0.4)."""
    info = json.loads((path / fmt.INFO).read_text())
    texts = [name for name, spec in info["features"].items() if spec["dtype"] == "language"]
    info["features"] = {name: spec for name, spec in info["features"].items() if name not in texts}
    (path / fmt.INFO).write_text(json.dumps(info))
    for file in path.glob("data/*/*.parquet"):
        table = pq.read_table(file)
        pq.write_table(table.drop_columns([name for name in texts if name in table.column_names]), file)
    (path / "manifest.json").unlink()


def expected(*episodes: int) -> list[tuple[str, list[int]]]:
    """The task of each of these episodes, counted through both sets, and the numbers of its frames."""
    tasks = [f"task {number} {task % 2}" for number, lengths in enumerate(LENGTHS) for task in range(len(lengths))]
    ends = np.cumsum([length for lengths in LENGTHS for length in lengths]).tolist()
    return [(tasks[i], list(range(ends[i - 1] if i else 0, ends[i]))) for i in episodes]


def read(path: Path) -> list[tuple[str, list[int]]]:
    """Read a set with pilot, and see that pictures and states tell of the same frame."""
    dataset, found = LeRobotDataset(path, 3), []
    for i in range(len(dataset)):
        frame = dataset.frame(i)
        assert number_of(frame["images"]["room"]) == frame["state"][0], (path, i)
        assert frame["images"]["wrist"].shape == (64, 64, 3) and frame["actions"].shape == (3, 2)
        if frame["frame_index"] == 0:
            found.append((frame["task"], []))
        found[-1][1].append(int(frame["state"][0]))
    return found


def test_sets_that_lerobot_merged_are_read(sets, tmp_path):
    aggregate_datasets(["me/a", "me/b"], "me/all", roots=sets, aggr_root=tmp_path / "all")
    assert read(tmp_path / "all") == expected(0, 1, 2, 3, 4)
    boxes = [LeRobotDataset(path, 3).frame(1)["box"] for path in (sets[0], tmp_path / "all")]
    np.testing.assert_array_equal(*boxes)


def test_a_set_that_lerobot_split_is_read(sets, tmp_path):
    parts = split_dataset(
        TheirDataset("me/a", root=sets[0]), {"train": [0, 2], "val": [1]}, output_dir=tmp_path / "parts"
    )
    assert read(parts["train"].root) == expected(0, 2) and read(parts["val"].root) == expected(1)


def test_a_set_from_which_lerobot_deleted_episodes_is_read(sets, tmp_path):
    left = delete_episodes(TheirDataset("me/a", root=sets[0]), [1], output_dir=tmp_path / "left", repo_id="me/left")
    assert read(left.root) == expected(0, 2)


def test_what_was_merged_is_split_again(sets, tmp_path):
    aggregate_datasets(["me/a", "me/b"], "me/all", roots=sets, aggr_root=tmp_path / "all")
    whole = TheirDataset("me/all", root=tmp_path / "all")
    parts = split_dataset(whole, {"one": [4, 1], "other": [0, 2, 3]}, output_dir=tmp_path / "parts")
    assert read(parts["one"].root) == expected(1, 4) and read(parts["other"].root) == expected(0, 2, 3)
