"""Conversations about pictures: LLaVA's JSON or JSONL, and JSONL of questions with answers.

    {"image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\\nWhat is it?"}, {"from": "gpt", …}, …]}
    {"image": "a.jpg", "question": "What is it?", "answer": "a cup"}        or "answers": ["a cup", "cup", …]

Each human turn and its answer is a pair of its own, without the turns before. Entries without a picture are left out.
"""

import mmap
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pilot.data.formats.image_text import ImageTextRows, find_folder
from pilot.data.storage.files import read_json
from pilot.data.storage.untrusted import parse_json, path_inside

FETCH = "correct the line, or use --skip-bad"
ASKS, SAYS = ("human", "user"), ("gpt", "assistant")


class LlavaRows(ImageTextRows):
    """One row per entry with a picture.

    `path` is a `.jsonl` file, of which lines are read when asked for, or a `.json` file with one list. Pictures lie
    beside it or in `images/`.

    Raises `FileNotFoundError`/`ValueError` that name the file, the line and the remedy.
    """

    def _load(self) -> None:
        if not self.path.exists():
            raise FileNotFoundError(f"{self.path} does not exist; give a .json or .jsonl file")
        self._entries: list[Any] | None = None
        self._lines: np.ndarray | None = None
        if self.path.suffix == ".jsonl":
            self._lines = _line_places(self.path)
        else:
            self._entries = read_json(self.path, remedy="fetch it again")
            if not isinstance(self._entries, list):
                raise ValueError(f"{self.path} holds no list of conversations")
        self._rows = self._with_pictures()
        if not len(self._rows):
            raise ValueError(f"{self.path} has no entry with a picture")
        first = self._entry(int(self._rows[0]))["image"]
        self._folder = find_folder(first, [self.path.parent, self.path.parent / "images"], where=self.path)

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, i: int) -> tuple[bytes, list[tuple[str, str]]]:
        number = int(self._rows[i])
        entry = self._entry(number)
        found = question_answer_pairs(entry)
        if not found:
            raise ValueError(
                f"{self.path}, entry {number + 1}: no question with an answer in {str(entry)[:80]}; {FETCH}"
            )
        return path_inside(self._folder, entry["image"], where=f"{self.path}, entry {number + 1}").read_bytes(), found

    def _with_pictures(self) -> np.ndarray:
        if self._entries is not None:
            return np.flatnonzero([isinstance(entry, dict) and "image" in entry for entry in self._entries])
        assert self._lines is not None
        with self.path.open("rb") as file:
            return np.flatnonzero([b'"image"' in line for line in file if line.strip()])

    def _entry(self, number: int) -> dict[str, Any]:
        if self._entries is not None:
            return self._entries[number]
        assert self._lines is not None
        with self.path.open("rb") as file:
            file.seek(int(self._lines[number]))
            line = file.readline()
        remedy = f"it begins with {line[:80]!r}; {FETCH}"
        return parse_json(line, where=f"{self.path}, entry {number + 1}", remedy=remedy)


def question_answer_pairs(entry: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the (question, answer) pairs of an entry, in order; empty when it has none."""
    if "conversations" in entry:
        turns = entry["conversations"]
        spoken = [(turn["from"], turn["value"].replace("<image>", "").strip()) for turn in turns]
        return [(q, a) for (asks, q), (says, a) in pairwise(spoken) if asks in ASKS and says in SAYS]
    if "caption" in entry:
        return [("caption", entry["caption"].strip())]
    answers = entry.get("answers") or [entry.get("answer")]
    answers = [answer["answer"] if isinstance(answer, dict) else answer for answer in answers]
    return [(entry["question"], answer) for answer in answers if entry.get("question") and answer]


def _line_places(path: Path) -> np.ndarray:
    """Return where each line that is not empty begins."""
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty; fetch it again")
    places, at = [], 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        while at < len(content):
            stop = content.find(b"\n", at)
            stop = len(content) if stop < 0 else stop
            if content[at:stop].strip():
                places.append(at)
            at = stop + 1
    return np.array(places, np.int64)
