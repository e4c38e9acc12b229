"""How a foreign checkpoint's arrays become pilot's tensors, and back: one key map per format, used in both directions.

A `KeyMap` has one `Entry` per tensor of pilot. It lists the slices of foreign arrays that fill the tensor, from the
first row to the last:

    Entry("vlm.blocks.3.qkv.weight", (
        Slice("llm/q_einsum", (8, 64, 16), index=(3,), axes=(0, 2, 1)),      # layer 3 of a stack [l n d h] → n·h rows
        Slice("llm/kv_einsum", (1, 64, 16), index=(3, 0), axes=(0, 2, 1)),   # keys
        Slice("llm/kv_einsum", (1, 64, 16), index=(3, 1), axes=(0, 2, 1)),   # values
    ))

`load_tensors` fills pilot's tensors from it, and `export_arrays` builds the foreign arrays. Both read one foreign array
at a time. Every foreign array is used exactly once, is an alias of one that is, or is listed as `unused`; anything else
is an error that names it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Protocol

import torch
from torch import Tensor
from tqdm import tqdm

FLOATS = (torch.float32, torch.bfloat16, torch.float16)


class TensorSource(Protocol):
    """A checkpoint on disk, read array by array (`convert/tensor_files.py`, `convert/orbax.py`)."""

    @property
    def location(self) -> str:
        """The path, for messages."""
        ...

    def keys(self) -> list[str]:
        """Return the keys of all arrays, in the order that is cheapest to read."""
        ...

    def shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of an array, without reading its numbers."""
        ...

    def dtype(self, key: str) -> torch.dtype:
        """Return the dtype in which an array is stored."""
        ...

    def read(self, key: str) -> Tensor:
        """Read one array to the CPU. The caller drops it before it asks for the next."""
        ...


@dataclass(frozen=True)
class Slice:
    """A part of the foreign array `key`: what `index` picks of a stack, of this `shape`, with its `axes` permuted.

    The permuted part is then reshaped to rows of the pilot tensor that it fills.
    """

    key: str
    shape: tuple[int, ...]
    axes: tuple[int, ...] | None = None
    index: tuple[int, ...] = ()

    def to_rows(self, array: Tensor, row: tuple[int, ...]) -> Tensor:
        """Return this slice of a whole foreign array as rows of shape `row` of pilot's tensor."""
        part = array[self.index]
        return (part if self.axes is None else part.permute(self.axes)).reshape(-1, *row)

    def from_rows(self, rows: Tensor) -> Tensor:
        """Return rows of pilot's tensor in the shape that they have in the foreign array."""
        if self.axes is None:
            return rows.reshape(self.shape)
        permuted = rows.reshape([self.shape[axis] for axis in self.axes])
        return permuted.permute([self.axes.index(axis) for axis in range(len(self.axes))])


@dataclass(frozen=True)
class Entry:
    """A tensor of pilot, and the slices that fill it from the first row to the last."""

    name: str
    slices: tuple[Slice, ...]


@dataclass(frozen=True)
class RowRange:
    """The rows `start` … `stop` of the tensor `name`, and the slice that fills them."""

    name: str
    slice: Slice
    start: int
    stop: int

    def rows(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return these rows as a view."""
        return tensors[self.name][self.start : self.stop]


@dataclass(frozen=True, kw_only=True)
class KeyMap:
    """A checkpoint format.

    `aliases` maps further names of an array to the one that `entries` uses: a file may hold any of them; if it holds
    several, they must be equal. `unused` are arrays that the format has and no model uses, with their shapes: a file
    may hold them, and they are written as zeros.
    """

    entries: tuple[Entry, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    unused: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def slices_by_key(self) -> dict[str, list[Slice]]:
        """Return the slices of every foreign array by its key."""
        slices: dict[str, list[Slice]] = defaultdict(list)
        for entry in self.entries:
            for part in entry.slices:
                slices[part.key].append(part)
        return slices

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the whole shape of every foreign array in use: the size of its stack, then that of its slices."""
        return {key: stack_shape(slices) for key, slices in self.slices_by_key().items()}

    def layout(self, dtype: torch.dtype) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Return shape and dtype of every array that `export_arrays` yields, in its order."""
        shapes = {**self.shapes(), **self.unused}
        return {key: (shapes[key], dtype) for key in sorted(shapes)}


def stack_shape(slices: list[Slice]) -> tuple[int, ...]:
    """Return the shape of the array that consists of exactly these slices."""
    stack = tuple(max(sizes) + 1 for sizes in zip(*(part.index for part in slices)))
    assert len({part.index for part in slices}) == len(slices) == prod(stack), f"{slices[0].key} is not used once"
    assert len({part.shape for part in slices}) == 1, f"{slices[0].key} has slices of several shapes"
    return stack + slices[0].shape


def row_ranges(key_map: KeyMap, tensors: Mapping[str, Tensor]) -> dict[str, list[RowRange]]:
    """Return, for every foreign array, the rows of pilot's tensors that its slices fill."""
    ranges: dict[str, list[RowRange]] = defaultdict(list)
    for entry in key_map.entries:
        tensor, start = tensors[entry.name], 0
        for part in entry.slices:
            stop = start + prod(part.shape) // prod(tensor.shape[1:])
            ranges[part.key].append(RowRange(entry.name, part, start, stop))
            start = stop
        assert start == len(tensor), (entry.name, start, tuple(tensor.shape))
    return ranges


@torch.no_grad()
def load_tensors(key_map: KeyMap, source: TensorSource, target: Mapping[str, Tensor]) -> None:
    """Fill the tensors of `target` that the key map names, converting to their dtype.

    `target` may hold views, for instance the first rows of a larger embedding.

    Raises:
        ValueError: arrays are missing, left over, of another shape or not of floats; nothing has been written then. Or
            two names of one array hold different values, which is seen at the end.
    """
    check_arrays(key_map, source)
    ranges = row_ranges(key_map, target)
    held = set(source.keys())
    duplicates = []
    for key in tqdm(source.keys(), desc="reading", unit=" arrays", leave=False, disable=None):
        name = key_map.aliases.get(key, key)
        if name in key_map.unused:
            continue
        if name != key and (name in held or key != find_alias(key_map, name, held)):
            duplicates.append((key, name))  # a further name of an array that is read under another
            continue
        array = source.read(key)
        for row_range in ranges[name]:
            rows = row_range.rows(target)
            rows.copy_(row_range.slice.to_rows(array, rows.shape[1:]))
        del array  # before the next is read: each may be gigabytes
    for key, name in duplicates:
        _check_equal(source, key, name, ranges[name], target)


def find_alias(key_map: KeyMap, name: str, held: set[str]) -> str | None:
    """Return the first alias under which a file with the keys `held` has the array `name`."""
    return next((alias for alias, array in key_map.aliases.items() if array == name and alias in held), None)


def _check_equal(
    source: TensorSource, key: str, name: str, ranges: list[RowRange], target: Mapping[str, Tensor]
) -> None:
    array = source.read(key)
    for row_range in ranges:
        rows = row_range.rows(target)
        if not torch.equal(rows, row_range.slice.to_rows(array, rows.shape[1:]).to(rows.dtype)):
            raise ValueError(
                f"{source.location}: {key} and {name} are names of one array, but differ; pilot would lose one of them"
            )


def check_arrays(key_map: KeyMap, source: TensorSource) -> None:
    """Compare a checkpoint's arrays with the key map.

    Raises:
        ValueError: arrays are missing, left over, of another shape or not of floats; all of them are named.
    """
    expected, held = key_map.shapes(), set(source.keys())
    problems = [
        f"missing: {name} {shape}"
        for name, shape in expected.items()
        if name not in held and find_alias(key_map, name, held) is None
    ]
    for key in sorted(held):
        name = key_map.aliases.get(key, key)
        shape = expected.get(name, key_map.unused.get(name))
        if shape is None:
            problems.append(f"left over: {key} {source.shape(key)}")
        elif source.shape(key) != shape:
            problems.append(f"wrong shape: {key} is {source.shape(key)}, not {shape}")
        elif source.dtype(key) not in FLOATS:
            problems.append(f"wrong dtype: {key} is {source.dtype(key)}, not one of {[str(f) for f in FLOATS]}")
    if problems:
        raise ValueError(
            f"{source.location} does not fit this format and config ({len(problems)} arrays):\n  "
            + "\n  ".join(problems)
        )


def export_arrays(
    key_map: KeyMap, tensors: Mapping[str, Tensor], *, dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    """Yield the foreign arrays, one at a time and sorted by key. Aliases are left out: each file has its own way."""
    ranges = row_ranges(key_map, tensors)
    for key in tqdm(sorted([*ranges, *key_map.unused]), desc="writing", unit=" arrays", leave=False, disable=None):
        unused = key_map.unused.get(key)
        yield key, _assemble(ranges[key], tensors, dtype) if unused is None else torch.zeros(unused, dtype=dtype)


@torch.no_grad()
def _assemble(ranges: list[RowRange], tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
    """Return one whole foreign array from all the rows that belong to it."""
    array = torch.empty(stack_shape([row_range.slice for row_range in ranges]), dtype=dtype)
    for row_range in ranges:
        array[row_range.slice.index] = row_range.slice.from_rows(row_range.rows(tensors).detach())
    return array
