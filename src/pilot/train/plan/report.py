"""Print a plan for people: aligned text, and the answer in words."""

import re
from collections.abc import Sequence

from pilot.train.metrics import duration
from pilot.train.plan.estimate import Choice, RunPlan
from pilot.train.plan.gpus import GIB
from pilot.train.plan.memory import KINDS
from pilot.train.plan.time import BANDWIDTH, PRODUCTS

TEMPLATE = """\
{plan.config.name} on {plan.gpus} × {plan.gpu_name}, {plan.config.batch_size} rows per step
  a row: pictures {sides} px, {plan.work.text:g} text tokens, {plan.work.spoken:g} of them with a loss{blocks}
  to learn from it: {flops} ({parts})

{parameters}

{memory}

{verdict}

{speed}

Assumed: matrix products at {products:.0%} of the peak (dense bf16), memory and links at {bandwidth:.0%} of theirs,
{tb:g} TB/s and {gb:g} GB/s; data always there in time; prices of 2025, --price gives yours."""


def to_text(plan: RunPlan) -> str:
    """Return the whole plan as text."""
    pictures, draws, flops = plan.work.pictures, plan.work.draws, plan.requested.counts.flops
    total = sum(flops.values())
    parameters = plan.parameters() | {"total": tuple(map(sum, zip(*plan.parameters().values(), strict=True)))}
    return TEMPLATE.format(
        plan=plan,
        sides=" and ".join(f"{pictures.count(side)} of {side}" for side in dict.fromkeys(pictures)),
        blocks=f", {draws:g} flow block{'s' * (draws > 1)}" if draws else "",
        flops=f"{total / 1e12:.3g} TFLOP" if total >= 1e11 else f"{total / 1e9:.3g} GFLOP",
        parts=", ".join(f"{part} {count / total:.0%}" for part, count in flops.items()),
        parameters=table([["Parameters", "all", "learn"], *([n, *map(millions, c)] for n, c in parameters.items())]),
        memory=table(memory_rows(plan)),
        verdict="\n".join(verdict(plan)),
        speed=table(speed_rows(plan)),
        products=PRODUCTS["bf16"],
        bandwidth=BANDWIDTH,
        tb=plan.gpu.bandwidth / 1e12,
        gb=plan.gpu.link / 1e9,
    )


def memory_rows(plan: RunPlan) -> list[list[str]]:
    """Return the kinds of memory side by side: as asked, and as it fits."""
    columns = {"as asked": plan.requested}
    if plan.best is not None and not plan.requested.fits:
        columns["smallest change"] = plan.best
    choices, rows = columns.values(), [["Memory of a GPU, GiB", *columns, ""]]
    for kind, note in (KINDS | {"peak": f"of {gib(plan.gpu.memory)}"}).items():
        sizes = [choice.memory[kind] for choice in choices]
        rows += [[kind, *map(gib, sizes), note]] if any(sizes) else []
    for name in ("parallel", "rows", "accumulate", "checkpointing"):
        rows.append([name, *(str(getattr(choice.layout, name)) for choice in choices), ""])
    return [*rows, ["lora", *("yes" if choice.lora else "no" for choice in choices), ""]]


def verdict(plan: RunPlan) -> list[str]:
    """Return in words whether it fits, what makes it fit, and what makes it faster."""
    requested, spare = plan.requested, plan.gpu.memory - plan.requested.memory["peak"]
    how = f": {set_options(requested)}" if requested.changed else "."
    fits, lacks = f"It fits, with {gib(spare)} GiB to spare{how}", f"It does not fit: {gib(-spare)} GiB too much."
    lines = [fits if requested.fits else lacks]
    if plan.best is None:
        least = f"{gib(plan.least.memory['peak'])} GiB, {set_options(plan.least)}"
        lines.append(f"Nothing that was tried fits; the least is {least}.")
        return [*lines, "More GPUs with parallel.strategy=fsdp, or GPUs with more memory, are needed."]
    if not requested.fits:
        lines.append(f"The smallest change that fits: {set_options(plan.best)}")
    if plan.fastest is not None and plan.fastest.time["total"] < 0.98 * plan.chosen.time["total"]:
        faster = plan.chosen.time["total"] / plan.fastest.time["total"]
        lines.append(f"The fastest that fits, {faster:.2f} × as fast: {set_options(plan.fastest)}")
    return lines


def speed_rows(plan: RunPlan) -> list[list[str]]:
    """Return the forecast of a step, and of all samples."""
    speed, time = plan.speed(plan.chosen), plan.chosen.time
    names = {"traffic": "memory traffic", "waiting": "launching"}
    spent = ", ".join(f"{names.get(n, n)} {s / time['total']:.0%}" for n, s in time.items() if s and n != "total")
    rates = [f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
             for rate in (speed["samples_per_s"], speed["samples_per_s"] / plan.gpus)]  # fmt: skip
    price = f"${speed['dollars']:,.0f} at ${plan.price:.2f} per GPU and hour"
    return [
        ["Forecast", "" if plan.chosen.fits else "if it did fit"],
        ["step", f"{1000 * speed['step_s']:,.0f} ms: {spent}"],
        ["samples", f"{rates[0]} per second, {rates[1]} of each GPU"],
        ["MFU", f"{speed['mfu']:.1%} of {plan.gpu.peak_flops / 1e12:g} TFLOP/s"],
        [f"{plan.samples:,} samples", f"{duration(3600 * speed['hours'])}, {price}"],
    ]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Align rows in columns: words to the left, numbers to the right; rows under the first are indented."""
    rows = [rows[0], *(["  " + row[0], *row[1:]] for row in rows[1:])]
    columns = []
    for i, column in enumerate(zip(*rows, strict=True)):
        width = max(map(len, column))
        number = i > 0 and re.fullmatch(r"[\d.,]+( M)?|", column[1])
        columns.append([cell.rjust(width) if number else cell.ljust(width) for cell in column])
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))


def set_options(choice: Choice) -> str:
    """Return the changes of a choice as they are typed."""
    return " ".join(f"--set {setting}" for setting in choice.settings) or "as it is"


def millions(count: int) -> str:
    """Format a number of parameters."""
    return f"{count / 1e6:,.1f} M" if count >= 1e5 else f"{count / 1e6:.3f} M"


def gib(count: float) -> str:
    """Format bytes in GiB."""
    return f"{count / GIB:.1f}" if count >= 0.1 * GIB else f"{count / GIB:.3f}"
