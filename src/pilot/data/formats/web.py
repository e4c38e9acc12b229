"""Web-style rows: a picture, a question, a short answer; captions, detection, pointing, VQA. No actions.

On disk: `rows.jsonl`, one `{"image": "000012.png", "question": …, "answer": …}` per line, and the pictures in one
uncompressed `images.zip` (or a folder `images/`). Boxes are `<loc>` tokens in question or answer.
"""

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pilot.data.formats.image_text import ImageTextRows
from pilot.data.formats.set_files import check_written
from pilot.data.storage.files import explain_disk_errors, sync
from pilot.data.storage.manifest import made_by, write_manifest
from pilot.data.storage.untrusted import parse_json, path_inside

ROWS, PACKED, FOLDER = "rows.jsonl", "images.zip", "images"


class WebWriter:
    """Writes pictures and their questions; the set is whole once `rows.jsonl` has its name, at `close`."""

    def __init__(self, path: str | Path, *, origin: Mapping[str, Any] | None = None) -> None:
        self.origin = origin
        self.path, self.rows, self._pictures = Path(path), 0, 0
        if (self.path / ROWS).exists():
            raise ValueError(f"{self.path} holds web rows already; choose another folder or remove it")
        self.path.mkdir(parents=True, exist_ok=True)
        self._open_rows = (self.path / f".{ROWS}.tmp").open("w")
        self._zip = zipfile.ZipFile(self.path / PACKED, "w", zipfile.ZIP_STORED)

    def add(self, png: bytes, questions: Sequence[tuple[str, str]]) -> None:
        """Add one picture and its (question, answer) pairs.

        Raises:
            ValueError: a question without an answer, from which nothing can be learned.
        """
        if unanswered := [question for question, answer in questions if not answer.strip()]:
            raise ValueError(f"no answer to '{unanswered[0]}'; leave the question out")
        name = f"{self._pictures:06d}.png"
        with explain_disk_errors(self.path):
            self._zip.writestr(zipfile.ZipInfo(name), png)
            for question, answer in questions:
                self._open_rows.write(json.dumps({"image": name, "question": question, "answer": answer}) + "\n")
        self._pictures += 1
        self.rows += len(questions)

    def close(self) -> None:
        with explain_disk_errors(self.path):
            self._zip.close()
            self._open_rows.close()
        sync(self.path / PACKED)
        sync(self.path / f".{ROWS}.tmp")
        os.replace(self.path / f".{ROWS}.tmp", self.path / ROWS)
        write_manifest(
            self.path, kind="data set", files=[self.path / ROWS, self.path / PACKED], origin=self.origin or made_by()
        )

    def __enter__(self) -> "WebWriter":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self.close()


class WebRows(ImageTextRows):
    """Random access to web rows, one for each question. `question`: only the rows whose question begins with this.

    Raises `FileNotFoundError`/`ValueError` that name the file, the line and the remedy.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        camera: str = "room",
        loc_stride: int = 1,
        zoom: float = 1.0,
        source: str = "web",
        question: str | None = None,
        skip_bad: bool = False,
    ) -> None:
        self.question = question
        super().__init__(path, camera=camera, loc_stride=loc_stride, zoom=zoom, source=source, skip_bad=skip_bad)

    def _load(self) -> None:
        file = self.path / ROWS
        if not file.exists():
            raise FileNotFoundError(
                f"{file} does not exist; an interrupted collection has none: collect the rows again"
            )
        check_written(self.path, skip_bad=self.skip_bad)
        self.rows = [_parse(line, file, number) for number, line in enumerate(file.open(), 1)]
        if not self.rows:
            raise ValueError(f"{file} is empty; collect the rows again")
        if self.question is not None:
            self.rows = [row for row in self.rows if row[1].startswith(self.question)]
        if not self.rows:
            raise ValueError(f"no question of {file} begins with {self.question!r}")
        self._places = _zip_places(self.path / PACKED) if (self.path / PACKED).exists() else None
        self._file: BinaryIO | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, i: int) -> tuple[bytes, list[tuple[str, str]]]:
        name, question, answer = self.rows[i]
        try:
            return self._bytes(name), [(question, answer)]
        except (KeyError, OSError) as error:
            raise ValueError(f"{self.path}: picture '{name}' is missing; collect the rows again") from error

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_file": None}  # an open file does not travel to worker processes

    def _bytes(self, name: str) -> bytes:
        if self._places is None:
            return path_inside(self.path / FOLDER, name, where=self.path / ROWS).read_bytes()
        self._file = self._file or (self.path / PACKED).open("rb")
        start, size = self._places[name]
        return os.pread(self._file.fileno(), size, start)


def _parse(line: str, file: Path, number: int) -> tuple[str, str, str]:
    try:
        row = parse_json(line, where=f"line {number}", remedy="collect the rows again")
        return row["image"].removeprefix(f"{FOLDER}/"), row["question"], row["answer"]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(
            f'{file}, line {number}: expected {{"image", "question", "answer"}}, got {line[:80]!r}'
        ) from error


def _zip_places(path: Path) -> dict[str, tuple[int, int]]:
    """Return where each stored picture's bytes lie.

    The header before them has two variable-length fields of its own.
    """
    places = {}
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as raw:
            for entry in archive.infolist():
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"{path} is compressed; pack it with 'zip -0'")
                lengths = np.frombuffer(os.pread(raw.fileno(), 4, entry.header_offset + 26), "<u2")
                places[entry.filename] = (entry.header_offset + 30 + int(lengths.sum()), entry.file_size)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is not a whole zip file ({error}); collect the rows again") from error
    return places
