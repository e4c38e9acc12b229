"""What is recorded comes back: numbers, words, pictures; across files and episodes, after interruptions, from video."""

import json
import os
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data.recordings import ROBOT, add, episode, number_of, numbered, record, write_video

from pilot.data.formats import lerobot, packing
from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.lerobot import LeRobotDataset
from pilot.data.formats.writer import LeRobotWriter
from pilot.locks import FolderInUseError

pytestmark = pytest.mark.usefixtures("no_manifests")


@pytest.fixture
def recorded(tmp_path):
    rng = np.random.default_rng(0)
    episodes = [episode(rng, length) for length in (7, 9, 6)]
    record(tmp_path / "set", episodes)
    return tmp_path / "set", episodes


def test_reads_back_every_column_and_picture(recorded):
    path, episodes = recorded
    dataset = LeRobotDataset(path, 4)
    assert len(dataset) == 22 and dataset.cameras == ("room", "wrist")
    row = 0
    for number, frames in enumerate(episodes):
        for step in range(len(frames[fmt.STATE])):
            frame = dataset.frame(row)
            np.testing.assert_array_equal(frame["state"], frames[fmt.STATE][step])
            np.testing.assert_array_equal(frame["actions"][0], frames[fmt.ACTION][step])
            for camera in ROBOT.cameras:
                np.testing.assert_array_equal(frame["images"][camera], frames[fmt.IMAGES + camera][step])
            assert frame["task"] == f"task {number % 2}"
            assert frame["subtask"] == (None if step < 2 else "reach" if step < 5 else f"grasp {number}")
            assert frame["utterance"] == (f"say {number}" if step >= 3 else None)
            assert (frame["episode_index"], frame["frame_index"]) == (number, step)
            if step % 2:
                assert frame["box"] is None
            else:
                np.testing.assert_allclose(frame["box"], frames[fmt.BOX][step])
            row += 1
    assert [episode.labels["group"] for episode in dataset.episodes] == ["even", "odd", "even"]


def test_windows_pad_at_the_episodes_end(recorded):
    path, episodes = recorded
    dataset = LeRobotDataset(path, 4)
    actions, is_pad = dataset.action_chunks(np.array([5, 6, 7]))
    np.testing.assert_array_equal(is_pad, [[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0]])
    np.testing.assert_array_equal(actions[0], episodes[0][fmt.ACTION][[5, 6, 6, 6]])
    np.testing.assert_array_equal(actions[2], episodes[1][fmt.ACTION][:4])


def test_supervision_ends_after_a_perturbed_step(tmp_path):
    record(tmp_path, [episode(np.random.default_rng(1), 8, perturbed=(2, 3))])
    _, is_pad = LeRobotDataset(tmp_path, 4).action_chunks(np.arange(8))
    np.testing.assert_array_equal(is_pad[0], [0, 0, 0, 1])
    np.testing.assert_array_equal(is_pad[1], [0, 0, 1, 1])
    np.testing.assert_array_equal(is_pad[2], [0, 1, 1, 1])
    np.testing.assert_array_equal(is_pad[3], [0, 1, 1, 1])
    np.testing.assert_array_equal(is_pad[4], [0, 0, 0, 0])


def test_pictures_found_bad_as_they_are_drawn_are_warned_about_once(recorded, monkeypatch):
    dataset = LeRobotDataset(recorded[0], 4, skip_bad=True)
    decode = dataset.decode

    def decode_some(i: int, camera: str) -> np.ndarray:
        if i < 5:
            raise ValueError(f"row {i} is damaged")
        return decode(i, camera)

    monkeypatch.setattr(dataset, "decode", decode_some)
    with pytest.warns(UserWarning, match=r"set: 1 episodes skipped while reading; the last: row 3 is damaged") as seen:
        assert all(dataset.readable_pictures(i) is None for i in (3, 1, 3))
    assert len(seen) == 1


def test_episode_subset(recorded):
    path, episodes = recorded
    dataset = LeRobotDataset(path, 4, episodes=[2, 0], cameras=["wrist"])
    assert len(dataset) == 13 and dataset.cameras == ("wrist",)
    np.testing.assert_array_equal(dataset.frame(0)["images"]["wrist"], episodes[2][fmt.IMAGES + "wrist"][0])
    np.testing.assert_array_equal(dataset.row(6)["state"], episodes[0][fmt.STATE][0])
    with pytest.raises(ValueError, match=r"episodes 0 to 2, not"):
        LeRobotDataset(path, 4, episodes=[3])


def test_many_files(tmp_path, monkeypatch):
    monkeypatch.setattr(fmt, "DATA_FILE_MB", 0.02)
    rng = np.random.default_rng(2)
    episodes = [episode(rng, 9) for _ in range(7)]
    record(tmp_path, episodes)
    assert len(list(tmp_path.glob("data/*/*.parquet"))) > 2
    dataset = LeRobotDataset(tmp_path, 4)
    for row in (0, 30, 62):
        picture = episodes[row // 9][fmt.IMAGES + "room"][row % 9]
        np.testing.assert_array_equal(dataset.frame(row)["images"]["room"], picture)


def test_video_frames_are_exact_across_episodes_and_files(tmp_path, monkeypatch):
    monkeypatch.setattr(fmt, "VIDEO_FILE_MB", 0.004)
    rng, lengths, start = np.random.default_rng(3), (11, 1, 14, 8, 12), 0
    with LeRobotWriter(tmp_path, ROBOT, 10, image_format="video") as writer:
        for number, length in enumerate(lengths):
            frames = episode(rng, length)
            frames[fmt.IMAGES + "room"] = numbered(length, start)
            add(writer, frames, number) if length > 3 else writer.add_episode(frames, task="short")
            start += length
    assert len(list((tmp_path / "videos/observation.images.room").glob("*/*.mp4"))) > 1
    dataset = LeRobotDataset(tmp_path, 4, cameras=["room"])
    assert [number_of(dataset.frame(i)["images"]["room"]) for i in range(len(dataset))] == list(range(46))
    shuffled = rng.permutation(46)
    assert [number_of(dataset.frame(i)["images"]["room"]) for i in shuffled.tolist()] == shuffled.tolist()


def test_interrupted_recording_keeps_finished_episodes(tmp_path):
    rng = np.random.default_rng(4)
    episodes = [episode(rng, 6) for _ in range(4)]
    writer = LeRobotWriter(tmp_path, ROBOT, 10)
    add(writer, episodes[0], 0)
    add(writer, episodes[1], 1)
    (tmp_path / "recording" / ".000002.parquet.99.tmp").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"unfinished recording.*2 finished episodes.*close"):
        LeRobotDataset(tmp_path, 4)
    with pytest.raises(FolderInUseError, match=rf"recording is in use by process {os.getpid()} .*since"):
        LeRobotWriter(tmp_path, ROBOT, 10)
    del writer
    resumed = LeRobotWriter(tmp_path, ROBOT, 10)
    assert resumed.episodes == 2
    resumed.truncate(1)
    assert add(resumed, episodes[2], 1) is None
    resumed.close()
    assert not (tmp_path / "recording").exists()
    dataset = LeRobotDataset(tmp_path, 4)
    assert len(dataset.episodes) == 2
    np.testing.assert_array_equal(dataset.state[6:], episodes[2][fmt.STATE])


def test_interrupted_packing_is_done_again(tmp_path, monkeypatch):
    rng = np.random.default_rng(5)
    episodes = [episode(rng, 6) for _ in range(3)]
    record(tmp_path, episodes[:1])
    writer = LeRobotWriter(tmp_path, ROBOT, 10)
    add(writer, episodes[1], 1)
    with monkeypatch.context() as patch:
        patch.setattr(packing, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            writer.close()
    assert len(LeRobotDataset(tmp_path, 4).episodes) == 1
    del writer
    resumed = LeRobotWriter(tmp_path, ROBOT, 10)
    add(resumed, episodes[2], 2)
    resumed.close()
    dataset = LeRobotDataset(tmp_path, 4)
    np.testing.assert_array_equal(dataset.state, np.concatenate([e[fmt.STATE] for e in episodes]))


def test_layout_is_v3(recorded):
    path, episodes = recorded
    info = json.loads((path / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0" and info["fps"] == 10 and info["splits"] == {"train": "0:3"}
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 22, 2)
    assert info["features"]["language_persistent"]["dtype"] == "language"
    data = pq.read_table(path / "data/chunk-000/file-000.parquet")
    assert set(data.column_names) == set(info["features"])
    assert data["index"].to_pylist() == list(range(22))
    assert data["timestamp"].to_pylist()[7:10] == pytest.approx([0, 0.1, 0.2])
    tasks = pq.read_table(path / "meta/tasks.parquet")
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    rows = pq.read_table(path / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [r["dataset_from_index"] for r in rows] == [0, 7, 16]
    np.testing.assert_allclose(rows[1]["stats/action/mean"], episodes[1][fmt.ACTION].mean(0), rtol=1e-5)
    stats = json.loads((path / "meta/stats.json").read_text())
    states = np.concatenate([e[fmt.STATE] for e in episodes])
    np.testing.assert_allclose(stats["observation.state"]["q99"], np.quantile(states, 0.99, axis=0), rtol=1e-5)
    assert np.shape(stats["observation.images.room"]["mean"]) == (3, 1, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({fmt.STATE: np.zeros((6, 2), np.float32)}, "robot 'toy' declares 3 dims"),
        ({fmt.ACTION: np.full((6, 2), np.nan, np.float32)}, "'action' holds NaN or infinity at step 0"),
        ({fmt.ACTION: np.zeros((5, 2), np.float32)}, "differ in length"),
        ({fmt.IMAGES + "room": np.zeros((6, 4, 4, 3), np.uint8)}, "feature 'observation.images.room' is"),
        ({fmt.BOX: None}, "feature 'observation.subtask_box' is None in this episode"),
        ({fmt.IMAGES + "wrist": None}, "pictures are missing"),
    ],
)
def test_writer_refuses_bad_episodes(tmp_path, change, message):
    writer = LeRobotWriter(tmp_path, ROBOT, 10)
    frames = episode(np.random.default_rng(0), 6)
    writer.add_episode(frames, task="ok")
    bad = {name: values for name, values in (frames | change).items() if values is not None}
    with pytest.raises(ValueError, match=message):
        writer.add_episode(bad, task="bad")
    assert writer.episodes == 1


def test_full_disk_says_what_to_do(tmp_path, monkeypatch):
    import errno

    writer = LeRobotWriter(tmp_path, ROBOT, 10)
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(pq, "write_table", lambda *_, **__: (_ for _ in ()).throw(full))
    with pytest.raises(OSError, match=r"disk is full while writing.*free some space"):
        writer.add_episode(episode(np.random.default_rng(0), 6), task="x")
    assert writer.episodes == 0


def test_bad_sets_are_named(recorded):
    path, _ = recorded
    with pytest.raises(FileNotFoundError, match=r"not a LeRobot data set"):
        LeRobotDataset(path / "data", 4)
    with pytest.raises(ValueError, match=r"no camera 'rom'.*did you mean 'room'"):
        LeRobotDataset(path, 4, cameras=["rom"])
    with pytest.raises(ValueError, match=r"holds robot 'toy' at 10 fps, not 'toy' at 20"):
        LeRobotWriter(path, ROBOT, 20)
    data = path / "data/chunk-000/file-000.parquet"
    data.write_bytes(data.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"file-000.parquet cannot be read.*truncated"):
        LeRobotDataset(path, 4)
    data.unlink()
    with pytest.raises(FileNotFoundError, match=r"file-000.parquet is missing"):
        LeRobotDataset(path, 4)


@pytest.mark.parametrize("column", ["observation.images.room", "observation.state"])
def test_a_damaged_page_is_named(recorded, column):
    file = recorded[0] / "data/chunk-000/file-000.parquet"
    group = pq.read_metadata(file).row_group(1)
    chunk = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema.startswith(column))
    content = bytearray(file.read_bytes())
    begin = chunk.dictionary_page_offset or chunk.data_page_offset
    content[begin : begin + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    file.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"file-000.parquet cannot be read \(.+\); it is truncated or damaged"
    ) as error:
        LeRobotDataset(recorded[0], 4).frame(10)
    assert "\n" not in str(error.value)


def test_other_versions_are_refused(recorded):
    path, _ = recorded
    info = json.loads((path / "meta/info.json").read_text())
    (path / "meta/info.json").write_text(json.dumps(info | {"codebase_version": "v1.6"}))
    with pytest.raises(ValueError, match=r"format v1.6, this reader reads v2.0 to v3.0"):
        LeRobotDataset(path, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fps": 0}, "has fps 0; frames per second are a number above 0"),
        ({"fps": -10}, "has fps -10;"),
        ({"fps": "10"}, "has fps '10';"),
        ({"total_frames": 21}, "says total_frames 21, and the list of episodes in meta/ has 22"),
        ({"total_episodes": 4}, "says total_episodes 4, and the list of episodes in meta/ has 3"),
        ({"total_episodes": -1}, "has total_episodes -1"),
        ({"features": {"action": {"dtype": "float32"}}}, "has features without a dtype or a shape"),
    ],
)
def test_a_set_that_does_not_add_up_is_refused(recorded, change, message):
    path, _ = recorded
    info = json.loads((path / fmt.INFO).read_text())
    (path / fmt.INFO).write_text(json.dumps(info | change))
    with pytest.raises(ValueError, match=message) as error:
        LeRobotDataset(path, 4)
    assert str(path / fmt.INFO) in str(error.value)


def test_travels_to_worker_processes(recorded):
    path, _ = recorded
    dataset = LeRobotDataset(path, 4)
    first = dataset.frame(0)["images"]["room"]
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy.frame(0)["images"]["room"], first)


def test_av1_with_many_episodes_in_a_file(tmp_path):
    rng, lengths, start = np.random.default_rng(3), (11, 6, 14), 0
    with LeRobotWriter(tmp_path, ROBOT, 10, image_format="video") as writer:
        for number, length in enumerate(lengths):
            add(writer, episode(rng, length) | {fmt.IMAGES + "room": numbered(length, start, height=64)}, number)
            start += length
    (file,) = (tmp_path / "videos/observation.images.room").rglob("*.mp4")
    write_video(file, numbered(start, 0, height=64), fps=10, codec="libsvtav1", g="2", preset="12")
    dataset = LeRobotDataset(tmp_path, 4, cameras=["room"])
    shuffled = rng.permutation(start).tolist()
    assert [number_of(dataset.picture(i, "room")) for i in shuffled] == shuffled


def test_the_older_subtask_column(recorded):
    path, _ = recorded
    texts = pa.table({"subtask_index": [5, 2], "__index_level_0__": ["grasp", "reach"]})
    pq.write_table(texts, path / "meta/subtasks.parquet")
    data = path / "data/chunk-000/file-000.parquet"
    table = pq.read_table(data).drop_columns([fmt.PERSISTENT])
    pq.write_table(table.append_column("subtask_index", pa.array([2] * 4 + [5] * 4 + [-1] * 14)), data)
    info = json.loads((path / "meta/info.json").read_text())
    del info["features"][fmt.PERSISTENT]
    info["features"]["subtask_index"] = {"dtype": "int64", "shape": [1], "names": None}
    (path / "meta/info.json").write_text(json.dumps(info))
    dataset = LeRobotDataset(path, 4)
    assert [dataset.row(i)["subtask"] for i in (0, 3, 4, 7, 8)] == ["reach", "reach", "grasp", "grasp", None]


def test_other_wordings_of_a_task(tmp_path):
    with LeRobotWriter(tmp_path, ROBOT, 10) as writer:
        said = [(0.0, "task_aug", "user", "wipe it"), (0.0, "task_aug", "user", "clean it"), (0.1, "plan", "user", "x")]
        writer.add_episode(episode(np.random.default_rng(0), 6), task="wipe the table", persistent=said)
    assert LeRobotDataset(tmp_path, 4).row(2)["rephrasings"] == ("wipe it", "clean it")


# --- columns of large sets ------------------------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path, monkeypatch):
    """Five episodes, few of them with a subtask; every set counts as large."""
    monkeypatch.setattr(lerobot, "MAPPED_FRAMES", 1)
    rng = np.random.default_rng(0)
    record(tmp_path / "set", [episode(rng, length, perturbed=(2,)) for length in (7, 9, 6, 4, 8)])
    return tmp_path / "set"


def test_columns_of_a_large_set_are_mapped(large, monkeypatch):
    first, again = LeRobotDataset(large, 3), None
    with monkeypatch.context() as patch:
        patch.setattr(lerobot, "read_table", None)  # the second time no data file is read
        again = LeRobotDataset(large, 3)
    monkeypatch.setattr(lerobot, "MAPPED_FRAMES", 10**9)
    plain = LeRobotDataset(large, 3)
    assert isinstance(again.state, np.memmap) and not isinstance(plain.state, np.memmap)
    for dataset in (first, again):
        assert dataset.episodes == plain.episodes and dataset.subtasks == plain.subtasks
        for i in range(len(plain)):
            one, other = dataset.frame(i), plain.frame(i)
            assert all(np.array_equal(one[name], other[name]) for name in ("state", "actions", "action_is_pad"))
            assert all(one[name] == other[name] for name in ("task", "subtask", "box", "utterance", "rephrasings"))
            np.testing.assert_array_equal(one["images"]["room"], other["images"]["room"])


def test_another_state_of_the_files_is_read_anew(large):
    LeRobotDataset(large, 3)
    file = next(large.glob("data/*/*.parquet"))
    table = pq.read_table(file)
    place = table.column_names.index(fmt.STATE)
    zeros = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(table.num_rows * 3, np.float32)), 3)
    pq.write_table(table.set_column(place, fmt.STATE, zeros), file)
    assert not LeRobotDataset(large, 3).state.any()


def test_maps_do_not_travel_but_what_was_changed_does(large):
    dataset = LeRobotDataset(large, 3)
    content = pickle.dumps(dataset)
    assert dataset.state.tobytes() not in content
    copy = pickle.loads(content)
    assert isinstance(copy.state, np.memmap) and np.array_equal(copy.episode_of, dataset.episode_of)
    np.testing.assert_array_equal(
        copy.action_chunks(np.arange(len(copy)))[0], dataset.action_chunks(np.arange(len(copy)))[0]
    )
    dataset.trainable = np.arange(len(dataset)) % 2 == 0  # some episodes are held out
    assert pickle.loads(pickle.dumps(dataset)).trainable_rows().tolist() == list(range(0, len(dataset), 2))


def test_a_reading_that_breaks_off_keeps_nothing(large, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(lerobot.LeRobotDataset, "_save_cache", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            LeRobotDataset(large, 3)
    assert not list((large / ".pilot").glob("*")) and not list((large / ".pilot").glob(".*"))
    assert len(LeRobotDataset(large, 3)) == 34
