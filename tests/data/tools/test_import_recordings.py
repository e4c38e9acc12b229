"""Other people's formats as LeRobot v3.0: small recordings are written in each of them and read back as a set."""

import io
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data.formats.test_lerobot_v2 import LENGTHS, write
from data.recordings import number_of, numbered
from PIL import Image

from pilot.cli import main
from pilot.data.formats.lerobot import LeRobotDataset
from pilot.data.formats.rlds import EpisodeFeatures, RldsLayout, RobotColumns
from pilot.data.formats.video import encode_video
from pilot.data.formats.writer import encode_png
from pilot.data.importers.base import ImportOptions
from pilot.data.stats import compute_file_stats, compute_norm_stats
from pilot.data.tools import import_recordings as converting
from pilot.data.tools.import_recordings import import_recordings

pytest.importorskip("av")
TINY = Path(__file__).parents[1] / "tiny_arm"
CODECS = {
    "out of order": {"codec": "libx264", "g": "2"},
    "in order": {"codec": "libx264", "g": "2", "bf": "0"},
}


def shown(dataset: LeRobotDataset, camera: str) -> list[int]:
    return [number_of(dataset.picture(i, camera)) for i in range(len(dataset))]


# --- LeRobot v2.1 ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [*CODECS.values(), None], ids=[*CODECS, "png"])
def test_lerobot_v2_frame_by_frame(tmp_path, codec):
    write(tmp_path / "old", codec=codec)
    report = import_recordings(tmp_path / "old", tmp_path / "new", progress=False)
    old, new = LeRobotDataset(tmp_path / "old", 4), LeRobotDataset(tmp_path / "new", 4)
    assert report.written == len(LENGTHS) and not report.skipped and report.kind == "lerobot_v2"
    assert new.info["codebase_version"] == "v3.0" and new.info["robot_type"] == "toy" and new.fps == old.fps
    assert shown(new, "top") == list(range(sum(LENGTHS)))
    np.testing.assert_array_equal(new.state, old.state)
    np.testing.assert_array_equal(new.actions, old.actions)
    assert [e.task for e in new.episodes] == [e.task for e in old.episodes]


def test_videos_are_not_encoded_again(tmp_path):
    av = pytest.importorskip("av")
    write(tmp_path / "old", codec=CODECS["in order"])
    import_recordings(tmp_path / "old", tmp_path / "new", progress=False)

    def packets(folder: Path) -> list[bytes]:
        found = []
        for file in sorted(folder.rglob("*.mp4")):
            with av.open(str(file)) as container:
                found += [bytes(packet) for packet in container.demux(video=0) if packet.pts is not None]
        return found

    assert packets(tmp_path / "new") == packets(tmp_path / "old")


def test_older_names_and_columns_of_lerobot_v2(tmp_path):
    more = {"subtask_index": np.where(np.arange(34) < 4, -1, np.arange(34) // 6 % 3), "next_done": np.arange(34)}
    write(tmp_path / "old", state="state", action="actions", **more)
    import_recordings(tmp_path / "old", tmp_path / "new", progress=False)
    old, new = LeRobotDataset(tmp_path / "old", 4), LeRobotDataset(tmp_path / "new", 4)
    assert {"observation.state", "action", "next_done"} <= set(new.features) and "state" not in new.features
    assert "subtask_index" not in new.features
    assert [new.row(i)["subtask"] for i in range(34)] == [old.row(i)["subtask"] for i in range(34)]
    data = pq.read_table(tmp_path / "new/data/chunk-000/file-000.parquet", columns=["next_done"])
    assert data["next_done"].to_pylist() == list(range(34))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.unlink(), r"episode_000002.parquet cannot be read"),
        (lambda file: file.write_bytes(file.read_bytes()[:300]), r"episode_000002.parquet cannot be read"),
        (lambda file: pq.write_table(pq.read_table(file).slice(1), file), r"has 13 steps, meta/ says 14"),
        (
            lambda file: pq.write_table(pq.read_table(file).take([0, 1, 2, *range(4, 14), 13]), file),
            r"timestamps are not those of 10 frames per second \(frame 3 is 1.0 frames off\)",
        ),
    ],
    ids=["missing", "truncated", "short", "dropped frame"],
)
def test_bad_episodes_stop_it_or_are_counted(tmp_path, damage, message):
    write(tmp_path / "old", codec=CODECS["out of order"])
    damage(tmp_path / "old/data/chunk-000/episode_000002.parquet")
    with pytest.raises(ValueError, match=message + r"(.|\n)*--skip-bad"):
        import_recordings(tmp_path / "old", tmp_path / "new", progress=False)
    with pytest.warns(UserWarning, match="was interrupted; 2 finished episodes are kept"):
        report = import_recordings(tmp_path / "old", tmp_path / "new", skip_bad=True, progress=False)
    assert report.written == 3 and [name for name, _ in report.skipped] == ["episode 2"]
    assert "1 episodes skipped:\n  episode 2: " in str(report)
    dataset = LeRobotDataset(tmp_path / "new", 4)
    assert shown(dataset, "top") == [*range(12), *range(26, 34)]
    written = json.loads((tmp_path / "new/meta/conversion.json").read_text())
    assert written["skipped"][0][0] == "episode 2"


@pytest.mark.parametrize("outside", ["/secret.png", "../secret.png"])
def test_names_that_lead_out_of_the_source_are_not_followed(tmp_path, outside):
    """A set from elsewhere would put files of this machine into the new one."""
    write(tmp_path / "old")
    file = tmp_path / "old/data/chunk-000/episode_000001.parquet"
    (tmp_path / "secret.png").write_bytes(encode_png(numbered(1, 0, height=64)[0]))
    name = outside if outside.startswith("..") else str(tmp_path) + outside
    table = pq.read_table(file)
    picture = pa.array([{"bytes": None, "path": name}] * table.num_rows)
    at = table.column_names.index("observation.images.top")
    pq.write_table(table.set_column(at, "observation.images.top", picture), file)
    report = import_recordings(tmp_path / "old", tmp_path / "new", skip_bad=True, progress=False)
    assert report.written == 3 and "secret.png', which is not inside" in report.skipped[0][1]


@pytest.mark.parametrize("place", ["data_path", "video_path"])
def test_files_outside_of_the_source_are_not_taken(tmp_path, place):
    write(tmp_path / "old", codec=CODECS["in order"])
    info = json.loads((tmp_path / "old/meta/info.json").read_text())
    (tmp_path / "old/meta/info.json").write_text(json.dumps(info | {place: f"../old/{info[place]}"}))
    with pytest.raises(ValueError, match=r"info.json names '\.\./old/.*', which is not inside"):
        import_recordings(tmp_path / "old", tmp_path / "new", progress=False)


def test_a_missing_video_is_a_bad_episode(tmp_path):
    write(tmp_path / "old", codec=CODECS["out of order"])
    next((tmp_path / "old/videos").rglob("episode_000001.mp4")).unlink()
    assert (
        import_recordings(tmp_path / "old", tmp_path / "new", skip_bad=True, progress=False).skipped[0][0]
        == "episode 1"
    )


# --- resuming -------------------------------------------------------------------------------------------------------


def test_an_interrupted_conversion_goes_on(tmp_path, monkeypatch):
    write(tmp_path / "old")
    real, calls = converting.write_json, []

    def interrupted(path: Path, content: object) -> None:
        calls.append(path)
        if len(calls) == 4:  # an episode is whole on disk, but not yet counted
            raise KeyboardInterrupt
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(converting, "write_json", interrupted)
        with pytest.raises(KeyboardInterrupt):
            import_recordings(tmp_path / "old", tmp_path / "new", progress=False)
    with pytest.raises(ValueError, match="unfinished recording"):
        LeRobotDataset(tmp_path / "new", 4)
    with pytest.warns(UserWarning, match="was interrupted; 3 finished episodes are kept"):
        assert import_recordings(tmp_path / "old", tmp_path / "new", progress=False).written == 4
    assert shown(LeRobotDataset(tmp_path / "new", 4), "top") == list(range(34))
    before = (tmp_path / "new/meta/info.json").stat().st_mtime_ns
    assert import_recordings(tmp_path / "old", tmp_path / "new", progress=False).written == 4
    assert (tmp_path / "new/meta/info.json").stat().st_mtime_ns == before, "a finished one is left as it is"


def plain_folder(folder: Path, *numbers: int) -> Path:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        np.savez(folder / f"e{number}.npz", state=np.full((5, 2), number), action=np.zeros((5, 2)))
    return folder


def into(target: Path, source: Path, **options):
    options = ImportOptions(**({"fps": 10, "task": "put it down"} | options))
    return import_recordings(source, target, options=options, progress=False)


@pytest.mark.parametrize("is_finished", [False, True])
def test_other_options_are_refused(tmp_path, is_finished):
    """A set would have the words of both, or those of neither."""
    source = plain_folder(tmp_path / "raw", 0, 1, 2)
    if is_finished:
        into(tmp_path / "new", source)
    else:
        (source / "e1.npz").write_bytes(b"damaged")
        with pytest.raises(ValueError, match=r"e1\.npz cannot be read"):
            into(tmp_path / "new", source)
        plain_folder(source, 1)
    with pytest.raises(ValueError, match=r"new was converted with task='put it down', now it is 'pick it up'; repeat"):
        into(tmp_path / "new", source, task="pick it up")
    with pytest.raises(ValueError, match=r"converted with fps=10, now it is 5"):
        into(tmp_path / "new", source, fps=5)
    with warnings.catch_warnings(action="ignore"):
        report = into(tmp_path / "new", source)
    assert report.written == 3 and report.added == (0 if is_finished else 2)
    assert ("they were there already, and nothing is new" in str(report)) == is_finished


def test_new_recordings_are_added_and_nothing_is_taken_twice(tmp_path):
    source = plain_folder(tmp_path / "raw", 1, 2)
    into(tmp_path / "new", source)
    report = into(tmp_path / "new", plain_folder(source, 3, 4))
    assert (report.written, report.added) == (4, 2)
    assert LeRobotDataset(tmp_path / "new", 1).state[::5, 0].tolist() == [1, 2, 3, 4]
    with pytest.raises(ValueError, match=r"from 4 recordings, which are no longer the first of .*another folder"):
        into(tmp_path / "new", plain_folder(source, 0))


def test_what_is_in_the_way_is_said(tmp_path):
    write(tmp_path / "old")
    write(tmp_path / "other")
    import_recordings(tmp_path / "old", tmp_path / "new", progress=False)
    with pytest.raises(ValueError, match=r"new was converted from .*old \(lerobot_v2\), not from .*other"):
        import_recordings(tmp_path / "other", tmp_path / "new", progress=False)
    with pytest.raises(ValueError, match="other holds a data set that was not converted"):
        import_recordings(tmp_path / "old", tmp_path / "other", progress=False)
    with pytest.raises(ValueError, match=r"is a LeRobot v3.0 set already"):
        import_recordings(tmp_path / "new", tmp_path / "third", progress=False)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        import_recordings(tmp_path / "nowhere", tmp_path / "third", progress=False)
    (tmp_path / "odd/meta").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"is none of hdf5, lerobot_v2, npz, rlds; it has meta"):
        import_recordings(tmp_path / "odd", tmp_path / "third", progress=False)
    with pytest.raises(ValueError, match="unknown format 'zarr'"):
        import_recordings(tmp_path / "old", tmp_path / "third", kind="zarr", progress=False)


# --- HDF5 -----------------------------------------------------------------------------------------------------------


def jpeg(picture: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="jpeg", quality=95)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def write_hdf5(file: Path, *, start: int, length: int = 6, compressed: bool = False, task: str | None = None) -> None:
    h5py = pytest.importorskip("h5py")
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = np.arange(start, start + length, dtype=np.float64)
    with h5py.File(file, "w") as content:
        content["observations/qpos"], content["observations/qvel"] = rows[:, None] * np.ones(14), rows[:, None] * [1, 2]
        content["action"] = -rows[:, None] * np.ones(14)
        pictures = numbered(length, start)
        if compressed:
            files = [jpeg(picture) for picture in pictures]
            width = max(len(one) for one in files) + 5
            pictures = np.stack([np.pad(one, (0, width - len(one))) for one in files])
        content["observations/images/cam_high"] = pictures
        if task:
            content.attrs["task"] = task


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("pictures", ["image", "video"])
def test_aloha_hdf5(tmp_path, compressed, pictures):
    for number, start in ((10, 12), (2, 6), (0, 0)):  # by number: 0, 2, 10
        write_hdf5(tmp_path / f"raw/episode_{number}.hdf5", start=start, compressed=compressed, task=f"task {number}")
    options = ImportOptions(fps=50, pictures=pictures)
    report = import_recordings(tmp_path / "raw", tmp_path / "new", options=options, progress=False)
    assert (report.kind, report.written) == ("hdf5", 3)
    dataset = LeRobotDataset(tmp_path / "new", 4)
    assert [e.task for e in dataset.episodes] == ["task 0", "task 2", "task 10"] and dataset.fps == 50
    assert shown(dataset, "cam_high") == list(range(18))
    np.testing.assert_array_equal(dataset.state[:, 3], np.arange(18))
    np.testing.assert_array_equal(dataset.actions[:, 3], -np.arange(18))
    assert dataset.features["observation.velocity"]["shape"] == [2]
    assert dataset.episodes[2].labels == {"recording": "episode_10"}


def test_an_empty_hdf5_file_is_a_bad_episode(tmp_path):
    for number, length in enumerate((6, 0, 6)):
        write_hdf5(tmp_path / f"raw/episode_{number}.hdf5", start=0, length=length, task="x")
    options = ImportOptions(fps=50)
    report = import_recordings(tmp_path / "raw", tmp_path / "new", options=options, skip_bad=True, progress=False)
    assert report.written == 2
    assert "episode_1.hdf5 has no frames in /observations/images/cam_high" in report.skipped[0][1]


def test_what_hdf5_does_not_say(tmp_path):
    write_hdf5(tmp_path / "raw/episode_0.hdf5", start=0)
    with pytest.raises(ValueError, match="does not say at which rate it was recorded; give --fps"):
        import_recordings(tmp_path / "raw", tmp_path / "new", progress=False)
    with pytest.raises(ValueError, match=r"episode_0.hdf5 has no instruction; give one .* --task"):
        import_recordings(tmp_path / "raw", tmp_path / "new", options=ImportOptions(fps=50), progress=False)
    (tmp_path / "raw/episode_1.hdf5").write_bytes(b"\x89HDF\r\n\x1a\nbroken")
    nothing = pytest.raises(ValueError, match=r"no episode of .* can be converted")
    with nothing, pytest.warns(UserWarning, match="0 finished episodes"):
        import_recordings(
            tmp_path / "raw", tmp_path / "new", options=ImportOptions(fps=50), skip_bad=True, progress=False
        )
    options = ImportOptions(fps=50, task="open the box")  # now they are looked at again
    with pytest.warns(UserWarning, match="0 finished episodes"):
        report = import_recordings(tmp_path / "raw", tmp_path / "new", options=options, skip_bad=True, progress=False)
    assert report.written == 1 and "episode_1.hdf5 is damaged or no ALOHA recording" in report.skipped[0][1]


# --- npz and mp4 ----------------------------------------------------------------------------------------------------


def test_a_plain_folder(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    for number, start in enumerate((0, 6)):
        rows = np.arange(start, start + 6, dtype=np.float32)
        vectors = {"state": rows[:, None] * np.ones(3), "action": rows[:, None] * np.ones(2), "force": rows}
        vectors["timestamp"] = rows
        np.savez(folder / f"episode_{number}.npz", **vectors, task=f"task {number}")
        encode_video(folder / f"episode_{number}.front.mp4", numbered(6, start), fps=10)
    report = import_recordings(folder, tmp_path / "new", options=ImportOptions(fps=10), progress=False)
    dataset = LeRobotDataset(tmp_path / "new", 4)
    assert (report.kind, report.written) == ("npz", 2) and dataset.cameras == ("front",)
    assert [e.task for e in dataset.episodes] == ["task 0", "task 1"] and shown(dataset, "front") == list(range(12))
    assert dataset.features["force"]["shape"] == [1]
    assert report.left_out == ("timestamp",), "v3.0 counts the time itself"
    with pytest.raises(ValueError, match=r"runs at 10 fps, the data set says 20"):
        import_recordings(folder, tmp_path / "fast", options=ImportOptions(fps=20), progress=False)
    np.savez(folder / "episode_2.npz", state=np.zeros((3, 3)))
    again = tmp_path / "again"
    with pytest.raises(ValueError, match=r"episode_2.npz has no 'action' \[t d\]; it has"):
        import_recordings(folder, again, options=ImportOptions(fps=10, task="x"), progress=False)


# --- RLDS -----------------------------------------------------------------------------------------------------------


def columns(features: EpisodeFeatures) -> RobotColumns:
    moves = np.concatenate([features["action/world_vector"], features["action/rotation_delta"]], axis=1)
    return RobotColumns(state=moves, actions=moves)


def test_rlds(tmp_path):
    shutil.copytree(TINY, tmp_path / "tiny_arm")  # what the reader keeps lies beside it
    layout = RldsLayout(
        fps=5, cameras={"top": "observation/image"}, instruction=("language_instruction",), columns=columns
    )
    options = ImportOptions(layouts=lambda name: {"tiny_arm": layout}[name], pictures="image")
    report = import_recordings(tmp_path / "tiny_arm", tmp_path / "new", options=options, progress=False)
    source = converting.importer_kinds()["rlds"](tmp_path / "tiny_arm", options).dataset
    dataset = LeRobotDataset(tmp_path / "new", 4)
    assert report.kind == "rlds" and report.written == len(source.episodes) > 1 and dataset.fps == 5
    np.testing.assert_array_equal(dataset.actions, source.actions)
    for i in range(len(dataset)):
        np.testing.assert_array_equal(dataset.picture(i, "top"), source.picture(i, "top"))
    assert [e.task for e in dataset.episodes] == [e.task for e in source.episodes]


def test_cameras_of_rlds_that_did_not_record_stay_missing(tmp_path):
    def blind(features: EpisodeFeatures) -> RobotColumns:
        found = columns(features)
        return RobotColumns(
            state=found.state, actions=found.actions, missing=("wrist",) if len(found.state) > 4 else ()
        )

    shutil.copytree(TINY, tmp_path / "tiny_arm")
    cameras = {"top": "observation/image", "wrist": "observation/wrist"}
    layout = RldsLayout(fps=5, cameras=cameras, instruction=("language_instruction",), columns=blind)
    options = ImportOptions(layouts=lambda name: layout, pictures="image")
    import_recordings(tmp_path / "tiny_arm", tmp_path / "new", options=options, progress=False)
    dataset = LeRobotDataset(tmp_path / "new", 4)
    shown = [list(dataset.pictures(int(start))) for start in dataset.starts]
    assert shown == [["top"], ["top", "wrist"], ["top", "wrist"]]


def moving(features: EpisodeFeatures) -> RobotColumns:
    """Every second step is idle."""
    found = columns(features)
    return RobotColumns(state=found.state, actions=found.actions, trainable=np.arange(len(found.state)) % 2 == 1)


@pytest.mark.parametrize("drop", [False, True])
def test_idle_steps_of_rlds_are_marked_or_dropped(tmp_path, drop):
    shutil.copytree(TINY, tmp_path / "tiny_arm")
    cameras = {"top": "observation/image"}
    layout = RldsLayout(fps=5, cameras=cameras, instruction=("language_instruction",), columns=moving)
    options = ImportOptions(layouts=lambda name: layout, pictures="image", drop_idle=drop)
    import_recordings(tmp_path / "tiny_arm", tmp_path / "new", options=options, progress=False)
    source = converting.importer_kinds()["rlds"](tmp_path / "tiny_arm", options).dataset
    new = LeRobotDataset(tmp_path / "new", 1)
    rows = source.trainable_rows().tolist()
    assert len(source) == 10 and len(rows) == 4, "one episode has one step, an idle one"
    assert len(new) == (4 if drop else 10) and len(new.episodes) == (2 if drop else 3)
    assert new.trainable_rows().tolist() == ([0, 1, 2, 3] if drop else rows)
    np.testing.assert_array_equal(new.actions[new.trainable_rows()], source.actions[rows])
    for i, row in zip(new.trainable_rows().tolist(), rows, strict=True):
        np.testing.assert_array_equal(new.picture(i, "top"), source.picture(row, "top"))
    if not drop:
        robot = converting.importer_kinds()["rlds"](tmp_path / "tiny_arm", options).robot
        from_files = compute_file_stats([tmp_path / "new"], robot, action_horizon=1).result()
        assert from_files["state"].mean == pytest.approx(compute_norm_stats([source], robot)["state"].mean)


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command(tmp_path, capsys):
    write(tmp_path / "old")
    assert main.main(["data", "import", str(tmp_path / "old"), str(tmp_path / "new")]) == 0
    assert f"4 episodes from {tmp_path / 'old'} (lerobot_v2)" in capsys.readouterr().out
    assert main.main(["data", "import", str(tmp_path / "old"), str(tmp_path / "x"), "--from", "zarr"]) == 2
    assert "unknown format 'zarr'; known: hdf5, lerobot_v2, npz, rlds" in capsys.readouterr().err
