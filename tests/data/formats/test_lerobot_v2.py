"""LeRobot v2.1, written here as its tools write it: one parquet and one mp4 per episode."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data.recordings import number_of, numbered, write_video

from pilot.data.formats.columns import index_columns, read_columns
from pilot.data.formats.lerobot import LeRobotDataset
from pilot.data.formats.writer import encode_png

LENGTHS = (11, 1, 14, 8)
CODECS = {"h264": {"codec": "libx264", "g": "2"}, "av1": {"codec": "libsvtav1", "g": "2", "preset": "12"}}
DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"


def feature(dtype: str, *shape: int) -> dict:
    return {"dtype": dtype, "shape": list(shape), "names": None}


def write(path, *, codec=None, fps=10, state="observation.state", action="action", **columns) -> None:
    """Episodes of `LENGTHS` whose pictures and first state dim are the row's number. `codec` None embeds PNG."""
    names = ("timestamp", "frame_index", "episode_index", "index", "task_index")
    features = {name: feature("float32" if name == "timestamp" else "int64", 1) for name in names}
    features |= {state: feature("float32", 3), action: feature("float32", 2)}
    features |= {name: feature("int64", 1) for name in columns}
    features["observation.images.top"] = feature("video" if codec else "image", 64, 128, 3)
    info = {"codebase_version": "v2.1", "robot_type": "toy", "fps": fps, "chunks_size": 1000, "features": features}
    info |= {"total_episodes": len(LENGTHS), "total_frames": sum(LENGTHS), "data_path": DATA, "video_path": VIDEO}
    (path / "meta").mkdir(parents=True)
    (path / "meta/info.json").write_text(json.dumps(info))
    tasks = [{"task_index": 3, "task": "task 3"}, {"task_index": 0, "task": "task 0"}]
    lines = {"tasks": tasks, "subtasks": [{"subtask_index": i, "subtask": f"step {i}"} for i in range(3)]}
    lines["episodes"] = [{"episode_index": e, "tasks": ["?"], "length": n} for e, n in enumerate(LENGTHS)]
    for name, rows in lines.items():
        (path / f"meta/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    start = 0
    for e, n in enumerate(LENGTHS):
        rows = np.arange(start, start + n)
        table = {"index": rows, "episode_index": np.full(n, e), "frame_index": np.arange(n)}
        table |= {"task_index": np.full(n, 3 * (e % 2)), "timestamp": (np.arange(n) / fps).astype(np.float32)}
        table |= {name: values[rows] for name, values in columns.items()}
        table |= {state: list(np.stack([rows, rows, rows], 1).astype(np.float32))}
        table |= {action: list(np.stack([-rows, rows], 1).astype(np.float32))}
        place = {"episode_chunk": 0, "episode_index": e, "video_key": "observation.images.top"}
        if codec:
            write_video(path / VIDEO.format(**place), numbered(n, start, height=64), fps=fps, **codec)
        else:
            table["observation.images.top"] = [
                {"bytes": encode_png(p), "path": None} for p in numbered(n, start, height=64)
            ]
        (path / DATA.format(**place)).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(table), path / DATA.format(**place))
        start += n


def numbers(dataset: LeRobotDataset, rows) -> list[int]:
    return [number_of(dataset.picture(int(i), "top")) for i in rows]


@pytest.mark.parametrize("codec", [*CODECS.values(), None], ids=[*CODECS, "png"])
def test_frames_are_exact_across_episodes(tmp_path, codec):
    write(tmp_path, codec=codec)
    dataset = LeRobotDataset(tmp_path, 4)
    assert len(dataset) == sum(LENGTHS) and dataset.cameras == ("top",)
    shuffled = np.random.default_rng(0).permutation(len(dataset))
    assert numbers(dataset, range(len(dataset))) == list(range(len(dataset)))
    assert numbers(dataset, shuffled) == shuffled.tolist()
    assert dataset.state[:, 0].tolist() == list(range(len(dataset)))


def test_columns_tasks_and_windows(tmp_path):
    write(tmp_path)
    dataset = LeRobotDataset(tmp_path, 3)
    assert [e.task for e in dataset.episodes] == ["task 0", "task 3", "task 0", "task 3"]
    row = dataset.row(11)  # the only step of an episode that is shorter than the chunk
    assert row["action_is_pad"].tolist() == [False, True, True] and row["actions"][:, 1].tolist() == [11, 11, 11]
    assert (row["episode_index"], row["frame_index"], row["task"]) == (1, 0, "task 3")


def test_a_subset_of_episodes(tmp_path):
    write(tmp_path, codec=CODECS["h264"])
    dataset = LeRobotDataset(tmp_path, 4, episodes=[3, 0])
    assert numbers(dataset, range(len(dataset))) == [*range(26, 34), *range(11)]


@pytest.mark.parametrize("letter", ["\u2028", "\u2029", "\x85"])
def test_a_task_may_hold_what_unicode_calls_a_line_end(tmp_path, letter):
    write(tmp_path)
    lines = [{"task_index": number, "task": f"pick{letter}up {number}"} for number in (3, 0)]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (tmp_path / "meta/tasks.jsonl").write_text(text, encoding="utf-8")
    assert LeRobotDataset(tmp_path, 4).episodes[0].task == f"pick{letter}up 0"


def test_statistics_count_all_episodes_of_a_set_with_gaps(tmp_path):
    """Tools remove episodes and leave the numbers of the others."""
    write(tmp_path)
    kept = [{"episode_index": e, "tasks": ["?"], "length": LENGTHS[e]} for e in (0, 3)]
    (tmp_path / "meta/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    info = json.loads((tmp_path / "meta/info.json").read_text())
    info |= {"total_episodes": 2, "total_frames": LENGTHS[0] + LENGTHS[3]}
    (tmp_path / "meta/info.json").write_text(json.dumps(info))
    index = index_columns(tmp_path)
    assert index.rows == len(LeRobotDataset(tmp_path, 4)) == LENGTHS[0] + LENGTHS[3]
    (columns, *_) = [one for part in index.parts for one in read_columns(part)[0]][1:]
    assert columns.state[:, 0].tolist() == list(range(26, 34))


def test_the_older_subtask_column(tmp_path):
    write(tmp_path, subtask_index=np.where(np.arange(34) < 4, -1, np.arange(34) % 3))
    dataset = LeRobotDataset(tmp_path, 4)
    assert [dataset.row(i)["subtask"] for i in (3, 4, 5)] == [None, "step 1", "step 2"]


def test_short_names_of_state_and_actions(tmp_path):
    write(tmp_path, state="state", action="actions")
    assert LeRobotDataset(tmp_path, 4).actions[5].tolist() == [-5, 5]


def damage(path, what: str) -> str:
    """Breaks episode 2 and says what the error must name."""
    data, video = (path / f.format(episode_chunk=0, episode_index=2, video_key="observation.images.top")
                   for f in (DATA, VIDEO))  # fmt: skip
    if what in ("data missing", "video missing"):
        (data if what == "data missing" else video).unlink()
        return r"episode_000002.* is missing"
    if what in ("data truncated", "video truncated"):
        file = data if what == "data truncated" else video
        file.write_bytes(file.read_bytes()[:300])
        return r"episode_000002.*cannot be (read|opened).*fetch (it|the data set) again"
    if what == "other fps":
        write_video(video, numbered(14, 12), fps=30)
        return r"episode_000002.mp4 runs at 30 fps, the data set says 10"
    if what == "video too short":
        write_video(video, numbered(9, 12), fps=10)
        return r"has 9 frames, episode 2 needs 14|ends before frame"
    table = pq.read_table(data)
    if what == "NaN":
        values = [list(v) for v in table["action"].to_pylist()]
        values[5][1] = float("nan")
        table = table.set_column(table.schema.get_field_index("action"), "action", pa.array(values))
        message = r"episode_000002.parquet: NaN or infinity in the actions of episode 2, frame 5; .*--skip-bad"
    elif what == "other dims":
        values = [v[:2] for v in table["observation.state"].to_pylist()]
        place = table.schema.get_field_index("observation.state")
        table = table.set_column(place, "observation.state", pa.array(values))
        message = r"'observation.state' has 2 dims, meta/info.json declares 3"
    elif what == "no column":
        table, message = table.drop_columns(["action"]), r"has no column \['action'\], though meta/info.json names it"
    elif what == "unknown task":
        place = table.schema.get_field_index("task_index")
        table = table.set_column(place, "task_index", pa.array([7] * 14))
        message = r"task_index 7 is not in meta/"
    else:
        table, message = table.slice(0, 10), r"episode 2 should have 14 steps there, but has 10"
    pq.write_table(table, data)
    return message


BREAKS = ["data missing", "video missing", "data truncated", "video truncated", "other fps", "video too short"]
BREAKS += ["NaN", "other dims", "no column", "unknown task", "too few rows"]


@pytest.mark.parametrize("what", BREAKS)
def test_what_is_broken_is_named_or_skipped(tmp_path, what):
    write(tmp_path, codec=CODECS["h264"])
    message = damage(tmp_path, what)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        dataset = LeRobotDataset(tmp_path, 4)
        numbers(dataset, range(len(dataset)))
    dataset = LeRobotDataset(tmp_path, 4, skip_bad=True)
    assert [e.index for e in dataset.episodes] == [0, 1, 3]
    assert [skip.episode for skip in dataset.skipped] == [2]
    assert numbers(dataset, range(len(dataset))) == [*range(12), *range(26, 34)]
    assert "1 episodes skipped" in dataset.skip_report() and "episode 2:" in dataset.skip_report()


def test_a_picture_that_only_decoding_finds_bad_is_replaced_by_another_row(tmp_path):
    write(tmp_path, codec=CODECS["h264"])
    video = tmp_path / VIDEO.format(episode_chunk=0, episode_index=2, video_key="observation.images.top")
    content = bytearray(video.read_bytes())
    start = content.index(b"mdat") + 8
    content[start : start + 2000] = bytes(2000)  # as long as before, and nothing in it
    video.write_bytes(content)
    with pytest.raises(ValueError, match=r"episode 2, frame 4"):
        LeRobotDataset(tmp_path, 4).readable_frame(16, np.random.default_rng(0))
    dataset = LeRobotDataset(tmp_path, 4, skip_bad=True)
    frames = [dataset.readable_frame(16, np.random.default_rng(seed)) for seed in range(4)]
    again = dataset.readable_frame(16, np.random.default_rng(0))
    assert all(
        frame["episode_index"] != 2 and number_of(frame["images"]["top"]) == frame["state"][0] for frame in frames
    )
    assert again["state"].tolist() == frames[0]["state"].tolist()
    assert [skip.episode for skip in dataset.skipped] == [2]


def test_nothing_left_is_an_error(tmp_path):
    write(tmp_path)
    for file in (tmp_path / "data").rglob("*.parquet"):
        file.unlink()
    with pytest.raises(ValueError, match=r"no episodes to read; the first of 4 skipped: .*missing"):
        LeRobotDataset(tmp_path, 4, skip_bad=True)
    (tmp_path / "meta/episodes.jsonl").write_text('{"episode_index": 0}\n')
    with pytest.raises(ValueError, match=r"episodes.jsonl, line 1: no \['length'\]"):
        LeRobotDataset(tmp_path, 4)
