"""Some of the mutants of `make torture`: damaged files are refused in one line, or make no difference."""

import os
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from torture.mutants import (
    GOOD,
    JudgeProcess,
    Subject,
    act,
    edit_json,
    edit_weight,
    judge,
    make_subjects,
    mutants,
    read_set,
)


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
    return make_subjects(tmp_path_factory.mktemp("subjects"))


@pytest.fixture(scope="module")
def process():
    with closing(JudgeProcess()) as process:
        yield process


@pytest.mark.parametrize("number", [0, 1, 2], ids=["checkpoint", "pictures", "video"])
def test_no_mutant_acts_otherwise_in_silence(subjects, process, number):
    found = list(mutants(subjects[number], 14, seed=1, with_manifest=True, process=process))
    assert [one for one in found if one[1] not in GOOD] == []
    assert sum(outcome == "refused" for _, outcome, _ in found) >= 7


@pytest.mark.parametrize(("number", "seed"), [(0, 0), (1, 1), (2, 0)], ids=["checkpoint", "pictures", "video"])
def test_without_a_manifest_damage_is_refused_in_one_line_where_it_shows(subjects, process, number, seed):
    found = list(mutants(subjects[number], 42, seed=seed, with_manifest=False, process=process))
    assert [one for one in found if one[1] == "traceback"] == []
    assert sum(outcome == "refused" for _, outcome, _ in found) >= 12


def test_the_judge_can_find_fault(subjects, tmp_path):
    """Not every answer is the same to it, and not every error is one for people."""
    checkpoint = subjects[0]
    same = judge(checkpoint, checkpoint.folder, expected=act(checkpoint.folder))
    other = judge(checkpoint, checkpoint.folder, expected="something else")
    assert (same[0], other[0]) == ("harmless", "silent")

    def fail(folder: Path) -> str:
        raise KeyError("fps")

    assert judge(Subject("broken", tmp_path, fail), tmp_path, expected="")[0] == "traceback"
    assert read_set(subjects[1].folder) != read_set(subjects[2].folder)


def die(folder: Path) -> str:
    os.abort()


def test_a_mutant_that_ends_its_process_counts_as_an_error(subjects, process, tmp_path):
    pictures = subjects[1]
    assert process.judge(Subject("deadly", tmp_path, die), tmp_path, expected="") == ("traceback", "the process died")
    assert process.judge(pictures, pictures.folder, expected=read_set(pictures.folder)) == ("harmless", "")


def test_changes_change(subjects, tmp_path):
    checkpoint = subjects[0].folder
    for number, (name, change) in enumerate([("config.json", edit_json), ("model.safetensors", edit_weight)]):
        file = tmp_path / name
        file.write_bytes((checkpoint / name).read_bytes())
        change(file, np.random.default_rng(number))
        assert file.read_bytes() != (checkpoint / name).read_bytes()
