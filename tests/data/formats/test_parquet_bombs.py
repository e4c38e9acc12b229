"""Small parquet files that would fill the memory are refused in a line, before anything is unfolded."""

import resource
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pilot.data.formats.lerobot import _RowGroups
from pilot.data.formats.parquet import read_table, read_whole_table, refuse_bomb

ROWS = 400_000


@pytest.fixture(autouse=True)
def small_limit(monkeypatch):
    """Bombs of 30 MB, which are made sooner than those of gigabytes."""
    monkeypatch.setattr("pilot.data.formats.parquet.MOST_UNFOLDED", 2**24)


def write(path: Path, table: pa.Table, *, times: int = 1, **options) -> Path:
    """Write a table so many times, a row group each."""
    with pq.ParquetWriter(path, table.schema, **options) as writer:
        for _ in range(times):
            writer.write_table(table)
    return path


def numbers(path: Path) -> Path:
    return write(path, pa.table({"x": np.zeros(ROWS)}), times=10)


def lists(path: Path) -> Path:
    values = pa.array(np.zeros(8 * ROWS, np.float32))
    return write(path, pa.table({"x": pa.FixedSizeListArray.from_arrays(values, 8)}), times=3)


def compressed(path: Path) -> Path:
    """Without a dictionary the compression does it."""
    return write(path, pa.table({"x": np.zeros(ROWS)}), times=10, compression="zstd", use_dictionary=False)


def texts(path: Path) -> Path:
    repeated = pa.DictionaryArray.from_arrays(np.zeros(ROWS, np.int32), pa.array(["x" * 20_000]))
    return write(path, pa.table({"x": repeated}).replace_schema_metadata({}), store_schema=False)


def pictures(path: Path) -> Path:
    repeated = pa.DictionaryArray.from_arrays(np.zeros(ROWS // 100, np.int32), pa.array([bytes(900_000)]))
    return write(path, pa.table({"x": pa.StructArray.from_arrays([repeated], ["bytes"])}), store_schema=False)


BOMBS = [numbers, lists, compressed, texts, pictures]


@pytest.mark.parametrize("make", BOMBS)
def test_a_bomb_is_refused_in_a_line_and_in_little_memory(make, tmp_path):
    path = make(tmp_path / "bomb.parquet")
    assert path.stat().st_size < 2e5
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (lambda: read_table(path, ["x"], path=path), lambda: read_whole_table(path)):
        with pytest.raises(ValueError, match=r"bomb\.parquet has \d+ bytes and would take at least \d+") as raised:
            read()
        assert "\n" not in str(raised.value) and str(raised.value).endswith("do not use this file")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000, "kilobytes"


def test_a_bomb_that_is_read_from_elsewhere_is_refused(tmp_path):
    """An open file stands for one that is fetched part by part, and its name is not one of here."""
    for make in (numbers, texts):
        file, refused = make(tmp_path / "bomb.parquet"), r"far/away\.parquet has \d\d+ bytes"
        with file.open("rb") as opened, pytest.raises(ValueError, match=refused):
            read_table(opened, ["x"], path=Path("far/away.parquet"))


def test_a_large_file_may_take_more(tmp_path):
    """64 times its size: numbers that do not repeat are as large as they are."""
    path = write(tmp_path / "real.parquet", pa.table({"x": np.random.default_rng(0).random(ROWS)}), times=6)
    assert path.stat().st_size > 2**24 and read_table(path, ["x"], path=path).num_rows == 6 * ROWS


def test_rows_of_a_row_group_are_weighed_alone(tmp_path):
    path = numbers(tmp_path / "bomb.parquet")
    few = read_table(path, ["x"], path=path, rows=slice(ROWS - 1, ROWS + 1))
    assert few["x"].to_pylist() == [0, 0]
    with pytest.raises(ValueError, match="do not use this file"):
        read_table(path, ["x"], path=path, rows=slice(0, 9 * ROWS))


def test_texts_that_repeat_without_harm_are_read(tmp_path):
    """The sum of what is stored says that they may be long; counting them says that they are not."""
    words = ["put the cup into the sink", "x" * 5000]
    chosen = np.zeros(200_000, np.int32)
    chosen[7] = 1
    table = pa.table({"x": pa.DictionaryArray.from_arrays(chosen, pa.array(words))})
    path = write(tmp_path / "tasks.parquet", table, store_schema=False)
    assert read_table(path, ["x"], path=path)["x"][7].as_py() == words[1]


def test_columns_that_are_not_read_do_not_count(tmp_path):
    table = pa.table({"x": np.zeros(ROWS), "y": np.zeros(ROWS, np.int8)})
    path = write(tmp_path / "one.parquet", table, times=10)
    assert read_table(path, ["y"], path=path).num_rows == 10 * ROWS
    with pytest.raises(ValueError, match="do not use this file"), pq.ParquetFile(path) as parquet:
        refuse_bomb(parquet, path, ["x"], path=path)


def test_a_picture_is_not_looked_for_in_a_row_group_that_unfolds(tmp_path):
    groups = _RowGroups(pictures(tmp_path / "bomb.parquet"))
    with pytest.raises(ValueError, match=r"bomb\.parquet has \d+ bytes .* do not use this file"):
        groups.value("x", 0)
    groups.close()
