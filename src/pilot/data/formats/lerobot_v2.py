"""What LeRobot v2.0 and v2.1 say about their episodes: one parquet file and one mp4 per camera for each.

    meta/episodes.jsonl    {"episode_index": 0, "tasks": ["..."], "length": 123}
    meta/tasks.jsonl       {"task_index": 0, "task": "..."}
    data/chunk-000/episode_000000.parquet, videos/chunk-000/<feature>/episode_000000.mp4

Statistics (`meta/episodes_stats.jsonl`, v2.0: `meta/stats.json`) are not read: pilot makes its own, see `stats.py`.
"""

from pathlib import Path
from typing import Any

from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.lerobot_layout import EpisodeFiles, VideoPart
from pilot.data.storage.untrusted import fill_template, parse_json

EPISODES, TASKS, SUBTASKS = "meta/episodes.jsonl", "meta/tasks.jsonl", "meta/subtasks.jsonl"
REMEDY = "fetch the data set again"


def read_index(path: Path, info: dict[str, Any]) -> list[EpisodeFiles]:
    """Read where each episode's frames and pictures lie, by episode number."""
    cameras = [name for name, spec in info["features"].items() if spec["dtype"] == "video"]
    rows = sorted(read_jsonl(path / EPISODES, "episode_index", "length"), key=lambda row: row["episode_index"])
    return [_files(row, info, cameras) for row in rows]


def read_tasks(path: Path) -> dict[int, str]:
    """Read the instructions by number."""
    return {row["task_index"]: row["task"] for row in read_jsonl(path / TASKS, "task_index", "task")}


def read_subtasks(path: Path) -> dict[int, str]:
    """Read the subtasks by number, for the `subtask_index` column."""
    return {row["subtask_index"]: row["subtask"] for row in read_jsonl(path / SUBTASKS, "subtask_index", "subtask")}


def read_jsonl(file: Path, *fields: str) -> list[dict[str, Any]]:
    """Read one object per line, each with `fields`. Errors name the file, the line and the remedy."""
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing; {REMEDY}")
    rows = []
    text = file.read_text(encoding="utf-8").removesuffix("\n")
    for number, line in enumerate(text.split("\n") if text else (), 1):  # JSON may hold what else splits lines
        try:
            row = parse_json(line, where=f"line {number}", remedy=REMEDY)
            if missing := [name for name in fields if name not in row]:
                raise ValueError(f"no {missing}")
        except ValueError as error:
            raise ValueError(f"{file}, line {number}: {error} in {line[:80]!r}; {REMEDY}") from error
        rows.append(row)
    return rows


def _files(row: dict[str, Any], info: dict[str, Any], cameras: list[str]) -> EpisodeFiles:
    index = row["episode_index"]
    place = {"episode_index": index, "episode_chunk": index // info["chunks_size"]}
    return EpisodeFiles(
        index=index,
        length=row["length"],
        labels={},
        data=fill_template(info["data_path"], place, where=fmt.INFO),
        videos={
            key: VideoPart(file=fill_template(info["video_path"], {"video_key": key, **place}, where=fmt.INFO), first=0)
            for key in cameras
        },
    )
