"""A plain folder: one `NAME.npz` per episode, beside it `NAME.CAMERA.mp4` for each camera.

An npz holds `state` [t sd] and `action` [t ad], a text `task` (or `prompt`), and whatever other columns of numbers
there are, [t] or [t n]. This is what a robot without any framework can write in ten lines.
"""

from pathlib import Path
from typing import Any

import numpy as np

from pilot.data.formats import lerobot_layout as fmt
from pilot.data.importers.base import ImportedEpisode, ImportOptions, describe_robot, require_rate, require_task
from pilot.data.importers.hdf5 import natural_key
from pilot.types import Robot

STATE_NAMES, ACTION_NAMES = ("state", fmt.STATE, "qpos"), ("action", "actions")
INSTRUCTION = ("task", "prompt")


class NpzFolder:
    """Files in the order of the numbers in their names. mp4 are not encoded again."""

    def __init__(self, path: Path, options: ImportOptions) -> None:
        self.options, self.fps, self.settings = options, require_rate(path, options), {}
        if options.pictures == "image":
            raise ValueError(f"{path} holds mp4 files, which are copied as they are; leave --pictures out")
        self._files = sorted(path.glob("*.npz"), key=lambda file: natural_key(file.name))
        self.episodes = [file.name for file in self._files]
        self.pictures, self.left_out = "video", self._left_out()
        self.robot = options.robot or self._robot()

    @staticmethod
    def can_read(path: Path) -> bool:
        return any(path.glob("*.npz"))

    def read(self, number: int) -> ImportedEpisode:
        file = self._files[number]
        columns = {name: values for name, values in _columns(file).items() if name not in fmt.INDEX_COLUMNS}
        instruction = next((columns.pop(name) for name in INSTRUCTION if name in columns), None)
        frames: dict[str, Any] = dict(_vectors(file, columns))
        frames |= {name: values for name, values in columns.items() if name not in STATE_NAMES + ACTION_NAMES}
        frames |= {fmt.IMAGES + camera: video for camera, video in _videos(file).items()}
        return ImportedEpisode(
            frames=frames, task=require_task(file, instruction, self.options), labels={"recording": file.stem}
        )

    def _left_out(self) -> list[str]:
        """Columns that v3.0 fills in itself, such as `timestamp`, as far as the first file has them."""
        try:
            return sorted(fmt.INDEX_COLUMNS.keys() & _columns(self._files[0]).keys())
        except ValueError:
            return []

    def _robot(self) -> Robot:
        """Described by the first file that can be read."""
        for file in self._files:
            try:
                dims = {name: values.shape[1] for name, values in _vectors(file, _columns(file)).items()}
            except ValueError:
                continue
            states, actions = (
                [f"{kind}_{i}" for i in range(dims[n])] for kind, n in (("state", fmt.STATE), ("action", fmt.ACTION))
            )
            return describe_robot("unknown", cameras=_videos(file), states=states, actions=actions, fps=self.fps)
        raise ValueError(f"none of {self.episodes[:5]} can be read; they hold 'state' and 'action', see {__name__}")


def _columns(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as content:
            return dict(content)
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise ValueError(f"{file} cannot be read ({error}); it is damaged, record it again") from error


def _vectors(file: Path, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return state and action under LeRobot's names."""
    vectors = {}
    for name, known in ((fmt.STATE, STATE_NAMES), (fmt.ACTION, ACTION_NAMES)):
        given = next((column for column in known if column in columns), None)
        if given is None or columns[given].ndim != 2:
            raise ValueError(f"{file} has no '{known[0]}' [t d]; it has { {k: v.shape for k, v in columns.items()} }")
        vectors[name] = columns[given].astype(np.float32)
    return vectors


def _videos(file: Path) -> dict[str, Path]:
    """Return the mp4 files that belong to an npz, by camera."""
    found = sorted(file.parent.glob(f"{file.stem}.*.mp4"))
    return {video.name[len(file.stem) + 1 : -len(".mp4")]: video for video in found}


IMPORTER = NpzFolder
