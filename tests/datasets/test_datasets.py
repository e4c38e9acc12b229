"""Catalogue entries name robots that exist, and arguments that the collectors take; their homes are apart."""

import inspect
import sys
from itertools import pairwise

import pytest

from pilot.datasets import all_datasets, layouts_from, load_dataset
from pilot.robots import load_robot


@pytest.mark.parametrize("name", all_datasets())
def test_entries_fit_together(name):
    from pilot.eval.suites import load_suite
    from pilot.sims.collect import collect, collect_web

    dataset = load_dataset(name)
    assert dataset.robot in load_robot(dataset.robot).name
    if dataset.collect:
        maker = collect if dataset.reader == "robot" else collect_web
        inspect.signature(maker).bind("out", **dataset.collect)
        assert load_suite(dataset.collect["suite"]).robot.name == dataset.robot


def test_homes_are_in_one_set_only():
    spans = sorted((d.collect["first_scene"], d.collect["scenes"]) for d in all_datasets().values() if d.collect)
    assert all(first + homes <= following for (first, homes), (following, _) in pairwise(spans))


def test_unknown_names_get_a_suggestion(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'homes-l2-multi'"):
        load_dataset("homes-l2-mult")
    assert load_dataset("homes-l2").at(tmp_path) == tmp_path / "nano/l2_single"


def test_a_file_of_ones_own_describes_an_rlds_set(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    file = tmp_path / "kitchen_sets.py"
    file.write_text(
        "from dataclasses import replace\nfrom pilot.datasets.bridge import DATASETS as BRIDGE\n"
        "DATASETS = tuple(replace(entry, name='kitchen') for entry in BRIDGE[:1])\nNUMBER = 3\n"
    )
    assert layouts_from(str(file))("kitchen").fps == 5.0
    assert layouts_from(None)("bridge") is load_dataset("bridge").layout
    with pytest.raises(ValueError, match=r"no entry describes the RLDS set 'bridge', known are \['kitchen'\]"):
        layouts_from(str(file))("bridge")
    with pytest.raises(ValueError, match="should be a tuple of Dataset, got 3"):
        layouts_from(f"{file}:NUMBER")
    sys.modules.pop("kitchen_sets")
