"""LeRobot v2.0 and v2.1: one parquet file per episode, one mp4 per camera and episode; mp4 are not encoded again."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats import lerobot_v2
from pilot.data.formats.feature_stats import numeric
from pilot.data.formats.lerobot_layout import EpisodeFiles
from pilot.data.formats.parquet import matrix
from pilot.data.formats.writer import Text
from pilot.data.importers.base import ImportedEpisode, ImportOptions, describe_robot, dim_names
from pilot.data.storage.files import read_json
from pilot.data.storage.untrusted import path_inside
from pilot.types import Robot

MAX_DRIFT = 0.25  # of a frame, between timestamps and the declared rate


class LeRobotV2:
    """State, action and cameras under today's names, other numbers as they are, subtask numbers as language rows."""

    def __init__(self, path: Path, options: ImportOptions) -> None:
        self.path, self.options, self.settings = path, options, {}
        self.info = read_json(path / fmt.INFO, remedy=lerobot_v2.REMEDY)
        self.features: dict[str, Any] = self.info["features"]
        self.fps = float(self.info["fps"])
        if options.fps not in (None, self.fps):
            raise ValueError(f"{path / fmt.INFO} says {self.fps:g} fps, not {options.fps:g}; leave --fps out")
        self._files = lerobot_v2.read_index(path, self.info)
        self._tasks = lerobot_v2.read_tasks(path)
        self._subtasks = lerobot_v2.read_subtasks(path) if fmt.SUBTASK_INDEX in self.features else {}
        self.episodes = [f"episode {one.index}" for one in self._files]
        self._names = self._renamed()
        self.left_out = sorted(set(self.features) - set(self._names) - set(fmt.INDEX_COLUMNS) - {fmt.SUBTASK_INDEX})
        self.pictures = self._pictures()
        self.robot = options.robot or self._robot()

    @staticmethod
    def can_read(path: Path) -> bool:
        return (path / lerobot_v2.EPISODES).exists()

    def read(self, number: int) -> ImportedEpisode:
        one = self._files[number]
        table = self._table(one)
        frames = {new: self._values(table, old, one) for old, new in self._names.items()}
        return ImportedEpisode(frames=frames, task=self._task(table, one), persistent=self._subtask_rows(table, one))

    def _renamed(self) -> dict[str, str]:
        """Today's names of the columns that are taken along."""
        names = {name: name for name in numeric(self.features) if name not in fmt.INDEX_COLUMNS}
        names.pop(fmt.SUBTASK_INDEX, None)
        for standard, known in ((fmt.STATE, fmt.STATE_NAMES), (fmt.ACTION, fmt.ACTION_NAMES)):
            names[fmt.find_feature(names, known, where=self.path)] = standard
        pictures = [name for name, spec in self.features.items() if spec["dtype"] in ("image", "video")]
        return names | {p: fmt.IMAGES + p.removeprefix(fmt.IMAGES).removeprefix("observation.") for p in pictures}

    def _pictures(self) -> str:
        kinds = sorted({self.features[name]["dtype"] for name in self._names} & {"image", "video"})
        if len(kinds) > 1:
            raise ValueError(
                f"{self.path} has cameras with pictures and cameras with video; v3.0 is written with one kind"
            )
        if self.options.pictures not in (None, *kinds):
            raise ValueError(f"{self.path} holds {kinds[0]}s, which are copied as they are; leave --pictures out")
        return kinds[0] if kinds else "image"

    def _robot(self) -> Robot:
        vectors = {new: self.features[old] for old, new in self._names.items() if new in (fmt.STATE, fmt.ACTION)}
        states, actions = (
            dim_names(vectors[name].get("names"), int(np.prod(vectors[name]["shape"])), kind=kind)
            for name, kind in ((fmt.STATE, "state"), (fmt.ACTION, "action"))
        )
        cameras = [name.removeprefix(fmt.IMAGES) for name in self._names.values() if name.startswith(fmt.IMAGES)]
        name = str(self.info.get("robot_type") or "unknown")
        return describe_robot(name, cameras=cameras, states=states, actions=actions, fps=self.fps)

    def _table(self, one: EpisodeFiles) -> pa.Table:
        file = self._inside(one.data)
        try:
            table = pq.read_table(file)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{file} cannot be read ({error}); it is damaged or missing, fetch it again") from error
        if table.num_rows != one.length:
            raise ValueError(f"{file} has {table.num_rows} steps, meta/ says {one.length}; {lerobot_v2.REMEDY}")
        if missing := (set(self._names) | {"timestamp", "task_index"}) - set(table.column_names) - set(one.videos):
            raise ValueError(f"{file} has no column {sorted(missing)}, though meta/info.json names it")
        drift = matrix(table["timestamp"])[:, 0] * self.fps - np.arange(one.length)
        if np.abs(drift - drift[:1]).max(initial=0) > MAX_DRIFT:
            raise ValueError(
                f"{file}: timestamps are not those of {self.fps:g} frames per second (frame "
                f"{int(np.abs(drift - drift[:1]).argmax())} is {np.abs(drift - drift[:1]).max():.1f} frames off); "
                "frames were dropped, or meta/info.json has a wrong fps"
            )
        return table

    def _values(self, table: pa.Table, name: str, one: EpisodeFiles) -> Any:
        kind = self.features[name]["dtype"]
        if kind == "video":
            return self._inside(one.videos[name].file)
        if kind == "image":
            return [self._picture_bytes(picture, one) for picture in table[name].to_pylist()]
        values = matrix(table[name])
        return values[:, 0] if self.features[name]["shape"] in ([1], []) else values

    def _picture_bytes(self, picture: dict[str, Any], one: EpisodeFiles) -> bytes:
        if picture["bytes"] is not None:
            return picture["bytes"]
        return path_inside(self.path, picture["path"], where=self.path / one.data).read_bytes()

    def _inside(self, name: str) -> Path:
        """Return the path of a file that `meta/` names; a `ValueError` if it is not inside the set."""
        return path_inside(self.path, name, where=self.path / fmt.INFO)

    def _task(self, table: pa.Table, one: EpisodeFiles) -> str:
        numbers = sorted(set(table["task_index"].to_pylist()))
        if len(numbers) > 1 or numbers[0] not in self._tasks:
            raise ValueError(
                f"{self.path / one.data} has tasks {numbers}; a v3.0 episode has one of those in {lerobot_v2.TASKS}"
            )
        return self._tasks[numbers[0]] or self.options.task or ""

    def _subtask_rows(self, table: pa.Table, one: EpisodeFiles) -> list[Text]:
        """Return one row where the subtask number of the frames changes. An episode may begin without a subtask."""
        if fmt.SUBTASK_INDEX not in table.column_names:
            return []
        numbers = matrix(table[fmt.SUBTASK_INDEX])[:, 0].astype(int)
        starts = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 1)).tolist()
        if starts and numbers[0] < 0:
            starts = starts[1:]
        if unknown := [int(numbers[start]) for start in starts if int(numbers[start]) not in self._subtasks]:
            raise ValueError(f"{self.path / one.data}: subtask_index {unknown[0]} is not in {lerobot_v2.SUBTASKS}")
        return [(start / self.fps, "subtask", "assistant", self._subtasks[int(numbers[start])]) for start in starts]


IMPORTER = LeRobotV2
