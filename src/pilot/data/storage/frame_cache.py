"""Pictures decoded once: one raw uint8 file per camera, read by position.

Decoding PNG or video for every draw of every epoch costs more than a small model's training step. The cache is read
with `pread`, not mapped: the kernel keeps hot pages, and a worker's own memory stays small.
"""

import hashlib
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from tqdm import tqdm

from pilot.data.formats.episodes import EpisodeDataset
from pilot.data.storage.files import atomic_write, cache_folder, read_json, write_json

NOTE = "frames.json"


class FrameCache:
    """The pictures of the rows of one `EpisodeDataset` that training draws, `folder/<camera>.raw`, in row order.

    Open it with `cache_frames`; `dataset.frames = cache` makes the data set read from it. `rows` are the rows that it
    holds, None for all.
    """

    def __init__(
        self,
        folder: Path,
        shapes: dict[str, tuple[int, ...]],
        bad: dict[str, dict[int, str]],
        *,
        rows: Int[np.ndarray, " n"] | None = None,
    ) -> None:
        self.folder, self.shapes, self.bad, self.rows = folder, shapes, bad, rows
        self._open: dict[str, int] = {}

    def read(self, i: int, camera: str) -> UInt8[np.ndarray, "h w 3"]:
        """Return the picture at row `i`.

        Raises:
            LookupError: the cache does not hold that row.
            ValueError: it could not be decoded, or the file is too short.
        """
        if i in self.bad[camera]:
            raise ValueError(self.bad[camera][i])
        position = self._position(i)
        shape = self.shapes[camera]
        size = int(np.prod(shape))
        if camera not in self._open:
            self._open[camera] = os.open(self.folder / f"{camera}.raw", os.O_RDONLY)
        content = os.pread(self._open[camera], size, position * size)
        if len(content) != size:
            raise ValueError(
                f"{self.folder / camera}.raw ends before row {i}; remove the folder, it will be made again"
            )
        return np.frombuffer(content, np.uint8).reshape(shape)

    def _position(self, i: int) -> int:
        if self.rows is None:
            return i
        position = int(np.searchsorted(self.rows, i))
        if position == len(self.rows) or self.rows[position] != i:
            raise LookupError(f"row {i} is not drawn by training, so it is not in {self.folder}")
        return position

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}  # file descriptors do not travel to worker processes

    def __del__(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)


def cache_frames(dataset: EpisodeDataset, folder: str | Path | None = None, *, progress: bool = True) -> FrameCache:
    """Return the cache of `dataset`, decoded now unless it is there and fits the data set; also set `dataset.frames`.

    `folder` defaults to `<data set>/frames`. It is made anew when the data set, its episodes, its cameras or the
    rows that training draws changed.
    Of a data set with `skip_bad`, pictures that cannot be decoded are noted, and reading them raises; their episodes
    are in `dataset.skipped`.
    """
    if folder is None:
        writable = os.access(dataset.path, os.W_OK)
        folder = (dataset.path if writable else cache_folder(dataset.path)) / "frames"
    folder = Path(folder)
    drawn = dataset.trainable_rows()
    held = len(drawn)
    which = None if held == len(dataset) else hashlib.sha256(drawn.tobytes()).hexdigest()[:16]
    note = {"fingerprint": dataset.fingerprint(), "rows": held, "which": which, "cameras": list(dataset.cameras)}
    if not (folder / NOTE).exists() or _differs(folder, note):
        write_json(folder / NOTE, note | _build(dataset, folder, progress=progress))
    known = read_json(folder / NOTE, remedy=f"remove {folder}")
    shapes = {camera: tuple(shape) for camera, shape in known["shapes"].items()}
    bad = {camera: {int(i): why for i, why in known.get("bad", {}).get(camera, {}).items()} for camera in shapes}
    _list_bad(dataset, bad)
    rows = None if which is None else drawn
    dataset.frames = FrameCache(folder, shapes, bad, rows=rows)
    return dataset.frames


def _differs(folder: Path, note: dict[str, Any]) -> bool:
    known = read_json(folder / NOTE, remedy=f"remove {folder}")
    if any(known.get(name) != value for name, value in note.items()):
        return True
    sizes = {camera: note["rows"] * int(np.prod(shape)) for camera, shape in known["shapes"].items()}
    files = {camera: folder / f"{camera}.raw" for camera in sizes}
    return any(not file.exists() or file.stat().st_size != sizes[camera] for camera, file in files.items())


def _build(dataset: EpisodeDataset, folder: Path, *, progress: bool) -> dict[str, Any]:
    """Decode what training draws, in the order of the files; return the pictures' shapes, and which are bad and why."""
    (folder / NOTE).unlink(missing_ok=True)
    dataset.frames = None
    shapes: dict[str, tuple[int, ...]] = {}
    bad: dict[str, dict[int, str]] = {camera: {} for camera in dataset.cameras}
    rows = dataset.trainable_rows().tolist()
    total = len(rows) * len(dataset.cameras)
    with tqdm(total=total, unit="picture", desc=f"decoding {dataset.path.name}", disable=not progress) as bar:
        for camera in dataset.cameras:
            with atomic_write(folder / f"{camera}.raw") as temporary, temporary.open("wb") as file:
                for i in rows:
                    picture = _decode_if_good(dataset, i, camera, bad=bad[camera])
                    if camera not in shapes:
                        shapes[camera] = _first_shape(dataset, camera) if picture is None else picture.shape
                    shape = shapes[camera]
                    if picture is not None and picture.shape != shape:
                        raise ValueError(
                            f"{dataset.path}: the pictures of '{camera}' change from {shape[:2]} to "
                            f"{picture.shape[:2]} pixels in episode {dataset.episodes[dataset.episode_of[i]].index}; "
                            "read this set without a frame cache (frame_cache=False)"
                        )
                    file.write(bytes(int(np.prod(shape))) if picture is None else picture.tobytes())
                    bar.update()
    return {"shapes": shapes, "bad": bad}


def _decode_if_good(dataset: EpisodeDataset, i: int, camera: str, *, bad: dict[int, str]) -> np.ndarray | None:
    """Decode a picture; None if it was not recorded, or with `skip_bad` cannot be decoded."""
    if camera in dataset.episodes[dataset.episode_of[i]].missing:
        return None
    try:
        return dataset.decode(i, camera)
    except (ValueError, OSError) as error:
        if not dataset.skip_bad:
            raise
        bad[i] = str(error)
        return None


def _list_bad(dataset: EpisodeDataset, bad: dict[str, dict[int, str]]) -> None:
    reasons: defaultdict[int, list[str]] = defaultdict(list)
    for i, why in sorted((i, why) for rows in bad.values() for i, why in rows.items()):
        reasons[int(dataset.episode_of[i])].append(why)
    for number, found in reasons.items():
        dataset.skip_episode(number, f"{len(found)} of its pictures cannot be decoded; the first: {found[0]}")


def _first_shape(dataset: EpisodeDataset, camera: str) -> tuple[int, ...]:
    """Return the shape of the first picture that can be decoded."""
    pictures = (_decode_if_good(dataset, i, camera, bad={}) for i in range(len(dataset)))
    return next(picture.shape for picture in pictures if picture is not None)
