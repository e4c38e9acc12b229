"""Charts of a report, written by hand: SVG for the marks, HTML for the words.

The marks live in a picture that stretches with the page; the words are placed over it in per cent, so they keep their
size on a phone. Colours are the page's variables (`--c1` …), so that light and dark need no second drawing. Every chart
says in `aria-label` what it shows.

Axes: `n` points of a curve, `s` flow steps, `ah` action horizon, `ad` action dim.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

COLOURS = 6  # --c1 … --c6 of palette.css
MAX_POINTS = 400
PANELS = 6  # of a chunk on its way
Curve = tuple[Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]


def number(value: float) -> str:
    """Write a number short and readable: 12 000, 0.034, 1.5."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", "\u202f")
    if abs(value) < 1e-4:
        return f"{value:.0e}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Write a duration as people say it: `0.4 s`, `52 s`, `3 min 05 s`, `1 h 02 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, left = divmod(minutes, 60)
    return f"{hours} h {left:02d} min" if hours else f"{minutes} min {rest:02d} s"


# --- axes -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One side of a plot: turns values into 0…1."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def around(cls, values: np.ndarray, *, log: bool = False, from_zero: bool = False) -> "Axis":
        """Return an axis that holds all values with some air; on a log axis they must be positive."""
        low, high = float(values.min()), float(values.max())
        if log:
            assert low > 0, low
            return cls(low=low / 1.15, high=high * 1.15, log=True)
        if from_zero:
            low = min(low, 0.0)
        air = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
        return cls(low=low - (0 if from_zero and low == 0 else air), high=high + air)

    def __call__(self, values: np.ndarray | float) -> np.ndarray:
        ends = np.array([self.low, self.high], dtype=float)
        points = np.asarray(values, dtype=float)
        if self.log:
            ends, points = np.log(ends), np.log(points)
        return np.asarray((points - ends[0]) / (ends[1] - ends[0]))

    def ticks(self, count: int = 5) -> list[float]:
        """Return round values inside the axis: 1, 2 or 5 times a power of ten."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            fine = [m * 10.0**p for p in powers for m in (1, 2, 5)]
            return [t for t in fine if self.low <= t <= self.high]
        rough = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
        return [step * k for k in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def polyline(x: np.ndarray, y: np.ndarray, *, css: str) -> str:
    """Draw a line through fractions 0…1 (y upwards) in the 1000 × 1000 drawing."""
    points = " ".join(f"{round(a * 1000)},{round((1 - b) * 1000)}" for a, b in zip(x, y))
    return f'<polyline class="{css}" points="{points}"/>'


def draw_stretched(marks: str) -> str:
    """Draw marks in a picture that stretches with the page."""
    return f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" aria-hidden="true">{marks}</svg>'


def draw_axes(marks: str, *, x: Axis, y: Axis, label: str) -> str:
    """Draw marks with grid lines, and numbers at the axes."""
    y_ticks, x_ticks = [(t, float(y(t))) for t in y.ticks()], [(t, float(x(t))) for t in x.ticks()]
    rules = "".join(f'<path class="rule" d="M0 {round((1 - at) * 1000)}H1000"/>' for _, at in y_ticks)
    words = "".join(f'<span class="ty" style="bottom:{at:.2%}">{number(t)}</span>' for t, at in y_ticks)
    words += "".join(f'<span class="tx" style="left:{at:.2%}">{number(t)}</span>' for t, at in x_ticks)
    return f'<div class="plot" role="img" aria-label="{escape(label)}">{draw_stretched(rules + marks)}{words}</div>'


# --- curves -----------------------------------------------------------------------------------------------------------


def line_chart(curves: Mapping[str, Curve], *, x_label: str, y_label: str, log: bool = False) -> Markup:
    """Draw curves by name over a shared x.

    Points that have no place on the plot (not finite, or not above 0 on a log axis) are left out, and counted in the
    legend.

    Raises:
        ValueError: No points to draw at all, or a curve of uneven length.
    """
    cleaned = {name: drawable_points(name, curve, log=log) for name, curve in curves.items()}
    drawn = {name: curve for name, curve in cleaned.items() if len(curve[0])}
    if not drawn:
        scale = " above 0, which a log axis needs" if log else ""
        raise ValueError(f"nothing to draw: no finite points{scale} in {', '.join(curves) or 'no curves'}")
    x = Axis(low=min(float(c[0].min()) for c in drawn.values()), high=max(float(c[0].max()) for c in drawn.values()))
    x = x if x.high > x.low else Axis(low=x.low - 0.5, high=x.high + 0.5)
    y = Axis.around(np.concatenate([c[1] for c in drawn.values()]), log=log, from_zero=not log)
    marks, legend = [], []
    for index, (name, (xs, ys)) in enumerate(drawn.items()):
        colour = f"s{index % COLOURS + 1}"
        marks.append(polyline(*thin_out(x(xs), y(ys)), css=colour))
        left_out = len(curves[name][0]) - len(xs)
        note = f" ({left_out} left out)" if left_out else ""
        legend.append(f'<li class="{colour}"><i></i>{escape(name)} <b>{number(float(ys[-1]))}</b>{note}</li>')
    ends = {name: (number(float(ys[0])), number(float(ys[-1]))) for name, (_, ys) in drawn.items()}
    summary = "; ".join(f"{name} from {first} to {last}" for name, (first, last) in ends.items())
    plot = draw_axes("".join(marks), x=x, y=y, label=f"{y_label} over {x_label}: {summary}")
    scale = ", logarithmic" if log else ""
    return Markup(
        f'<div class="chart"><p class="axis">{escape(y_label)}{scale}</p>{plot}'
        f'<p class="axis x">{escape(x_label)}</p><ul class="legend">{"".join(legend)}</ul></div>'
    )


def drawable_points(name: str, curve: Curve, *, log: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the points of a curve that have a place on the plot."""
    xs, ys = (np.asarray(values, dtype=float) for values in curve)
    if xs.shape != ys.shape or xs.ndim != 1:
        raise ValueError(f"curve '{name}' needs as many x as y, got {list(xs.shape)} and {list(ys.shape)}")
    keep = np.isfinite(xs) & np.isfinite(ys)
    if log:
        keep &= ys > 0
    return xs[keep], ys[keep]


def thin_out(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return at most MAX_POINTS of a curve, its ends among them."""
    if len(x) <= MAX_POINTS:
        return x, y
    keep = np.unique(np.linspace(0, len(x) - 1, MAX_POINTS).round().astype(int))
    return x[keep], y[keep]


# --- success rates ----------------------------------------------------------------------------------------------------


def interval_bar(rate: float, interval: tuple[float, float]) -> Markup:
    """Draw a dot for the rate on a band for its 95 % interval, on a track from 0 to 100 %."""
    low, high = interval
    label = f"{rate:.0%}, 95 % interval {low:.0%} to {high:.0%}"
    return Markup(
        f'<div class="track" role="img" aria-label="{label}"><i style="left:{low:.1%};width:{high - low:.1%}"></i>'
        f'<b style="left:{rate:.1%}"></b></div>'
    )


# --- flow -------------------------------------------------------------------------------------------------------------


def flow_paths(x: np.ndarray) -> Markup:
    """Draw a chunk on its way from noise to actions, several times, each as a path through its first two dims.

    `x` is [s+1 ah ad], first noise (t = 1), last actions (t = 0).
    """
    steps = np.unique(np.linspace(0, len(x) - 1, min(PANELS, len(x))).round().astype(int))
    across, up = (Axis.around(x[..., dim]) for dim in (0, 1))
    cells = []
    for step in steps:
        time = 1 - step / max(len(x) - 1, 1)
        xs, ys = across(x[step, :, 0]), up(x[step, :, 1])
        word = {1.0: "noise", 0.0: "actions"}.get(time, "")
        cells.append(f"<figure>{path_svg(xs, ys)}<figcaption>t = {time:.1f} <b>{word}</b></figcaption></figure>")
    return Markup(
        f'<div class="flow paths" role="img" aria-label="A chunk from noise to actions">{"".join(cells)}</div>'
    )


def path_svg(xs: np.ndarray, ys: np.ndarray) -> str:
    """Draw a path with a dot for each step, growing from the first to the last."""
    points = [(round(a * 200), round((1 - b) * 200)) for a, b in zip(xs, ys)]
    line = f'<polyline class="s1" points="{" ".join(f"{a},{b}" for a, b in points)}"/>'
    last = max(len(points) - 1, 1)
    dots = "".join(
        f'<circle cx="{a}" cy="{b}" r="{5 + 3 * k / last:.1f}" style="opacity:{0.35 + 0.65 * k / last:.2f}"/>'
        for k, (a, b) in enumerate(points)
    )
    return f'<svg viewBox="-8 -8 216 216" aria-hidden="true">{line}{dots}</svg>'


def flow_dims(x: np.ndarray, names: Sequence[str]) -> Markup:
    """Draw a small plot per action dim: the chunk over its horizon, once per flow step, from faint noise to actions."""
    cells = []
    for dim, name in enumerate(names):
        along, up = np.linspace(0, 1, x.shape[1]), Axis.around(x[..., dim])
        lines = "".join(flow_line(along, up(step[:, dim]), share=k / max(len(x) - 1, 1)) for k, step in enumerate(x))
        cells.append(f"<figure>{draw_stretched(lines)}<figcaption>{escape(name)}</figcaption></figure>")
    return Markup(f'<div class="flow dims" role="img" aria-label="Each action dim">{"".join(cells)}</div>')


def flow_line(along: np.ndarray, heights: np.ndarray, *, share: float) -> str:
    """Draw one flow step of a dim; `share` of the way from noise to actions decides how bold."""
    css = "s1 final" if share == 1 else "noise"
    line = polyline(along, heights, css=css)
    return line if share == 1 else line.replace("<polyline", f'<polyline style="opacity:{0.15 + 0.45 * share:.2f}"')


# --- time -------------------------------------------------------------------------------------------------------------


def time_bar(parts: Sequence[tuple[str, float]]) -> Markup:
    """Draw what took how long: one bar, cut into parts, with a legend."""
    total = sum(seconds for _, seconds in parts) or 1.0
    cuts, legend = [], []
    for index, (name, seconds) in enumerate(parts):
        colour = f"s{index % COLOURS + 1}"
        cuts.append(f'<i class="{colour}" style="flex-grow:{max(seconds, total * 0.002):.4g}"></i>')
        legend.append(f'<li class="{colour}"><i></i>{escape(name)} <b>{duration(seconds)}</b></li>')
    label = ", ".join(f"{escape(name)} {duration(seconds)}" for name, seconds in parts)
    bar = f'<div class="time" role="img" aria-label="{label}">{"".join(cuts)}</div>'
    return Markup(f'{bar}<ul class="legend">{"".join(legend)}<li>in all <b>{duration(total)}</b></li></ul>')
