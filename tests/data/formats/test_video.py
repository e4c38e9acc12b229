"""The right frame or an error: any codec, any order, files that are cut short or run at another rate."""

import av
import numpy as np
import pytest
from data.recordings import number_of, numbered, write_video

from pilot.data.formats.video import Encoding, VideoFile, copy_video, encode_video, join_videos

CODECS = {
    "h264, two frames per group": {"codec": "libx264", "g": "2", "bf": "0"},
    "h264, out of order": {"codec": "libx264", "g": "30", "bf": "3", "b_strategy": "0"},
    "av1": {"codec": "libsvtav1", "g": "10", "preset": "12"},
}
COUNT = 40


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_frames_are_exact_in_any_order(tmp_path, codec):
    write_video(tmp_path / "a.mp4", numbered(COUNT, 0, height=64), fps=30, **codec)
    file = VideoFile(tmp_path / "a.mp4", fps=30)
    assert file.count == COUNT
    order = [*range(COUNT), *np.random.default_rng(0).permutation(COUNT).tolist(), *range(0, COUNT, 3)]
    assert [number_of(file.read(number)) for number in order] == order


def test_going_on_within_a_group_does_not_seek(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", numbered(COUNT, 0), fps=30, g="20", bf="0", sc_threshold="0")
    file, seeks = VideoFile(tmp_path / "a.mp4", fps=30), []
    seek = file._seek
    monkeypatch.setattr(file, "_seek", lambda number: seeks.append(number) or seek(number))
    assert [number_of(file.read(number)) for number in (2, 9, 10, 25, 27, 5)] == [2, 9, 10, 25, 27, 5]
    assert seeks == [2, 25, 5]


def test_a_missing_or_foreign_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.mp4 is missing"):
        VideoFile(tmp_path / "a.mp4", fps=30)
    (tmp_path / "a.mp4").write_bytes(b"not a film")
    with pytest.raises(ValueError, match=r"a\.mp4 cannot be opened.*fetch it again"):
        VideoFile(tmp_path / "a.mp4", fps=30)


def test_a_file_that_hides_its_codec_is_named(tmp_path):
    file = tmp_path / "a.mp4"
    write_video(file, numbered(4, 0), fps=30)
    file.write_bytes(file.read_bytes().replace(b"avc1", b"\0\0\0\0"))
    with pytest.raises(ValueError, match=r"a\.mp4 (does not say how it is encoded|cannot be opened).*fetch it again"):
        VideoFile(file, fps=30)
    with pytest.raises(ValueError, match=r"a\.mp4 cannot be read"):
        Encoding.of(file)


def test_a_file_that_is_cut_short_is_named(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, numbered(COUNT, 0), fps=30, g="2", bf="0")
    whole = path.read_bytes()
    index = whole.index(b"moov")
    path.write_bytes(whole[: index - 100])
    with pytest.raises(ValueError, match=r"a\.mp4 cannot be opened"):
        VideoFile(path, fps=30)
    # The same with the index in front, as for the web: it promises frames that are not there.
    import av

    with av.open(str(path.with_name("b.mp4")), "w", format="mp4", options={"movflags": "faststart"}) as target:
        path.write_bytes(whole)
        with av.open(str(path)) as source:
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
    front = path.with_name("b.mp4")
    assert number_of(VideoFile(front, fps=30).read(COUNT - 1)) == COUNT - 1
    front.write_bytes(front.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"b\.mp4 is cut short"):
        VideoFile(front, fps=30)


@pytest.mark.parametrize("fps", [15, 60, 24])
def test_another_rate_is_an_error(tmp_path, fps):
    write_video(tmp_path / "a.mp4", numbered(COUNT, 0), fps=30)
    with pytest.raises(ValueError, match=rf"runs at 30 fps, the data set says {fps}"):
        VideoFile(tmp_path / "a.mp4", fps=fps)


def test_frames_past_the_end_are_an_error(tmp_path):
    write_video(tmp_path / "a.mp4", numbered(COUNT, 0), fps=30)
    file = VideoFile(tmp_path / "a.mp4", fps=30)
    with pytest.raises(ValueError, match=r"ends before frame 40"):
        file.read(COUNT)
    assert number_of(file.read(3)) == 3


def test_after_a_frame_past_the_end_good_ones_are_still_read(tmp_path):
    write_video(tmp_path / "a.mp4", numbered(COUNT, 0), fps=30)
    file = VideoFile(tmp_path / "a.mp4", fps=30)
    assert number_of(file.read(COUNT - 2)) == COUNT - 2
    with pytest.raises(ValueError, match=r"ends before frame 41"):
        file.read(COUNT + 1)
    assert number_of(file.read(COUNT - 1)) == COUNT - 1


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([*range(20), *range(21, 121)], r"a\.mp4: frame 20 lies at the time of frame 21; .*Encode it again"),
        (range(3, 123), r"a\.mp4: frame 0 lies at the time of frame 3"),
    ],
    ids=["dropped frame", "late start"],
)
def test_a_film_with_a_gap_is_not_copied(tmp_path, times, message):
    """Joined to other films, its pictures would stand at other rows, and its last in the next episode."""
    write_video(tmp_path / "a.mp4", numbered(120, 0), fps=10, bf="0", times=times)
    with pytest.raises(ValueError, match=message):
        copy_video(tmp_path / "b.mp4", tmp_path / "a.mp4", fps=10)
    assert not (tmp_path / "b.mp4").exists()


def test_films_with_gaps_are_joined_by_number(tmp_path):
    """Recordings that older versions left open hold such films, and must be closed all the same."""
    gap = [*range(5), *range(6, 11)]
    for part, start in (("a", 0), ("b", 10)):
        write_video(tmp_path / f"{part}.mp4", numbered(10, start), fps=10, g="2", bf="0", times=gap)
    join_videos(tmp_path / "c.mp4", [tmp_path / "a.mp4", tmp_path / "b.mp4"], fps=10, lengths=(10, 10))
    file = VideoFile(tmp_path / "c.mp4", fps=10)
    assert [number_of(file.read(number)) for number in range(20)] == list(range(20))


@pytest.mark.parametrize("fps", [0.4, 3, 10, 12.5, 29, 29.97, 30000 / 1001, 30, 50])
def test_a_video_lasts_as_long_as_its_frames(tmp_path, fps):
    """Also where episodes were joined: LeRobot appends one file to another by how long the first one lasts."""
    lengths = (3, 5)
    parts = [tmp_path / f"{length}.mp4" for length in lengths]
    for part, length in zip(parts, lengths, strict=True):
        encode_video(part, np.zeros((length, 16, 16, 3), np.uint8), fps=fps)
    join_videos(tmp_path / "joined.mp4", parts, fps=fps, lengths=lengths)
    again = [tmp_path / "joined.mp4", parts[0]]
    join_videos(tmp_path / "again.mp4", again, fps=fps, lengths=(8, 3))
    for path, frames in ((parts[0], 3), (tmp_path / "joined.mp4", 8), (tmp_path / "again.mp4", 11)):
        with av.open(str(path)) as container:
            assert container.streams.video[0].frames == frames
            assert container.duration / 1e6 == pytest.approx(frames / fps, abs=0.01 / fps)
            durations = [packet.duration for packet in container.demux(video=0) if packet.pts is not None]
            assert max(durations) - min(durations) <= 1, "no frame is cut short"
