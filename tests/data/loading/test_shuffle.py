"""Streams cut a group into shares of one size, at the ends of files; orders hold every row once and have no memory."""

import numpy as np
import pytest

from pilot.data.loading.shuffle import ShuffledOrder, cut_points, piece_of_stream, shuffle_by_window

ROWS = np.arange(100, 340)
FILES = np.arange(240) // 20  # twelve files of twenty rows


def test_an_epoch_of_a_stream_holds_its_share_once():
    for windows, files in ((None, None), (ROWS // 8, FILES)):
        order = ShuffledOrder(ROWS, key=(1, 2), streams=4, files=files, windows=windows, open_windows=2)
        own = [[order.row(stream, n) for n in range(120)] for stream in range(4)]
        assert sorted(row for rows in own for row in rows[:60]) == ROWS.tolist()
        for stream, rows in enumerate(own):
            assert sorted(rows[:60]) == sorted(rows[60:]) == ROWS[order.share(stream)].tolist()
            assert rows[:60] != rows[60:] != sorted(rows[60:]), "each epoch has an order of its own"


def test_any_place_is_found_without_those_before():
    for windows in (None, ROWS // 8):
        order = ShuffledOrder(ROWS, key=(1, 2), streams=3, windows=windows, open_windows=2)
        rows = [order.row(1, n) for n in range(300)]
        for n in (299, 3, 170, 80, 79):
            assert ShuffledOrder(ROWS, key=(1, 2), streams=3, windows=windows, open_windows=2).row(1, n) == rows[n]
        assert ShuffledOrder(ROWS, key=(1, 3), streams=3, windows=windows, open_windows=2).row(1, 5) != rows[5]


def test_rows_come_from_few_windows_at_a_time():
    order = shuffle_by_window(ROWS, ROWS // 8, np.random.default_rng(0), open_windows=3)
    assert sorted(order.tolist()) == ROWS.tolist()
    windows = (order // 8).tolist()
    spans = [(windows.index(w), len(windows) - windows[::-1].index(w)) for w in set(windows)]
    assert max(sum(a <= n < b for a, b in spans) for n in range(len(windows))) <= 3
    assert [w for n, w in enumerate(windows) if w not in windows[:n]] != sorted(set(windows))


def test_cuts_fall_on_the_ends_of_files_that_are_near():
    assert cut_points(240, 4, FILES).tolist() == [0, 60, 120, 180, 240]
    assert cut_points(240, 3, np.repeat([0, 1, 2], [83, 80, 77])).tolist() == [0, 83, 163, 240]
    assert cut_points(240, 2, np.repeat([0, 1], [90, 150])).tolist() == [0, 120, 240], (
        "too far: shares would differ in size"
    )
    assert cut_points(240, 2).tolist() == [0, 120, 240]


@pytest.mark.parametrize(("streams", "ranks"), [(8, (1, 2, 4, 8)), (12, (2, 4, 12)), (7, (1, 7)), (1, (1,))])
def test_the_streams_of_a_rank_have_pieces_side_by_side(streams, ranks):
    pieces = [piece_of_stream(stream, streams) for stream in range(streams)]
    assert sorted(pieces) == list(range(streams))
    for n in ranks:
        for rank in range(n):
            own = sorted(pieces[rank::n])
            assert own == list(range(own[0], own[0] + streams // n))


def test_fewer_rows_than_streams_are_shared_evenly():
    order = ShuffledOrder(np.arange(3), key=(0, 0), streams=16)
    drawn = [order.row(stream, number) for stream in range(16) for number in range(4)]
    counts = np.bincount(drawn, minlength=3)
    assert counts.min() >= 20 and counts.sum() == 64
