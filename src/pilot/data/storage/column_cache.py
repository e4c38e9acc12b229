"""Columns of a whole set on disk, one `.npy` file each, read by mapping them into memory.

A set of a million frames has some 130 MB of columns; mapped, they are opened at once, cost a process only what it
touches, and are shared by all that read the set. They are written episode by episode, and never gathered in memory.
"""

import io
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from pilot.data.storage.files import explain_disk_errors

ABOUT = "about.json"


@contextmanager
def fill_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder to fill, which gets the name `folder` when it is whole, unless another process was quicker."""
    mine = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(mine, ignore_errors=True)
    mine.mkdir(parents=True)
    try:
        yield mine
        with suppress(OSError):  # there is one already
            mine.rename(folder)
        assert (folder / ABOUT).exists(), folder
    finally:
        shutil.rmtree(mine, ignore_errors=True)


class ColumnWriter:
    """Writes columns into `folder`, piece by piece, each [t …]. `blank` gives what stands where a piece has none."""

    def __init__(self, folder: Path, *, blank: Callable[[str], Any]) -> None:
        self.folder, self.blank, self.rows = folder, blank, 0
        self._files: dict[str, tuple[BinaryIO, np.dtype, tuple[int, ...]]] = {}

    def add(self, piece: Mapping[str, np.ndarray | None], rows: int) -> None:
        """Add one more piece of `rows` rows; a column that is None is left blank."""
        with explain_disk_errors(self.folder):
            for name, values in piece.items():
                if values is None and name not in self._files:
                    continue
                if values is None:
                    values = np.full(rows, self.blank(name))
                elif name not in self._files:
                    self._begin(name, values)
                file, dtype, shape = self._files[name]
                if values.shape[1:] != shape:
                    raise ValueError(f"episodes differ in dims of '{name}': {list(shape)} and {list(values.shape[1:])}")
                file.write(np.ascontiguousarray(values, dtype).tobytes())
        self.rows += rows

    def close(self) -> None:
        with explain_disk_errors(self.folder):
            for file, dtype, shape in self._files.values():
                file.seek(0)
                file.write(_header(self.rows, dtype, shape))
                file.close()

    def _begin(self, name: str, values: np.ndarray) -> None:
        shape = values.shape[1:]
        file = (self.folder / f"{name}.npy").open("wb")
        file.write(_header(0, values.dtype, shape))
        if self.rows:
            file.write(np.full((self.rows, *shape), self.blank(name), values.dtype).tobytes())
        self._files[name] = file, values.dtype, shape


def map_columns(folder: Path, names: tuple[str, ...]) -> dict[str, np.ndarray | None]:
    """Map the columns in `folder` into memory; None where there is none."""
    files = {name: folder / f"{name}.npy" for name in names}
    return {name: np.load(file, mmap_mode="r") if file.exists() else None for name, file in files.items()}


def _header(rows: int, dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """Return a `.npy` header; numpy leaves room for the number of rows to grow, so all have one length."""
    buffer = io.BytesIO()
    content = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows, *shape)}
    npy.write_array_header_1_0(buffer, content)
    return buffer.getvalue()
