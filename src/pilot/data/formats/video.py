"""Video as LeRobot stores it: many episodes of one camera in one mp4, read back frame by frame, exactly.

H.264 with a key frame every second frame and no B-frames: any frame is at most one decode away from a key frame, and
the packets of finished episodes can be joined into one file without encoding them again.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from pilot.data.storage.files import atomic_write
from pilot.data.storage.untrusted import MAX_PIXELS

TIME_BASE = 90_000  # ticks per second: a multiple of every common frame rate
MAX_DENOMINATOR = 1001  # of a frame rate: 30000/1001 is the one of television
MAX_DRIFT = 0.1  # of a frame: how far from its time a frame may lie; time bases round
MAX_RATE_ERROR = 0.02


def _av():
    try:
        import av
    except ImportError as error:
        raise ImportError("video needs PyAV: pip install 'pilot[video]'") from error
    return av


def _failure() -> type[Exception]:
    """Return the class of errors that PyAV raises about damaged files."""
    from av.error import FFmpegError

    return FFmpegError


@runtime_checkable
class FrameSequence(Protocol):
    """Pictures [t h w 3] that need not be in memory: a numpy array, an HDF5 data set, or frames decoded on the way."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape [t h w 3]."""
        ...

    @property
    def dtype(self) -> Any:
        """The dtype of pixels, usually uint8."""
        ...

    def __len__(self) -> int: ...
    def __getitem__(self, number: Any, /) -> Any: ...
    def __iter__(self) -> Iterator[Any]: ...


def frame_rate(fps: float) -> Fraction:
    """Return the rate at which a video is encoded and stamped; `fps` itself, as 25/2 and 30000/1001 are written.

    Raises:
        ValueError: less than a frame in a quarter of an hour, which no such fraction comes near.
    """
    rate = Fraction(float(fps)).limit_denominator(MAX_DENOMINATOR)
    if rate * MAX_DENOMINATOR < 1:
        raise ValueError(f"a video has at least {1 / MAX_DENOMINATOR:.2g} frames per second, got fps={fps:g}")
    return rate


def encode_video(path: Path, frames: FrameSequence, *, fps: float, crf: int = 18) -> None:
    """Write uint8 [t h w 3] as H.264 mp4, atomically. Height and width must be even (4:2:0 chroma)."""
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise ValueError(f"{path}: video frames need an even height and width, got {frames.shape[1:3]}")
    av = _av()
    with atomic_write(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        options = {"g": "2", "bf": "0", "crf": str(crf), "preset": "veryfast"}
        stream = container.add_stream("libx264", rate=frame_rate(fps), options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """The encoding of an mp4. Packets of files that are `alike` can be joined; `in_order`: shown as they are stored.

    `times`: the seconds at which the packets are shown, in the order in which they are stored.
    """

    codec: str
    pix_fmt: str
    height: int
    width: int
    setup: bytes
    times: tuple[float, ...]

    @property
    def frames(self) -> int:
        """How many packets the file holds."""
        return len(self.times)

    @property
    def in_order(self) -> bool:
        """Whether the packets are stored in the order in which they are shown."""
        return list(self.times) == sorted(self.times)

    @property
    def alike(self) -> tuple[Any, ...]:
        """Everything that has to agree before packets of two files can be joined."""
        return self.codec, self.pix_fmt, self.height, self.width, self.setup

    @classmethod
    def of(cls, path: Path) -> "Encoding":
        """Read how a file is encoded; a `ValueError` for one that is no video."""
        av = _av()
        try:
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                times = tuple(float(p.pts * p.time_base) for p in container.demux(stream) if p.pts is not None)
                context = stream.codec_context
                return cls(
                    codec=context.codec.canonical_name, pix_fmt=context.pix_fmt or "", height=context.height,
                    width=context.width, setup=bytes(context.extradata or b""), times=times,
                )  # fmt: skip
        except (_failure(), IndexError, AttributeError) as error:  # a damaged stream has no codec
            raise ValueError(f"video {path} cannot be read ({error}); it is damaged, fetch it again") from error


class VideoPictures:
    """The frames of an mp4 as `FrameSequence`, decoded one by one."""

    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path, *, fps: float) -> None:
        self._file, self._count = VideoFile(path, fps=fps), Encoding.of(path).frames
        self.shape = (self._count, *self._file.read(0).shape)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> UInt8[np.ndarray, "h w 3"]:
        return self._file.read(number)

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        return (self._file.read(number) for number in range(self._count))


def copy_video(path: Path, source: Path, *, fps: float) -> None:
    """Copy `source` to `path`, atomically.

    Where its frames are not stored in the order in which they are shown, packets could not be joined: encoded anew.

    Raises:
        ValueError: the film has another rate, or a frame is shown nearer to the time of another row than to its own.
    """
    VideoFile(source, fps=fps).close()  # it says what is wrong, a rate above all
    encoding = Encoding.of(source)
    if encoding.in_order:
        _check_places(source, encoding.times, fps=fps)
    else:
        encode_video(path, VideoPictures(source, fps=fps), fps=fps)
        return
    with atomic_write(path) as temporary:
        shutil.copyfile(source, temporary)


def _check_places(path: Path, times: Sequence[float], *, fps: float) -> None:
    for number, seconds in enumerate(times):
        if (place := round(seconds * fps)) != number:
            raise ValueError(
                f"video {path}: frame {number} lies at the time of frame {place}; the camera dropped frames or began "
                f"late. Encode it again with one frame for each row, at {fps:g} fps from 0 on"
            )


def join_videos(path: Path, parts: Sequence[Path], *, fps: float, lengths: Sequence[int]) -> None:
    """Join the packets of `parts` (of `lengths` frames, encoded alike) into one mp4, atomically."""
    av, rate = _av(), frame_rate(fps)
    with atomic_write(path) as temporary, av.open(str(temporary), "w", format="mp4") as output:
        target, start = None, 0
        for part, length in zip(parts, lengths, strict=True):
            with av.open(str(part)) as source:
                video = source.streams.video[0]
                target = target or output.add_stream_from_template(video, opaque=True)  # a decoder will do
                count = 0
                for packet in source.demux(video):
                    if packet.pts is None:  # the flush packet
                        continue
                    number = start + count  # not by its time, which the next part's first frame might have too
                    packet.pts = packet.dts = number * TIME_BASE // rate
                    # Without it a file ends when its last frame begins, and whoever appends to it starts too early.
                    packet.duration = (number + 1) * TIME_BASE // rate - packet.pts
                    packet.time_base = Fraction(1, TIME_BASE)
                    packet.stream = target
                    output.mux(packet)
                    count += 1
            if count != length:
                raise ValueError(f"{part} holds {count} frames where the episode has {length}; record it again")
            start += length


class VideoFile:
    """Random and sequential access to the frames of one mp4 by number. Not shared between processes.

    `count` is how many frames the file's index lists (0: it has no index).

    Raises `FileNotFoundError`/`ValueError` when the file is missing, damaged, cut short, or runs at another rate.
    """

    def __init__(self, path: Path, *, fps: float) -> None:
        if not path.exists():
            raise FileNotFoundError(f"video {path} is missing; copy it from where the data set came from")
        av, failure = _av(), _failure()
        self.path, self.fps = path, fps
        try:
            self._container = av.open(str(path))
            self._stream = self._container.streams.video[0]
        except (failure, IndexError) as error:
            raise ValueError(f"video {path} cannot be opened ({error}); it is damaged, fetch it again") from error
        if (size := self._stream.codec_context) is None:
            raise ValueError(f"video {path} does not say how it is encoded; it is damaged, fetch it again")
        if size.width * size.height > MAX_PIXELS:
            raise ValueError(f"video {path} has {size.width} × {size.height} pixels, the limit is {MAX_PIXELS}")
        self._stream.thread_type = "NONE"  # loader workers are the parallelism
        self._reformatter = av.video.reformatter.VideoReformatter()  # one for all frames: it keeps its tables
        self._frames: Iterator[Any] = iter(())
        self._next = -1
        self._check_index()

    def read(self, number: int) -> UInt8[np.ndarray, "h w 3"]:
        """Decode frame `number`; a `ValueError` if the file has no frame at exactly that time."""
        try:
            if not self._reached_by_decoding_on(number):
                self._seek(number)
            for frame in self._frames:
                at = frame.time * self.fps if frame.time is not None else -1.0
                if at > number - 0.5:
                    break
            else:
                self._next = -1
                raise ValueError(f"video {self.path} ends before frame {number}; it is truncated, fetch it again")
        except _failure() as error:
            self._next = -1
            raise ValueError(
                f"video {self.path} cannot be decoded at frame {number} ({error}); fetch it again"
            ) from error
        if abs(at - number) > MAX_DRIFT:
            self._next = -1
            raise ValueError(
                f"video {self.path} has no frame {number} at {self.fps} fps (next is {at:.2f}): wrong fps in "
                "meta/info.json, or frames were dropped"
            )
        self._next = number + 1
        return self._reformatter.reformat(frame, format="rgb24").to_ndarray()

    def _check_index(self) -> None:
        """Check by the file's own index that all its bytes are there, and that it runs at the set's rate."""
        self.count, self._keys = int(self._stream.frames), np.zeros(0, int)
        entries = getattr(self._stream, "index_entries", None)
        if entries is None:  # before PyAV 17, which LeRobot's users may have: the file itself is not checked
            return
        self.count = len(entries)
        self._keys = np.array([number for number, entry in enumerate(entries) if entry.is_keyframe])
        if self.count and (end := max(entry.pos + entry.size for entry in entries)) > self.path.stat().st_size:
            size = self.path.stat().st_size
            raise ValueError(f"video {self.path} is cut short: {size} of {end} bytes are there; fetch it again")
        if self.count < 2 or self._stream.time_base is None:
            return
        ticks = entries[self.count - 1].timestamp - entries[0].timestamp
        rate = (self.count - 1) / float(ticks * self._stream.time_base)
        if abs(rate / self.fps - 1) > MAX_RATE_ERROR:
            raise ValueError(
                f"video {self.path} runs at {rate:.4g} fps, the data set says {self.fps:.4g}; correct fps in "
                "meta/info.json or fetch the video again"
            )

    def _reached_by_decoding_on(self, number: int) -> bool:
        """Whether frame `number` is ahead with no key frame in between, so that seeking would only decode more."""
        if self._next < 0 or number <= self._next:
            return number == self._next
        place = int(np.searchsorted(self._keys, number, side="right")) - 1
        return place >= 0 and int(self._keys[place]) <= self._next

    def _seek(self, number: int) -> None:
        seconds = number / self.fps
        self._container.seek(round(seconds / (self._stream.time_base or 1)), stream=self._stream, backward=True)
        self._frames = self._container.decode(self._stream)

    def close(self) -> None:
        self._container.close()
