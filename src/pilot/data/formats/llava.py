"""Conversations about pictures: LLaVA's JSON or JSONL, and JSONL of questions with answers.

    {"image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\\nWhat is it?"}, {"from": "gpt", …}, …]}
    {"image": "a.jpg", "question": "What is it?", "answer": "a cup"}        or "answers": ["a cup", "cup", …]

Turns may also be {"role": "user", "content": …}, and be called "messages". Each human turn and its answer is a pair of
its own, without the turns before. Entries without a picture ("image" is not there, or null) are left out.
"""

import mmap
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pilot.data.formats.image_text import ImageTextRows, find_folder
from pilot.data.storage.files import read_json
from pilot.data.storage.untrusted import parse_json, path_inside

FETCH = "correct the line, or use --skip-bad"
HAS_PICTURE = re.compile(rb'"image"\s*:\s*[^\sn]')  # not null
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
        self._folder = find_folder(
            self._first_picture(), [self.path.parent, self.path.parent / "images"], where=self.path
        )

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, i: int) -> tuple[bytes, list[tuple[str, str]]]:
        number = int(self._rows[i])
        entry = self._entry(number)
        where = f"{self.path}, entry {number + 1}"
        try:
            found = question_answer_pairs(entry)
        except ValueError as error:
            raise ValueError(f"{where}: {error} in {str(entry)[:80]}; {FETCH}") from error
        if not found:
            raise ValueError(f"{where}: no question with an answer in {str(entry)[:80]}; {FETCH}")
        return path_inside(self._folder, entry["image"], where=where).read_bytes(), found

    def _with_pictures(self) -> np.ndarray:
        if self._entries is not None:
            return np.flatnonzero([isinstance(e, dict) and e.get("image") is not None for e in self._entries])
        assert self._lines is not None
        with self.path.open("rb") as file:
            return np.flatnonzero([HAS_PICTURE.search(line) is not None for line in file if line.strip()])

    def _first_picture(self) -> str:
        """Return the name of the first picture, by which the folder is found."""
        for number in self._rows.tolist():
            try:
                return self._entry(number)["image"]
            except ValueError as error:
                if not self.skip_bad:
                    raise
                self.skip(str(error))
        raise ValueError(f"{self.path} has no entry that can be read; the first: {self.skipped[0]}")

    def _entry(self, number: int) -> dict[str, Any]:
        """Return an entry with the name of a picture; whether it says anything is not looked at."""
        entry = self._parsed(number)
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
            raise ValueError(f"{self.path}, entry {number + 1}: no name of a picture in {str(entry)[:80]}; {FETCH}")
        return entry

    def _parsed(self, number: int) -> Any:
        if self._entries is not None:
            return self._entries[number]
        assert self._lines is not None
        with self.path.open("rb") as file:
            file.seek(int(self._lines[number]))
            line = file.readline()
        remedy = f"it begins with {line[:80]!r}; {FETCH}"
        return parse_json(line, where=f"{self.path}, entry {number + 1}", remedy=remedy)


def question_answer_pairs(entry: Any) -> list[tuple[str, str]]:
    """Return the (question, answer) pairs of an entry, in order; empty when it has none.

    Raises:
        ValueError: an entry that is written otherwise than the head of the file says.
    """
    try:
        pairs = _pairs(entry)
        if other := [text for pair in pairs for text in pair if not isinstance(text, str)]:
            raise TypeError(f"{other[0]!r} is no text")
    except (KeyError, TypeError, AttributeError) as error:
        lacks = f"lacks {error}" if isinstance(error, KeyError) else f"is of another form ({error})"
        raise ValueError(f"what is said {lacks}") from error
    return pairs


def _pairs(entry: Any) -> list[tuple[Any, Any]]:
    if turns := entry.get("conversations") or entry.get("messages"):
        spoken = [_turn(turn) for turn in turns]
        return [(q, a) for (asks, q), (says, a) in pairwise(spoken) if asks in ASKS and says in SAYS and q and a]
    if "caption" in entry:
        return [("caption", caption)] if (caption := entry["caption"].strip()) else []
    answers = entry.get("answers") or [entry.get("answer")]
    answers = [answers] if isinstance(answers, str) else answers
    answers = [answer["answer"] if isinstance(answer, dict) else answer for answer in answers]
    return [(entry["question"], answer) for answer in answers if entry.get("question") and answer]


def _turn(turn: Any) -> tuple[str, str]:
    """Return who speaks, and the words."""
    who, words = ("role", "content") if "role" in turn else ("from", "value")
    return turn[who], turn[words].replace("<image>", "").strip()


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
