"""The index of a checkpoint is a pickle; nothing that a stranger put into it is run."""

import os
import pickle

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

from pilot.train.checkpoint_index import INDEX, IndexReader, read_index


@pytest.fixture
def folder(tmp_path):
    tensors = {"weight": torch.arange(6.0).reshape(2, 3), "half": torch.ones(2, dtype=torch.bfloat16)}
    dcp.save(tensors, checkpoint_id=tmp_path / "000001", no_dist=True)
    return tmp_path / "000001"


def test_what_a_run_wrote_is_read(folder):
    index = read_index(folder)
    assert set(index.state_dict_metadata) == {"weight", "half"}
    into = {"weight": torch.zeros(2, 3), "half": torch.zeros(2, dtype=torch.bfloat16)}
    dcp.load(into, storage_reader=IndexReader(folder), no_dist=True)
    assert into["weight"].tolist() == [[0, 1, 2], [3, 4, 5]] and into["half"].tolist() == [1, 1]


def test_a_checkpoint_of_another_python_is_read(folder):
    """Python 3.13 writes its paths as of another module."""
    written = pickle.dumps(read_index(folder), protocol=2)
    assert b"cpathlib" in written
    (folder / INDEX).write_bytes(written.replace(b"cpathlib\n", b"cpathlib._local\n"))
    assert set(read_index(folder).state_dict_metadata) == {"weight", "half"}


class Attack:
    def __reduce__(self):
        return os.system, ("echo attacked > $PILOT_TEST_ATTACK",)


class Torch:
    """What torch itself offers to an attacker."""

    def __reduce__(self):
        return torch.load, ("somewhere",)


@pytest.mark.parametrize("attack", [Attack(), Torch(), {"weight": Attack()}])
def test_nothing_in_it_is_run(folder, tmp_path, monkeypatch, attack):
    monkeypatch.setenv("PILOT_TEST_ATTACK", str(tmp_path / "attacked"))
    (folder / INDEX).write_bytes(pickle.dumps(attack))
    with pytest.raises(ValueError, match=r"the index names .*\.(system|load), which no index is made of"):
        read_index(folder)
    with pytest.raises(CheckpointException, match="CheckpointException"):
        dcp.load({"weight": torch.zeros(2, 3)}, storage_reader=IndexReader(folder), no_dist=True)
    assert not (tmp_path / "attacked").exists()


def test_entries_that_torch_would_unpickle_are_refused(tmp_path):
    dcp.save({"weight": torch.zeros(2), "step": {1, 2}}, checkpoint_id=tmp_path / "1", no_dist=True)
    with pytest.raises(ValueError, match="'step' is no tensor"):
        read_index(tmp_path / "1")


def test_what_is_no_index_is_named(folder):
    (folder / INDEX).write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match="holds a dict, no index"):
        read_index(folder)


def test_the_files_that_it_names_lie_beside_it(folder):
    with (folder / INDEX).open("rb") as file:
        index = pickle.load(file)
    for info in index.storage_data.values():
        object.__setattr__(info, "relative_path", "../elsewhere")
    (folder / INDEX).write_bytes(pickle.dumps(index))
    with pytest.raises(ValueError, match=r"names the file '\.\./elsewhere', which is not beside it"):
        read_index(folder)
