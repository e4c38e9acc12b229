"""Captions, questions and boxes in the files that others publish, as rows with text to say and no actions."""

import io
import json
import os
import pickle
import tarfile
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from pilot.data.formats.coco import CocoRows
from pilot.data.formats.image_text import ImageTextRows
from pilot.data.formats.lerobot import LeRobotDataset
from pilot.data.formats.llava import LlavaRows
from pilot.data.formats.open_dataset import open_episodes, open_image_text
from pilot.data.formats.web import WebRows, WebWriter
from pilot.data.formats.webdataset import WebDatasetRows


def jpeg(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((50, 100, 3), value, np.uint8)).save(buffer, "jpeg", quality=95)
    return buffer.getvalue()


def pictures(folder, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).write_bytes(jpeg(10 * number))


def value(rows: ImageTextRows, i: int) -> int:
    return int(rows.sample(i).images["room"][0, 0, 0])


def said(rows: ImageTextRows, i: int) -> set[tuple[str, str]]:
    """What row `i` says over many draws."""
    samples = [rows.sample(i, np.random.default_rng(seed)) for seed in range(40)]
    assert all(sample.actions is None and sample.state is None and sample.subtask is None for sample in samples)
    return {(sample.prompt, sample.answer) for sample in samples}


# --- COCO ---------------------------------------------------------------------------------------------------------


def coco(path, annotations: list[dict], name: str = "instances_train") -> "str":
    images = [{"id": 7 + i, "file_name": f"{i}.jpg", "width": 100, "height": 50} for i in range(3)]
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "dog"}],
    }
    (path / "annotations").mkdir(exist_ok=True)
    (path / f"annotations/{name}.json").write_text(json.dumps(content))
    pictures(path / "train", "0.jpg", "1.jpg", "2.jpg")
    return path / f"annotations/{name}.json"


def box(number: int, image: int, bbox: list[float], category: int = 1, **more) -> dict:
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox} | more


def test_coco_boxes_are_asked_for_by_name(tmp_path):
    file = coco(
        tmp_path,
        [
            box(1, 7, [50, 25, 50, 25]),
            box(2, 7, [0, 0, 50, 25], iscrowd=0),
            box(3, 7, [0, 0, 100, 50], category=2),
            box(4, 8, [0, 0, 100, 50], iscrowd=1),
            box(5, 9, [-0.5, 0, 100.2, 50]),
        ],
    )
    rows = CocoRows(file)
    assert len(rows) == 2 and [value(rows, i) for i in range(2)] == [0, 20]
    # The pictures of 100 × 50 pixels lie in the middle half of the square that the model sees.
    cups = "<loc0256><loc0000><loc0512><loc0512> cup ; <loc0512><loc0512><loc0768><loc1023> cup"
    assert said(rows, 0) == {("detect cup", cups), ("detect dog", "<loc0256><loc0000><loc0768><loc1023> dog")}
    assert said(rows, 1) == {("detect cup", "<loc0256><loc0000><loc0768><loc1021> cup")}
    assert CocoRows(file, loc_stride=16).sample(0).answer.startswith("<loc0256><loc0000><loc0512><loc0512> cup ; ")


def test_coco_captions(tmp_path):
    notes = [{"id": 1, "image_id": 8, "caption": " A cup. "}, {"id": 2, "image_id": 8, "caption": "Red cup."}]
    notes += [{"id": 3, "image_id": 8, "caption": " "}, {"id": 4, "image_id": 9, "caption": ""}]
    rows = CocoRows(coco(tmp_path, notes, "captions_train"))
    assert len(rows) == 1 and value(rows, 0) == 10
    assert said(rows, 0) == {("caption", "A cup."), ("caption", "Red cup.")}


BAD_BOXES = {
    "empty": ([10, 10, 0, 5], "is empty or not within the picture of 100 × 50 pixels"),
    "outside": ([90, 10, 20, 5], "is empty or not within"),
    "NaN": ([float("nan"), 10, 20, 5], "is empty or not within"),
    "three numbers": ([10, 10, 20], "annotation 2: not enough values"),
}


@pytest.mark.parametrize(("bbox", "message"), BAD_BOXES.values(), ids=BAD_BOXES)
def test_a_bad_box_is_named_or_skipped(tmp_path, bbox, message):
    file = coco(tmp_path, [box(1, 7, [0, 0, 100, 50]), box(2, 8, bbox)])
    with pytest.raises(
        ValueError, match=rf"instances_train.json, annotation 2: .*{message.split(': ')[-1]}.*--skip-bad"
    ):
        CocoRows(file)
    rows = CocoRows(file, skip_bad=True)
    assert len(rows) == 1 and len(rows.skipped) == 1 and "annotation 2" in rows.skipped[0]


def test_coco_files_that_do_not_fit_are_named(tmp_path):
    file = coco(tmp_path, [box(1, 7, [0, 0, 100, 50], category=9)])
    with pytest.raises(ValueError, match=r"annotation 1: it lacks or does not know 9"):
        CocoRows(file)
    file.write_text(json.dumps({"images": []}))
    with pytest.raises(ValueError, match=r"not COCO-style: it has no list 'annotations'"):
        CocoRows(file)
    file = coco(tmp_path, [box(1, 7, [0, 0, 100, 50])])
    (tmp_path / "train/0.jpg").rename(tmp_path / "elsewhere.jpg")
    with pytest.raises(FileNotFoundError, match=r"names the picture '0.jpg', which is in none of"):
        CocoRows(file)


# --- LLaVA, VQA ---------------------------------------------------------------------------------------------------

TURNS = [
    {"from": "human", "value": "<image>\nWhat is it?"},
    {"from": "gpt", "value": "A cup."},
    {"from": "human", "value": "Which colour?"},
    {"from": "gpt", "value": "Red."},
]
ENTRIES = [
    {"id": "x", "conversations": TURNS},
    {"id": "a", "image": "a.jpg", "conversations": TURNS},
    {"image": "b.jpg", "question": "How many?", "answer": "two"},
    {"image": "c.jpg", "question": "Where?", "answers": [{"answer": "left"}, {"answer": "there"}]},
]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_conversations_and_questions(tmp_path, suffix):
    pictures(tmp_path / "images", "a.jpg", "b.jpg", "c.jpg")
    lines = [json.dumps(entry) for entry in ENTRIES]
    (tmp_path / f"set{suffix}").write_text("[" + ",".join(lines) + "]" if suffix == ".json" else "\n".join(lines))
    rows = pickle.loads(pickle.dumps(LlavaRows(tmp_path / f"set{suffix}")))
    assert len(rows) == 3 and [value(rows, i) for i in range(3)] == [0, 10, 20]
    assert said(rows, 0) == {("What is it?", "A cup."), ("Which colour?", "Red.")}
    assert said(rows, 1) == {("How many?", "two")}
    assert said(rows, 2) == {("Where?", "left"), ("Where?", "there")}


def test_broken_entries_are_named_or_replaced(tmp_path):
    pictures(tmp_path, "a.jpg", "b.jpg")
    lines = [
        '{"image": "a.jpg", "question": "Q", "answer": "A"}',
        '{"image": "b.jpg", "question": "Q"}',
        '{"image": oh',
    ]
    lines += ['{"image": "no.jpg", "question": "Q", "answer": "A"}']
    (tmp_path / "set.jsonl").write_text("\n".join(lines))
    rows = LlavaRows(tmp_path / "set.jsonl")
    for i, message in (
        (1, r"set.jsonl, entry 2: no question with an answer"),
        (2, "entry 3 is not valid JSON .*oh"),
        (3, "no.jpg"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            rows.sample(i, np.random.default_rng(0))
    rows = LlavaRows(tmp_path / "set.jsonl", skip_bad=True)
    with pytest.warns(UserWarning, match=r"set\.jsonl: \d rows skipped while reading") as warned:
        assert all(rows.sample(i, np.random.default_rng(i)).answer == "A" for i in range(4))
    assert [str(one.message).split()[1] for one in warned] == ["1", "2"], "when they have doubled"
    assert len(rows.skipped) == 3 and "3 entries skipped" in rows.skip_report()
    (tmp_path / "set.jsonl").write_text("")
    with pytest.raises(ValueError, match="is empty"):
        LlavaRows(tmp_path / "set.jsonl")


OTHER_FORMS = {
    "no words in a turn": {"image": "a.jpg", "conversations": [{"from": "human"}, {"from": "gpt", "value": "A"}]},
    "words that are none": {"image": "a.jpg", "conversations": [{"from": "human", "value": None}]},
    "turns that are none": {"image": "a.jpg", "conversations": "Q A"},
    "a number for an answer": {"image": "a.jpg", "question": "Q", "answer": 2},
    "an answer of no question": {"image": "a.jpg", "question": "Q", "answers": [{"text": "A"}]},
    "a caption of null": {"image": "a.jpg", "caption": None},
    "a list for a picture": {"image": ["a.jpg"], "question": "Q", "answer": "A"},
}


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("entry", OTHER_FORMS.values(), ids=OTHER_FORMS)
def test_entries_of_another_form_are_named_or_replaced(tmp_path, suffix, entry):
    pictures(tmp_path, "a.jpg")
    lines = [json.dumps(line) for line in (entry, {"image": "a.jpg", "question": "Q", "answer": "A"})]
    (tmp_path / f"set{suffix}").write_text("[" + ",".join(lines) + "]" if suffix == ".json" else "\n".join(lines))
    with pytest.raises(ValueError, match=rf"set{suffix}, entry 1: .*correct the line, or use --skip-bad"):
        LlavaRows(tmp_path / f"set{suffix}").sample(0)
    rows = LlavaRows(tmp_path / f"set{suffix}", skip_bad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert all(rows.sample(0, np.random.default_rng(seed)).answer == "A" for seed in range(4))
    assert len(rows.skipped) == 1


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("name", ["conversations", "messages"])
def test_turns_of_roles_and_entries_with_no_picture(tmp_path, suffix, name):
    pictures(tmp_path, "a.jpg")
    turns = [{"role": "user", "content": "<image>\nQ"}, {"role": "assistant", "content": "A"}]
    lines = [json.dumps(entry) for entry in ({"image": None, name: turns}, {"image": "a.jpg", name: turns})]
    (tmp_path / f"set{suffix}").write_text("[" + ",".join(lines) + "]" if suffix == ".json" else "\n".join(lines))
    rows = LlavaRows(tmp_path / f"set{suffix}")
    assert len(rows) == 1 and said(rows, 0) == {("Q", "A")}


# --- WebDataset ---------------------------------------------------------------------------------------------------


def tar(path, **files: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            content = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


@pytest.fixture
def tars(tmp_path):
    words = json.dumps({"question": "How many?", "answer": "two"})
    tar(tmp_path / "web/0.tar", **{"a/1.jpg": jpeg(10), "a/1.txt": "a cup", "a/2.jpg": jpeg(20), "a/2.json": words})
    tar(tmp_path / "web/1.tar", **{"3.txt": "no picture", "4.png": jpeg(40), "4.json": '{"caption": "a dog"}'})
    return tmp_path / "web"


def test_tars_are_read_through_an_index(tars, monkeypatch):
    for _ in range(2):
        rows = WebDatasetRows(tars)
        assert [value(rows, i) for i in range(len(rows))] == [10, 20, 40]
        words = [said(rows, i) for i in range(3)]
        assert words == [{("caption", "a cup")}, {("How many?", "two")}, {("caption", "a dog")}]
        monkeypatch.setattr("pilot.data.formats.webdataset._scan", lambda *_: pytest.fail("gone through again"))
    assert [value(pickle.loads(pickle.dumps(rows)), i) for i in range(3)] == [10, 20, 40]
    assert len(WebDatasetRows(tars / "1.tar")) == 1


def test_a_tar_made_again_with_the_same_size_is_gone_through_again(tmp_path):
    tar(tmp_path / "0.tar", **{"1.jpg": jpeg(10), "1.txt": "a cup", "2.txt": "a dog", "2.jpg": jpeg(20)})
    assert [value(WebDatasetRows(tmp_path), i) for i in range(2)] == [10, 20]
    size = (tmp_path / "0.tar").stat().st_size
    tar(tmp_path / "0.tar", **{"1.txt": "a cup", "1.jpg": jpeg(30), "2.jpg": jpeg(40), "2.txt": "a dog"})
    assert (tmp_path / "0.tar").stat().st_size == size
    assert [value(WebDatasetRows(tmp_path), i) for i in range(2)] == [30, 40]


def test_two_threads_do_not_close_each_others_tars(tars, monkeypatch):
    monkeypatch.setattr("pilot.data.storage.folder.OPEN_FILES", 1)
    rows, pread, reading = WebDatasetRows(tars), os.pread, threading.Event()

    def read_slowly(*place):
        reading.set()
        time.sleep(0.1)
        return pread(*place)

    monkeypatch.setattr("pilot.data.formats.webdataset.os.pread", read_slowly)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(value, rows, 0)
        assert reading.wait(10)
        second = pool.submit(value, rows, 2)
        assert (first.result(), second.result()) == (10, 40)


def test_a_sample_of_another_form_in_a_tar_is_named(tars):
    tar(tars / "2.tar", **{"5.jpg": jpeg(1), "5.json": '{"conversations": 3}'})
    with pytest.raises(ValueError, match=r"2.tar, sample at byte \d+: what is said is of another form.*--skip-bad"):
        WebDatasetRows(tars / "2.tar").sample(0)


def test_a_broken_tar_is_named_or_skipped(tars):
    whole = (tars / "1.tar").read_bytes()
    (tars / "1.tar").write_bytes(whole[:1600])
    with pytest.raises(ValueError, match=r"1.tar (cannot be read|is cut short)"):
        WebDatasetRows(tars)
    rows = WebDatasetRows(tars, skip_bad=True)
    assert len(rows) == 2 and len(rows.skipped) == 1


def test_a_sample_without_words_or_with_a_damaged_picture_is_named(tars):
    tar(
        tars / "2.tar",
        **{"5.jpg": jpeg(1), "5.txt": " ", "6.jpg": b"no picture", "6.txt": "x", "7.jpg": jpeg(1), "7.json": "["},
    )
    rows = WebDatasetRows(tars / "2.tar")
    for i, message in enumerate(
        [r"2.tar, sample at byte \d+: no words", "row 1: the picture is damaged", "--skip-bad"]
    ):
        with pytest.raises(ValueError, match=message):
            rows.sample(i)


# --- which reader ---------------------------------------------------------------------------------------------------


def test_the_reader_is_chosen_by_what_lies_there(tmp_path, tars):
    with WebWriter(tmp_path / "own") as writer:
        writer.add(jpeg(1), [("caption", "a cup"), ("what", "cup")])
    pictures(tmp_path, "a.jpg")
    (tmp_path / "chat.json").write_text(json.dumps(ENTRIES[1:2]))
    (tmp_path / "chat.jsonl").write_text(json.dumps(ENTRIES[1]))
    boxes = coco(tmp_path, [box(1, 7, [0, 0, 100, 50])])
    found = {tmp_path / "own": WebRows, tars: WebDatasetRows, boxes: CocoRows}
    found |= {tmp_path / f"chat{suffix}": LlavaRows for suffix in (".json", ".jsonl")}
    for path, kind in found.items():
        rows = open_image_text(path, source="web", loc_stride=16)
        assert type(rows) is kind and rows.loc_stride == 16 and rows.sample(0).source == "web"
    assert len(open_image_text(tmp_path / "own", question="what")) == 1
    with pytest.raises(ValueError, match=r"'question' chooses among rows of rows\.jsonl"):
        open_image_text(tars, question="what")
    with pytest.raises(FileNotFoundError, match=r"holds no rows.jsonl, .tar files, .*it has instances_train.json"):
        open_image_text(tmp_path / "annotations")


def test_demonstrations_are_told_apart(tmp_path):
    from data.recordings import episode, record
    from data.records import LAYOUT, copy_tiny_arm

    record(tmp_path / "lerobot", [episode(np.random.default_rng(0), 6)])
    copy_tiny_arm(tmp_path / "arm")
    asked = []
    rlds = open_episodes(tmp_path / "arm", 3, layouts=lambda name: asked.append(name) or LAYOUT, cameras=["image"])
    assert asked == ["tiny_arm"] and len(rlds) == 9 and rlds.cameras == ("image",)
    assert isinstance(open_episodes(tmp_path / "lerobot", 3, layouts=lambda name: LAYOUT), LeRobotDataset)
    with pytest.raises(FileNotFoundError, match=r"holds no meta/info.json \(LeRobot\) or features.json \(RLDS\)"):
        open_episodes(tmp_path, 3, layouts=lambda name: LAYOUT)
