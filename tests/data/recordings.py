"""Small random recordings of a toy robot, for the tests of everything that reads data."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.writer import LeRobotWriter
from pilot.types import Robot

ROBOT = Robot(
    name="toy",
    cameras=("room", "wrist"),
    state_names=("x", "y", "hold"),
    action_names=("x", "y"),
    delta_mask=(True, True),
    control_hz=10,
)


def episode(rng: np.random.Generator, length: int, *, perturbed: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    return {
        fmt.STATE: rng.normal(size=(length, 3)).astype(np.float32),
        fmt.ACTION: rng.normal(size=(length, 2)).astype(np.float32),
        fmt.IMAGES + "room": rng.integers(0, 256, (length, 8, 16, 3), dtype=np.uint8),
        fmt.IMAGES + "wrist": rng.integers(0, 256, (length, 8, 8, 3), dtype=np.uint8),
        fmt.BOX: np.where(np.arange(length)[:, None] % 2, np.nan, rng.random((length, 4))).astype(np.float32),
        fmt.PERTURBED: np.isin(np.arange(length), perturbed),
    }


def record(path, episodes, **options) -> None:
    with LeRobotWriter(path, ROBOT, 10, **options) as writer:
        for number, frames in enumerate(episodes):
            add(writer, frames, number)


def add(writer: LeRobotWriter, frames: dict[str, np.ndarray], number: int) -> None:
    writer.add_episode(
        frames,
        task=f"task {number % 2}",
        persistent=[(0.2, "subtask", "assistant", "reach"), (0.5, "subtask", "assistant", f"grasp {number}")],
        events=[(3, "interjection", "user", f"say {number}")],
        labels={"group": "even" if number % 2 == 0 else "odd"},
    )


def numbered(length: int, start: int, *, height: int = 16) -> np.ndarray:
    """Pictures that carry their own number in 8 black or white blocks, which compression cannot blur."""
    bits = (np.arange(start, start + length)[:, None] >> np.arange(8)) & 1
    return np.broadcast_to(np.repeat(bits * 255, 16, axis=1)[:, None, :, None], (length, height, 128, 3)).astype(
        np.uint8
    )


def number_of(picture: np.ndarray) -> int:
    return int(((picture[8, 8::16, 0] > 127) << np.arange(8)).sum())


def record_numbered_films(path: Path, episodes: int, *, length: int) -> None:
    """Frames numbered through all episodes, each episode in an mp4 of its own; two tasks that take turns, no boxes."""
    rng = np.random.default_rng(0)
    recorded = [episode(rng, length) | {fmt.IMAGES + "room": numbered(length, n * length)} for n in range(episodes)]
    for frames in recorded:
        frames[fmt.BOX][:] = np.nan
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fmt, "VIDEO_FILE_MB", 1e-6)
        record(path, recorded, image_format="video")


def write_video(
    path: Path,
    frames: np.ndarray,
    *,
    fps: float,
    codec: str = "libx264",
    times: Sequence[int] | None = None,
    **options: str,
) -> None:
    """An mp4 as others encode it: any codec, key frames far apart, frames stored out of order.

    `times`: when each picture is shown, in frames.

    SVT-AV1 waits for ever for pictures of less than 64 pixels.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = int(times[number]), 1 / Fraction(fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
