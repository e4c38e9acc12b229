"""A report people enjoy: one HTML file with films, charts and intervals, light and dark, that loads nothing.

    report = Report("A home it has never seen", subtitle="pilot, nano checkpoint, two CPU cores")
    report.section("Acting", intro="The policy says what it does, then does it.")
    report.video(frames, captions, title="put the red cup in the sink", fps=10, success=True, outcome="34 steps")
    report.save("outputs/report.html")

No scripts: films are stepped by CSS on one clock with their subtitles, pause at a click and respect reduced motion.
"""

import html
import itertools
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np

from pilot.eval.report import charts, pictures
from pilot.eval.stats import wilson

STYLES = ("serve/dashboard/palette.css", "eval/report/report.css")
SMALL_FRAME = 96  # pixels high


class SuccessRow(TypedDict):
    """One line of a success table. `extra` are further columns, already as text; `judged` says that this line is what
    the table is about and not a control (default: the first of its suite is)."""

    suite: str
    model: str
    successes: int
    n: int
    extra: NotRequired[Mapping[str, str]]
    judged: NotRequired[bool]


class Report:
    """Sections with films, tables and charts, in the order in which they are added."""

    def __init__(self, title: str, *, subtitle: str = "") -> None:
        self.title, self.subtitle = title, subtitle
        self.sections: list[str] = []
        self.parts: list[str] = []
        self.ids = itertools.count()

    # --- words ---------------------------------------------------------------------------------------------------

    def section(self, title: str, intro: str = "") -> None:
        """Start a section; it appears in the navigation."""
        self.sections.append(title)
        close = "</section>" if len(self.sections) > 1 else ""
        heading = f'<section id="part{len(self.sections)}"><h2>{html.escape(title)}</h2>'
        self.parts.append(close + heading + (f'<p class="intro">{rich(intro)}</p>' if intro else ""))

    def text(self, text: str) -> None:
        """Paragraphs, parted by blank lines; `code` in backticks, **bold** in stars."""
        self.parts += [f"<p>{rich(paragraph)}</p>" for paragraph in re.split(r"\n\s*\n", text.strip())]

    def highlights(self, items: Sequence[tuple[str, str, str]]) -> None:
        """Big numbers: (value, what it is, small print)."""
        cards = "".join(
            f"<div><b>{html.escape(value)}</b><span>{html.escape(what)}</span><small>{html.escape(small)}</small></div>"
            for value, what, small in items
        )
        self.parts.append(f'<div class="highlights">{cards}</div>')

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
        """Frames (uint8 [h w 3]) side by side; below them, as a ribbon, what the robot said while they were taken."""
        check_film(frames, captions)
        cells = "".join(
            f'<img src="{pictures.data_uri(frame)}" alt="frame {k + 1} of {len(frames)}: {html.escape(words)}">'
            for k, (frame, words) in enumerate(zip(frames, captions))
        )
        spans = "".join(said_aloud(words, f"grid-column:span {length}") for words, _, length in spells(captions))
        strip = f'<div class="strip" style="--n:{len(frames)};{grain(frames[0])}" tabindex="0">{cells}{spans}</div>'
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
        """A film of uint8 [h w 3] frames that loops; what the robot says runs along as a subtitle and a timeline."""
        check_film(frames, captions)
        sheet, columns, rows = pictures.sprite(frames, hold=round(fps))
        shown = columns * rows
        said = list(captions) + [captions[-1]] * (shown - len(frames))
        name, seconds = f"film{next(self.ids)}", shown / fps
        runs = spells(said)
        words = "".join(said_aloud(run, f"animation-name:{name}s{k}") for k, (run, _, _) in enumerate(runs))
        ribbon = "".join(f'<i style="flex-grow:{length}"></i>' for _, _, length in runs)
        height, width = frames[0].shape[:2]
        clock = f"--t:{seconds:.3f}s;--row:{seconds / rows:.4f}s"
        style = f"{clock};--cols:{columns};--rows:{rows};--ratio:{width}/{height};{grain(frames[0])}"
        label = f"{title}: {'; '.join(words for words, _, _ in spells(captions))}"
        film = (
            f"<style>{subtitle_keyframes(name, said)}</style>"
            f'<label class="film" style="{style}"><input type="checkbox" aria-label="pause">'
            f'<span class="screen" role="img" aria-label="{html.escape(label)}"'
            f" style=\"background-image:url('{pictures.data_uri(sheet)}')\"></span>"
            f'<span class="subtitle">{words}</span><span class="ribbon">{ribbon}<b></b></span></label>'
        )
        self.figure(film, title=title, outcome=outcome, success=success, css="video")

    # --- tables --------------------------------------------------------------------------------------------------

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str | float | int]], *, title: str = "") -> None:
        """A plain table; columns of numbers stand to the right."""
        numeric = [all(not isinstance(value, str) for value in column) for column in zip(*rows)]
        body = "".join(f"<tr>{''.join(map(cell, row, numeric))}</tr>" for row in rows)
        head = "".join(f"<th{' class=n' if n else ''}>{html.escape(name)}</th>" for name, n in zip(headers, numeric))
        caption = f"<caption>{html.escape(title)}</caption>" if title else ""
        self.parts.append(f'<div class="wide"><table>{caption}<tr>{head}</tr>{body}</table></div>')

    def success_table(self, rows: Sequence[SuccessRow]) -> None:
        """Success rates with 95 % Wilson intervals drawn, suite by suite."""
        if not rows:
            raise ValueError("a success table needs at least one row")
        columns = list(dict.fromkeys(name for row in rows for name in row.get("extra", {})))
        blocks = [self.success_block(suite, list(group), columns) for suite, group in by_suite(rows)]
        extra = "".join(f'<th class="n">{html.escape(name)}</th>' for name in columns)
        scale = '<div class="scale"><span>0</span><span>50</span><span>100 %</span></div>'
        numbers = '<th class="n">success</th><th class="n">95 % interval</th>'
        head = f'<tr><th></th><th class="drawn">{scale}</th>{numbers}{extra}</tr>'
        self.parts.append(f'<div class="wide"><table class="success">{head}{"".join(blocks)}</table></div>')

    def success_block(self, suite: str, rows: Sequence[SuccessRow], columns: Sequence[str]) -> str:
        span = 4 + len(columns)
        name = f"{html.escape(suite)} <small>n = {counts(rows)}</small>"
        lines = [f'<tr class="suite"><th colspan="{span}">{name}</th></tr>']
        for index, row in enumerate(rows):
            low, high = wilson(row["successes"], row["n"])
            extras = {name: row.get("extra", {}).get(name, "") for name in columns}
            details = {"interval": f"{low:.0%} – {high:.0%}"} | extras
            role = "judged" if row.get("judged", index == 0) else "control"
            lines.append(
                f'<tr class="{role}"><td>{html.escape(row["model"])}</td>'
                f'<td class="drawn">{charts.interval_bar(row["successes"], row["n"])}</td>'
                f'<td class="n"><b>{row["successes"] / row["n"]:.0%}</b></td>'
                f"{''.join(detail(name, value) for name, value in details.items())}</tr>"
            )
        return f"<tbody>{''.join(lines)}</tbody>"

    # --- charts --------------------------------------------------------------------------------------------------

    def losses(self, curves: Mapping[str, charts.Curve], *, title: str) -> None:
        """Curves by name, each (steps, losses); see `charts.line_chart`."""
        self.figure(charts.line_chart(curves, x_label="step", y_label="loss", log=True), title=title, css="curves")

    def attention(
        self, picture: np.ndarray, weights: np.ndarray, *, caption: str, title: str = "Where it looks"
    ) -> None:
        """A picture (uint8 [h w 3]) beside itself under its attention weights [gh gw]."""
        seen, glowing = pictures.attention_overlay(picture, weights)
        pair = "".join(
            f'<figure><img src="{pictures.data_uri(image)}" alt="{alt}"><figcaption>{alt}</figcaption></figure>'
            for image, alt in ((seen, "what the robot sees"), (glowing, "what it attends to"))
        )
        self.figure(f'<div class="pair">{pair}</div><p class="note">{rich(caption)}</p>', title=title, css="attention")

    def flow(self, x: np.ndarray, names: Sequence[str], *, caption: str = "") -> None:
        """A chunk [s+1 ah ad] on its way from noise to actions: as paths through its first two dims, then dim by dim.

        Raises:
            ValueError: Not three axes, or not one name per action dim.
        """
        if x.ndim != 3 or x.shape[2] != len(names):
            raise ValueError(f"flow wants x [steps+1 ah {len(names)}] for dims {list(names)}, got {list(x.shape)}")
        note = f'<p class="note">{rich(caption)}</p>' if caption else ""
        axes = f'<p class="axis">{html.escape(names[1])} over {html.escape(names[0])}</p>'
        along = '<p class="axis">each dim over the chunk, from faint (noise) to bold (actions)</p>'
        drawn = axes + charts.flow_paths(x) + along + charts.flow_dims(x, names)
        self.figure(drawn + note, title="From noise to actions", css="flows")

    def timings(self, parts: Sequence[tuple[str, float]]) -> None:
        """(part, seconds) in the order of the run."""
        self.figure(charts.time_bar(parts), title="Where the time went", css="timings")

    # --- the page ------------------------------------------------------------------------------------------------

    def figure(self, content: str, *, title: str, css: str, outcome: str = "", success: bool | None = None) -> None:
        tone = {True: "good", False: "bad", None: "plain"}[success]
        mark = {True: "✓ ", False: "✗ ", None: ""}[success]
        badge = f'<span class="badge {tone}">{mark}{html.escape(outcome)}</span>' if outcome or mark else ""
        head = f"<header><h3>{html.escape(title)}</h3>{badge}</header>"
        self.parts.append(f'<figure class="card {css}">{head}{content}</figure>')

    def render(self) -> str:
        """The whole page."""
        links = "".join(f'<a href="#part{k}">{html.escape(name)}</a>' for k, name in enumerate(self.sections, 1))
        css = "".join(resources.files("pilot").joinpath(name).read_text(encoding="utf-8") for name in STYLES)
        subtitle = f"<p>{rich(self.subtitle)}</p>" if self.subtitle else ""
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            '<meta name="color-scheme" content="light dark">'
            f"<title>{html.escape(self.title)}</title><style>{css}</style></head><body>"
            f'<header class="top"><h1>{html.escape(self.title)}</h1>{subtitle}<nav>{links}</nav></header>'
            f"<main>{side_by_side(self.parts)}{'</section>' if self.sections else ''}</main></body></html>\n"
        )

    def save(self, path: str | Path) -> Path:
        """Write the page whole or not at all. Returns its path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(self.render())
            Path(temporary).chmod(0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return path


def side_by_side(parts: Sequence[str]) -> str:
    """The parts in order; films that follow one another share a row where the page is wide enough."""
    groups = itertools.groupby(parts, key=lambda part: part.startswith('<figure class="card video"'))
    pieces = [("".join(group), is_film) for is_film, group in groups]
    return "".join(f'<div class="gallery">{piece}</div>' if is_film else piece for piece, is_film in pieces)


def rich(text: str) -> str:
    """Escaped text with `code` and **bold**."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))
    return re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", text)


def cell(value: str | float | int, numeric: bool) -> str:
    css = ' class="n"' if numeric else ""
    return f"<td{css}>{rich(value) if isinstance(value, str) else charts.number(value)}</td>"


def detail(name: str, value: str) -> str:
    """A lesser number of a success table; on a phone, where the header has no room, it carries its own name."""
    return f'<td class="n detail" data-name="{html.escape(name)}">{html.escape(value)}</td>'


def check_film(frames: Sequence[np.ndarray], captions: Sequence[str]) -> None:
    if len(frames) != len(captions) or not frames:
        raise ValueError(f"a film needs one caption per frame, got {len(frames)} frames and {len(captions)} captions")


def said_aloud(words: str, style: str) -> str:
    silent = "" if words else ' class="silent"'
    return f'<q style="{style}"{silent}>{html.escape(words) or "says nothing"}</q>'


def grain(frame: np.ndarray) -> str:
    """Small frames are shown pixel by pixel, as the robot gets them; large ones smoothly."""
    return f"--grain:{'pixelated' if frame.shape[0] <= SMALL_FRAME else 'auto'}"


def spells(captions: Sequence[str]) -> list[tuple[str, int, int]]:
    """Runs of one caption: (words, first frame, number of frames)."""
    runs, start = [], 0
    for words, group in itertools.groupby(captions):
        length = len(list(group))
        runs.append((words, start, length))
        start += length
    return runs


def subtitle_keyframes(name: str, captions: Sequence[str]) -> str:
    """Each run of words is visible in its own part of the film's clock, and only there."""
    rules, total = [], len(captions)
    for k, (_, start, length) in enumerate(spells(captions)):
        begin, end = 100 * start / total, 100 * (start + length) / total
        before = f"0%,{begin:.3f}%{{opacity:0}}" if start else ""
        after = f"{end:.3f}%,100%{{opacity:0}}" if end < 100 else ""
        rules.append(f"@keyframes {name}s{k}{{{before}{begin + 0.001:.3f}%,{end - 0.001:.3f}%{{opacity:1}}{after}}}")
    return "".join(rules)


def by_suite(rows: Sequence[SuccessRow]) -> list[tuple[str, list[SuccessRow]]]:
    """Rows of one suite together, suites in the order of their first row."""
    names = dict.fromkeys(row["suite"] for row in rows)
    return [(name, [row for row in rows if row["suite"] == name]) for name in names]


def counts(rows: Sequence[SuccessRow]) -> str:
    sizes = sorted({row["n"] for row in rows})
    return " – ".join(str(size) for size in dict.fromkeys([sizes[0], sizes[-1]]))
