"""Orbax folders: written and read without JAX, in the trees that openpi writes; damage is named."""

import json

import pytest
import torch

from pilot.convert.orbax import OrbaxSource, write_orbax

ARRAYS = {
    "llm/layers/w": torch.arange(24.0).reshape(2, 3, 4),
    "llm/scale": torch.randn(5, generator=torch.Generator().manual_seed(0)).bfloat16(),
    "zeros/bias": torch.zeros(3),
}


def test_arrays_come_back_as_they_were(tmp_path):
    write_orbax(tmp_path / "params", ARRAYS.items())
    for path in (tmp_path, tmp_path / "params"):
        source = OrbaxSource(path)
        assert sorted(source.keys()) == sorted(ARRAYS)
        for name, array in ARRAYS.items():
            read = source.read(name)
            assert (source.shape(name), source.dtype(name)) == (tuple(array.shape), array.dtype)
            assert read.dtype == array.dtype and torch.equal(read, array)


def test_a_level_below_every_leaf_is_left_out(tmp_path):
    write_orbax(tmp_path, [(f"{name}/value", array) for name, array in ARRAYS.items()])
    assert sorted(OrbaxSource(tmp_path).keys()) == sorted(ARRAYS)
    write_orbax(tmp_path, [("a/value", torch.ones(1)), ("b", torch.ones(1))])
    assert sorted(OrbaxSource(tmp_path).keys()) == ["a/value", "b"]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    write_orbax(tmp_path / "params", ARRAYS.items())
    write_orbax(tmp_path / "params", [("other", torch.ones(2))])
    assert OrbaxSource(tmp_path).keys() == ["other"]

    def broken():
        yield "first", torch.ones(1)
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_orbax(tmp_path / "params", broken())
    assert OrbaxSource(tmp_path).keys() == ["other"]
    assert [path.name for path in tmp_path.iterdir()] == ["params"]


def test_what_is_damaged_or_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no orbax folder"):
        OrbaxSource(tmp_path)
    write_orbax(tmp_path, ARRAYS.items())
    tree = json.loads((tmp_path / "_METADATA").read_text())
    leaf = tree["tree_metadata"].pop("('params', 'zeros', 'bias')")
    leaf["key_metadata"][2]["key"] = "gone"
    tree["tree_metadata"]["gone"] = leaf
    (tmp_path / "_METADATA").write_text(json.dumps(tree))
    with pytest.raises(ValueError, match=r"no readable array params\.zeros\.gone"):
        OrbaxSource(tmp_path)
    (tmp_path / "_METADATA").write_text(json.dumps(tree | {"use_zarr3": True}))
    with pytest.raises(ValueError, match="zarr 3"):
        OrbaxSource(tmp_path)
    (tmp_path / "manifest.ocdbt").unlink()
    with pytest.raises(ValueError, match=r"no manifest\.ocdbt"):
        OrbaxSource(tmp_path)


def test_lost_bytes_are_an_error(tmp_path):
    noise = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    write_orbax(tmp_path, [("w", noise)])
    largest = max((path for path in tmp_path.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:1000])
    with pytest.raises(ValueError, match="fetch the checkpoint again"):
        OrbaxSource(tmp_path).read("w")
