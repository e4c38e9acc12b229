"""ALOHA and ACT: one HDF5 file per episode.

    /observations/qpos [t sd]   /observations/qvel, /observations/effort [t …], where there are any
    /observations/images/<camera>   uint8 [t h w 3], or [t n]: JPEG or PNG files, padded with zeros to one length
    /action [t ad]   the instruction: attribute or data set `task`, `language_instruction` or `language_raw`

Pictures are read one by one while they are encoded, so that an episode need not fit in memory.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from pilot.data.formats import lerobot_layout as fmt
from pilot.data.importers.base import ImportedEpisode, ImportOptions, describe_robot, require_rate, require_task
from pilot.data.storage.untrusted import decode_picture
from pilot.types import Robot

STATE, ACTION, IMAGES = "observations/qpos", "action", "observations/images"
MORE = {"observations/qvel": "observation.velocity", "observations/effort": "observation.effort"}
INSTRUCTION = ("task", "language_instruction", "language_raw")


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError("HDF5 files need h5py: pip install 'pilot[hdf5]'") from error
    return h5py


class Hdf5:
    """Files in the order of the numbers in their names: `episode_2` stands before `episode_10`."""

    def __init__(self, path: Path, options: ImportOptions) -> None:
        self.options, self.fps, self.settings = options, require_rate(path, options), {}
        self._files = sorted(_files(path), key=lambda file: (natural_key(file.name), str(file)))
        self.episodes = [file.name for file in self._files]
        self.pictures, self.left_out = options.pictures or "video", []
        self.robot = options.robot or self._robot()

    @staticmethod
    def can_read(path: Path) -> bool:
        return bool(_files(path))

    def read(self, number: int) -> ImportedEpisode:
        file = self._files[number]
        with _open(file) as content:
            frames: dict[str, Any] = {
                new: np.asarray(content[old], np.float32)
                for old, new in {STATE: fmt.STATE, ACTION: fmt.ACTION, **MORE}.items()
                if old in content
            }
            instruction = next((content.attrs[name] for name in INSTRUCTION if name in content.attrs), None)
            instruction = instruction or next((content[name][()] for name in INSTRUCTION if name in content), None)
            cameras = sorted(content[IMAGES]) if IMAGES in content else []
        frames |= {fmt.IMAGES + camera: StoredPictures(file, f"{IMAGES}/{camera}") for camera in cameras}
        return ImportedEpisode(
            frames=frames, task=require_task(file, instruction, self.options), labels={"recording": file.stem}
        )

    def _robot(self) -> Robot:
        """Described by the first file that can be read."""
        for file in self._files:
            try:
                with _open(file) as content:
                    states, actions = content[STATE].shape[1], content[ACTION].shape[1]
                    cameras = sorted(content[IMAGES]) if IMAGES in content else []
            except ValueError:
                continue
            names = {kind: [f"{kind}_{i}" for i in range(n)] for kind, n in (("state", states), ("action", actions))}
            return describe_robot(
                "unknown", cameras=cameras, states=names["state"], actions=names["action"], fps=self.fps
            )
        raise ValueError(f"none of {[file.name for file in self._files[:5]]} can be read; fetch the data set again")


class StoredPictures:
    """The pictures of one camera of one file, read when asked for."""

    dtype = np.dtype(np.uint8)

    def __init__(self, file: Path, name: str) -> None:
        self._file, self._name = file, name
        with _open(file) as content:
            stored = content[name]
            if not len(stored):
                raise ValueError(f"{file} has no frames in /{name}; record the episode again")
            self._raw = stored.ndim == 4
            count, first = len(stored), stored[0]
        self.shape = (count, *self._picture(first, 0).shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, number: int) -> UInt8[np.ndarray, "h w 3"]:
        with _open(self._file) as content:
            return self._picture(content[self._name][number], number)

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        with _open(self._file) as content:
            for number in range(len(self)):
                yield self._picture(content[self._name][number], number)

    def _picture(self, stored: np.ndarray, number: int) -> UInt8[np.ndarray, "h w 3"]:
        if self._raw:
            return stored
        where = f"{self._file}, /{self._name} of frame {number}"
        return decode_picture(stored.tobytes(), where=where, remedy="fetch it again")


@contextmanager
def _open(file: Path) -> Iterator[Any]:
    """Open a file and yield its root. Raises `ValueError` for one that is damaged or lacks what is asked for."""
    try:
        with _h5py().File(file, "r") as content:
            yield content
    except (OSError, KeyError) as error:
        raise ValueError(f"{file} is damaged or no ALOHA recording ({error}); fetch it again") from error


def _files(path: Path) -> list[Path]:
    return [*path.rglob("*.hdf5"), *path.rglob("*.h5")] if path.is_dir() else []


def natural_key(name: str) -> list[Any]:
    """Return a key that sorts the numbers in names as numbers."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


IMPORTER = Hdf5
