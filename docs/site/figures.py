"""Draw the figures of `docs/results.md`: `python docs/site/figures.py`.

The numbers stand here once more as counts, so that intervals are computed and never copied. `tests/test_docs.py` checks
that each count is also on the page, and that the committed pictures are those that this script draws.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import svg

from pilot.eval.stats import wilson

WIDTH, LEFT, RIGHT, ROW = 560, 208, 84, 30
INSIDE = WIDTH - LEFT - RIGHT


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Successes of a number of episodes."""

    label: str
    successes: int
    of: int
    colour: str = "c1"


@dataclass(frozen=True, kw_only=True)
class Amount:
    """A number with a unit, drawn as a bar."""

    label: str
    value: float
    shown: str
    colour: str = "c1"


RATES: dict[str, list[tuple[str, list[Rate]]]] = {
    "homes": [
        (
            title,
            [
                Rate(label="the policy", successes=policy, of=200),
                Rate(label="grey pictures", successes=0, of=200, colour="soft"),
                Rate(label="another home's instruction", successes=shuffled, of=200, colour="soft"),
            ],
        )
        for title, policy, shuffled in (
            ("One move", 187, 7),
            ("One move among look-alikes", 192, 3),
            ("Two or three moves", 144, 6),
        )
    ],
    "learning": [
        (
            "Hats into crates (new)",
            [
                Rate(label="before", successes=0, of=30, colour="soft"),
                Rate(label="after 300 steps", successes=28, of=30),
            ],
        ),
        (
            "One move (known before)",
            [
                Rate(label="before", successes=14, of=16, colour="soft"),
                Rate(label="after 300 steps", successes=14, of=16),
            ],
        ),
    ],
    "mt10": [
        (
            "MetaWorld's MT10, positions in no demonstration",
            [
                Rate(label="all ten tasks", successes=164, of=200),
                Rate(label="grey pictures", successes=11, of=50, colour="c2"),
                Rate(label="another task's name", successes=3, of=50, colour="c2"),
                *(
                    Rate(label=task, successes=successes, of=20, colour="soft")
                    for task, successes in (
                        ("each of the six others", 20),
                        ("push", 16),
                        ("pick and place", 12),
                        ("reach", 11),
                        ("peg into the side", 5),
                    )
                ),
            ],
        )
    ],
    "delay": [
        (
            "Answers 0.2 s late, one move",
            [
                Rate(label="real-time chunking, guided", successes=19, of=20),
                Rate(label="real-time chunking, hard", successes=15, of=20, colour="c4"),
                Rate(label="open loop: stand and wait", successes=8, of=20, colour="soft"),
                Rate(label="temporal ensemble", successes=2, of=20, colour="soft"),
            ],
        )
    ],
}
AMOUNTS: dict[str, list[Amount]] = {
    "gpu": [
        Amount(label="plain PyTorch", value=225, shown="225 ms", colour="soft"),
        Amount(label="CUDA graphs of PyTorch", value=38.9, shown="38.9 ms", colour="soft"),
        Amount(label="openpi, torch.compile", value=37.1, shown="37.1 ms", colour="c4"),
        Amount(label="pilot, Triton kernels", value=16.05, shown="16.05 ms"),
    ],
}


def at(rate: float) -> float:
    """Return where a rate is, from left to right."""
    return LEFT + rate * INSIDE


def draw_rates(groups: list[tuple[str, list[Rate]]]) -> str:
    """Draw success rates as dots on their 95 % intervals."""
    marks, y = [], 8.0
    for title, rates in groups:
        marks.append(svg.text(0, y + 16, title, size=15, bold=True))
        y += 30
        for rate in rates:
            low, high = wilson(rate.successes, rate.of)
            marks += [
                svg.text(0, y + 14, rate.label, colour="soft"),
                svg.line(at(0), y + 9, at(1), y + 9),
                svg.line(at(low), y + 9, at(high), y + 9, colour=rate.colour, width=5),
                svg.dot(at(rate.successes / rate.of), y + 9, colour=rate.colour, radius=6),
                svg.text(WIDTH, y + 14, f"{rate.successes} of {rate.of}", anchor="end"),
            ]
            y += ROW
        y += 8
    marks += [
        svg.text(at(tick), y + 6, f"{100 * tick:g} %", size=12, colour="soft", anchor="middle") for tick in (0, 0.5, 1)
    ]
    says = "; ".join(f"{title}, {r.label}: {r.successes} of {r.of}" for title, rates in groups for r in rates)
    return svg.page(marks, width=WIDTH, height=round(y + 14), says=says)


def draw_amounts(amounts: list[Amount]) -> str:
    """Draw numbers as bars."""
    marks, most = [], max(amount.value for amount in amounts)
    for i, amount in enumerate(amounts):
        y, length = 6 + i * ROW, amount.value / most * INSIDE
        marks += [
            svg.text(0, y + 16, amount.label, colour="soft"),
            svg.box(LEFT, y + 2, length, 18, fill=amount.colour, edge="none", round=4),
            svg.text(LEFT + length + 8, y + 16, amount.shown, bold=amount.colour == "c1"),
        ]
    says = "; ".join(f"{amount.label}: {amount.shown}" for amount in amounts)
    return svg.page(marks, width=WIDTH, height=6 + len(amounts) * ROW, says=says)


def draw_all() -> dict[str, str]:
    """Return every figure by the name of its file."""
    figures = {f"result-{name}.svg": draw_rates(groups) for name, groups in RATES.items()}
    return figures | {f"result-{name}.svg": draw_amounts(amounts) for name, amounts in AMOUNTS.items()}


if __name__ == "__main__":
    for name, picture in draw_all().items():
        (svg.IMAGES / name).write_text(picture, encoding="utf-8")
        print(svg.IMAGES / name)
