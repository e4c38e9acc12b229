"""Recording: what a killed process leaves behind, and mp4 files that come ready."""

import json
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from data.recordings import ROBOT, episode, number_of, numbered

from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.lerobot import LeRobotDataset
from pilot.data.formats.video import Encoding, VideoFile, encode_video
from pilot.data.formats.writer import LeRobotWriter

av = pytest.importorskip("av")
ROOM, WRIST = fmt.IMAGES + "room", fmt.IMAGES + "wrist"


def test_a_killed_recording_loses_the_open_episode_and_says_so(tmp_path):
    """A real process, killed with SIGKILL while it writes: no handler, no clean-up."""
    script = Path(__file__).with_name("interrupted_recording.py")
    environment = {"PYTHONPATH": str(script.parents[2])}
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "set")], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "in the middle\n"
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert list((tmp_path / "set/recording").glob(".*.tmp")), "it was killed before it began to write"

    with pytest.raises(ValueError, match="3 finished episodes wait to be packed"):
        LeRobotDataset(tmp_path / "set", 4)
    with pytest.warns(UserWarning, match=r"was interrupted; 3 finished episodes are kept, an episode that was open"):
        writer = LeRobotWriter(tmp_path / "set", ROBOT, 10, image_format="video")
    rng = np.random.default_rng(0)
    expected = [episode(rng, 8) for _ in range(3)]
    writer.add_episode(episode(rng, 8), task="after")
    writer.close()
    dataset = LeRobotDataset(tmp_path / "set", 4)
    assert [one.task for one in dataset.episodes] == ["kept"] * 3 + ["after"]
    np.testing.assert_array_equal(dataset.state[:24], np.concatenate([e[fmt.STATE] for e in expected]))
    assert dataset.frame(31)["images"]["wrist"].shape == (8, 8, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LeRobotWriter(tmp_path / "set", ROBOT, 10, image_format="video")  # a closed set has nothing to say


def pictures(length: int, start: int) -> np.ndarray:
    """Frames that tell their number by their brightness."""
    return np.repeat(np.arange(start, start + length, dtype=np.uint8) * 8, 16 * 16 * 3).reshape(length, 16, 16, 3)


def encode(path: Path, frames: np.ndarray, *, codec: str = "libx264", **options: str) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def numbers(dataset: LeRobotDataset, camera: str) -> list[int]:
    return [round(float(dataset.frame(i)["images"][camera].mean()) / 8) for i in range(len(dataset))]


def with_video(path: Path, length: int = 7) -> dict:
    return episode(np.random.default_rng(0), length) | {ROOM: path}


def test_an_mp4_is_taken_as_it_is(tmp_path):
    encode_video(tmp_path / "a.mp4", pictures(7, 0), fps=10)
    with LeRobotWriter(tmp_path / "set", ROBOT, 10, image_format="video") as writer:
        writer.add_episode(with_video(tmp_path / "a.mp4"), task="x")
    file = next((tmp_path / "set/videos" / ROOM).glob("*/*.mp4"))
    with av.open(str(tmp_path / "a.mp4")) as a, av.open(str(file)) as b:
        packets = [[bytes(p) for p in container.demux(video=0) if p.pts is not None] for container in (a, b)]
    assert packets[0] == packets[1]


def test_videos_of_several_encoders_stand_in_files_of_their_own(tmp_path):
    """Joined, packets of one would be decoded with the set-up of the other."""
    encode(tmp_path / "a.mp4", pictures(7, 0), g="2", bf="0")
    encode(tmp_path / "b.mp4", pictures(7, 7), g="5", bf="0", profile="baseline", preset="ultrafast")
    encode(tmp_path / "c.mp4", pictures(7, 14), **{"x264-params": "bframes=2:b-adapt=0:scenecut=0"})
    assert Encoding.of(tmp_path / "a.mp4").alike != Encoding.of(tmp_path / "b.mp4").alike
    assert not Encoding.of(tmp_path / "c.mp4").in_order, "the test wants B-frames"
    with LeRobotWriter(tmp_path / "set", ROBOT, 10, image_format="video") as writer:
        for name in "abc":
            writer.add_episode(with_video(tmp_path / f"{name}.mp4"), task="x")
    assert numbers(LeRobotDataset(tmp_path / "set", 4, cameras=["room"]), "room") == list(range(21))
    files = sorted((tmp_path / "set/videos" / ROOM).glob("*/*.mp4"))
    assert len(files) == 3 and all(Encoding.of(file).in_order for file in files)


def test_the_codec_of_an_mp4_is_written_down(tmp_path):
    options = {"g": "2", "preset": "12", "svtav1-params": "lp=1"}  # one thread
    encode(tmp_path / "a.mp4", pictures(7, 0).repeat(8, axis=1).repeat(8, axis=2), codec="libsvtav1", **options)
    with LeRobotWriter(tmp_path / "set", ROBOT, 10, image_format="video") as writer:
        writer.add_episode(with_video(tmp_path / "a.mp4"), task="x")
    features = json.loads((tmp_path / "set/meta/info.json").read_text())["features"]
    assert features[ROOM]["info"]["video.codec"] == "av1" and features[WRIST]["info"]["video.codec"] == "h264"
    assert numbers(LeRobotDataset(tmp_path / "set", 4, cameras=["room"]), "room") == list(range(7))


def test_an_mp4_that_does_not_fit_is_refused(tmp_path):
    encode_video(tmp_path / "a.mp4", pictures(6, 0), fps=10)
    with pytest.raises(ValueError, match=r"differ in length.*'observation.images.room': 6"):
        LeRobotWriter(tmp_path / "set", ROBOT, 10, image_format="video").add_episode(
            with_video(tmp_path / "a.mp4"), task="x"
        )
    with pytest.raises(ValueError, match="is an mp4, which a set of embedded pictures cannot hold"):
        LeRobotWriter(tmp_path / "other", ROBOT, 10).add_episode(with_video(tmp_path / "a.mp4", 6), task="x")
    (tmp_path / "b.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"b.mp4 cannot be read"):
        LeRobotWriter(tmp_path / "third", ROBOT, 10, image_format="video").add_episode(
            with_video(tmp_path / "b.mp4"), task="x"
        )


@pytest.mark.parametrize("name", [*fmt.INDEX_COLUMNS, fmt.PERSISTENT, fmt.EVENTS])
def test_columns_of_the_format_itself_are_refused(tmp_path, name):
    """Taken, they would be replaced, or keep the recording from being closed."""
    frames = episode(np.random.default_rng(0), 5)
    with LeRobotWriter(tmp_path, ROBOT, 10) as writer:
        with pytest.raises(ValueError, match=rf"columns \['{name}'\] are filled in by the writer"):
            writer.add_episode(frames | {name: np.arange(5)}, task="x")
        writer.add_episode(frames, task="x")
    assert len(LeRobotDataset(tmp_path, 1)) == 5


@pytest.mark.parametrize("fps", [29.97, 12.5, 0.4])
def test_films_of_a_broken_rate_come_back(tmp_path, fps):
    for start in (0, 120):  # the second recording appends
        with LeRobotWriter(tmp_path / "set", ROBOT, fps, image_format="video") as writer:
            for first in (start, start + 60):
                writer.add_episode(episode(np.random.default_rng(0), 60) | {ROOM: numbered(60, first)}, task="x")
    dataset = LeRobotDataset(tmp_path / "set", 4, cameras=["room"])
    assert dataset.fps == fps
    assert [number_of(dataset.picture(i, "room")) for i in range(len(dataset))] == list(range(240))


def test_a_rate_that_no_video_can_have_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"at least 0.001 frames per second, got fps=0.0001"):
        encode_video(tmp_path / "a.mp4", pictures(3, 0), fps=1e-4)


def test_frames_are_encoded_from_where_they_lie(tmp_path):
    """Anything with a shape and frames will do, so an episode of pictures never has to be in memory."""
    encode_video(tmp_path / "a.mp4", pictures(6, 3), fps=10)
    assert [round(float(VideoFile(tmp_path / "a.mp4", fps=10).read(i).mean()) / 8) for i in range(6)] == [*range(3, 9)]
