"""WebDataset tars: files of one base name belong together, a picture beside its words.

    000012.jpg  000012.txt                     a caption
    000012.jpg  000012.json                    {"caption": …}, {"question": …, "answer": …} or {"conversations": …}

Tars are gone through once; where their files lie is kept for later readings (`pilot.data.storage.files.cache_folder`).
"""

import json
import os
import tarfile
from pathlib import Path

import numpy as np
from jaxtyping import Int

from pilot.data.formats.image_text import ImageTextRows
from pilot.data.formats.llava import question_answer_pairs
from pilot.data.storage.files import cache_folder, read_json, write_json

PICTURES, WORDS = ("jpg", "jpeg", "png", "webp"), ("json", "txt")
FORMAT = 1


class WebDatasetRows(ImageTextRows):
    """One row per picture with words. `path` is a folder of `.tar` files, or one of them.

    Raises `FileNotFoundError`/`ValueError` that name the file, the sample and the remedy.
    """

    def _load(self) -> None:
        found = (file for file in self.folder.files(self.path) if file.suffix == ".tar")
        self.tars = sorted(file for file in found if self.path in (file, file.parent))
        if not self.tars:
            raise FileNotFoundError(f"{self.path} holds no .tar files; give the folder that does")
        pieces = []
        for number, tar in enumerate(self.tars):
            try:
                places = self._places(tar)
            except ValueError as error:
                if not self.skip_bad:
                    raise
                self.skip(str(error))
                continue
            pieces.append(np.column_stack([np.full(len(places), number), places]))
        self._index = np.concatenate(pieces) if pieces else np.zeros((0, 6), np.int64)
        if not len(self._index):
            raise ValueError(f"{self.path} has no picture with words beside it ({', '.join(WORDS)}); fetch it again")

    def __len__(self) -> int:
        return len(self._index)

    def read(self, i: int) -> tuple[bytes, list[tuple[str, str]]]:
        tar, at, size, words_at, words_size, is_json = self._index[i].tolist()
        words = self._bytes(tar, words_at, words_size).decode("utf-8", errors="replace")
        where = f"{self.tars[tar]}, sample at byte {at}"
        try:
            found = (
                question_answer_pairs(json.loads(words))
                if is_json
                else [("caption", words.strip())] * bool(words.strip())
            )
        except ValueError as error:
            raise ValueError(f"{where}: {error} in {words[:80]!r}; use --skip-bad to go on without it") from error
        if not found:
            raise ValueError(f"{where}: no words in {words[:80]!r}; use --skip-bad to go on without it")
        return self._bytes(tar, at, size), found

    def files_of(self, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Return the number of the tar of each row."""
        return self._index[rows, 0]

    def prefetch(self, i: int) -> None:
        """Announce that row `i` will be read, so that its file can be fetched ahead where the set lies elsewhere."""
        self.folder.prefetch([self.tars[int(self._index[i, 0])]])

    def _bytes(self, tar: int, at: int, size: int) -> bytes:
        file = self.tars[tar]
        with self.folder.lock:  # training reads in one thread while validation reads in another
            return os.pread(self.folder.open_cached(file, lambda: file.open("rb")).fileno(), size, at)

    def _places(self, tar: Path) -> np.ndarray:
        """Return for each sample offset and size of picture and of words, and whether these are JSON."""
        note = {"format": FORMAT, "stamp": self.folder.stamp(tar)}
        kept = cache_folder(tar.parent) / f"{tar.name}.json"
        if kept.exists() and (known := read_json(kept, remedy=f"remove {kept}"))["of"] == note:
            return np.array(known["places"], np.int64).reshape(-1, 5)
        with self.folder.hold_file(tar):
            places = _scan(tar)
        write_json(kept, {"of": note, "places": places})
        return np.array(places, np.int64).reshape(-1, 5)


def _scan(tar: Path) -> list[list[int]]:
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                if member.isfile():
                    base, _, kind = member.name.rpartition(".")
                    samples.setdefault(base, {})[kind.lower()] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        raise ValueError(f"{tar} cannot be read ({error}); it is damaged or compressed, fetch or unzip it") from error
    size = tar.stat().st_size
    if cut := [base for base, files in samples.items() if any(at + n > size for at, n in files.values())]:
        raise ValueError(f"{tar} is cut short: sample '{cut[0]}' is not whole; fetch it again")
    places = []
    for files in samples.values():
        picture = next((files[kind] for kind in PICTURES if kind in files), None)
        words = next(((*files[kind], int(kind == "json")) for kind in WORDS if kind in files), None)
        if picture and words:
            places.append([*picture, *words])
    return places
