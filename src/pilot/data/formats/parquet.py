"""Columns of LeRobot's parquet files as arrays, and where their episodes begin; errors name the file and the remedy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int

FETCH = "fetch it again"


def read_table(
    file: Any, names: list[str], *, path: Path, rows: slice | None = None, use_threads: bool = True
) -> pa.Table:
    """Read some columns of a parquet file, all of their rows or those in `rows`.

    `file` is a path or an open file, `path` what errors call it.

    Raises:
        ValueError: the file is damaged, or lacks a column.
    """
    try:
        with pq.ParquetFile(file, memory_map=True, pre_buffer=True) as parquet:
            if missing := set(names) - set(parquet.schema_arrow.names):
                raise ValueError(f"{path} has no column {sorted(missing)}, though meta/info.json names it; {FETCH}")
            if rows is None:
                return parquet.read(columns=names, use_threads=use_threads)
            # A row group is the least that parquet reads: those that hold the first and the last row, and all between.
            sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.metadata.num_row_groups)]
            starts = np.cumsum([0, *sizes])
            first, last = np.searchsorted(starts, [rows.start, rows.stop - 1], side="right") - 1
            table = parquet.read_row_groups(range(first, last + 1), columns=names, use_threads=use_threads)
            return table.slice(rows.start - int(starts[first]), rows.stop - rows.start)
    except (pa.ArrowException, OSError) as error:
        raise damaged_error(path, error) from error


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


def damaged_error(path: Path, error: Exception) -> ValueError:
    """Make the error for a parquet file that cannot be read."""
    reason = " ".join(str(error).split())  # some of the library's are of several lines
    return ValueError(f"{path} cannot be read ({reason}); it is truncated or damaged, {FETCH}")


def read_whole_table(file: Path, *, leave_out: str | None = None) -> pa.Table:
    """Read a parquet file of `meta/`, without the columns whose names begin with `leave_out`.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        with pq.ParquetFile(file) as parquet:
            names = [name for name in parquet.schema_arrow.names if not (leave_out and name.startswith(leave_out))]
            return parquet.read(columns=names)
    except (pa.ArrowException, OSError) as error:
        raise damaged_error(file, error) from error


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
