"""Checkpoints are whole or not there, and the last good one is named."""

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from pilot.train import checkpoint
from pilot.train.checkpoint import Checkpoints
from pilot.train.distributed import Ranks
from train.toy import read_all

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
TENSORS = {"model/w": torch.arange(60_000.0).view(300, 200), "optimizer/step/w": torch.tensor(3.0)}


@pytest.fixture
def kept(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path, ranks=Ranks())


@contextmanager
def small_disk(limit: int) -> Iterator[None]:
    """Within it no file may grow beyond `limit` bytes: the system refuses, as it does when a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def saved(kept: Checkpoints, *steps: int) -> None:
    for step in steps:
        kept.save(step, TENSORS, values={"drawn": {"toy": step}})
    kept.finish()


def test_what_is_saved_is_what_was_there_when_it_was_saved(kept):
    weight = torch.ones(300, 200)
    kept.save(1, {"w": weight}, values={"share": 0.1})
    weight.zero_()
    kept.finish()
    folder = checkpoint.last_checkpoint(kept.out)
    assert read_all(folder)["w"].eq(1).all()
    assert checkpoint.read_values(folder)["share"] == 0.1 and checkpoint.names_in(folder) == {"w"}


def test_the_last_stay_and_every_nth(tmp_path):
    kept = Checkpoints(tmp_path, ranks=Ranks(), keep=2, every=4)
    saved(kept, *range(1, 12))
    assert [int(folder.name) for folder in checkpoint.checkpoints(tmp_path)] == [4, 8, 10, 11]
    with pytest.raises(ValueError, match="keeps at least its last"):
        Checkpoints(tmp_path, ranks=Ranks(), keep=0)


def test_steps_are_in_the_order_of_numbers(kept):
    saved(kept, 999_999, 1_000_000)
    assert checkpoint.last_checkpoint(kept.out).name == "1000000"


def test_a_full_disk_leaves_the_last_good_checkpoint_and_names_it(kept):
    saved(kept, 1)
    with small_disk(100_000), pytest.raises(OSError, match=r"step 2: .*is the disk full\? .* is .*000001"):
        saved(kept, 2)
    assert os.listdir(kept.out / "checkpoints") == ["000001"]
    saved(kept, 2)
    assert torch.equal(read_all(kept.out / "checkpoints" / "000002")["model/w"], TENSORS["model/w"])


@pytest.mark.parametrize("damage", ["cut", "gone", "index", "values", "garbage"])
def test_a_damaged_checkpoint_is_said_with_the_one_to_go_on_from(kept, damage):
    saved(kept, 1, 2)
    folder = kept.out / "checkpoints" / "000002"
    data, index, values = next(folder.glob("*.distcp")), folder / ".metadata", folder / checkpoint.STATE
    if damage == "cut":
        data.write_bytes(data.read_bytes()[:-100])
    elif damage == "gone":
        data.unlink()
    elif damage == "index":
        index.write_bytes(b"x" * index.stat().st_size)
    elif damage == "values":
        values.write_text("{")
    else:
        data.write_bytes(b"x" * data.stat().st_size)
    with pytest.raises(ValueError, match=r"000002 is damaged .*; remove .*000002 to go on from .*000001"):
        read_all(folder)
    assert read_all(kept.out / "checkpoints" / "000001").keys() == TENSORS.keys()


def test_an_index_that_was_exchanged_is_not_read(kept):
    """It is a pickle: whoever can write one of the same length must not be believed."""
    saved(kept, 1)
    index = kept.out / "checkpoints" / "000001" / ".metadata"
    content = bytearray(index.read_bytes())
    content[len(content) // 2] ^= 1
    index.write_bytes(content)
    with pytest.raises(ValueError, match=r"000001 is damaged \(.metadata is not as it was written\)"):
        checkpoint.read_values(index.parent)


def test_the_only_checkpoint_damaged(kept):
    saved(kept, 1)
    (kept.out / "checkpoints" / "000001" / checkpoint.STATE).write_text(json.dumps({"files": {"lost": 3}}))
    with pytest.raises(ValueError, match="to start anew"):
        checkpoint.read_values(kept.out / "checkpoints" / "000001")


def test_a_tensor_that_is_not_there_is_said(kept):
    saved(kept, 1)
    with pytest.raises(ValueError, match=r"000001 has no model/other: .* start a new run from its policy"):
        checkpoint.read_tensors(kept.out / "checkpoints" / "000001", {"model/other": torch.zeros(3)})


def test_a_save_that_was_killed_is_no_checkpoint(kept):
    saved(kept, 1)
    (kept.out / "checkpoints" / ".000002.tmp").mkdir()
    assert checkpoint.last_checkpoint(kept.out).name == "000001"
    saved(kept, 2)
    assert checkpoint.last_checkpoint(kept.out).name == "000002"


def test_checkpoints_of_an_older_pilot_are_not_passed_over(tmp_path):
    (tmp_path / "checkpoints" / "000005").mkdir(parents=True)
    (tmp_path / "checkpoints" / "000005" / checkpoint.OLD_STATE).touch()
    with pytest.raises(ValueError, match=r"older pilot.*init_from=.*policy"):
        checkpoint.last_checkpoint(tmp_path)
