"""What LeRobot v3.0 says about its episodes: parquet tables in `meta/`, and many episodes per file."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.lerobot_layout import EpisodeFiles, VideoPart
from pilot.data.formats.parquet import name_damaged, read_whole_table
from pilot.data.storage.untrusted import fill_template, parse_json

SUBTASKS = "meta/subtasks.parquet"


def read_index(path: Path, info: dict[str, Any]) -> list[EpisodeFiles]:
    """Read where each episode's frames and pictures lie, by episode number."""
    rows = read_episodes(path, info["total_episodes"]).to_pylist()
    cameras = [name for name, spec in info["features"].items() if spec["dtype"] == "video"]
    return [_files(row, info, cameras, path) for row in rows]


def read_episodes(path: Path, total_episodes: int) -> pa.Table:
    """Read the table of episodes, without their statistics (which outweigh the rest) or rows of an interrupted pack."""
    files = sorted(path.glob("meta/episodes/*/*.parquet"))
    if not files:
        raise FileNotFoundError(f"{path}/meta/episodes has no parquet files; fetch the data set again")
    tables = [read_whole_table(file, leave_out="stats/") for file in files]
    with name_damaged(path / "meta/episodes"):
        table = pa.concat_tables(tables, promote_options="default").sort_by("episode_index")
    return table.slice(0, total_episodes)


def read_tasks(path: Path) -> dict[int, str]:
    """Read the instructions by number, from the numbers that stand beside them and not from their order."""
    return _texts_by_number(path / fmt.TASKS, "task_index")


def read_subtasks(path: Path) -> dict[int, str]:
    """Read the subtasks by number, for the older `subtask_index` column."""
    return _texts_by_number(path / SUBTASKS, "subtask_index")


def _texts_by_number(file: Path, number: str) -> dict[int, str]:
    """Read a pandas frame whose index is the text, by number; older files lack the index's name."""
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing; fetch the data set again")
    table = read_whole_table(file)
    if number not in table.column_names or len(table.column_names) < 2:
        raise ValueError(f"{file} has no column of numbers '{number}' beside one of texts; fetch the data set again")
    text = next(name for name in table.column_names if name != number)
    return dict(sorted(zip(table[number].to_pylist(), table[text].to_pylist(), strict=True)))


def _files(row: dict[str, Any], info: dict[str, Any], cameras: list[str], path: Path) -> EpisodeFiles:
    try:
        place = {name: row[f"data/{name}"] for name in ("chunk_index", "file_index")}
        data = fill_template(info["data_path"], place, where=path / fmt.INFO)
        return EpisodeFiles(
            index=row["episode_index"],
            length=row["length"],
            labels=parse_json(row.get("labels") or "{}", where=f"{path}/meta/episodes", remedy="fetch it again"),
            data=data,
            videos={key: _video(row, key, info, path) for key in cameras},
        )
    except KeyError as error:
        raise ValueError(
            f"{path}/meta/episodes says nothing of {error} for episode {row.get('episode_index')}; fetch it again"
        ) from error


def _video(row: dict[str, Any], key: str, info: dict[str, Any], path: Path) -> VideoPart:
    place = {name: row[f"videos/{key}/{name}"] for name in ("chunk_index", "file_index")}
    file = fill_template(info["video_path"], {"video_key": key, **place}, where=path / fmt.INFO)
    return VideoPart(file=file, first=round(row[f"videos/{key}/from_timestamp"] * info["fps"]))
