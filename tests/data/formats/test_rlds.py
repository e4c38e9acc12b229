"""RLDS sets that TensorFlow Datasets wrote come back frame by frame; what is broken is named or skipped."""

import json
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
from data.recordings import number_of
from data.records import LAYOUT, RECORDS, columns, copy_tiny_arm, messages, open_remote, write_records

from pilot.data.formats import rlds
from pilot.data.formats.rlds import EpisodeFeatures, RldsDataset, RobotColumns, read_features
from pilot.data.formats.tfrecord import Example, RecordFile, _varints, masked_crc
from pilot.data.storage.frame_cache import cache_frames


@pytest.fixture
def path(tmp_path):
    return copy_tiny_arm(tmp_path)


def read(path, **options) -> RldsDataset:
    return RldsDataset(path, 3, layout=options.pop("layout", LAYOUT), **options)


def numbers(dataset: RldsDataset) -> list[int]:
    return [number_of(dataset.picture(i, "image")) for i in range(len(dataset))]


def test_frames_and_columns_are_exact_across_episodes(path):
    dataset = read(path)
    assert numbers(dataset) == [0, 1, 2, 3, 4, 6, 7, 8, 9]  # step 5 is the failed episode
    assert dataset.state[:, 0].tolist() == [0, 10, 20, 30, 40, 60, 70, 80, 90]
    assert dataset.actions[:, 0].tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    frame = dataset.frame(4)
    assert frame["action_is_pad"].tolist() == [False, True, True]
    assert (frame["task"], frame["episode_index"], frame["frame_index"]) == ("pick up thing 0 é", 0, 4)
    assert abs(frame["images"]["wrist"].astype(int) - 40).max() <= 1  # JPEG


def test_every_kind_of_feature_is_decoded(path):
    features, file = read_features(path / rlds.FEATURES), RecordFile(path / RECORDS)
    at, size = file.places()[2].tolist()
    episode = EpisodeFeatures(Example(file.read(at, size, check=True), where="here"), features)
    steps = np.arange(6, 10)
    np.testing.assert_array_equal(episode["observation/raw"], np.arange(6).reshape(2, 3) + steps[:, None, None])
    np.testing.assert_array_equal(episode["observation/zipped"], np.arange(4).reshape(2, 2) + steps[:, None, None] / 2)
    np.testing.assert_array_equal(episode["observation/asbytes"], np.arange(4).reshape(2, 2) - steps[:, None, None])
    np.testing.assert_allclose(episode["observation/position64"], np.arange(3) + steps[:, None] / 3, rtol=1e-6)
    assert episode["is_last"].tolist() == [False, False, False, True] and episode["is_last"].dtype == bool
    assert (episode.metadata("id"), episode.metadata("label")) == (1, 0)
    assert episode.texts("language_instruction") == ["pick up thing 2 é"] * 4
    with pytest.raises(ValueError, match=r"'steps/observation/history' \(tensor\) is no column"):
        episode["observation/history"]
    with pytest.raises(ValueError, match=r"no feature 'steps/observation/stat'; it has .*observation/state"):
        episode["observation/stat"]


def test_negative_and_large_integers():
    values = [0, 1, -1, 127, 128, 300, 2**40, -(2**63), 2**63 - 1]
    packed = b""
    for value in values:
        value &= 2**64 - 1
        while value > 0x7F:
            packed, value = packed + bytes([value & 0x7F | 0x80]), value >> 7
        packed += bytes([value])
    assert _varints(np.frombuffer(packed, np.uint8)).tolist() == values


def test_the_check_sum_is_crc32c():
    assert masked_crc(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_the_second_reading_maps_what_the_first_kept(path, monkeypatch):
    first = read(path)
    monkeypatch.setattr(RldsDataset, "_read", lambda *_, **__: pytest.fail("read again"))
    again = read(path.parent)  # the folder of versions will do
    assert isinstance(again.state, np.memmap)
    np.testing.assert_array_equal(again.state, first.state)
    assert again.episodes == first.episodes and numbers(again) == numbers(first)


def test_changed_files_are_read_again(path):
    read(path)
    file = path / RECORDS
    write_records(file, messages(file)[:1] * 3)
    assert numbers(read(path)) == [0, 1, 2, 3, 4] * 3


def test_files_made_again_with_the_same_size_are_read_again(path):
    cache_frames(read(path), progress=False)
    file = path / RECORDS
    size = file.stat().st_size
    write_records(file, messages(file)[::-1])
    assert file.stat().st_size == size
    dataset = read(path)
    cache_frames(dataset, progress=False)
    assert numbers(dataset) == dataset.actions[:, 0].tolist() == [6, 7, 8, 9, 0, 1, 2, 3, 4]


def test_a_read_only_set_keeps_its_columns_elsewhere(path, tmp_path, monkeypatch):
    monkeypatch.setattr("pilot.data.storage.files.os.access", lambda *_: False)
    monkeypatch.setenv("PILOT_CACHE", str(tmp_path / "cache"))
    read(path)
    assert not (path / ".pilot").exists() and list((tmp_path / "cache").glob("1.0.0-*/columns-*/about.json"))


def test_a_subset_in_its_own_order(path):
    dataset = read(path, episodes=[2, 0], cameras=["image"])
    assert numbers(dataset) == [6, 7, 8, 9, 0, 1, 2, 3, 4] and dataset.cameras == ("image",)
    assert dataset.state[:, 0].tolist() == [60, 70, 80, 90, 0, 10, 20, 30, 40]
    with pytest.raises(ValueError, match=r"no episodes \[1\]"):
        read(path, episodes=[1])


def test_cameras_that_did_not_record_an_episode(path):
    def without_wrist(features):
        found = columns(features)
        return found and replace(found, missing=("wrist",) if features.metadata("id") > 0 else ())

    for _ in range(2):  # now, and from what was kept
        dataset = read(path, layout=replace(LAYOUT, columns=without_wrist))
        seen = [set(dataset.frame(i)["images"]) for i in range(len(dataset))]
        assert seen == [{"image", "wrist"}] * 5 + [{"image"}] * 4
    cache_frames(dataset, progress=False)
    assert [set(dataset.frame(i)["images"]) for i in range(len(dataset))] == seen


def test_the_frame_cache_follows_the_layout(path):
    """Other cameras, another first step: the files are the same, the pictures are not."""
    cache_frames(read(path), progress=False)
    swapped = {"image": LAYOUT.cameras["wrist"], "wrist": LAYOUT.cameras["image"]}

    def from_the_second(features: EpisodeFeatures) -> RobotColumns | None:
        found = columns(features)
        if found is None:
            return None
        return replace(found, state=found.state[1:], actions=found.actions[1:], first=1)

    def to_the_last_but_one(features: EpisodeFeatures) -> RobotColumns | None:
        found = columns(features)
        return None if found is None else replace(found, state=found.state[:-1], actions=found.actions[:-1])

    cut = (replace(LAYOUT, columns=each) for each in (to_the_last_but_one, from_the_second))
    for layout in (replace(LAYOUT, cameras=swapped), *cut):
        shutil.rmtree(path / ".pilot")  # the code of all these layouts is in this file, whose text tells them apart
        dataset = read(path, layout=layout)
        cache_frames(dataset, progress=False)
        for camera in dataset.cameras:
            np.testing.assert_array_equal(dataset.picture(0, camera), dataset.decode(0, camera))


def test_travels_to_worker_processes(path):
    dataset = read(path)
    dataset.frame(0)
    copy = pickle.loads(pickle.dumps(dataset))
    assert numbers(copy) == numbers(dataset) and isinstance(copy.state, np.memmap)
    np.testing.assert_array_equal(copy.action_chunks(np.arange(9))[0], dataset.action_chunks(np.arange(9))[0])
    some = pickle.loads(pickle.dumps(read(path, episodes=[2])))
    assert numbers(some) == [6, 7, 8, 9] and some.state[:, 0].tolist() == [60, 70, 80, 90]


def damage(path, what: str) -> str:
    """Breaks the last episode and says what the error must name."""
    file = path / RECORDS
    content, place = bytearray(file.read_bytes()), open_remote(file, 2)
    if what == "missing":
        file.unlink()
        return r"tiny_arm-train.tfrecord-00000-of-00001 is missing"
    if what == "one record too few":
        file.write_bytes(content[: place.start])
        return r"has 2 records, dataset_info.json says 3"
    if what == "cut short":
        file.write_bytes(content[:-40])
        return r"record 2 is cut short"
    if what == "bad length":
        content[place.start] ^= 1
        message = r"the length of record 2 has a bad CRC"
    elif what == "bad CRC":
        content[place.start + 500] ^= 1
        message = r"episode 2: .*00000-of-00001: the record at byte \d+ has a bad CRC.*--skip-bad"
    elif what == "other dims":
        features = (path / rlds.FEATURES).read_text()
        (path / rlds.FEATURES).write_text(features.replace('"7"', '"6"'))
        return r"episode 0: 'steps/observation/state' does not have the shape \(6,\)"
    else:
        good = messages(file)
        old = np.concatenate([np.arange(7) + 10 * step for step in range(6, 10)]).astype("<f4").tobytes()
        assert old in good[2]
        write_records(file, [*good[:2], good[2].replace(old, np.full(28, np.nan, "<f4").tobytes())])
        return r"NaN or infinity in the state of episode 2, frame 0"
    file.write_bytes(content)
    return message


BROKEN_FILES = ["missing", "one record too few", "cut short", "bad length", "other dims"]
BROKEN_RECORDS = ["bad CRC", "NaN"]


@pytest.mark.parametrize("what", [*BROKEN_FILES, *BROKEN_RECORDS])
def test_what_is_broken_is_named(path, what):
    message = damage(path, what)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read(path)


@pytest.mark.parametrize("what", BROKEN_RECORDS)
def test_a_broken_record_is_skipped_and_listed(path, what):
    damage(path, what)
    for _ in range(2):  # now, and from what was kept
        dataset = read(path, skip_bad=True)
        assert numbers(dataset) == [0, 1, 2, 3, 4]
        assert [skip.episode for skip in dataset.skipped] == [2] and "1 episodes skipped" in dataset.skip_report()


def test_a_broken_file_is_skipped_and_listed(path):
    info = json.loads((path / rlds.INFO).read_text())
    info["splits"][0]["shardLengths"] = ["3", "3"]
    (path / rlds.INFO).write_text(json.dumps(info))
    file = (path / RECORDS).rename(path / RECORDS.replace("of-00001", "of-00002"))
    second = path / "tiny_arm-train.tfrecord-00001-of-00002"
    second.write_bytes(file.read_bytes()[:-1])
    dataset = read(path, skip_bad=True)
    assert numbers(dataset) == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert [skip.episode for skip in dataset.skipped] == [3, 4, 5]


def test_what_the_layout_gets_wrong_is_named(path, tmp_path):
    wrong = rlds.RldsLayout(fps=5, cameras={"image": "observation/imag"}, instruction=(), columns=columns)
    with pytest.raises(ValueError, match=r"'image' should be the image 'steps/observation/imag', images are"):
        read(path, layout=wrong)
    with pytest.raises(ValueError, match=r"no camera 'wris'.*did you mean 'wrist'"):
        read(path, cameras=["wris"])
    with pytest.raises(ValueError, match=r"splits \['train'\], not 'test'"):
        read(path, split="test")
    with pytest.raises(FileNotFoundError, match=r"not an RLDS data set"):
        read(tmp_path / "nothing")
