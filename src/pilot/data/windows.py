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

from pilot.data.episodes import EpisodeDataset

WINDOW, OPEN_WINDOWS = 32, 16


def window_of(dataset: EpisodeDataset, i: int, *, window: int = WINDOW) -> tuple[int, int]:
    """The window of row `i`: rows `start` to `stop`, of one episode."""
    episode = dataset.episodes[dataset.episode_of[i]]
    start = episode.start + (i - episode.start) // window * window
    return start, min(start + window, episode.stop)


def windowed_order(
    dataset: EpisodeDataset, rng: np.random.Generator, *, window: int = WINDOW, open_windows: int = OPEN_WINDOWS
) -> Int[np.ndarray, " n"]:
    """Every drawable row once, at any moment from among `open_windows` windows: an order for `WindowCache`."""
    rows = dataset.drawable_rows()
    starts = np.array([episode.start for episode in dataset.episodes])[dataset.episode_of[rows]]
    names = starts * (window + 1) + (rows - starts) // window  # grows with the row, one number per window
    waiting = np.split(rows, np.flatnonzero(np.diff(names)) + 1)
    waiting = [waiting[place] for place in rng.permutation(len(waiting))]
    order, opened = [], [rng.permutation(waiting.pop()).tolist() for _ in range(min(open_windows, len(waiting)))]
    while opened:
        place = int(rng.integers(len(opened)))
        order.append(opened[place].pop())
        if not opened[place] and waiting:
            opened[place] = rng.permutation(waiting.pop()).tolist()
        elif not opened[place]:
            opened[place] = opened[-1]
            opened.pop()
    return np.array(order)


class WindowCache:
    """Decoded pictures of the windows that were last read from; `dataset.frames = WindowCache(dataset)` uses it.

    Memory is bounded: by half more than `open_windows` windows of `window` pictures per camera, so that in an order of
    `windowed_order` a window is not forgotten before its last row is drawn.
    """

    def __init__(self, dataset: EpisodeDataset, *, window: int = WINDOW, open_windows: int = OPEN_WINDOWS) -> None:
        self.dataset, self.window, self.open_windows = dataset, window, open_windows
        self._open: OrderedDict[tuple[int, str], list[np.ndarray]] = OrderedDict()

    def read(self, i: int, camera: str) -> UInt8[np.ndarray, "h w 3"]:
        """Row `i`; its whole window is decoded if it is not open."""
        start, stop = window_of(self.dataset, i, window=self.window)
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
