"""Subtasks by hand, in the terminal: an episode is a row of small pictures, a person writes what is done when."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pilot.data.formats.episodes import Episode
from pilot.data.formats.lerobot import LeRobotDataset
from pilot.data.tools.annotate import Labels

HELP = (
    "one subtask per line, 'SECONDS WORDS'; empty line: next episode; -: take the last line back; q: stop and keep all"
)
PICTURE_COLUMNS = 24  # characters
HALF = "▀"  # its upper half in the text's colour, its lower half in the ground's: two pixels per character


@dataclass(kw_only=True)
class HandLabeller:
    """Reads lines with `read` (as `input` does) and writes with `write`. `colours`: whether to draw pictures."""

    read: Callable[[str], str] = input
    write: Callable[[str], None] = print
    colours: bool | None = None
    frames: int | None = None
    camera: str | None = None
    _stopped: bool = field(default=False, init=False)

    @property
    def by(self) -> str:
        """Who answers."""
        return "hand"

    def __call__(self, dataset: LeRobotDataset, episode: Episode) -> Labels | None:
        if self._stopped:
            self._stopped = False
            return None
        seconds = (episode.stop - episode.start) / float(dataset.fps)
        self.write(f"\nepisode {episode.index}: {episode.task} ({seconds:.1f} s)\n{HELP}")
        if sys.stdout.isatty() if self.colours is None else self.colours:
            self._show(dataset, episode)
        found: list[tuple[float, str]] = []
        while True:
            try:
                line = self.read("> ").strip()
            except EOFError:
                line = "q"
            if line == "q":
                self._stopped = bool(found)  # the lines of this episode are kept, and the next one ends it
                return found or None
            if not line:
                return found
            if line == "-":
                found = found[:-1]
            else:
                self._take(line, found, seconds)

    def _take(self, line: str, found: list[tuple[float, str]], seconds: float) -> None:
        """Take one more line, or write what is wrong with it."""
        first, _, words = line.partition(" ")
        try:
            at = float(first)
        except ValueError:
            self.write(f"'{first}' is no time in seconds: write '1.5 pick up the cup'")
            return
        if not words.strip() or not 0 <= at < seconds:
            self.write(f"words, and a time from 0 to below {seconds:.1f}, please")
            return
        found.append((at, words.strip()))

    def _show(self, dataset: LeRobotDataset, episode: Episode) -> None:
        """Show as many pictures as fit beside each other, with their times below."""
        width = shutil.get_terminal_size().columns
        count = self.frames or max(width // (PICTURE_COLUMNS + 1), 1)
        length = episode.stop - episode.start
        steps = np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(int)).tolist()
        camera = self.camera or dataset.cameras[0]
        drawn = [drawing(dataset.picture(episode.start + step, camera), PICTURE_COLUMNS) for step in steps]
        for lines in zip(*drawn, strict=True):
            self.write(" ".join(lines))
        self.write(" ".join(f"{step / float(dataset.fps):.1f} s".ljust(PICTURE_COLUMNS) for step in steps))


def drawing(picture: UInt8[np.ndarray, "h w 3"], columns: int) -> list[str]:
    """Return a picture in a terminal's colours, two rows of pixels per line."""
    rows = max(round(columns * picture.shape[0] / picture.shape[1] / 2) * 2, 2)
    small = np.asarray(Image.fromarray(picture).resize((columns, rows), Image.Resampling.BOX))
    return ["".join(map(_cell, upper, lower)) + "\033[0m" for upper, lower in zip(small[::2], small[1::2], strict=True)]


def _cell(upper: np.ndarray, lower: np.ndarray) -> str:
    above, below = (";".join(map(str, pixel.tolist())) for pixel in (upper, lower))
    return f"\033[38;2;{above};48;2;{below}m{HALF}"
