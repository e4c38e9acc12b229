"""The frame cache gives the same pictures, notices a changed data set, and repairs itself."""

import numpy as np
import pytest
from data.recordings import episode, record

from pilot.data.formats.lerobot import LeRobotDataset
from pilot.data.storage.frame_cache import cache_frames


@pytest.fixture
def path(tmp_path):
    rng = np.random.default_rng(0)
    record(tmp_path, [episode(rng, 5), episode(rng, 7)])
    return tmp_path


def pictures(dataset: LeRobotDataset) -> list[np.ndarray]:
    return [dataset.frame(i)["images"][camera] for i in range(len(dataset)) for camera in dataset.cameras]


def test_same_pictures(path):
    dataset = LeRobotDataset(path, 4)
    decoded = pictures(dataset)
    cache = cache_frames(dataset, progress=False)
    for cached, picture in zip(pictures(dataset), decoded, strict=True):
        np.testing.assert_array_equal(cached, picture)
    assert dataset.frames is cache


def test_is_built_once(path, monkeypatch):
    cache_frames(LeRobotDataset(path, 4), progress=False)
    monkeypatch.setattr("pilot.data.storage.frame_cache._build", lambda *_, **__: pytest.fail("built again"))
    cache_frames(LeRobotDataset(path, 4), progress=False)


def test_follows_a_changed_set(path):
    cache_frames(LeRobotDataset(path, 4), progress=False)
    record(path, [episode(np.random.default_rng(9), 6)])
    dataset = LeRobotDataset(path, 4)
    last = dataset.frame(17)["images"]["room"]
    cache_frames(dataset, progress=False)
    np.testing.assert_array_equal(dataset.frame(17)["images"]["room"], last)


def test_follows_the_rows_that_training_draws(path):
    """As many rows as before, but others."""
    for rows in ([0, 3, 7], [1, 3, 7]):
        dataset = LeRobotDataset(path, 4)
        dataset.trainable = np.isin(np.arange(len(dataset)), rows)
        decoded = dataset.decode(rows[0], "room")
        cache_frames(dataset, progress=False)
        np.testing.assert_array_equal(dataset.picture(rows[0], "room"), decoded)


def test_a_truncated_file_is_made_again(path):
    dataset = LeRobotDataset(path, 4)
    cache_frames(dataset, progress=False)
    decoded = pictures(dataset)
    raw = path / "frames" / "room.raw"
    raw.write_bytes(raw.read_bytes()[:-1])
    cache_frames(dataset, progress=False)
    for cached, picture in zip(pictures(dataset), decoded, strict=True):
        np.testing.assert_array_equal(cached, picture)


def test_pictures_that_change_their_size_are_refused(path, monkeypatch):
    dataset = LeRobotDataset(path, 4)
    decode = dataset.decode
    monkeypatch.setattr(dataset, "decode", lambda i, camera: decode(i, camera)[: 4 if i == 6 else None])
    with pytest.raises(ValueError, match=r"'room' change from \(8, 16\) to \(4, 16\) pixels in episode 1"):
        cache_frames(dataset, progress=False)


def test_bad_pictures_are_never_read_as_black_ones(path, monkeypatch):
    dataset = LeRobotDataset(path, 4, skip_bad=True)
    decode = dataset.decode

    def decode_some(i: int, camera: str) -> np.ndarray:
        if i in (0, 6):
            raise ValueError(f"row {i} is damaged")
        return decode(i, camera)

    monkeypatch.setattr(dataset, "decode", decode_some)
    for _ in range(2):  # as it is made, and as it is found
        cache = cache_frames(dataset, progress=False)
        np.testing.assert_array_equal(cache.read(7, "room"), decode(7, "room"))
        for i in (0, 6):
            with pytest.raises(ValueError, match=f"row {i} is damaged"):
                dataset.picture(i, "room")
    assert dataset.readable_frame(6, np.random.default_rng(0))["frame_index"] != 1
    assert "2 episodes skipped" in dataset.skip_report()
    cameras = len(dataset.cameras)
    assert (
        f"episode 1: {cameras} of its pictures cannot be decoded; the first: row 6 is damaged" in dataset.skip_report()
    )
    dataset.skip_bad = False
    (path / "frames/frames.json").unlink()
    with pytest.raises(ValueError, match="row 0 is damaged"):
        cache_frames(dataset, progress=False)


def test_only_rows_that_training_draws_are_held_and_others_are_still_read(path):
    """Sets whose pictures are held over several frames would otherwise be decoded many times over."""
    dataset = LeRobotDataset(path, 4)
    decoded = pictures(dataset)
    dataset.trainable = np.arange(len(dataset)) % 3 == 0
    cache = cache_frames(dataset, progress=False)
    camera = dataset.cameras[0]
    assert (cache.folder / f"{camera}.raw").stat().st_size == 4 * decoded[0].size
    for cached, picture in zip(pictures(dataset), decoded, strict=True):
        np.testing.assert_array_equal(cached, picture)
    with pytest.raises(LookupError, match="row 1 is not drawn"):
        cache.read(1, camera)
    assert cache_frames(dataset, progress=False).rows.tolist() == [0, 3, 6, 9]
