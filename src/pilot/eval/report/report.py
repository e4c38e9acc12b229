"""A report people enjoy: one HTML file with films, charts and intervals, light and dark, that loads nothing.

    report = Report("A home it has never seen", subtitle="pilot, nano checkpoint, two CPU cores")
    report.section("Acting", intro="The policy says what it does, then does it.")
    report.video(frames, captions, title="put the red cup in the sink", fps=10, success=True, outcome="34 steps")
    report.save("outputs/report.html")

No scripts: films are stepped by CSS on one clock with their subtitles, pause at a click and respect reduced motion.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
from markupsafe import Markup

from pilot.data.storage.files import atomic_write
from pilot.eval.report import charts, pictures
from pilot.eval.report.templates import macros, render_page
from pilot.eval.stats import wilson

STYLES = ("serve/dashboard/palette.css", "eval/report/report.css")
SMALL_FRAME = 96  # pixels high: frames up to here are shown pixel by pixel, as the robot gets them
BADGES = {True: ("good", "✓ "), False: ("bad", "✗ "), None: ("plain", "")}


class SuccessRow(TypedDict):
    """One line of a success table."""

    suite: str
    model: str
    successes: int
    n: int
    extra: NotRequired[Mapping[str, str]]  # further columns, already as text
    interval: NotRequired[tuple[float, float]]  # of 95 %, where it is not Wilson's
    judged: NotRequired[bool]  # what the table is about, not a control (default: the first line of a suite is)


@dataclass(kw_only=True)
class Section:
    """A part of the page with a title; what comes before the first title is a section without one."""

    title: str = ""
    intro: str = ""
    parts: list[tuple[bool, Markup]] = field(default_factory=list)  # whether it is a video, and its HTML

    def groups(self) -> Iterator[tuple[bool, list[Markup]]]:
        """Group videos that follow one another: they share a row where the page is wide enough."""
        for is_video, group in itertools.groupby(self.parts, key=lambda part: part[0]):
            yield is_video, [part for _, part in group]


class Report:
    """Sections with films, tables and charts, in the order in which they are added."""

    def __init__(self, title: str, *, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self.sections = [Section()]
        self.ids = itertools.count()

    def section(self, title: str, intro: str = "") -> None:
        """Start a section; it appears in the navigation."""
        self.sections.append(Section(title=title, intro=intro))

    def add(self, part: Markup, *, is_video: bool = False) -> None:
        """Add HTML to the section."""
        self.sections[-1].parts.append((is_video, part))

    def figure(self, content: Markup, *, title: str, css: str, outcome: str = "", success: bool | None = None) -> None:
        """Add a card with a title, and a badge that says how it went."""
        tone, mark = BADGES[success]
        card = macros("parts.html").figure(content, title, css, badge=mark + outcome, tone=tone)
        self.add(card, is_video=css == "video")

    def text(self, text: str) -> None:
        """Add paragraphs, which are separated by blank lines; `code` in backticks, **bold** in stars."""
        self.add(macros("parts.html").paragraphs(re.split(r"\n\s*\n", text.strip())))

    def highlights(self, items: Sequence[tuple[str, str, str]]) -> None:
        """Add big numbers: (value, what it is, small print)."""
        self.add(macros("parts.html").highlights(items))

    # --- films ---------------------------------------------------------------------------------------------------

    def filmstrip(
        self,
        frames: Sequence[np.ndarray],
        captions: Sequence[str],
        *,
        title: str,
        outcome: str = "",
        success: bool | None = None,
    ) -> None:
        """Add frames (uint8 [h w 3]) side by side, and below them what the robot said while they were taken."""
        check_film(frames, captions)
        shown = [pictures.data_uri(frame) for frame in frames]
        strip = macros("parts.html").filmstrip(shown, captions, caption_runs(captions), grain(frames[0]))
        self.figure(strip, title=title, outcome=outcome, success=success, css="filmstrip")

    def video(
        self,
        frames: Sequence[np.ndarray],
        captions: Sequence[str],
        *,
        title: str,
        fps: float = 10.0,
        outcome: str = "",
        success: bool | None = None,
    ) -> None:
        """Add a film of uint8 [h w 3] frames that loops; the robot's words run along as subtitles and a timeline."""
        check_film(frames, captions)
        sheet, columns, rows = pictures.sprite(frames, hold=round(fps))
        held = list(captions) + [captions[-1]] * (columns * rows - len(frames))
        name, seconds = f"film{next(self.ids)}", columns * rows / fps
        height, width = frames[0].shape[:2]
        clock = f"--t:{seconds:.3f}s;--row:{seconds / rows:.4f}s"
        size = f"--cols:{columns};--rows:{rows};--ratio:{width}/{height};--grain:{grain(frames[0])}"
        film = macros("parts.html").video(
            name,
            sheet=pictures.data_uri(sheet),
            runs=caption_runs(held),
            label=f"{title}: {'; '.join(words for words, _, _ in caption_runs(captions))}",
            keyframes=subtitle_keyframes(name, held),
            style=f"{clock};{size}",
        )
        self.figure(film, title=title, outcome=outcome, success=success, css="video")

    # --- tables --------------------------------------------------------------------------------------------------

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str | float | int]], *, title: str = "") -> None:
        """Add a plain table; columns of numbers are aligned to the right."""
        numeric = [all(not isinstance(value, str) for value in column) for column in zip(*rows)]
        self.add(macros("parts.html").table(headers, rows, numeric or [False] * len(headers), title))

    def success_table(self, rows: Sequence[SuccessRow]) -> None:
        """Add success rates with their 95 % intervals drawn, suite by suite; Wilson's, where a row gives none."""
        if not rows:
            raise ValueError("a success table needs at least one row")
        columns = list(dict.fromkeys(name for row in rows for name in row.get("extra", {})))
        suites = [suite_lines(suite, group, columns) for suite, group in by_suite(rows)]
        self.add(macros("parts.html").success_table(suites, columns))

    # --- charts --------------------------------------------------------------------------------------------------

    def losses(self, curves: Mapping[str, charts.Curve], *, title: str) -> None:
        """Add curves by name, each (steps, losses); see `charts.line_chart`."""
        self.figure(charts.line_chart(curves, x_label="step", y_label="loss", log=True), title=title, css="curves")

    def attention(
        self, picture: np.ndarray, weights: np.ndarray, *, caption: str, title: str = "Where it looks"
    ) -> None:
        """Add a picture (uint8 [h w 3]) beside itself under its attention weights [gh gw]."""
        seen, glowing = (pictures.data_uri(image) for image in pictures.attention_overlay(picture, weights))
        self.figure(macros("parts.html").attention(seen, glowing, caption), title=title, css="attention")

    def flow(self, x: np.ndarray, names: Sequence[str], *, caption: str = "") -> None:
        """Add a chunk [s+1 ah ad] on its way from noise to actions: its first two dims as paths, then dim by dim.

        Raises:
            ValueError: not three axes, or not one name per action dim.
        """
        if x.ndim != 3 or x.shape[2] != len(names):
            raise ValueError(f"flow needs x [steps+1 ah {len(names)}] for dims {list(names)}, got {list(x.shape)}")
        drawn = macros("parts.html").flow(charts.flow_paths(x), charts.flow_dims(x, names), names, caption)
        self.figure(drawn, title="From noise to actions", css="flows")

    def timings(self, parts: Sequence[tuple[str, float]]) -> None:
        """Add a bar of (part, seconds) in the order of the run."""
        self.figure(charts.time_bar(parts), title="Where the time went", css="timings")

    # --- the page ------------------------------------------------------------------------------------------------

    def render(self) -> str:
        """Return the whole page."""
        css = "".join(resources.files("pilot").joinpath(name).read_text(encoding="utf-8") for name in STYLES)
        page = {"title": self.title, "subtitle": self.subtitle, "sections": self.sections, "css": Markup(css)}
        return render_page(page)

    def save(self, path: str | Path) -> Path:
        """Write the page, whole or not at all; return its path."""
        path = Path(path)
        with atomic_write(path) as temporary:
            temporary.write_text(self.render(), encoding="utf-8")
        return path


def suite_lines(suite: str, rows: Sequence[SuccessRow], columns: Sequence[str]) -> dict[str, Any]:
    """Return what a success table shows of a suite."""
    lines = []
    for index, row in enumerate(rows):
        low, high = interval = row.get("interval") or wilson(row["successes"], row["n"])
        lines.append(
            {
                "model": row["model"],
                "role": "judged" if row.get("judged", index == 0) else "control",
                "bar": charts.interval_bar(row["successes"] / row["n"], interval),
                "rate": f"{row['successes'] / row['n']:.0%}",
                "interval": f"{low:.0%} – {high:.0%}",
                "extra": {name: row.get("extra", {}).get(name, "") for name in columns},
            }
        )
    sizes = sorted({row["n"] for row in rows})
    counts = " – ".join(str(size) for size in dict.fromkeys([sizes[0], sizes[-1]]))
    return {"name": suite, "counts": counts, "rows": lines}


def by_suite(rows: Sequence[SuccessRow]) -> list[tuple[str, list[SuccessRow]]]:
    """Return the rows of each suite together, suites in the order of their first row."""
    names = dict.fromkeys(row["suite"] for row in rows)
    return [(name, [row for row in rows if row["suite"] == name]) for name in names]


def check_film(frames: Sequence[np.ndarray], captions: Sequence[str]) -> None:
    """Check that a film has frames, and one caption for each.

    Raises:
        ValueError: it has not.
    """
    if len(frames) != len(captions) or not frames:
        raise ValueError(f"a film needs one caption per frame, got {len(frames)} frames and {len(captions)} captions")


def grain(frame: np.ndarray) -> str:
    """Return how the browser scales a frame: small ones pixel by pixel, large ones smoothly."""
    return "pixelated" if frame.shape[0] <= SMALL_FRAME else "auto"


def caption_runs(captions: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return the runs of one caption: (words, first frame, number of frames)."""
    runs, start = [], 0
    for words, group in itertools.groupby(captions):
        length = len(list(group))
        runs.append((words, start, length))
        start += length
    return runs


def subtitle_keyframes(name: str, captions: Sequence[str]) -> Markup:
    """Write CSS that shows each run of words in its own part of the film's clock, and only there."""
    rules, total = [], len(captions)
    for k, (_, start, length) in enumerate(caption_runs(captions)):
        begin, end = 100 * start / total, 100 * (start + length) / total
        before = f"0%,{begin:.3f}%{{opacity:0}}" if start else ""
        after = f"{end:.3f}%,100%{{opacity:0}}" if end < 100 else ""
        rules.append(f"@keyframes {name}s{k}{{{before}{begin + 0.001:.3f}%,{end - 0.001:.3f}%{{opacity:1}}{after}}}")
    return Markup("".join(rules))
