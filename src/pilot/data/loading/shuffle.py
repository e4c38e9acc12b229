"""In which order the rows of a group come up: shuffled one by one or by windows, in one stream or in several.

Streams are for runs past one machine. Row i of every batch belongs to stream i mod S, and a stream draws from a share
of each group that is its own: a stretch of rows that lie side by side, cut where a file ends if one ends nearby. A rank
that makes rows r, r + n, … of each batch so has streams r, r + n, …, and reads nothing but their files; what a batch
holds depends on S and not on the number of ranks.

Axes: `n` rows.
"""

import numpy as np
from jaxtyping import Int

NEARBY = 0.1  # of a share: how far a cut moves to fall on the end of a file


class ShuffledOrder:
    """The rows of one group; `row(stream, number)` is the one that comes when the stream draws it for the `number`-th
    time. In each stream every row comes once before any comes twice, in an order drawn anew.

    `windows` [n] names the window of each row: windows come in random order, and rows from `open_windows` of them at a
    time. Without, rows come one by one. `files` [n] names the file of each row.
    """

    def __init__(
        self,
        rows: Int[np.ndarray, " n"],
        *,
        key: tuple[int, int],
        streams: int = 1,
        files: Int[np.ndarray, " n"] | None = None,
        windows: Int[np.ndarray, " n"] | None = None,
        open_windows: int = 1,
    ) -> None:
        self.rows, self.key, self.streams = rows, key, streams
        self.windows, self.open_windows = windows, open_windows
        self.cut_points = cut_points(len(rows), streams, files)
        self._epochs: dict[int, tuple[int, np.ndarray]] = {}

    def row(self, stream: int, number: int) -> int:
        """Return the row at place `number` of a stream; every epoch of the stream has an order of its own."""
        own = self.share(stream)
        epoch, place = divmod(number, own.stop - own.start)
        seed, group = self.key
        if self.windows is None:
            place = shuffled_position(place, own.stop - own.start, key=(seed, group + (stream << 32), epoch))
            return int(self.rows[own.start + place])
        if (known := self._epochs.get(stream)) is None or known[0] != epoch:
            rng = np.random.default_rng((seed, group, stream, epoch))
            known = epoch, shuffle_by_window(self.rows[own], self.windows[own], rng, open_windows=self.open_windows)
            self._epochs[stream] = known
        return int(known[1][place])

    def share(self, stream: int) -> slice:
        """Return which rows a stream has; where there are fewer rows than streams, some have the same one."""
        piece = piece_of_stream(stream, self.streams)
        start = min(int(self.cut_points[piece]), len(self.rows) - 1)
        return slice(start, max(int(self.cut_points[piece + 1]), start + 1))


def cut_points(rows: int, streams: int, files: Int[np.ndarray, " n"] | None = None) -> Int[np.ndarray, " m"]:
    """Compute where to cut `rows` rows into `streams` pieces of one size; a cut may move a little, to the end of a
    file."""
    even = np.arange(streams + 1) * rows // streams
    if files is None:
        return even
    ends = np.concatenate([[0], np.flatnonzero(np.diff(files)) + 1, [rows]])
    after = np.searchsorted(ends, even).clip(1, len(ends) - 1)
    nearest = np.where(even - ends[after - 1] < ends[after] - even, ends[after - 1], ends[after])
    return np.where(np.abs(nearest - even) <= NEARBY * rows / streams, nearest, even)


def piece_of_stream(stream: int, streams: int) -> int:
    """Return which piece a stream has: its number with the digits reversed, so that streams r, r + n, r + 2n, … have
    pieces side by side, and few files are read by two ranks. This is exact for numbers of ranks that are products of
    the smallest prime factors of `streams`, such as all powers of two where it is one.

    With 8 streams: 0 4 2 6 1 5 3 7.
    """
    piece, left = 0, streams
    while left > 1:
        base = next(factor for factor in range(2, left + 1) if left % factor == 0)
        left //= base
        stream, digit = divmod(stream, base)
        piece += digit * left
    return piece


def shuffle_by_window(
    rows: Int[np.ndarray, " n"], windows: Int[np.ndarray, " n"], rng: np.random.Generator, *, open_windows: int
) -> Int[np.ndarray, " n"]:
    """Order rows so that at any moment they come from at most `open_windows` windows: window w of a random order begins
    at time w, and its rows are drawn over `open_windows` units of time."""
    names, number = np.unique(windows, return_inverse=True)
    # Sorting by time mixes the rows of windows that are open together and of no others.
    times = rng.permutation(len(names))[number] + open_windows * rng.random(len(rows))
    return rows[np.argsort(times, kind="stable")]


def shuffled_position(place: int, size: int, *, key: tuple[int, int, int]) -> int:
    """Return where `place` goes in a random permutation of 0 … size−1 that `key` chooses.

    A Feistel network of four rounds over the next power of four, walked until it lands below `size`.
    """
    half = max(1, (size - 1).bit_length() + 1 >> 1)
    low = (1 << half) - 1
    seed = hash_64(hash_64(hash_64(key[0]) + key[1]) + key[2])
    # The network permutes a power of four; what lands outside of the rows goes through it again, at most a few times.
    while True:
        left, right = place >> half, place & low
        for turn in range(4):
            left, right = right, left ^ hash_64(seed + (turn << 56) + right) & low
        place = left << half | right
        if place < size:
            return place


def hash_64(x: int) -> int:
    """Mix 64 bits as SplitMix64 does (Steele et al. 2014)."""
    x = (x + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    x = (x ^ x >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return x ^ x >> 31
