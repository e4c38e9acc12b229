"""Rows of pictures with something to say about them, whatever files they lie in; no state, no actions.

A reader of a format subclasses `ImageTextRows`: it gives the bytes of a picture and the (question, answer) pairs about
it, with boxes as `<loc>` tokens. Which pair is asked is drawn anew each time.
"""

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from pilot.data.formats.left_out import report_left_out, warn_of_left_out
from pilot.data.language import snap_locs
from pilot.data.storage.folder import DatasetFolder
from pilot.data.storage.untrusted import decode_picture, path_inside
from pilot.data.zoom import zoom_in
from pilot.types import Sample

TRIES = 100


class ImageTextRows(ABC):
    """Random access to rows of pictures as training samples with text targets and no actions.

    `camera`: the name under which the picture is shown to the model. `loc_stride`: boxes in questions and answers snap
    to every stride-th bin, as in `pilot.tokenizers.text.box_to_locs`. `zoom`: the smallest share of a picture's sides
    that a drawn crop shows (`data/zoom.py`); 1 shows all. With `skip_bad`, what cannot be read is listed in
    `skipped` and counted in a warning, and another row is drawn in its place. `folder`: the files of a set that lies
    elsewhere.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        camera: str = "room",
        loc_stride: int = 1,
        zoom: float = 1.0,
        source: str = "web",
        skip_bad: bool = False,
        folder: DatasetFolder | None = None,
    ) -> None:
        self.folder = folder or DatasetFolder(Path(path))
        self.path, self.camera, self.loc_stride, self.source = Path(path), camera, loc_stride, source
        self.zoom, self.skip_bad = zoom, skip_bad
        self.skipped: list[str] = []
        self._found_bad = 0  # of those, what was found only when it was drawn
        self._load()

    @abstractmethod
    def _load(self) -> None:
        """Finds the rows. Raises `FileNotFoundError`/`ValueError` that name the file, the entry and the remedy."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, i: int) -> tuple[bytes, list[tuple[str, str]]]:
        """Return the encoded picture of row `i`, and the questions and answers about it, at least one.

        Raises `ValueError` or `OSError` that names the file and the remedy.
        """

    def groups(self) -> dict[str, Int[np.ndarray, " n"]]:
        """Return one group: a set of pictures is one task."""
        return {"web": np.arange(len(self))}

    def sample(self, i: int, rng: np.random.Generator | None = None) -> Sample:
        """Return row `i` as a sample: a question is the prompt, its answer the text to learn. Without `rng`, the first
        pair."""
        for _ in range(TRIES):
            try:
                return self._sample(i, rng)
            except (ValueError, OSError) as error:
                if not self.skip_bad or rng is None:
                    raise
                if self.skip(str(error)):
                    self._found_bad += 1
                    warn_of_left_out(self.path, "rows", self._found_bad, last=str(error))
            i = int(rng.integers(len(self)))
        raise ValueError(f"{self.path}: {TRIES} rows drawn in a row cannot be read; the last: {self.skipped[-1]}")

    def skip(self, reason: str) -> bool:
        """List what was left out, once; return whether it is new."""
        is_new = reason not in self.skipped
        if is_new:
            self.skipped.append(reason)
        return is_new

    def skip_report(self) -> str:
        """Return what was left out, with reasons; empty when nothing was."""
        return report_left_out(self.path, "entries", self.skipped)

    def _sample(self, i: int, rng: np.random.Generator | None) -> Sample:
        content, pairs = self.read(i)
        question, answer = pairs[0 if rng is None or len(pairs) == 1 else int(rng.integers(len(pairs)))]
        prompt, answer = (snap_locs(text, stride=self.loc_stride) for text in (question, answer))
        image = decode_image(content, where=f"{self.path}, row {i}")
        if rng is not None and self.zoom < 1.0:
            image, prompt, answer = zoom_in(
                image, prompt, answer, rng, smallest=self.zoom, loc_stride=self.loc_stride
            )  # fmt: skip
        return Sample(images={self.camera: image}, prompt=prompt, answer=answer, source=self.source)


def decode_image(content: bytes, *, where: str) -> UInt8[np.ndarray, "h w 3"]:
    """Decode a picture from its file's bytes; a damaged or huge one is a `ValueError`."""
    return decode_picture(content, where=where, remedy="fetch it again, or use --skip-bad")


def find_folder(first: str, places: list[Path], *, where: Path) -> Path:
    """Return the folder of `places` that holds the picture named `first`."""
    for folder in places:
        if path_inside(folder, first, where=where).exists():
            return folder
    looked = ", ".join(str(place) for place in dict.fromkeys(places))
    raise FileNotFoundError(
        f"{where} names the picture '{first}', which is in none of {looked}; put the pictures there"
    )
