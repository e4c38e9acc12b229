"""Checkpoint files as `keymap.TensorSource`: safetensors (one file, or shards and their index) and npz.

Only one file is open at a time, and it is memory-mapped: one array is in memory at once.
"""

import json
import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pilot.data.storage.files import atomic_write, read_json
from pilot.data.storage.untrusted import path_inside

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}

ArrayLayout = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""Shape and dtype of every array of a file, in their order."""


def find_safetensors(path: str | Path) -> Path:
    """Return the file or the index of weights that `path` is or holds.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    for name in ("model.safetensors.index.json", "model.safetensors"):
        if (path / name).is_file():
            return path / name
    raise FileNotFoundError(f"{path} has no model.safetensors and no model.safetensors.index.json")


class SafetensorsSource:
    """A safetensors file, a folder with `model.safetensors`, or one with shards and `model.safetensors.index.json`."""

    def __init__(self, path: str | Path) -> None:
        """Read all headers.

        Raises:
            FileNotFoundError: no such file, or a shard that the index names is missing.
            ValueError: a file is truncated, or the index and the shards do not agree.
        """
        file = find_safetensors(path)
        self.location = str(file)
        indexed = _read_index(file) if file.name.endswith(".index.json") else None
        shards = [file] if indexed is None else sorted({file.parent / name for name in indexed.values()})
        self._headers = {shard: read_header(shard) for shard in shards}
        self._shard = {key: shard for shard, header in self._headers.items() for key in header}
        self._open: tuple[Path, Any] | None = None
        held = {key: shard.name for key, shard in self._shard.items()}
        if indexed is not None and indexed != held:
            differ = sorted(key for key in indexed.keys() | held.keys() if indexed.get(key) != held.get(key))
            raise ValueError(f"{file} and its shards disagree on where these are: {', '.join(differ)}")

    def keys(self) -> list[str]:
        """Return all names, shard by shard and in the order of the file."""
        return [key for header in self._headers.values() for key in header]

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self._headers[self._shard[key]][key]["shape"])

    def dtype(self, key: str) -> torch.dtype:
        return DTYPES[self._headers[self._shard[key]][key]["dtype"]]

    def read(self, key: str) -> Tensor:
        shard = self._shard[key]
        if self._open is None or self._open[0] != shard:
            self._open = None  # unmap the last shard first
            self._open = shard, _open_shard(shard)
        return self._open[1].get_tensor(key)


def _open_shard(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} cannot be read ({error}); it is truncated or damaged, fetch it again") from error


def _read_index(file: Path) -> dict[str, str]:
    index = read_json(file, remedy="fetch the checkpoint again")
    if not isinstance(index, dict) or not isinstance(index.get("weight_map"), dict):
        raise ValueError(f"{file} has no weight_map; fetch the checkpoint again")
    for name in sorted(set(index["weight_map"].values())):
        if not path_inside(file.parent, name, where=file).is_file():
            raise FileNotFoundError(f"{file} names the shard {name}, which is not beside it; fetch it too")
    return index["weight_map"]


def read_header(file: str | Path) -> dict[str, Any]:
    """Return shape, dtype and offsets of every array in a safetensors file, in the order of their bytes.

    Raises:
        ValueError: the file is truncated or not a safetensors file.
    """
    file = Path(file)
    _open_shard(file)  # the library checks that the header is complete and all bytes are there
    with file.open("rb") as stream:
        header = json.loads(stream.read(struct.unpack("<Q", stream.read(8))[0]))
    header.pop("__metadata__", None)
    return dict(sorted(header.items(), key=lambda item: item[1]["data_offsets"]))


def write_safetensors(
    path: str | Path,
    arrays: Iterable[tuple[str, Tensor]],
    *,
    layout: ArrayLayout,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write arrays as they come, one in memory at a time; the file is complete or absent.

    `layout` says what will come, since the header stands in front.
    """
    path = Path(path)
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, (shape, dtype) in layout.items():
        start, end = end, end + torch.Size(shape).numel() * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_write(path) as temporary, temporary.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for (name, array), (expected, (shape, dtype)) in zip(arrays, layout.items(), strict=True):
            assert (name, tuple(array.shape), array.dtype) == (expected, shape, dtype), (name, expected)
            _write_bytes(stream, array)
        stream.flush()
        os.fsync(stream.fileno())
    return path


def _write_bytes(stream: BinaryIO, array: Tensor) -> None:
    stream.write(array.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)


class NpzSource:
    """An npz file of float arrays, as PaliGemma's weights were published."""

    def __init__(self, path: str | Path) -> None:
        """Open the archive.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it is truncated or not an npz file.
        """
        self.location = str(path)
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path} does not exist")
        try:
            self._file = np.load(path, allow_pickle=False)
            self._headers = {name: _npy_header(self._file, name) for name in self._file.files}
        except (OSError, ValueError, EOFError, BadZipFile) as error:
            raise ValueError(f"{path} cannot be read ({error}); it is truncated or damaged, fetch it again") from error

    def keys(self) -> list[str]:
        return list(self._headers)

    def shape(self, key: str) -> tuple[int, ...]:
        return self._headers[key][0]

    def dtype(self, key: str) -> torch.dtype:
        return torch_dtype(self._headers[key][1])

    def read(self, key: str) -> Tensor:
        return to_torch(self._file[key])


def _npy_header(file: Any, name: str) -> tuple[tuple[int, ...], np.dtype]:
    with file.zip.open(f"{name}.npy") as stream:
        first = np.lib.format.read_magic(stream) == (1, 0)
        read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    return shape, dtype


def torch_dtype(dtype: np.dtype) -> torch.dtype:
    """Return the torch dtype of a numpy one; bfloat16 may have `ml_dtypes`' name, or be two raw bytes."""
    if dtype.name == "bfloat16" or dtype == np.dtype("V2"):
        return torch.bfloat16
    return torch.from_numpy(np.empty(0, dtype)).dtype


def to_torch(array: np.ndarray) -> Tensor:
    """Return a numpy array as a tensor without copying it; also bfloat16, which numpy itself does not have."""
    if torch_dtype(array.dtype) == torch.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
