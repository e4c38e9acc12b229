"""Reading video in an order that is random and yet cheap: short runs of frames, decoded in one go, drawn at random.

A random frame of an mp4 costs a seek and every frame since the last key frame; the frame after it costs one. So a set
is cut into windows of consecutive rows; a few windows are open at a time, each draw takes a row of one of them, and an
empty window makes place for the next. Every row comes once per epoch, and every frame is decoded once.

Axes: `n` rows, `h w` pixels.
"""

from collections import OrderedDict
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from pilot.data.formats.episodes import EpisodeDataset

WINDOW, OPEN_WINDOWS = 32, 16
LEAST = 4


def choose_windows(lanes: int) -> tuple[int, int]:
    """Choose the rows in a window, and the open windows for each of `lanes` places that rows come from in turn.

    Together about as many rows as `OPEN_WINDOWS` windows of `WINDOW` rows hold, whatever the number of lanes; where
    that would leave less than `LEAST` rows to a window, more.
    """
    at_once = max(1, OPEN_WINDOWS // lanes)
    return int(np.clip(WINDOW * OPEN_WINDOWS // (lanes * at_once), LEAST, WINDOW)), at_once


def find_window(dataset: EpisodeDataset, i: int, *, window: int = WINDOW) -> tuple[int, int]:
    """Return the window of row `i`: rows `start` to `stop`, of one episode."""
    episode = dataset.episodes[dataset.episode_of[i]]
    start = episode.start + (i - episode.start) // window * window
    return start, min(start + window, episode.stop)


def find_windows(
    dataset: EpisodeDataset, rows: Int[np.ndarray, " n"], *, window: int = WINDOW
) -> Int[np.ndarray, " n"]:
    """Return the first row of the window of each row."""
    starts = dataset.starts[dataset.episode_of[rows]]
    return starts + (rows - starts) // window * window


class WindowCache:
    """Decoded pictures of the windows that were last read from; `dataset.frames = WindowCache(dataset)` uses it.

    Memory is bounded: by half more than `open_windows` windows of `window` pictures per camera, so that in the order
    of `shuffle_by_window` a window is not forgotten before its last row is drawn.
    """

    def __init__(self, dataset: EpisodeDataset, *, window: int = WINDOW, open_windows: int = OPEN_WINDOWS) -> None:
        self.dataset, self.window, self.open_windows = dataset, window, open_windows
        self._open: OrderedDict[tuple[int, str], list[np.ndarray]] = OrderedDict()

    def read(self, i: int, camera: str) -> UInt8[np.ndarray, "h w 3"]:
        """Return the picture at row `i`; its whole window is decoded if it is not open."""
        start, stop = find_window(self.dataset, i, window=self.window)
        key = (start, camera)
        if key in self._open:
            self._open.move_to_end(key)
        else:
            self._open[key] = [self.dataset.decode(row, camera) for row in range(start, stop)]
            while len(self._open) > self.open_windows * 3 // 2 * len(self.dataset.cameras):
                self._open.popitem(last=False)
        return self._open[key][i - start]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict()}  # each process reads windows of its own
