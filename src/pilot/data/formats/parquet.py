"""Columns of LeRobot's parquet files as arrays, and where their episodes begin; errors name the file and the remedy."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int

FETCH = "fetch it again"
MOST_UNFOLDED = 2**28  # bytes that any file may become in memory, and
MOST_TIMES = 64  # how many times its own size a larger one may: numbers seldom compress to a fourth


def read_table(
    file: Any, names: list[str], *, path: Path, rows: slice | None = None, use_threads: bool = True
) -> pa.Table:
    """Read some columns of a parquet file, all of their rows or those in `rows`.

    `file` is a path or an open file, `path` what errors call it.

    Raises:
        ValueError: the file is damaged, or lacks a column.
    """
    with name_damaged(path), pq.ParquetFile(file, memory_map=True, pre_buffer=True) as parquet:
        if missing := set(names) - set(parquet.schema_arrow.names):
            raise ValueError(f"{path} has no column {sorted(missing)}, though meta/info.json names it; {FETCH}")
        if rows is None:
            refuse_bomb(parquet, file, names, path=path)
            return parquet.read(columns=names, use_threads=use_threads)
        # A row group is the least that parquet reads: those that hold the first and the last row, and all between.
        sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.metadata.num_row_groups)]
        starts = np.cumsum([0, *sizes])
        first, last = np.searchsorted(starts, [rows.start, rows.stop - 1], side="right") - 1
        groups = range(first, last + 1)
        refuse_bomb(parquet, file, names, path=path, groups=groups)
        table = parquet.read_row_groups(groups, columns=names, use_threads=use_threads)
        return table.slice(rows.start - int(starts[first]), rows.stop - rows.start)


def read_matrices(
    file: Any,
    names: list[str],
    *,
    path: Path,
    rows: slice | None = None,
    use_threads: bool = True,
    optional: Mapping[str, int] | None = None,
) -> dict[str, np.ndarray]:
    """Read some numeric columns as [n d] by name; the arguments are those of `read_table`.

    Rows may be missing in `optional` columns, whose dims it names: they are NaN.

    Raises:
        ValueError: as `read_table`, or rows of a column differ in length or are missing.
    """
    table = read_table(file, names, path=path, rows=rows, use_threads=use_threads)
    matrices = {}
    for name in names:
        try:
            matrices[name] = matrix(table[name], optional=(optional or {}).get(name))
        except (ValueError, pa.ArrowException) as error:
            raise ValueError(f"{path}: rows of '{name}' differ in length or are missing ({error}); {FETCH}") from error
    return matrices


@contextmanager
def name_damaged(path: Path) -> Iterator[None]:
    """Turn what reading a damaged parquet file raises into one line that names the file.

    Raises:
        ValueError: its pages, or texts and fields in them, cannot be read.
    """
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError, KeyError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        reason = " ".join(str(error).split())  # some of the library's are of several lines
        raise ValueError(f"{path} cannot be read ({reason}); it is truncated or damaged, {FETCH}") from error


def refuse_bomb(
    parquet: pq.ParquetFile,
    file: Any,
    names: Collection[str],
    *,
    path: Path,
    groups: Iterable[int] | None = None,
) -> None:
    """Refuse to read columns, of all row groups or of some, that would become far larger than the file.

    A value that repeats is stored once, so a file of kilobytes can hold more than any memory does.

    Raises:
        ValueError: they would take more than `MOST_UNFOLDED` bytes, and more than `MOST_TIMES` the size of the file.
    """
    size = _size(file)
    allowed, needed = max(MOST_UNFOLDED, MOST_TIMES * size), 0
    for group in range(parquet.num_row_groups) if groups is None else groups:
        described = parquet.metadata.row_group(group)
        for number in range(described.num_columns):
            column = described.column(number)
            if column.path_in_schema.split(".")[0] in names:
                width = _WIDTHS.get(column.physical_type) or max(1, parquet.schema.column(number).length)
                needed += max(column.total_uncompressed_size, width * column.num_values)
                if column.physical_type == "BYTE_ARRAY" and needed <= allowed:
                    needed += _repeated_bytes(parquet, file, group, column, most=allowed - needed)
            if needed > allowed:
                raise ValueError(
                    f"{path} has {size} bytes and would take at least {needed} in memory, which no recording does; do "
                    "not use this file"
                )


def _size(file: Any) -> int:
    """Return the bytes of a path's file or of an open one."""
    if isinstance(file, str | Path):
        return os.path.getsize(file)
    return file.seek(0, os.SEEK_END) or file.tell()


_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 12, "BYTE_ARRAY": 4}
"""Bytes of one value in memory; of a text or a picture those of its place."""


def _repeated_bytes(
    parquet: pq.ParquetFile, file: Any, group: int, column: pq.ColumnChunkMetaData, *, most: int
) -> int:
    """Return how many bytes the texts or pictures of a column take; those that are surely below `most` count as 0."""
    if not column.has_dictionary_page or column.num_values * column.total_uncompressed_size <= most:
        return 0
    longest = _dictionary_size(file, column.dictionary_page_offset)
    if column.num_values * longest <= most:
        return 0
    rows, name = parquet.metadata.row_group(group).num_rows, column.path_in_schema.split(".")[0]
    at_once = max(1, most // (4 * longest * -(-column.num_values // max(1, rows))))
    found = 0
    for batch in parquet.iter_batches(at_once, row_groups=[group], columns=[name], use_threads=False):
        found += batch.nbytes
        if found > most:
            break
    return found


def _dictionary_size(file: Any, offset: int) -> int:
    """Return the size of a page as it says itself: its second number, after its kind (Thrift's compact protocol)."""
    with open(file, "rb") if isinstance(file, str | Path) else nullcontext(file) as content:
        content.seek(offset)
        head = content.read(32)
    numbers, place = [], 0
    while len(numbers) < 2:
        place, value, shift = place + 1, 0, 0  # past the byte that announces a 32-bit number
        while True:
            byte = head[place] if place < len(head) else 0
            value, shift, place = value | (byte & 0x7F) << shift, shift + 7, place + 1
            if byte < 0x80:
                break
        numbers.append(value >> 1)
    return max(1, numbers[1])


def read_whole_table(file: Path, *, leave_out: str | None = None) -> pa.Table:
    """Read a parquet file of `meta/`, without the columns whose names begin with `leave_out`.

    Raises:
        ValueError: the file is damaged.
    """
    with name_damaged(file), pq.ParquetFile(file) as parquet:
        names = [name for name in parquet.schema_arrow.names if not (leave_out and name.startswith(leave_out))]
        refuse_bomb(parquet, file, names, path=file)
        return parquet.read(columns=names)


def matrix(column: pa.ChunkedArray | pa.Array, *, optional: int | None = None) -> np.ndarray:
    """Return a numeric column as [n d]; with `optional` dims, rows that are missing are NaN.

    LeRobot's own tools write what was NaN as nothing: pandas, which they use, does not tell the two apart.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if optional is not None and array.null_count:
        rows = np.full((len(array), optional), np.nan, np.float32)
        if array.null_count < len(array):
            rows[array.is_valid().to_numpy(zero_copy_only=False)] = matrix(array.drop_null())
        return rows
    if pa.types.is_list(array.type) or pa.types.is_fixed_size_list(array.type):
        return array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), -1)
    return array.to_numpy(zero_copy_only=False).reshape(len(array), 1)


def episode_edges(episode_index: np.ndarray) -> Int[np.ndarray, " m"]:
    """Return the row at which each episode of a file begins, and at the end the number of rows."""
    starts = np.flatnonzero(np.diff(episode_index, prepend=-1))
    return np.append(starts, len(episode_index))
