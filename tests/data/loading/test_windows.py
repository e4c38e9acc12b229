"""Shuffled windows: every row once, few windows at a time, and the frames that the files hold."""

import numpy as np
import pytest
from data.recordings import episode, number_of, numbered, record

from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.lerobot import LeRobotDataset
from pilot.data.loading.shuffle import shuffle_by_window
from pilot.data.loading.windows import WindowCache, choose_windows, find_window, find_windows

LENGTHS = (37, 4, 50)


@pytest.fixture
def dataset(tmp_path):
    rng, episodes, start = np.random.default_rng(0), [], 0
    for length in LENGTHS:
        episodes.append(episode(rng, length) | {fmt.IMAGES + "room": numbered(length, start)})
        start += length
    for number in (0, 2):
        episodes[number][fmt.BOX][:] = np.nan
    record(tmp_path, episodes, image_format="video")
    return LeRobotDataset(tmp_path, 4, cameras=["room"])


def test_windows_are_within_episodes(dataset):
    spans = [find_window(dataset, i, window=8) for i in range(len(dataset))]
    assert sorted(set(spans))[:6] == [(0, 8), (8, 16), (16, 24), (24, 32), (32, 37), (37, 41)]
    assert all(start <= i < stop for i, (start, stop) in enumerate(spans))


def shuffle(dataset: LeRobotDataset, seed: int, *, window: int, open_windows: int) -> np.ndarray:
    rows = dataset.trainable_rows()
    windows = find_windows(dataset, rows, window=window)
    return shuffle_by_window(rows, windows, np.random.default_rng(seed), open_windows=open_windows)


def test_every_row_comes_once_from_few_windows(dataset):
    order = shuffle(dataset, 1, window=8, open_windows=3)
    assert sorted(order.tolist()) == list(range(len(dataset)))
    assert order.tolist() != shuffle(dataset, 2, window=8, open_windows=3).tolist()
    starts = [find_window(dataset, i, window=8)[0] for i in order.tolist()]
    first, last = ({s: pick(n for n, t in enumerate(starts) if t == s) for s in set(starts)} for pick in (min, max))
    assert max(sum(first[s] <= n <= last[s] for s in first) for n in range(len(order))) <= 3


def test_pictures_are_right_and_decoded_once(dataset, monkeypatch):
    decode, decoded = dataset.decode, []
    monkeypatch.setattr(dataset, "decode", lambda i, camera: decoded.append(i) or decode(i, camera))
    dataset.frames = WindowCache(dataset, window=8, open_windows=6)
    order = shuffle(dataset, 1, window=8, open_windows=6).tolist()
    assert [number_of(dataset.picture(i, "room")) for i in order] == order
    assert sorted(decoded) == list(range(len(dataset)))
    assert len(dataset.frames._open) <= 9


def test_windows_shrink_as_places_to_read_from_grow():
    assert choose_windows(1) == (32, 16) and choose_windows(4) == (32, 4) and choose_windows(16) == (32, 1)
    assert choose_windows(64) == (8, 1) and choose_windows(1000) == (4, 1)
    assert all(lanes * at_once * rows <= 512 for lanes in range(1, 129) for rows, at_once in [choose_windows(lanes)])
