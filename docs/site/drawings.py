"""Draw the explanations of `docs/how_it_works.md`: `python docs/site/drawings.py`."""

import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import svg
from svg import arrow, box, curve, dot, line, text

WIDTH = 580
BLOCKS = ("pictures", "prompt", "subtask", "FAST tokens", "flow block")
SEES = {  # who (a row of the drawing) sees whom: all, earlier (causal), stopped (without gradient)
    "pictures": {"pictures": "all", "prompt": "all"},
    "prompt": {"pictures": "all", "prompt": "all"},
    "subtask": {"pictures": "all", "prompt": "all", "subtask": "earlier"},
    "FAST tokens": {"pictures": "all", "prompt": "all", "subtask": "all", "FAST tokens": "earlier"},
    "flow block": {"pictures": "stopped", "prompt": "stopped", "subtask": "stopped", "flow block": "all"},
}


def attention() -> str:
    """Draw which tokens see which."""
    left, top, width, height = 116, 58, 84, 40
    marks = [text(left, 16, "is seen …", size=13, colour="soft"), text(0, top - 10, "Who sees", size=13, colour="soft")]
    for i, seen in enumerate(BLOCKS):
        marks.append(text(left + (i + 0.5) * width, top - 10, seen, size=13, anchor="middle"))
        marks.append(text(0, top + i * height + 25, seen, bold=True))
    for row, who in enumerate(BLOCKS):
        for column, seen in enumerate(BLOCKS):
            x, y, how = left + column * width, top + row * height, SEES[who].get(seen)
            fill = {"all": "w1", "earlier": "w1", "stopped": "w3", None: "card"}[how]
            marks.append(box(x + 2, y + 2, width - 4, height - 4, fill=fill))
            if how == "earlier":
                corner = f"{x + 3:g},{y + 3:g} {x + width - 3:g},{y + 3:g} {x + width - 3:g},{y + height - 3:g}"
                marks.append(f'<polygon points="{corner}" fill="var(--card)"/>')
    y = top + len(BLOCKS) * height + 18
    for x, fill, words in (
        (left, "w1", "sees; a triangle: only earlier tokens"),
        (left + 262, "w3", "sees, gradient stopped"),
    ):
        marks += [box(x, y, 18, 14, fill=fill, round=3), text(x + 25, y + 12, words, size=13, colour="soft")]
    says = "Prefix tokens see the prefix, causal tokens also earlier ones, the flow block all but FAST tokens."
    return svg.page(marks, width=WIDTH, height=round(y + 24), says=says)


def stages() -> str:
    """Draw what learns in the two stages of training."""
    marks = []
    for i, (title, below) in enumerate((("Stage 1", "everything is text"), ("Stage 2", "the expert joins"))):
        x = i * 300
        marks += [
            text(x, 18, title, size=16, bold=True),
            text(x + 82, 18, below, colour="soft"),
            box(x, 130, 176 if i else 270, 62, fill="w4"),
            text(x + (88 if i else 135), 157, "backbone", bold=True, anchor="middle"),
            text(x + (88 if i else 135), 177, "pictures, prompt, words", size=12, colour="soft", anchor="middle"),
        ]
        for j, (words, colour) in enumerate((("answers", "w5"), ("subtask", "w1"), ("FAST", "w3"))):
            wide = 52 if i else 82
            place = x + j * (wide + (10 if i else 12))
            marks += [
                box(place, 66, wide, 30, fill=colour),
                text(place + wide / 2, 86, words, size=12 if i else 13, anchor="middle"),
                arrow(place + wide / 2, 130, place + wide / 2, 98),
            ]
        marks.append(
            text(
                x, 52, "cross-entropy" if i else "cross-entropy on every word and action token", size=12, colour="soft"
            )
        )
    marks += [
        box(496, 130, 84, 62, fill="w2"),
        text(538, 157, "expert", bold=True, anchor="middle"),
        text(538, 177, "noise", size=12, colour="soft", anchor="middle"),
        arrow(476, 161, 494, 161),
        box(496, 66, 84, 30, fill="w2"),
        text(538, 86, "velocity", size=13, anchor="middle"),
        arrow(538, 130, 538, 98),
        text(496, 52, "10 × flow", size=12, colour="soft"),
        text(300, 220, "data: spoken instructions join, labs leave", size=12, colour="soft"),
        text(0, 220, "data: robots, web questions, subtasks", size=12, colour="soft"),
    ]
    says = (
        "Stage 1: the backbone learns text and FAST tokens. Stage 2: an action expert learns flow matching beside it."
    )
    return svg.page(marks, width=WIDTH, height=232, says=says)


def insulation() -> str:
    """Draw what goes from the backbone to the expert, and what does not come back."""
    marks = [
        box(0, 20, 210, 150, fill="w4"),
        text(105, 46, "backbone", bold=True, anchor="middle"),
        text(105, 66, "learns from words and FAST tokens", size=11, colour="soft", anchor="middle"),
        box(370, 20, 210, 150, fill="w2"),
        text(475, 46, "action expert", bold=True, anchor="middle"),
        text(475, 66, "learns from flow matching", size=11, colour="soft", anchor="middle"),
    ]
    for i in range(3):
        y = 92 + 24 * i
        marks += [box(40, y - 9, 130, 18, fill="card"), box(410, y - 9, 130, 18, fill="card")]
        marks.append(text(105, y + 4, f"layer {i + 1}", size=12, colour="soft", anchor="middle"))
        marks.append(text(475, y + 4, f"layer {i + 1}", size=12, colour="soft", anchor="middle"))
        marks.append(arrow(172, y, 408, y, colour="c1"))
    marks += [
        text(290, 82, "keys and values", size=13, colour="c1", anchor="middle"),
        arrow(368, 192, 300, 192, colour="c2", dashed=True),
        line(290, 180, 290, 204, colour="c2", width=4),
        text(376, 197, "the flow's gradient stops here", size=13, colour="c2"),
    ]
    says = "Each layer of the expert reads keys and values of the same layer of the backbone; no gradient flows back."
    return svg.page(marks, width=WIDTH, height=212, says=says)


def flow() -> str:
    """Draw how ten steps take noise to actions."""
    left, right, middle = 60, 520, 104
    marks = [line(left, 190, right, 190), text(left, 210, "t = 1: noise", size=13, colour="soft", anchor="middle")]
    marks.append(text(right, 210, "t = 0: actions", size=13, colour="soft", anchor="middle"))
    for i, (start, end) in enumerate(((-72, -34), (-20, -34), (58, -34), (-50, 36), (12, 36), (70, 36))):
        points = []
        for step in range(11):
            along = step / 10
            bend = 14 * math.sin(math.pi * along) * (1 if i % 2 else -1)
            points.append((left + along * (right - left), middle + start + (end - start) * along + bend * (1 - along)))
        colour = "c1" if end < 0 else "c4"
        marks.append(curve(points, colour=colour, width=1.6))
        marks += [dot(x, y, radius=2.4, colour=colour) for x, y in points]
    marks += [dot(right, middle + y, radius=7, colour=colour) for y, colour in ((-34, "c1"), (36, "c4"))]
    marks.append(text(left, 16, "each line: one noise; each dot: one of 10 Euler steps", size=13, colour="soft"))
    marks.append(text(right - 8, middle - 52, "around the left", size=12, colour="soft", anchor="end"))
    marks.append(text(right - 8, middle + 62, "around the right", size=12, colour="soft", anchor="end"))
    says = "Lines from random starts at t = 1 bend toward one of two good actions at t = 0 in ten steps."
    return svg.page(marks, width=WIDTH, height=222, says=says)


def clocks() -> str:
    """Draw when the high level, the low level and the controller act."""
    left, second = 130, 330
    marks = [text(0, y, words, bold=True) for words, y in (("High level", 40), ("Low level", 96), ("Robot", 148))]
    marks += [
        text(0, 57, "a subtask every 0.4 s", size=11, colour="soft"),
        text(0, 113, "a chunk every 0.2 s", size=11, colour="soft"),
        text(0, 165, "a command every 0.1 s", size=11, colour="soft"),
    ]
    for i, words in enumerate(("pick up the red cup", "pick up the red cup", "put it in the sink")):
        x = left + i * 0.4 * second
        marks += [box(x, 22, 0.4 * second - 6, 34, fill="w5" if i < 2 else "w1"), text(x + 7, 43, words, size=11)]
    for i in range(6):
        x = left + i * 0.2 * second
        marks += [box(x, 80, 0.2 * second - 6, 28, fill="w4"), text(x + 8, 98, "2 of 10", size=11, colour="soft")]
        marks += [dot(x + 12 + j * 0.1 * second, 146, radius=4, colour="c4") for j in range(2)]
    marks += [
        arrow(left, 186, left + 1.25 * second, 186),
        text(WIDTH, 206, "time", size=12, colour="soft", anchor="end"),
    ]
    for tick in range(4):
        x = left + tick * 0.4 * second
        marks += [
            line(x, 182, x, 190, colour="soft"),
            text(x, 206, f"{0.4 * tick:.1f} s", size=12, colour="soft", anchor="middle"),
        ]
    says = (
        "The high level chooses a subtask every 0.4 s, the low level a chunk every 0.2 s, the robot moves every 0.1 s."
    )
    return svg.page(marks, width=WIDTH, height=214, says=says)


def rtc() -> str:
    """Draw how a new chunk is joined to the old one."""
    left, tick = 96, 40
    marks = [text(0, 58, "old chunk", bold=True), text(0, 118, "new chunk", bold=True)]
    for i in range(9):
        marks += [box(left + i * tick, 38, tick - 4, 30, fill="w4" if i < 3 else "wash")]
    for i in range(12):
        fill = "w4" if i < 3 else "w3" if i < 9 else "w1"
        marks += [box(left + i * tick, 98, tick - 4, 30, fill=fill)]
    marks += [
        text(left, 24, "observation", size=12, colour="soft"),
        line(left + 3 * tick - 2, 14, left + 3 * tick - 2, 138, colour="c2", width=2, dashed=True),
        text(left + 3 * tick + 6, 24, "the answer arrives, d ticks later", size=12, colour="c2"),
        text(left + 1.5 * tick - 2, 150, "held", size=12, colour="soft", anchor="middle"),
        text(
            left + 6 * tick - 2,
            150,
            "pulled toward the old chunk, less and less",
            size=12,
            colour="soft",
            anchor="middle",
        ),
        text(left + 10.5 * tick - 2, 150, "free", size=12, colour="soft", anchor="middle"),
    ]
    weights = [1.0] * 3 + [math.expm1(w) * w / (math.e - 1) for w in ((9 - i) / 7 for i in range(3, 9))] + [0.0] * 3
    marks += [text(0, 200, "weight", bold=True), line(left, 212, left + 12 * tick - 4, 212)]
    marks += [
        box(left + i * tick + 8, 212 - 44 * w, tick - 20, 44 * w, fill="c3", edge="none", round=2)
        for i, w in enumerate(weights)
    ]
    says = "Actions that run meanwhile stay; later ones are pulled to the old chunk with falling weight."
    return svg.page(marks, width=WIDTH, height=220, says=says)


def draw_all() -> dict[str, str]:
    """Return every drawing by the name of its file."""
    drawings = (attention, stages, insulation, flow, clocks, rtc)
    return {f"drawing-{draw.__name__}.svg": draw() for draw in drawings}


if __name__ == "__main__":
    for name, picture in draw_all().items():
        (svg.IMAGES / name).write_text(picture, encoding="utf-8")
        print(svg.IMAGES / name)
