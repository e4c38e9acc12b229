"""RLDS (Open X-Embodiment, DROID, Bridge), read by `data/formats/rlds.py`; `datasets/` says what its features mean."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats import rlds
from pilot.data.formats.episodes import Episode, EpisodeDataset
from pilot.data.importers.base import ImportedEpisode, ImportOptions, describe_robot
from pilot.data.storage.files import read_json


class Rlds:
    """Episodes that the layout leaves out (failed ones, ones without words) are not converted."""

    def __init__(self, path: Path, options: ImportOptions) -> None:
        if options.layouts is None:
            raise ValueError(f"{path} is an RLDS set; say what its features mean: ImportOptions(layouts=load_layout)")
        name = read_json(rlds.version_folder(path) / rlds.INFO, remedy=rlds.FETCH)["name"]
        self.dataset = rlds.RldsDataset(path, 1, layout=options.layouts(name), skip_bad=True, progress=True)
        self.fps, self.settings = float(self.dataset.fps), {"layout": self.dataset.layout.digest}
        self.unreadable = [(f"episode {skip.episode}", skip.reason) for skip in self.dataset.skipped]
        self.pictures, self.left_out, self.drop_idle = options.pictures or "video", [], options.drop_idle
        self._kept = [episode for episode in self.dataset.episodes if len(self._rows(episode))]
        self.episodes = [f"episode {e.index}" for e in self._kept] + [name for name, _ in self.unreadable]
        dims = {"state": self.dataset.state.shape[1], "action": self.dataset.actions.shape[1]}
        states, actions = ([f"{kind}_{i}" for i in range(n)] for kind, n in dims.items())
        self.robot = options.robot or describe_robot(
            name, cameras=self.dataset.cameras, states=states, actions=actions, fps=self.fps
        )

    @staticmethod
    def can_read(path: Path) -> bool:
        return (path / rlds.FEATURES).exists() or any(path.glob(f"*/{rlds.FEATURES}"))

    def read(self, number: int) -> ImportedEpisode:
        if number >= len(self._kept):
            raise ValueError(self.unreadable[number - len(self._kept)][1])
        episode = self._kept[number]
        rows = self._rows(episode)
        frames = {fmt.STATE: np.asarray(self.dataset.state[rows]), fmt.ACTION: np.asarray(self.dataset.actions[rows])}
        if self.dataset.trainable is not None and not self.drop_idle:
            frames[fmt.TRAINABLE] = np.asarray(self.dataset.trainable[rows])
        pictures = {
            fmt.IMAGES + camera: RowPictures(self.dataset, camera, rows=rows) for camera in self.dataset.cameras
        }
        wordings = [(0.0, "task_aug", "user", words) for words in episode.rephrasings]
        labels = dict(episode.labels) | {"recording": str(episode.index)}
        if episode.missing:  # their pictures are black
            labels[fmt.MISSING] = ",".join(episode.missing)
        return ImportedEpisode(frames=frames | pictures, task=episode.task, persistent=wordings, labels=labels)

    def _rows(self, episode: Episode) -> Int[np.ndarray, " t"]:
        """Return the rows of an episode that are converted."""
        rows = np.arange(episode.start, episode.stop)
        return rows[self.dataset.trainable[rows]] if self.drop_idle and self.dataset.trainable is not None else rows


class RowPictures:
    """The pictures of some rows of a data set, decoded when asked for."""

    dtype = np.dtype(np.uint8)

    def __init__(self, dataset: EpisodeDataset, camera: str, *, rows: Int[np.ndarray, " t"]) -> None:
        self._dataset, self._camera, self._rows = dataset, camera, rows.tolist()
        self.shape = (len(rows), *dataset.decode(self._rows[0], camera).shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, number: int) -> UInt8[np.ndarray, "h w 3"]:
        return self._dataset.decode(self._rows[number], self._camera)

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        return (self[number] for number in range(len(self)))


IMPORTER = Rlds
