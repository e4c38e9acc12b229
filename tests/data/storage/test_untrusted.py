"""Files from strangers: what leads out, unfolds or never ends is refused, with the file and the remedy."""

import io
import json
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from data.recordings import episode, record
from PIL import Image

from pilot.data.formats.coco import CocoRows
from pilot.data.formats.lerobot import LeRobotDataset
from pilot.data.formats.llava import LlavaRows
from pilot.data.storage.files import read_json
from pilot.data.storage.untrusted import MAX_PIXELS, decode_picture, fill_template, path_inside

WHERE = "meta/info.json"


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../secret", "a/../../secret", "C:\\secret", "\\\\host\\share", "", None, 7, "a\0b", "x" * 2000],
)
def test_a_name_stays_in_its_folder(tmp_path, name):
    with pytest.raises(ValueError, match=r"^meta/info\.json"):
        path_inside(tmp_path, name, where=WHERE)


def test_a_link_out_of_the_folder_is_no_way_out(tmp_path):
    folder, secret = tmp_path / "set", tmp_path / "secret"
    folder.mkdir(), secret.mkdir()
    (secret / "key").write_text("x")
    (folder / "link").symlink_to(secret)
    (folder / "own").symlink_to(folder / "inside")
    with pytest.raises(ValueError, match=r"a link to .*secret/key outside of .*put the file itself there"):
        path_inside(folder, "link/key", where=WHERE)
    assert path_inside(folder, "own", where=WHERE) == folder / "own"
    assert path_inside(folder, "a/b..c/..d", where=WHERE) == folder / "a/b..c/..d"


def test_a_folder_that_is_a_link_itself_and_the_cache_of_the_hub_are_inside(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir(), snapshot.mkdir(parents=True)
    (blobs / "123").write_text("x")
    (snapshot / "weights").symlink_to("../../blobs/123")
    assert path_inside(snapshot, "weights", where=WHERE).read_text() == "x"
    (tmp_path / "twin").symlink_to(snapshot)
    assert path_inside(tmp_path / "twin", "weights", where=WHERE).read_text() == "x"


def test_the_templates_of_real_sets_are_filled():
    place = {"chunk_index": 3, "file_index": 12, "video_key": "observation.images.top"}
    template = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    assert fill_template(template, place, where=WHERE) == "videos/observation.images.top/chunk-003/file-012.mp4"
    assert fill_template("{file_index}", place, where=WHERE) == "12"


@pytest.mark.parametrize(
    "template",
    ["{file_index:999999999}", "{file_index:0999999999d}", "{file_index.__class__}", "{file_index!r}", "{0}", "{}",
     "{other}", "{file_index:{file_index}}", "{file_index", None, 5, ["{file_index}"], "{video_key:05d}"],
)  # fmt: skip
def test_a_template_asks_for_nothing_else(template):
    start = time.process_time()
    with pytest.raises(ValueError, match=r"^meta/info\.json"):
        fill_template(template, {"file_index": 1, "video_key": "top"}, where=WHERE)
    assert time.process_time() - start < 1


def test_deep_json_is_an_error_that_names_the_file(tmp_path):
    file = tmp_path / "config.json"
    file.write_text("[" * 200_000)
    with pytest.raises(ValueError, match=r"config\.json is nested too deep .*fetch it again"):
        read_json(file, remedy="fetch it again")
    file.write_bytes(b"\xff\xfe{")
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON .*fetch it again"):
        read_json(file, remedy="fetch it again")


def png_bomb(width, height):
    """A PNG of so many black pixels: a few kilobytes."""

    def part(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = zlib.compressobj(9)
    pixels = b"".join(lines.compress(bytes(1 + 3 * width)) for _ in range(min(height, 200))) + lines.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", pixels) + part(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(30_000, 20_000), (8192, 4097), (100_000, 100_000)])
def test_a_small_file_does_not_unfold_into_a_huge_picture(width, height):
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"^row 3: the picture .*(pixels, the limit is|damaged or unknown)"):
        decode_picture(png_bomb(width, height), where="row 3", remedy="fetch it again")
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def encoded(kind, size=(20, 10)):
    file = io.BytesIO()
    Image.new("RGB", size, (250, 0, 0)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_pictures_of_the_usual_formats_are_read(kind):
    picture = decode_picture(encoded(kind), where="row 3", remedy="fetch it again")
    assert picture.shape == (10, 20, 3) and picture.dtype == np.uint8 and picture[..., 0].min() > 240


@pytest.mark.parametrize(
    "content", [b"", b"x", encoded("JPEG")[:200], b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_what_is_no_picture_is_named(content):
    with pytest.raises(ValueError, match=r"^row 3: the picture is damaged.*fetch it again$"):
        decode_picture(content, where="row 3", remedy="fetch it again")
    assert MAX_PIXELS > 4096 * 3072


def coco(folder, file_name):
    content = {
        "images": [{"id": 1, "file_name": file_name, "width": 20, "height": 10}],
        "annotations": [{"id": 5, "image_id": 1, "caption": "red"}],
    }
    (folder / "captions.json").write_text(json.dumps(content))
    return folder / "captions.json"


@pytest.mark.parametrize("name", ["/etc/hostname", "../outside.png"])
def test_coco_and_llava_read_no_file_outside_of_their_folder(tmp_path, name):
    folder = tmp_path / "set"
    folder.mkdir()
    (tmp_path / "outside.png").write_bytes(encoded("PNG"))
    with pytest.raises(ValueError, match=rf"names '{name}', which is not inside"):
        CocoRows(coco(folder, name)).sample(0)
    (folder / "rows.json").write_text(json.dumps([{"image": name, "question": "what?", "answer": "red"}]))
    with pytest.raises(ValueError, match=rf"names '{name}', which is not inside"):
        LlavaRows(folder / "rows.json").sample(0)


def change(info, name, value):
    if value is None:
        del info[name]
    else:
        info[name] = value


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("data_path", "{file_index:999999999}", "asks for"),
        ("data_path", "/etc/passwd", "not inside"),
        ("data_path", "../../{file_index}.parquet", "not inside"),
        ("data_path", None, "data_path"),
        ("video_path", "{video_key.__class__}", "asks for"),
        ("features", None, "features"),
        ("fps", None, "fps"),
    ],
)
@pytest.mark.usefixtures("no_manifests")
def test_what_is_wrong_in_info_json_is_one_line_with_the_file(tmp_path, name, value, words):
    record(tmp_path / "set", [episode(np.random.default_rng(0), 5)], image_format="video")
    file = Path(tmp_path / "set/meta/info.json")
    info = json.loads(file.read_text())
    change(info, name, value)
    file.write_text(json.dumps(info))
    with pytest.raises(ValueError, match=words) as raised:
        LeRobotDataset(tmp_path / "set", 4)
    assert "info.json" in str(raised.value) and "\n" not in str(raised.value)
