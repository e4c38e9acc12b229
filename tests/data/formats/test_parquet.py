"""Columns of parquet files as arrays, as they come from other tools."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pilot.data.formats.parquet import matrix, read_matrices

BOXES = [[0.0, 0.1, 0.2, 0.3], None, [0.4, None, 0.6, 0.7], None]
EXPECTED = [[0, 0.1, 0.2, 0.3], [np.nan] * 4, [0.4, np.nan, 0.6, 0.7], [np.nan] * 4]


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 4)], ids=["list", "fixed size"])
def test_rows_that_are_missing_are_nan_where_they_may_be(kind):
    column = pa.array(BOXES, kind)
    np.testing.assert_allclose(matrix(column, optional=4), EXPECTED)
    np.testing.assert_allclose(matrix(pa.chunked_array([column, column]), optional=4), EXPECTED * 2)
    assert matrix(column.slice(0, 1), optional=4).shape == (1, 4)


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.null()])
def test_a_column_in_which_every_row_is_missing_keeps_its_dims(kind):
    found = matrix(pa.array([None] * 3, kind), optional=4)
    assert found.shape == (3, 4) and np.isnan(found).all()


def test_rows_that_are_missing_elsewhere_are_an_error(tmp_path):
    path = Path(tmp_path) / "file.parquet"
    pq.write_table(pa.table({"box": pa.array(BOXES), "state": pa.array([[1.0], None, [2.0], [3.0]])}), path)
    with pytest.raises(ValueError, match="rows of 'state' differ in length or are missing"):
        read_matrices(path, ["box", "state"], path=path, optional={"box": 4})
    assert read_matrices(path, ["box"], path=path, optional={"box": 4})["box"].shape == (4, 4)
