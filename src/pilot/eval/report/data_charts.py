"""Drawings of demonstrations: traces, words on a timeline, histograms, chunks. Marks as in `pilot.eval.report.charts`.

Axes: `t` steps of an episode, `n` values, `d` dims.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from markupsafe import Markup, escape

from pilot.eval.report.charts import Axis, draw_stretched, number, polyline, thin_out
from pilot.eval.report.templates import macros

BINS = 48


@dataclass(frozen=True, kw_only=True)
class WordSpan:
    """Words that hold from one share of an episode to another, 0 to 1."""

    words: str
    start: float
    stop: float


def trace(
    values: Float[np.ndarray, " t"], *, over: Float[np.ndarray, " t"] | None = None, label: str, low: float, high: float
) -> Markup:
    """Draw one dim along an episode on the axis of the whole set; `over` is drawn thinner, on the same axis."""
    axis = Axis(low=low, high=high) if high > low else Axis(low=low - 0.5, high=high + 0.5)
    along = np.linspace(0, 1, len(values)) if len(values) > 1 else np.array([0.5])
    marks = polyline(*thin_out(along, axis(values)), css="s1")
    if over is not None:
        marks += polyline(*thin_out(along, axis(over)), css="s3 thin")
    return Markup(f'<div class="trace" role="img" aria-label="{escape(label)}">{draw_stretched(marks)}</div>')


def histogram(values: Float[np.ndarray, " n"], *, name: str, q01: float, q99: float, mean: float) -> Markup:
    """Draw how often each value occurs; lines at the 1 % and 99 % quantiles, between which a model sees −1 to 1.

    Heights are square roots of counts, so that rare values are seen beside frequent ones.
    """
    low, high = float(values.min()), float(values.max())
    edges = bin_edges(values)
    counts, _ = np.histogram(values, edges)
    heights = np.sqrt(counts / max(counts.max(), 1)) * 960
    width = 1000 / len(counts)
    bars = "".join(
        f"M{k * width:.1f} 1000V{1000 - height:.0f}h{width * 0.86:.1f}V1000z"
        for k, height in enumerate(heights)
        if height
    )
    axis = Axis(low=float(edges[0]), high=float(edges[-1]))
    rules = "".join(f'<path class="quantile" d="M{float(axis(q)) * 1000:.0f} 0V1000"/>' for q in (q01, q99))
    words = f"{number(low)} … {number(high)}, q01 {number(q01)}, q99 {number(q99)}, mean {number(mean)}"
    drawing = Markup(draw_stretched(f'<path class="bars" d="{bars}"/>{rules}'))
    return macros("data.html").histogram(name, words, drawing, q01=q01, q99=q99, low=low, high=high)


def bin_edges(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " e"]:
    """Return the edges of one bin per number where they are few and whole, else of `BINS` over the range."""
    low, high = float(values.min()), float(values.max())
    if high - low < BINS and (values == np.round(values)).all():
        return np.arange(low - 0.5, high + 1.0)
    return np.linspace(low, high, BINS + 1) if high > low else np.linspace(low - 0.5, low + 0.5, BINS + 1)


def chunk(
    recorded: Float[np.ndarray, "t d"], decoded: Float[np.ndarray, "t d"], names: Sequence[str], *, tokens: int
) -> Markup:
    """Draw a chunk dim by dim, as recorded and as its `tokens` tokens give it back."""
    dims, along = [], np.linspace(0, 1, len(recorded))
    for dim, name in enumerate(names):
        axis = Axis.around(np.concatenate([recorded[:, dim], decoded[:, dim]]))
        marks = polyline(along, axis(recorded[:, dim]), css="s1 raw-chunk")
        marks += polyline(along, axis(decoded[:, dim]), css="s3 thin")
        error = float(np.abs(recorded[:, dim] - decoded[:, dim]).max())
        dims.append((name, Markup(draw_stretched(marks)), error))
    return macros("data.html").chunk(dims, len(recorded), tokens)
