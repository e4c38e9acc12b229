"""Video as LeRobot stores it: many episodes of one camera in one mp4, read back frame by frame, exactly.

H.264 with a key frame every second frame and no B-frames: any frame is at most one decode away from a key frame, and
the packets of finished episodes can be joined into one file without encoding them again.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from pilot.data.files import atomic_write

TIME_BASE = 90_000  # ticks per second: a multiple of every common frame rate


def _av():
    try:
        import av
    except ImportError as error:
        raise ImportError("video needs PyAV: pip install 'pilot[video]'") from error
    return av


def _failure() -> type[Exception]:
    """What PyAV raises about damaged files."""
    from av.error import FFmpegError

    return FFmpegError


def encode_video(path: Path, frames: UInt8[np.ndarray, "t h w 3"], *, fps: int, crf: int = 18) -> None:
    """Writes H.264 mp4, atomically. Height and width must be even (4:2:0 chroma)."""
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise ValueError(f"{path}: video frames need an even height and width, got {frames.shape[1:3]}")
    av = _av()
    with atomic_write(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        options = {"g": "2", "bf": "0", "crf": str(crf), "preset": "veryfast"}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())


def join_videos(path: Path, parts: Sequence[Path], *, fps: int, lengths: Sequence[int]) -> None:
    """Concatenates the packets of `parts` (of `lengths` frames, encoded alike) into one mp4, atomically."""
    av = _av()
    with atomic_write(path) as temporary, av.open(str(temporary), "w", format="mp4") as output:
        target, start = None, 0
        for part, length in zip(parts, lengths, strict=True):
            with av.open(str(part)) as source:
                video = source.streams.video[0]
                target = target or output.add_stream_from_template(video)
                count = 0
                for packet in source.demux(video):
                    if packet.pts is None:  # the flush packet
                        continue
                    number = start + round(packet.pts * packet.time_base * fps)
                    packet.pts = packet.dts = number * TIME_BASE // fps
                    packet.time_base = Fraction(1, TIME_BASE)
                    packet.stream = target
                    output.mux(packet)
                    count += 1
            if count != length:
                raise ValueError(f"{part} holds {count} frames where the episode has {length}; record it again")
            start += length


class VideoFile:
    """Random and sequential access to the frames of one mp4 by number. Not shared between processes."""

    def __init__(self, path: Path, *, fps: int) -> None:
        if not path.exists():
            raise FileNotFoundError(f"video {path} is missing; copy it from where the data set came from")
        av, failure = _av(), _failure()
        self.path, self.fps = path, fps
        try:
            self._container = av.open(str(path))
            self._stream = self._container.streams.video[0]
        except (failure, IndexError) as error:
            raise ValueError(f"video {path} cannot be opened ({error}); it is damaged, fetch it again") from error
        self._stream.thread_type = "NONE"  # loader workers are the parallelism
        self._frames: Iterator[Any] = iter(())
        self._next = -1

    def read(self, number: int) -> UInt8[np.ndarray, "h w 3"]:
        """Frame `number`; `ValueError` if the file has no frame at exactly that time."""
        try:
            if number != self._next:
                self._seek(number)
            for frame in self._frames:
                at = round(frame.time * self.fps)
                if at >= number:
                    break
            else:
                raise ValueError(f"video {self.path} ends before frame {number}; it is truncated, fetch it again")
        except _failure() as error:
            self._next = -1
            raise ValueError(
                f"video {self.path} cannot be decoded at frame {number} ({error}); fetch it again"
            ) from error
        if at != number:
            raise ValueError(f"video {self.path} has no frame {number} at {self.fps} fps (next is {at}): wrong fps?")
        self._next = number + 1
        return frame.to_ndarray(format="rgb24")

    def _seek(self, number: int) -> None:
        seconds = number / self.fps
        self._container.seek(round(seconds / (self._stream.time_base or 1)), stream=self._stream, backward=True)
        self._frames = self._container.decode(self._stream)

    def close(self) -> None:
        self._container.close()
