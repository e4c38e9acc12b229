"""One table in both directions: every array used once, or named; bits kept; one array in memory at a time."""

import weakref

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pilot.convert.keymap import Entry, KeyMap, Slice, export_arrays, load_tensors
from pilot.convert.tensor_files import NpzSource, SafetensorsSource, write_safetensors

LAYERS, WIDTH, HEADS, HEAD_DIM, VOCAB = 2, 4, 3, 2, 5
TABLE = KeyMap(
    entries=(
        Entry("embedding", (Slice("table", (VOCAB, WIDTH)),)),
        Entry("patch", (Slice("conv", (2, 3, WIDTH), axes=(2, 0, 1)),)),
        *(
            Entry(
                f"{layer}.qkv",
                (
                    Slice("q", (HEADS, WIDTH, HEAD_DIM), axes=(0, 2, 1), index=(layer,)),
                    Slice("kv", (1, WIDTH, HEAD_DIM), axes=(0, 2, 1), index=(layer, 0)),
                    Slice("kv", (1, WIDTH, HEAD_DIM), axes=(0, 2, 1), index=(layer, 1)),
                ),
            )
            for layer in range(LAYERS)
        ),
    ),
    aliases={"head": "table"},
    unused={"old_head": (VOCAB, 3)},
)


def foreign() -> dict[str, Tensor]:
    torch.manual_seed(0)
    shapes = {"table": (VOCAB, WIDTH), "conv": (2, 3, WIDTH)}
    shapes |= {"q": (LAYERS, HEADS, WIDTH, HEAD_DIM), "kv": (LAYERS, 2, 1, WIDTH, HEAD_DIM)}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def empty() -> dict[str, Tensor]:
    rows = {"embedding": (VOCAB, WIDTH), "patch": (WIDTH, 6)}
    rows |= {f"{layer}.qkv": ((HEADS + 2) * HEAD_DIM, WIDTH) for layer in range(LAYERS)}
    return {name: torch.full(shape, torch.nan) for name, shape in rows.items()}


def loaded(path, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    save_file(arrays, path / "model.safetensors")
    target = empty()
    load_tensors(TABLE, SafetensorsSource(path), target)
    return target


def test_parts_stand_where_the_table_says(tmp_path):
    arrays = foreign()
    target = loaded(tmp_path, arrays)
    assert torch.equal(target["embedding"], arrays["table"])
    assert torch.equal(target["patch"], arrays["conv"].reshape(6, WIDTH).T)
    for layer in range(LAYERS):
        qkv = target[f"{layer}.qkv"].unflatten(0, (HEADS + 2, HEAD_DIM))
        for head in range(HEADS):
            assert torch.equal(qkv[head], arrays["q"][layer, head].T)
        assert torch.equal(qkv[HEADS], arrays["kv"][layer, 0, 0].T)
        assert torch.equal(qkv[HEADS + 1], arrays["kv"][layer, 1, 0].T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_there_and_back_keeps_every_bit(tmp_path, dtype):
    arrays = {name: array.to(dtype) for name, array in foreign().items()}
    target = loaded(tmp_path, arrays)
    back = dict(export_arrays(TABLE, target, dtype=dtype))
    assert torch.equal(back.pop("old_head"), torch.zeros(VOCAB, 3, dtype=dtype))
    assert back.keys() == arrays.keys()
    assert all(torch.equal(back[name], arrays[name]) and back[name].dtype == dtype for name in arrays)


def test_any_name_of_an_array_will_do_and_several_must_agree(tmp_path):
    arrays = foreign()
    under_alias = {"head" if name == "table" else name: array for name, array in arrays.items()}
    assert torch.equal(loaded(tmp_path, under_alias)["embedding"], arrays["table"])
    both = arrays | {"head": arrays["table"].clone()}
    assert torch.equal(loaded(tmp_path, both)["embedding"], arrays["table"])
    with pytest.raises(ValueError, match="head and table are names of one array, but differ"):
        loaded(tmp_path, arrays | {"head": arrays["table"] + 1})


def test_a_dead_array_may_be_there(tmp_path):
    assert torch.equal(
        loaded(tmp_path, foreign() | {"old_head": torch.ones(VOCAB, 3)})["patch"], loaded(tmp_path, foreign())["patch"]
    )


def test_all_that_does_not_fit_is_named_at_once_and_nothing_is_written(tmp_path):
    arrays = foreign()
    del arrays["q"]
    arrays |= {"extra": torch.zeros(1), "conv": torch.zeros(3, 2, WIDTH), "old_head": torch.zeros(1)}
    arrays["table"] = arrays["table"].to(torch.int32)
    save_file(arrays, tmp_path / "model.safetensors")
    target = empty()
    with pytest.raises(ValueError) as error:
        load_tensors(TABLE, SafetensorsSource(tmp_path), target)
    for problem in (
        "missing: q (2, 3, 4, 2)", "left over: extra (1,)", "wrong shape: conv is (3, 2, 4), not (2, 3, 4)",
        "wrong shape: old_head is (1,), not (5, 3)", "wrong dtype: table is torch.int32",
    ):  # fmt: skip
        assert problem in str(error.value)
    assert all(tensor.isnan().all() for tensor in target.values())


def test_a_table_that_uses_a_part_twice_or_not_at_all_is_refused():
    once, again = Slice("a", (2,), index=(0,)), Slice("a", (2,), index=(0,))
    with pytest.raises(AssertionError, match="not used once"):
        KeyMap(entries=(Entry("x", (once, again)),)).shapes()
    with pytest.raises(AssertionError, match="not used once"):
        KeyMap(entries=(Entry("x", (Slice("a", (2,), index=(1,)),)),)).shapes()


def shards(path, arrays: dict[str, Tensor]) -> dict[str, str]:
    where = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(arrays)}
    for file in set(where.values()):
        save_file({name: array for name, array in arrays.items() if where[name] == file}, path / file)
    return where


class OneAtATime(SafetensorsSource):
    """Refuses to read an array while an earlier one lives."""

    last: weakref.ref | None = None

    def read(self, key: str) -> Tensor:
        assert self.last is None or self.last() is None, f"an array is still held while {key} is read"
        array = super().read(key)
        self.last = weakref.ref(array)
        return array


def test_one_array_is_in_memory_at_a_time(tmp_path):
    save_file(foreign() | {"old_head": torch.ones(VOCAB, 3)}, tmp_path / "model.safetensors")
    source = OneAtATime(tmp_path)
    load_tensors(TABLE, source, empty())
    assert source.last is not None and source.last() is None


def write_index(path, where: dict[str, str]) -> None:
    (path / "model.safetensors.index.json").write_text(f'{{"weight_map": {where!r}}}'.replace("'", '"'))


def test_shards_are_one_checkpoint(tmp_path):
    arrays = foreign()
    write_index(tmp_path, shards(tmp_path, arrays))
    source, target = SafetensorsSource(tmp_path), empty()
    load_tensors(TABLE, source, target)
    assert torch.equal(target["0.qkv"], loaded(tmp_path, arrays)["0.qkv"])
    files = [source._shard[key] for key in source.keys()]  # noqa: SIM118
    assert files == sorted(files)  # each is opened once


def test_a_damaged_checkpoint_says_which_file(tmp_path):
    where = shards(tmp_path, foreign())
    write_index(tmp_path, where | {"table": "model-1.safetensors"})
    with pytest.raises(ValueError, match="disagree on where these are: table"):
        SafetensorsSource(tmp_path)
    write_index(tmp_path, where | {"table": "model-7.safetensors"})
    with pytest.raises(FileNotFoundError, match=r"model-7\.safetensors, which is not beside it"):
        SafetensorsSource(tmp_path)
    write_index(tmp_path, where)
    whole = (tmp_path / "model-1.safetensors").read_bytes()
    (tmp_path / "model-1.safetensors").write_bytes(whole[:-8])
    with pytest.raises(ValueError, match=r"model-1\.safetensors cannot be read .*truncated"):
        SafetensorsSource(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors"):
        SafetensorsSource(tmp_path / "nowhere")


def test_written_files_are_what_the_library_reads(tmp_path):
    arrays = foreign() | {"scalar": torch.tensor(3.5), "empty": torch.zeros(0, 2), "half": torch.ones(3).bfloat16()}
    layout = {name: (tuple(array.shape), array.dtype) for name, array in arrays.items()}
    write_safetensors(tmp_path / "out.safetensors", arrays.items(), layout=layout, metadata={"format": "pt"})
    source = SafetensorsSource(tmp_path / "out.safetensors")
    assert source.keys() == list(arrays)
    assert all(torch.equal(source.read(name), array) for name, array in arrays.items())
    with pytest.raises(AssertionError):
        write_safetensors(tmp_path / "bad.safetensors", [("half", torch.ones(3))], layout={"half": layout["half"]})
    assert [file.name for file in tmp_path.iterdir()] == ["out.safetensors"]


def test_npz_is_a_checkpoint_too(tmp_path):
    arrays = foreign()
    np.savez(tmp_path / "w.npz", **{name: array.numpy() for name, array in arrays.items()})
    source, target = NpzSource(tmp_path / "w.npz"), empty()
    load_tensors(TABLE, source, target)
    assert torch.equal(target["1.qkv"], loaded(tmp_path, arrays)["1.qkv"])
    (tmp_path / "w.npz").write_bytes((tmp_path / "w.npz").read_bytes()[:-40])
    with pytest.raises(ValueError, match="truncated or damaged"):
        NpzSource(tmp_path / "w.npz")
