"""Episodes of a data set as recordings of rerun (https://rerun.io), a viewer for robots' logs: one file per episode.

| entity | what |
|---|---|
| `cameras/NAME` | pictures, as JPEG |
| `cameras/NAME/subtask` | the box of the subtask, on the first camera |
| `state/NAME`, `action/NAME` | one curve per dim |
| `words` | the instruction, then each subtask when it begins |

Time is seconds since the episode's start (`time`) and the number of the frame (`frame`).
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pilot.data.formats.episodes import Episode, EpisodeDataset
from pilot.types import Robot

JPEG_QUALITY = 90


def write_recordings(
    data: EpisodeDataset, out: str | Path, *, episodes: Iterable[int] | None = None, robot: Robot | None = None
) -> list[Path]:
    """Write the episodes of these indices (None: all) to `out`, one `.rrd` file each; return the files.

    `robot` names the dims; without one they are numbered.

    Raises:
        ImportError: rerun is not installed.
        ValueError: the set has no such episode.
    """
    rerun, out = import_rerun(), Path(out)
    chosen = choose_episodes(data, episodes)
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for episode in chosen:
        name = f"episode-{episode.index:06d}"
        stream = rerun.RecordingStream(data.path.name, recording_id=f"{data.path.name}/{name}")
        files.append(out / f"{name}.rrd")
        stream.save(str(files[-1]))
        log_episode(stream, data, episode, robot=robot)
        stream.disconnect()
    return files


def show_recordings(
    data: EpisodeDataset, *, episodes: Iterable[int] | None = None, robot: Robot | None = None
) -> list[int]:
    """Open the viewer and send it the episodes of these indices; return the indices. Raises as `write_recordings`."""
    rerun = import_rerun()
    chosen = choose_episodes(data, episodes)
    for number, episode in enumerate(chosen):
        name = f"{data.path.name}/episode-{episode.index:06d}"
        stream = rerun.RecordingStream(data.path.name, recording_id=name)
        stream.spawn(connect=True) if number == 0 else stream.connect_grpc()
        log_episode(stream, data, episode, robot=robot)
        stream.flush()
    return [episode.index for episode in chosen]


def import_rerun() -> Any:
    """Import rerun.

    Raises:
        ImportError: it is not installed; the message says how to.
    """
    try:
        import rerun
    except ModuleNotFoundError as error:
        raise ImportError(f"this needs {error.name}: pip install 'pilot[rerun]'") from error
    return rerun


def choose_episodes(data: EpisodeDataset, indices: Iterable[int] | None) -> list[Episode]:
    """Return the episodes of these indices; all if None.

    Raises:
        ValueError: the set has no such episode.
    """
    known = {episode.index: episode for episode in data.episodes}
    if indices is None:
        return list(known.values())
    wanted = list(indices)
    if unknown := [index for index in wanted if index not in known]:
        raise ValueError(f"{data.path} has no episode {unknown[0]}; it has {min(known)} to {max(known)}")
    return [known[index] for index in wanted]


def log_episode(stream: Any, data: EpisodeDataset, episode: Episode, *, robot: Robot | None) -> None:
    """Log every frame of one episode to a stream of rerun."""
    rerun = import_rerun()
    names = {
        "state": robot.state_names if robot else [f"{i:02d}" for i in range(data.state.shape[1])],
        "action": robot.action_names if robot else [f"{i:02d}" for i in range(data.actions.shape[1])],
    }
    stream.set_time("frame", sequence=0)
    stream.log("words", rerun.TextLog(episode.task))
    said = None
    for row in range(episode.start, episode.stop):
        frame = data.frame(row)
        vectors = {"state": (names["state"], data.state[row]), "action": (names["action"], data.actions[row])}
        log_frame(stream, row - episode.start, fps=data.fps, vectors=vectors, images=frame["images"])
        if frame["images"]:
            first = next(iter(frame["images"]))
            stream.log(f"cameras/{first}/subtask", box_of(rerun, frame["box"], frame["images"][first]))
        if frame["subtask"] != said and frame["subtask"] is not None:
            said = frame["subtask"]
            stream.log("words", rerun.TextLog(said))


def log_frame(
    stream: Any,
    number: int,
    *,
    fps: float,
    vectors: Mapping[str, tuple[Sequence[str], np.ndarray]],
    images: Mapping[str, np.ndarray],
) -> None:
    """Log one frame: vectors by name, each with the names of its dims, and pictures by camera."""
    rerun = import_rerun()
    stream.set_time("frame", sequence=number)
    stream.set_time("time", duration=number / fps)
    for kind, (names, values) in vectors.items():
        for name, value in zip(names, values, strict=True):
            stream.log(f"{kind}/{name}", rerun.Scalars(float(value)))
    for camera, picture in images.items():
        stream.log(f"cameras/{camera}", rerun.EncodedImage(contents=encode(picture), media_type="image/jpeg"))


def box_of(rerun: Any, box: tuple[float, ...] | None, picture: np.ndarray) -> Any:
    """Return a box (y0, x0, y1, x1) in [0, 1] as rerun draws it on a picture; nothing is drawn for None."""
    if box is None:
        return rerun.Clear(recursive=False)
    height, width = picture.shape[:2]
    side = max(height, width)  # of the square that the model sees, in which the picture is centred
    across, down = (side - width) / 2, (side - height) / 2
    y0, x0, y1, x1 = (value * side for value in box)
    corner, size = [x0 - across, y0 - down], [x1 - x0, y1 - y0]
    return rerun.Boxes2D(array=[[*corner, *size]], array_format=rerun.Box2DFormat.XYWH)


def encode(picture: np.ndarray) -> bytes:
    """Encode a picture as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="jpeg", quality=JPEG_QUALITY)
    return buffer.getvalue()
