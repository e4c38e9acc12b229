"""Drawings of demonstrations: traces, words on a timeline, histograms, tokens. Marks as in `pilot.eval.report.charts`.

Axes: `t` steps of an episode, `n` values.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pilot.eval.report.charts import Axis, number, polyline, stretched, thinned

BINS = 48
END = 12  # characters of a token's piece that are shown


@dataclass(frozen=True, kw_only=True)
class Span:
    """Words that are true from a share of an episode to another, 0 to 1."""

    words: str
    start: float
    stop: float


def track(name: str, content: str, *, note: str = "") -> str:
    """A row of a recording: what it is, and along the episode's time what it holds."""
    small = f" <small>{html.escape(note)}</small>" if note else ""
    return f'<div class="track"><p>{html.escape(name)}{small}</p>{content}</div>'


def spans(parts: Sequence[Span], *, css: str) -> str:
    """Words as bars on the timeline; short bars keep their words for a pointer that rests on them."""
    bars = "".join(
        f'<q style="left:{part.start:.2%};width:{part.stop - part.start:.2%}" title="{html.escape(part.words)}">'
        f"{html.escape(part.words)}</q>"
        for part in parts
    )
    label = html.escape("; ".join(part.words for part in parts))
    return f'<div class="spans {css}" role="img" aria-label="{label}">{bars}</div>'


def trace(
    values: Float[np.ndarray, " t"], *, over: Float[np.ndarray, " t"] | None = None, label: str, low: float, high: float
) -> str:
    """One dim along an episode on the axis of the whole set; `over` is drawn thinner, on the same axis."""
    axis = Axis(low=low, high=high) if high > low else Axis(low=low - 0.5, high=high + 0.5)
    along = np.linspace(0, 1, len(values)) if len(values) > 1 else np.array([0.5])
    marks = polyline(*thinned(along, axis(values)), css="s1")
    if over is not None:
        marks += polyline(*thinned(along, axis(over)), css="s3 thin")
    return f'<div class="trace" role="img" aria-label="{html.escape(label)}">{stretched(marks)}</div>'


def histogram(values: Float[np.ndarray, " n"], *, name: str, q01: float, q99: float, mean: float) -> str:
    """How often each value occurs; lines at the 1 % and 99 % quantiles, between which a model sees −1 to 1.

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
    return (
        f'<figure role="img" aria-label="{html.escape(name)}: {words}">'
        f"{stretched(f'<path class=bars d={chr(34)}{bars}{chr(34)}/>{rules}')}"
        f"<figcaption><b>{html.escape(name)}</b><span>q01 {number(q01)}</span><span>q99 {number(q99)}</span>"
        f"<span>min {number(low)}</span><span>max {number(high)}</span></figcaption></figure>"
    )


def bin_edges(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " e"]:
    """One bin per number where they are few and whole, else `BINS` over the range."""
    low, high = float(values.min()), float(values.max())
    if high - low < BINS and (values == np.round(values)).all():
        return np.arange(low - 0.5, high + 1.0)
    return np.linspace(low, high, BINS + 1) if high > low else np.linspace(low - 0.5, low + 0.5, BINS + 1)


def tokens(pieces: Sequence[tuple[str, str]]) -> str:
    """A row of tokens, each (what it says, kind): `prefix`, `text` or `fast`."""
    chips = "".join(f'<i class="{kind}">{html.escape(_shown(piece))}</i>' for piece, kind in pieces)
    return f'<p class="tokens">{chips}</p>'


def chunk(recorded: Float[np.ndarray, "t d"], decoded: Float[np.ndarray, "t d"], names: Sequence[str]) -> str:
    """A chunk dim by dim, as recorded and as its tokens say it."""
    cells = []
    for dim, name in enumerate(names):
        both = np.concatenate([recorded[:, dim], decoded[:, dim]])
        axis, along = Axis.around(both), np.linspace(0, 1, len(recorded))
        marks = polyline(along, axis(recorded[:, dim]), css="s1 raw-chunk")
        marks += polyline(along, axis(decoded[:, dim]), css="s3 thin")
        error = float(np.abs(recorded[:, dim] - decoded[:, dim]).max())
        caption = f"{html.escape(name)} <small>off by ≤ {number(error)}</small>"
        cells.append(f"<figure>{stretched(marks)}<figcaption>{caption}</figcaption></figure>")
    return f'<div class="flow dims" role="img" aria-label="A chunk and what its tokens say">{"".join(cells)}</div>'


def _shown(piece: str) -> str:
    """A piece with its spaces and breaks visible."""
    clean = piece.replace("▁", "·").replace("<0x0A>", "⏎").replace("\n", "⏎")
    return clean if len(clean) <= END else clean[: END - 1] + "…"
