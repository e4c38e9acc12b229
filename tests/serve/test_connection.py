"""Large frames are collected in pieces, and come out as the library's own reader gives them."""

import itertools

import numpy as np
import pytest
from websockets.streams import StreamReader

from pilot.serve.connection import PiecewiseReader
from pilot.serve.limits import LARGE_MESSAGE


def read_frames(reader: StreamReader, data: bytes, sizes: list[int], *, piece: int) -> list[bytes]:
    """Feed data in pieces, and read frames of these sizes as soon as they are there."""
    pieces = (data[start : start + piece] for start in itertools.count(0, piece))
    frames = []
    for size in sizes:
        reading = reader.read_exact(size)
        while True:
            try:
                next(reading)
            except StopIteration as done:
                frames.append(bytes(done.value))
                break
            reader.feed_data(next(pieces))
    return frames


@pytest.mark.parametrize("piece", [2**14, 2**20 + 7, 2**23])
def test_large_frames_come_out_whole_and_what_follows_them_too(piece: int) -> None:
    sizes = [2, LARGE_MESSAGE, 10, LARGE_MESSAGE - 1, 3 * LARGE_MESSAGE + 5, 1]
    data = np.random.default_rng(0).bytes(sum(sizes))
    frames = read_frames(PiecewiseReader(), data, sizes, piece=piece)
    assert frames == read_frames(StreamReader(), data, sizes, piece=piece)
    assert b"".join(frames) == data


def test_a_stream_that_ends_within_a_large_frame_says_so() -> None:
    reader = PiecewiseReader()
    reading = reader.read_exact(LARGE_MESSAGE)
    next(reading)
    reader.feed_data(b"x" * 100)
    next(reading)
    reader.feed_eof()
    with pytest.raises(EOFError, match="100 bytes"):
        next(reading)
