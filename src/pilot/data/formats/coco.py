"""COCO-style JSON: boxes of named things (`instances_….json`), and captions of whole pictures (`captions_….json`).

About a picture it is asked "detect NAME", answered by all boxes of that name in the order of reading, and "caption".
Boxes in the file are [x, y, width, height] in pixels; crowds (`iscrowd`) are not things and are left out.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pilot.data.formats.image_text import ImageTextRows, find_folder
from pilot.data.storage.files import read_json
from pilot.data.storage.untrusted import path_inside
from pilot.data.transforms import pad_box
from pilot.tokenizers.text import box_to_locs

FETCH = "fetch it again"
SLACK = 1.0  # pixels by which boxes of real sets reach over the edge


class CocoRows(ImageTextRows):
    """One row per picture that has something to say about it.

    `path` is the JSON file; pictures lie beside it, in `images/`, or in a folder named as the end of the file's name
    (`annotations/instances_train2017.json` and `train2017/`).

    Raises `FileNotFoundError`/`ValueError` that name the file, the annotation and the remedy.
    """

    def _load(self) -> None:
        content = read_json(self.path, remedy=FETCH)
        try:
            images = {image["id"]: image for image in _listed(content, "images", self.path)}
            self._names = {row["id"]: row["name"] for row in content.get("categories", ())}
        except (KeyError, TypeError) as error:
            raise ValueError(f"{self.path}: an image or a category lacks {error}; {FETCH}") from error
        self._pairs: dict[int, list[tuple[str, str]]] = {}
        self._fill(_listed(content, "annotations", self.path), images)
        if not self._pairs:
            raise ValueError(f"{self.path} has nothing to say about any picture; {FETCH}")
        if nameless := [number for number in self._pairs if "file_name" not in images[number]]:
            raise ValueError(f"{self.path}: image {nameless[0]} has no file_name; {FETCH}")
        self._files = [(images[number]["file_name"], number) for number in self._pairs]
        folder = self.path.stem.rsplit("_", 1)[-1]
        places = [self.path.parent, self.path.parent / "images", self.path.parent.parent / folder]
        self._folder = find_folder(self._files[0][0], places, where=self.path)

    def __len__(self) -> int:
        return len(self._files)

    def read(self, i: int) -> tuple[bytes, list[tuple[str, str]]]:
        name, number = self._files[i]
        return path_inside(self._folder, name, where=self.path).read_bytes(), self._pairs[number]

    def _fill(self, annotations: Sequence[Mapping[str, Any]], images: Mapping[int, Mapping[str, Any]]) -> None:
        boxes: dict[int, dict[str, list[tuple[float, ...]]]] = defaultdict(lambda: defaultdict(list))
        captions: dict[int, list[str]] = defaultdict(list)
        for row in annotations:
            try:
                if "caption" in row:
                    words = row["caption"].strip()
                    captions[row["image_id"]] += [words] if words else []  # else it would teach an empty answer
                elif "bbox" in row and not row.get("iscrowd"):
                    name, found = self._names[row["category_id"]], unit_box(row, images[row["image_id"]])
                    boxes[row["image_id"]][name].append(found)
            except (KeyError, ValueError, TypeError, AttributeError) as error:
                reason = f"it lacks or does not know {error}" if isinstance(error, KeyError) else str(error)
                message = f"{self.path}, annotation {row.get('id')}: {reason}; correct it, or use --skip-bad"
                if not self.skip_bad:
                    raise ValueError(message) from error
                self.skip(message)
        for number in images:
            pairs = [(f"detect {name}", format_boxes(name, found)) for name, found in boxes[number].items()]
            if pairs := pairs + [("caption", caption) for caption in captions[number]]:
                self._pairs[number] = pairs


def unit_box(row: Mapping[str, Any], image: Mapping[str, Any]) -> tuple[float, ...]:
    """Convert a COCO box to (y0, x0, y1, x1) in [0, 1] of the square that the model sees (`pad_box`).

    Raises:
        ValueError: a box that is empty, or not within its picture.
    """
    x, y, width, height = row["bbox"]
    wide, high = image["width"], image["height"]
    inside = x >= -SLACK and y >= -SLACK and x + width <= wide + SLACK and y + height <= high + SLACK
    if not (width > 0 and height > 0 and inside):
        raise ValueError(f"its box {row['bbox']} is empty or not within the picture of {wide} × {high} pixels")
    edges = (y / high, x / wide, (y + height) / high, (x + width) / wide)
    return pad_box([min(max(float(edge), 0.0), 1.0) for edge in edges], (high, wide))


def format_boxes(name: str, boxes: Sequence[tuple[float, ...]]) -> str:
    """Write all boxes of one name, top left first: `"<loc…>×4 name ; <loc…>×4 name"`."""
    return " ; ".join(f"{box_to_locs(box)} {name}" for box in sorted(boxes))


def _listed(content: Any, name: str, path: Path) -> list[Any]:
    if not isinstance(content, dict) or not isinstance(content.get(name), list):
        raise ValueError(f"{path} is not COCO-style: it has no list '{name}'")
    return content[name]
