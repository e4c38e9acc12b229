"""Web rows come back as they were written, from a zip or a folder; broken ones are named."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from pilot.data.formats.web import WebRows, WebWriter

pytestmark = pytest.mark.usefixtures("no_manifests")


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture
def path(tmp_path):
    with WebWriter(tmp_path / "web") as writer:
        writer.add(
            png(1), [("detect red cup", "<loc0100><loc0200><loc0300><loc0400> red cup"), ("caption", "a red cup")]
        )
        writer.add(png(2), [("what is at <loc0000><loc0000><loc0511><loc1023>", "sink")])
    return tmp_path / "web"


def test_reads_back(path):
    rows = WebRows(path)
    assert len(rows) == 3
    sample = rows.sample(0)
    assert (sample.prompt, sample.answer) == ("detect red cup", "<loc0100><loc0200><loc0300><loc0400> red cup")
    assert sample.actions is None and sample.subtask is None
    assert [int(rows.sample(i).images["room"][0, 0, 0]) for i in range(3)] == [1, 1, 2]


def test_rows_are_chosen_by_how_their_question_begins(path):
    assert WebRows(path, question="detect").sample(0).prompt == "detect red cup"
    assert len(WebRows(path, question="detect")) == len(WebRows(path, question="what is")) == 1
    with pytest.raises(ValueError, match=r"no question of .* begins with 'red'"):
        WebRows(path, question="red")


def test_boxes_snap_in_questions_and_answers(path):
    rows = WebRows(path, loc_stride=16)
    assert rows.sample(0).answer == "<loc0096><loc0208><loc0304><loc0400> red cup"
    assert rows.sample(2).prompt == "what is at <loc0000><loc0000><loc0512><loc1023>"


def test_a_folder_of_pictures(path):
    with zipfile.ZipFile(path / "images.zip") as archive:
        archive.extractall(path / "images")
    (path / "images.zip").unlink()
    assert WebRows(path).sample(2).images["room"][0, 0, 0] == 2


def test_broken_rows_are_named(path, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"collect the rows again"):
        WebRows(tmp_path)
    with (path / "rows.jsonl").open("a") as file:
        file.write('{"image": "000000.png"}\n')
    with pytest.raises(ValueError, match=r"rows.jsonl, line 4: expected"):
        WebRows(path)


def test_an_interrupted_collection_is_not_taken_for_whole(tmp_path):
    writer = WebWriter(tmp_path)
    writer.add(png(1), [("caption", "a cup")])
    with pytest.raises(FileNotFoundError):
        WebRows(tmp_path)


def test_a_question_without_an_answer_is_refused(tmp_path):
    writer = WebWriter(tmp_path / "web")
    with pytest.raises(ValueError, match="no answer to 'caption'; leave the question out"):
        writer.add(b"", [("list everything", "none"), ("caption", " ")])
    writer.close()
