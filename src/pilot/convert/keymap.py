"""How a foreign checkpoint's arrays become pilot's tensors, and back: one table per format, read in both directions.

A `Table` says for each tensor of pilot (`Slot`) which parts of which foreign arrays (`Piece`) stand in it, one below
the other:

    Slot("vlm.blocks.3.qkv.weight", (
        Piece("llm/q_einsum", (8, 64, 16), index=(3,), axes=(0, 2, 1)),      # layer 3 of a stack [l n d h] → rows n·h
        Piece("llm/kv_einsum", (1, 64, 16), index=(3, 0), axes=(0, 2, 1)),   # keys
        Piece("llm/kv_einsum", (1, 64, 16), index=(3, 1), axes=(0, 2, 1)),   # values
    ))

`load` fills pilot's tensors from it and `export` makes the foreign arrays from it. Both go through the foreign arrays
one at a time. Every foreign array is used exactly once, is an alias of one that is, or is named in `dead`; anything
else is an error that names it.
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
    def where(self) -> str:
        """Its path, for messages."""
        ...

    def keys(self) -> list[str]:
        """All its arrays, in the order that is cheapest to read."""
        ...

    def shape(self, key: str) -> tuple[int, ...]: ...

    def dtype(self, key: str) -> torch.dtype: ...

    def read(self, key: str) -> Tensor:
        """One array on the CPU. The caller drops it before it asks for the next."""
        ...


@dataclass(frozen=True)
class Piece:
    """A part of the foreign array `key`: what `index` picks of a stack, of this `shape`, its `axes` permuted.

    The permuted part is then reshaped to rows of the pilot tensor that it stands in.
    """

    key: str
    shape: tuple[int, ...]
    axes: tuple[int, ...] | None = None
    index: tuple[int, ...] = ()

    def inward(self, array: Tensor, row: tuple[int, ...]) -> Tensor:
        """The rows of pilot's tensor that this piece of a whole foreign array makes."""
        part = array[self.index]
        return (part if self.axes is None else part.permute(self.axes)).reshape(-1, *row)

    def outward(self, rows: Tensor) -> Tensor:
        """The piece, as it stands in the foreign array, made of its rows of pilot's tensor."""
        if self.axes is None:
            return rows.reshape(self.shape)
        permuted = rows.reshape([self.shape[axis] for axis in self.axes])
        return permuted.permute([self.axes.index(axis) for axis in range(len(self.axes))])


@dataclass(frozen=True)
class Slot:
    """A tensor of pilot and the pieces that stand in it, one below the other."""

    name: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Place:
    """Where a piece goes: the rows `start` … `stop` of the tensor `name`."""

    name: str
    piece: Piece
    start: int
    stop: int

    def rows(self, tensors: Mapping[str, Tensor]) -> Tensor:
        return tensors[self.name][self.start : self.stop]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A checkpoint format.

    `aliases` maps further names of an array to the one that `slots` uses: a file may hold any of them; if it holds
    several, they must be equal. `dead` are arrays that the format carries and no model uses, with their shapes: a file
    may hold them, and they are written as zeros.
    """

    slots: tuple[Slot, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    dead: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def pieces(self) -> dict[str, list[Piece]]:
        """The pieces of every foreign array, by its key."""
        found: dict[str, list[Piece]] = defaultdict(list)
        for slot in self.slots:
            for piece in slot.pieces:
                found[piece.key].append(piece)
        return dict(found)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The whole shape of every foreign array in use: the extents of its stack, then those of its pieces."""
        return {key: stack_shape(pieces) for key, pieces in self.pieces().items()}

    def layout(self, dtype: torch.dtype) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and dtype of every array that `export` makes, in its order."""
        shapes = {**self.shapes(), **self.dead}
        return {key: (shapes[key], dtype) for key in sorted(shapes)}


def stack_shape(pieces: list[Piece]) -> tuple[int, ...]:
    """The shape of an array of which these are all the pieces."""
    stack = tuple(max(sizes) + 1 for sizes in zip(*(piece.index for piece in pieces)))
    assert len({piece.index for piece in pieces}) == len(pieces) == prod(stack), f"{pieces[0].key} is not used once"
    assert len({piece.shape for piece in pieces}) == 1, f"{pieces[0].key} has pieces of several shapes"
    return stack + pieces[0].shape


def places(table: Table, tensors: Mapping[str, Tensor]) -> dict[str, list[Place]]:
    """Where the pieces of every foreign array go in pilot's tensors, by its key."""
    found: dict[str, list[Place]] = defaultdict(list)
    for slot in table.slots:
        tensor, start = tensors[slot.name], 0
        for piece in slot.pieces:
            stop = start + prod(piece.shape) // prod(tensor.shape[1:])
            found[piece.key].append(Place(slot.name, piece, start, stop))
            start = stop
        assert start == len(tensor), (slot.name, start, tuple(tensor.shape))
    return found


@torch.no_grad()
def load(table: Table, source: TensorSource, target: Mapping[str, Tensor]) -> None:
    """Fill the tensors of `target` that the table names, converting to their dtype.

    `target` may hold views, for instance the first rows of a larger embedding.

    Raises:
        ValueError: arrays missing, left over, of another shape or not of floats, or names of one array that differ.
            Nothing has been written then, except in the last case.
    """
    check(table, source)
    goes = places(table, target)
    held = set(source.keys())
    again = []
    for key in tqdm(source.keys(), desc="reading", unit=" arrays", leave=False, disable=None):
        name = table.aliases.get(key, key)
        if name in table.dead:
            continue
        if name != key and (name in held or key != first_alias(table, name, held)):
            again.append((key, name))
            continue
        array = source.read(key)
        for place in goes[name]:
            rows = place.rows(target)
            rows.copy_(place.piece.inward(array, rows.shape[1:]))
        del array
    for key, name in again:
        _check_equal(source, key, name, goes[name], target)


def first_alias(table: Table, name: str, held: set[str]) -> str | None:
    """The alias under which a file holds the array `name`."""
    return next((alias for alias, meant in table.aliases.items() if meant == name and alias in held), None)


def _check_equal(source: TensorSource, key: str, name: str, places: list[Place], target: Mapping[str, Tensor]) -> None:
    array = source.read(key)
    for place in places:
        rows = place.rows(target)
        if not torch.equal(rows, place.piece.inward(array, rows.shape[1:]).to(rows.dtype)):
            raise ValueError(
                f"{source.where}: {key} and {name} are names of one array, but differ; pilot would lose one of them"
            )


def check(table: Table, source: TensorSource) -> None:
    """Compare a checkpoint's arrays with the table.

    Raises:
        ValueError: the names of all that are missing, left over, of another shape or not of floats.
    """
    expected, held = table.shapes(), set(source.keys())
    problems = [
        f"missing: {name} {shape}"
        for name, shape in expected.items()
        if name not in held and first_alias(table, name, held) is None
    ]
    for key in sorted(held):
        name = table.aliases.get(key, key)
        shape = expected.get(name, table.dead.get(name))
        if shape is None:
            problems.append(f"left over: {key} {source.shape(key)}")
        elif source.shape(key) != shape:
            problems.append(f"wrong shape: {key} is {source.shape(key)}, not {shape}")
        elif source.dtype(key) not in FLOATS:
            problems.append(f"wrong dtype: {key} is {source.dtype(key)}, not one of {[str(f) for f in FLOATS]}")
    if problems:
        raise ValueError(
            f"{source.where} does not fit this format and config ({len(problems)} arrays):\n  " + "\n  ".join(problems)
        )


def export(table: Table, tensors: Mapping[str, Tensor], *, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """The foreign arrays, one at a time and sorted by key. Aliases are left out: a file says them in its own way."""
    goes = places(table, tensors)
    for key in tqdm(sorted([*goes, *table.dead]), desc="writing", unit=" arrays", leave=False, disable=None):
        dead = table.dead.get(key)
        yield key, _assemble(goes[key], tensors, dtype) if dead is None else torch.zeros(dead, dtype=dtype)


@torch.no_grad()
def _assemble(places: list[Place], tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
    """One foreign array, whole, of all its places in pilot's tensors."""
    array = torch.empty(stack_shape([place.piece for place in places]), dtype=dtype)
    for place in places:
        array[place.piece.index] = place.piece.outward(place.rows(tensors).detach())
    return array
