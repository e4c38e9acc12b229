"""Pieces of the SVG pictures in these pages: text, boxes, arrows, and a frame that knows light and dark.

Colours are CSS variables. A picture shown alone follows `prefers-color-scheme`; the site puts it into the page, where
the page's own switch decides (`docs/site/site.css`).
"""

from html import escape
from pathlib import Path

IMAGES = Path(__file__).parents[1] / "images"
LIGHT = {
    "ink": "#1f2428", "soft": "#5d666d", "line": "#cfc8bb", "wash": "#f1ede5", "card": "#ffffff",
    "c1": "#0b7a75", "c2": "#d1495b", "c3": "#b27800", "c4": "#3d6fb4", "c5": "#80559c",
    "w1": "#cfe9e6", "w2": "#f7dade", "w3": "#f3e5c6", "w4": "#d8e4f4", "w5": "#e8dcf0",
}  # fmt: skip
DARK = {
    "ink": "#eae7e1", "soft": "#a2a9ae", "line": "#4a5258", "wash": "#262b30", "card": "#1c2024",
    "c1": "#45c4b8", "c2": "#f0808f", "c3": "#e6b450", "c4": "#86b1ec", "c5": "#c49be0",
    "w1": "#17423d", "w2": "#4d2830", "w3": "#463918", "w4": "#25384f", "w5": "#3d2b4a",
}  # fmt: skip


def variables(colours: dict[str, str]) -> str:
    """Return colours as CSS variables."""
    return ";".join(f"--{name}:{value}" for name, value in colours.items())


STYLE = f"""<style>
.drawing{{{variables(LIGHT)}}}
@media (prefers-color-scheme: dark){{.drawing{{{variables(DARK)}}}}}
.drawing text{{font-family:system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}}
</style>"""


def page(marks: list[str], *, width: int, height: int, says: str) -> str:
    """Return a whole picture; `says` is what it shows, for those who cannot see it."""
    body = "\n".join(marks)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="drawing" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="{escape(says)}">\n{STYLE}\n{body}\n</svg>\n'
    )


def text(
    x: float,
    y: float,
    words: str,
    *,
    size: float = 14,
    colour: str = "ink",
    anchor: str = "start",
    bold: bool = False,
    slanted: bool = False,
) -> str:
    """Return a line of text whose baseline is at y."""
    weight = ' font-weight="600"' if bold else ""
    slant = ' font-style="italic"' if slanted else ""
    where = f'x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}"'
    return f'<text {where}{weight}{slant} fill="var(--{colour})">{escape(words, quote=False)}</text>'


def box(
    x: float, y: float, width: float, height: float, *, fill: str = "wash", edge: str = "line", round: float = 6
) -> str:
    """Return a rectangle."""
    shape = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{round:g}"'
    return f'<rect {shape} fill="{paint(fill)}" stroke="{paint(edge)}"/>'


def paint(colour: str) -> str:
    """Return a colour of the palette as CSS, and `none` as it is."""
    return colour if colour == "none" else f"var(--{colour})"


def line(
    x1: float, y1: float, x2: float, y2: float, *, colour: str = "line", width: float = 1, dashed: bool = False
) -> str:
    """Return a straight line."""
    dashes = ' stroke-dasharray="4 4"' if dashed else ""
    ends = f'x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"'
    return f'<line {ends} stroke="var(--{colour})" stroke-width="{width:g}" stroke-linecap="round"{dashes}/>'


def dot(x: float, y: float, *, radius: float = 5, colour: str = "c1") -> str:
    """Return a filled circle."""
    return f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="var(--{colour})"/>'


def arrow(x1: float, y1: float, x2: float, y2: float, *, colour: str = "soft", dashed: bool = False) -> str:
    """Return a horizontal or vertical line with a head at its end."""
    dx, dy = (x2 > x1) - (x2 < x1), (y2 > y1) - (y2 < y1)
    left, right = (x2 - 8 * dx + 4 * dy, y2 - 8 * dy + 4 * dx), (x2 - 8 * dx - 4 * dy, y2 - 8 * dy - 4 * dx)
    points = " ".join(f"{x:g},{y:g}" for x, y in ((x2, y2), left, right))
    head = f'<polygon points="{points}" fill="var(--{colour})"/>'
    return line(x1, y1, x2 - 6 * dx, y2 - 6 * dy, colour=colour, width=1.6, dashed=dashed) + head


def curve(points: list[tuple[float, float]], *, colour: str = "c1", width: float = 2, dashed: bool = False) -> str:
    """Return a line through points."""
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="var(--{colour})" stroke-width="{width:g}"{dashes}/>'
