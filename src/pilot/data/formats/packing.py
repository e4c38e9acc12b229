"""Packs finished episodes (one file each) into the LeRobot v3.0 layout; `meta/info.json` is written last.

Nothing here is taken for whole before the end: a pack that is interrupted is simply done again.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.feature_stats import (
    describe_picture,
    episode_stats,
    merge_image_stats,
    set_stats,
    stats_columns,
)
from pilot.data.formats.lerobot_v3 import read_episodes, read_tasks
from pilot.data.formats.video import Encoding, VideoFile, join_videos
from pilot.data.storage.files import atomic_write, write_json


def pack_episodes(path: Path, journal: list[Path], *, features: dict[str, Any], fps: float, robot: str) -> None:
    """Append the episodes of `journal`, in order, to the (possibly empty) set at `path`."""
    info_path = path / fmt.INFO
    info = json.loads(info_path.read_text()) if info_path.exists() else _new_info(features, fps, robot)
    tasks = list(read_tasks(path).values()) if info["total_episodes"] else []
    rows = [_episode_row(file, info, tasks, number) for number, file in enumerate(journal)]
    _place_frames(rows, start=info["total_frames"])
    _pack_data(path, rows, features, first_file=_next_file(path, "data", info["total_episodes"]))
    for key in (name for name, spec in features.items() if spec["dtype"] == "video"):
        first = _next_file(path, f"videos/{key}", info["total_episodes"])
        _pack_videos(path, rows, key, fps=fps, first_file=first)
    _write_tasks(path, tasks)
    _write_episodes(path, rows, file=_next_file(path, "meta/episodes", info["total_episodes"]))
    total = info["total_episodes"] + len(rows)
    frames = info["total_frames"] + sum(row["length"] for row in rows)
    write_json(path / fmt.STATS, set_stats(path, features, total) | merge_image_stats(path, features, total))
    info |= {
        "total_episodes": total,
        "total_frames": frames,
        "total_tasks": len(tasks),
        "splits": {"train": f"0:{total}"},
    }
    write_json(info_path, info)


def file_path(template: str, file: int, **names: str) -> str:
    """Return the path of the n-th file of a kind: 1000 files per chunk folder."""
    chunk, index = divmod(file, fmt.CHUNK_FILES)
    return template.format(chunk_index=chunk, file_index=index, **names)


def _new_info(features: dict[str, Any], fps: float, robot: str) -> dict[str, Any]:
    has_video = any(spec["dtype"] == "video" for spec in features.values())
    described = {name: dict(spec) for name, spec in features.items()}
    for spec in described.values():
        if spec["dtype"] == "video":
            spec["info"] = {"video.fps": fps, "has_audio": False, **spec.get("info", {})}
    return {
        "codebase_version": fmt.VERSION,
        "robot_type": robot,
        "total_episodes": 0,
        "total_frames": 0,
        "total_tasks": 0,
        "chunks_size": fmt.CHUNK_FILES,
        "data_files_size_in_mb": fmt.DATA_FILE_MB,
        "video_files_size_in_mb": fmt.VIDEO_FILE_MB,
        "fps": int(fps) if fps == int(fps) else fps,
        "splits": {},
        "data_path": fmt.DATA_PATH,
        "video_path": fmt.VIDEO_PATH if has_video else None,
        "features": described,
    }


def _episode_row(file: Path, info: dict[str, Any], tasks: list[str], number: int) -> dict[str, Any]:
    """Return one row of the episodes' table, and add an unseen instruction to `tasks`.

    `_file` and `_task` are for packing only.
    """
    with pq.ParquetFile(file) as parquet:
        note = json.loads(parquet.schema_arrow.metadata[b"pilot"])
        length = parquet.metadata.num_rows
    if note["task"] not in tasks:
        tasks.append(note["task"])
    return {
        "_file": file,
        "_task": tasks.index(note["task"]),
        "episode_index": info["total_episodes"] + number,
        "tasks": [note["task"]],
        "length": length,
        "labels": json.dumps(note["labels"]),
    }


def _place_frames(rows: list[dict[str, Any]], *, start: int) -> None:
    for row in rows:
        row["dataset_from_index"], row["dataset_to_index"] = start, start + row["length"]
        start += row["length"]


def _next_file(path: Path, kind: str, total_episodes: int) -> int:
    """Files of a closed set stay as they are, new ones follow. Left-overs of an interrupted pack are written over."""
    if total_episodes == 0:
        return 0
    used = read_episodes(path, total_episodes)
    chunks, files = used[f"{kind}/chunk_index"].to_numpy(), used[f"{kind}/file_index"].to_numpy()
    return int((chunks * fmt.CHUNK_FILES + files).max()) + 1


def _groups(
    rows: list[dict[str, Any]], sizes: list[int], limit_mb: float, *, kinds: Sequence[Any] | None = None
) -> Iterator[list[dict[str, Any]]]:
    """Splits episodes into files of about `limit_mb`, each with episodes of one kind."""
    group, total, last = [], 0, None
    for row, size, kind in zip(rows, sizes, kinds or [None] * len(rows), strict=True):
        if group and (total + size > limit_mb * 2**20 or kind != last):
            yield group
            group, total = [], 0
        group.append(row)
        total, last = total + size, kind
    yield group


def _pack_data(path: Path, rows: list[dict[str, Any]], features: dict[str, Any], *, first_file: int) -> None:
    names = [name for name, spec in features.items() if spec["dtype"] != "video"]
    note = fmt.huggingface_metadata(features)
    sizes = [row["_file"].stat().st_size for row in rows]
    for number, group in enumerate(_groups(rows, sizes, fmt.DATA_FILE_MB), first_file):
        with atomic_write(path / file_path(fmt.DATA_PATH, number)) as temporary:
            writer = None
            for row in group:
                table = _numbered(row).select(names).replace_schema_metadata(note)
                writer = writer or pq.ParquetWriter(temporary, table.schema, write_statistics=False)
                writer.write_table(table, row_group_size=max(row["length"], 1))
                row["data/chunk_index"], row["data/file_index"] = divmod(number, fmt.CHUNK_FILES)
                row |= episode_stats(table, features)
            if writer:
                writer.close()


def _numbered(row: dict[str, Any]) -> pa.Table:
    table, length = pq.read_table(row["_file"]), row["length"]
    numbers = {
        "episode_index": np.full(length, row["episode_index"]),
        "index": np.arange(row["dataset_from_index"], row["dataset_to_index"]),
        "task_index": np.full(length, row["_task"]),
    }
    for name, values in numbers.items():
        table = table.append_column(name, pa.array(values))
    return table


def _pack_videos(path: Path, rows: list[dict[str, Any]], key: str, *, fps: float, first_file: int) -> None:
    parts = [row["_file"].with_suffix(f".{key}.mp4") for row in rows]
    part_of = dict(zip((row["episode_index"] for row in rows), parts, strict=True))
    sizes = [part.stat().st_size for part in parts]
    kinds = [Encoding.of(part).alike for part in parts]
    for number, group in enumerate(_groups(rows, sizes, fmt.VIDEO_FILE_MB, kinds=kinds), first_file):
        file = path / file_path(fmt.VIDEO_PATH, number, video_key=key)
        join_videos(file, [part_of[r["episode_index"]] for r in group], fps=fps, lengths=[r["length"] for r in group])
        start = 0
        for row in group:
            row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"] = divmod(number, fmt.CHUNK_FILES)
            row[f"videos/{key}/from_timestamp"] = start / fps
            start += row["length"]
            row[f"videos/{key}/to_timestamp"] = start / fps
            first_picture = VideoFile(part_of[row["episode_index"]], fps=fps).read(0)
            row |= stats_columns({key: describe_picture(first_picture)})


def _write_tasks(path: Path, tasks: list[str]) -> None:
    """Write a pandas frame whose index is the instruction, as other readers expect it."""
    index = {"columns": [], "index_columns": ["task"], "column_indexes": [], "creator": {"library": "pyarrow"}}
    index["columns"] = [
        {
            "name": "task_index",
            "field_name": "task_index",
            "pandas_type": "int64",
            "numpy_type": "int64",
            "metadata": None,
        },
        {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object", "metadata": None},
    ]
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    with atomic_write(path / fmt.TASKS) as temporary:
        pq.write_table(table.replace_schema_metadata({b"pandas": json.dumps(index).encode()}), temporary)


def _write_episodes(path: Path, rows: list[dict[str, Any]], *, file: int) -> None:
    for row in rows:
        row["meta/episodes/chunk_index"], row["meta/episodes/file_index"] = divmod(file, fmt.CHUNK_FILES)
    public = [{name: value for name, value in row.items() if not name.startswith("_")} for row in rows]
    with atomic_write(path / file_path(fmt.EPISODES_PATH, file)) as temporary:
        pq.write_table(pa.Table.from_pylist(public), temporary)
