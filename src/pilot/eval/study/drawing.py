"""The plot of a study: one SVG that pages and markdown can show, by day and by night."""

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import escape

from pilot.eval.report.charts import Axis, number
from pilot.eval.study.findings import ConditionResult, mean_curve
from pilot.eval.study.fits import Growth
from pilot.eval.study.measures import EpisodeMeasure

WIDTH, ROW, LEFT, RIGHT, TOP = 720, 34, 220, 90, 40
HEIGHT = 360  # of a curve
STYLE = """<style>
svg{--ink:#1f2428;--soft:#5d666d;--line:#e4dfd6;--a:#0b7a75;--b:#d1495b;--c:#b27800;--paper:#faf8f4;
font:14px system-ui,sans-serif}
@media (prefers-color-scheme:dark){svg{--ink:#eae7e1;--soft:#a2a9ae;--line:#31373c;--a:#45c4b8;--b:#f0808f;--c:#e6b450;
--paper:#14171a}}
text{fill:var(--ink)}.soft{fill:var(--soft)}.rule{stroke:var(--line)}.band{stroke:var(--a);stroke-width:8;opacity:.35}
.dot{fill:var(--a)}.base{fill:var(--b)}.line{fill:none;stroke-width:2}.paper{fill:var(--paper)}
</style>"""


def draw_rows(findings: Mapping[str, ConditionResult], *, measure: EpisodeMeasure, baseline: str) -> str:
    """Draw a row for each condition: its mean as a dot on the band of its interval; the baseline in another colour."""
    scale = _value_axis(list(findings.values()), measure)
    height = TOP + ROW * len(findings) + 14
    width = WIDTH - LEFT - RIGHT

    def at(value: float) -> float:
        return LEFT + width * float(np.clip(scale(value), 0, 1))

    marks = [f'<text x="{LEFT}" y="18" class="soft">{escape(measure.title)}, 95 % intervals</text>']
    for tick in scale.ticks():
        marks.append(f'<path class="rule" d="M{at(tick):.1f} {TOP - 12}V{height - 6}"/>')
        marks.append(f'<text x="{at(tick):.1f}" y="{TOP - 4}" class="soft" text-anchor="middle" font-size="11">'
                     f"{_tick(tick, measure)}</text>")  # fmt: skip
    for row, (name, found) in enumerate(findings.items()):
        y = TOP + ROW * row + ROW / 2
        low, high = found.interval
        css = "dot base" if name == baseline else "dot"
        marks.append(f'<text x="{LEFT - 12}" y="{y + 5}" text-anchor="end">{escape(name)}</text>')
        marks.append(f'<path class="band" d="M{at(low):.1f} {y}H{at(high):.1f}"/>')
        marks.append(f'<circle class="{css}" cx="{at(found.mean):.1f}" cy="{y}" r="6"/>')
        marks += [
            f'<circle class="{css}" cx="{at(s):.1f}" cy="{y + 11}" r="2.5"/>' for s in found.seeds[1:] and found.seeds
        ]
        marks.append(f'<text x="{WIDTH - RIGHT + 14}" y="{y + 5}">{measure.write(found.mean)}</text>')
    label = "; ".join(f"{name} {measure.write(found.mean)}" for name, found in findings.items())
    return _svg("".join(marks), height=height, label=f"{measure.title}: {label}")


def draw_curve(
    findings: Mapping[str, ConditionResult], *, measure: EpisodeMeasure, x_label: str, growth: Growth | None
) -> str:
    """Draw conditions over their places on a logarithmic axis, with both fits; the others as level lines."""
    places, _ = mean_curve(dict(findings))
    x = Axis(low=min(places) / 1.2, high=max(places) * 1.2, log=True)
    y = _value_axis(list(findings.values()), measure)
    left, top, right, bottom = 60, 30, WIDTH - 170, HEIGHT - 50

    def across(value: float) -> float:
        return left + (right - left) * float(x(value))

    def up(value: float) -> float:
        return bottom - (bottom - top) * float(np.clip(y(value), 0, 1))

    marks = [f'<text x="{left}" y="16" class="soft">{escape(measure.title)}, 95 % intervals</text>']
    for tick in y.ticks():
        marks.append(f'<path class="rule" d="M{left} {up(tick):.1f}H{right}"/>')
        marks.append(
            f'<text x="{left - 8}" y="{up(tick) + 4:.1f}" class="soft" text-anchor="end">{_tick(tick, measure)}</text>'
        )
    marks.append(
        f'<text x="{(left + right) / 2}" y="{HEIGHT - 8}" class="soft" text-anchor="middle">{escape(x_label)}</text>'
    )
    for found in findings.values():
        if found.condition.x is None:
            colour = "var(--b)" if found.condition.sees_tests else "var(--soft)"
            level = f"{up(found.mean):.1f}"
            line = f'<path class="line" stroke="{colour}" stroke-dasharray="5 4" d="M{left} {level}H{right}"/>'
            marks += [line, f'<text x="{right + 8}" y="{level}">{escape(found.condition.name)}</text>']
            continue
        place, (low, high) = across(found.condition.x), found.interval
        marks.append(f'<path class="band" d="M{place:.1f} {up(low):.1f}V{up(high):.1f}"/>')
        marks.append(f'<circle class="dot" cx="{place:.1f}" cy="{up(found.mean):.1f}" r="6"/>')
        tick = number(found.condition.x)
        marks.append(f'<text x="{place:.1f}" y="{bottom + 18}" class="soft" text-anchor="middle">{tick}</text>')
    if growth is not None:
        along = np.geomspace(min(places), max(places), 80)
        for fit, colour in ((growth.log_linear, "var(--c)"), (growth.saturating, "var(--a)")):
            points = " ".join(f"{across(a):.1f},{up(b):.1f}" for a, b in zip(along, fit(along), strict=True))
            marks.append(f'<polyline class="line" stroke="{colour}" points="{points}"/>')
            marks.append(
                f'<text x="{right + 8}" y="{up(fit(along)[-1]) + 4:.1f}" style="fill:{colour}">{fit.name}</text>'
            )
    label = "; ".join(f"{name} {measure.write(found.mean)}" for name, found in findings.items())
    return _svg("".join(marks), height=HEIGHT, label=f"{measure.title} over {x_label}: {label}")


def _value_axis(findings: Sequence[ConditionResult], measure: EpisodeMeasure) -> Axis:
    if measure.is_share:
        return Axis(low=0.0, high=1.0)
    return Axis.around(np.array([end for found in findings for end in found.interval]), from_zero=True)


def _tick(value: float, measure: EpisodeMeasure) -> str:
    return f"{100 * value:.0f}" if measure.is_share else number(value)


def _svg(marks: str, *, height: float, label: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(label)}">{STYLE}<rect class="paper" width="{WIDTH}" height="{height:.0f}"/>{marks}</svg>'
    )
