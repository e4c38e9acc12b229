"""Print a plan for people: aligned text, and the answer in words."""

import re
from collections.abc import Sequence

from pilot.train.metrics import duration
from pilot.train.plan import time
from pilot.train.plan.estimate import Choice, RunPlan
from pilot.train.plan.gpus import GIB

KINDS = {
    "weights": "fp32",
    "gradients": "they come as activations go, unless passes are accumulated",
    "optimizer": "first and second moments",
    "average": "moving average of what learns",
    "copies": "of weights, cast or gathered for computing",
    "activations": "saved for the backward pass",
    "logits": "of the text tokens with a loss, and their gradient",
    "recomputed": "the largest block, computed again when the logits are gone",
    "prefill": "a backbone that does not learn; before all of the last three",
    "workspace": "driver, libraries, fragments",
}


def to_text(plan: RunPlan) -> str:
    """Return the whole plan as text."""
    sections = [heading(plan), parameters(plan), memory(plan), verdict(plan), speed(plan), assumptions(plan)]
    return "\n\n".join("\n".join(lines) for lines in sections)


def heading(plan: RunPlan) -> list[str]:
    work, flops = plan.work, plan.requested.flops
    total = sum(flops.values())
    sides = " and ".join(f"{work.pictures.count(side)} of {side}" for side in dict.fromkeys(work.pictures))
    blocks = f", {work.draws:g} flow block{'s' * (work.draws > 1)}" if work.draws else ""
    parts = ", ".join(f"{part} {count / total:.0%}" for part, count in flops.items())
    return [
        f"{plan.config.name} on {plan.gpus} × {plan.gpu_name}, {plan.config.batch_size} rows per step",
        f"  a row: pictures {sides} px, {work.text:g} text tokens, {work.spoken:g} of them with a loss{blocks}",
        f"  to learn from it: {operations(total)} ({parts})",
    ]


def parameters(plan: RunPlan) -> list[str]:
    rows = [(name, count, plan.learning[name]) for name, count in plan.parameters.items()]
    rows.append(("total", sum(plan.parameters.values()), sum(plan.learning.values())))
    return table([["Parameters", "all", "learn"], *([name, millions(a), millions(b)] for name, a, b in rows)])


def memory(plan: RunPlan) -> list[str]:
    """Return the kinds of memory side by side: as asked, and as it fits."""
    columns = {"as asked": plan.requested}
    if plan.best is not None and not plan.requested.fits:
        columns["smallest change"] = plan.best
    choices = list(columns.values())
    bytes_of = {kind: [getattr(choice.memory, kind) for choice in choices] for kind in [*KINDS, "peak"]}
    notes = KINDS | {"peak": f"of {gib(plan.gpu.memory)}"}
    rows = [["Memory of a GPU, GiB", *columns, ""]]
    rows += [[kind, *map(gib, sizes), notes[kind]] for kind, sizes in bytes_of.items() if any(sizes)]
    for name in ("parallel", "rows", "accumulate", "checkpointing"):
        rows.append([name, *(str(getattr(choice.layout, name)) for choice in choices), ""])
    return table([*rows, ["lora", *("yes" if choice.lora else "no" for choice in choices), ""]])


def verdict(plan: RunPlan) -> list[str]:
    requested, room = plan.requested, plan.gpu.memory
    if requested.fits:
        how = f": {set_options(requested)}" if requested.changed else "."
        lines = [f"It fits, with {gib(room - requested.memory.peak)} GiB to spare{how}"]
    else:
        lines = [f"It does not fit: {gib(requested.memory.peak - room)} GiB too much."]
    if plan.best is None:
        least = plan.least
        lines.append(f"Nothing that was tried fits; the least is {gib(least.memory.peak)} GiB, {set_options(least)}.")
        return [*lines, "More GPUs with parallel.strategy=fsdp, or GPUs with more memory, are needed."]
    if not requested.fits:
        lines.append(f"The smallest change that fits: {set_options(plan.best)}")
    if plan.fastest is not None and plan.fastest.time.total < 0.98 * plan.chosen.time.total:
        faster = plan.chosen.time.total / plan.fastest.time.total
        lines.append(f"The fastest that fits, {faster:.2f} × as fast: {set_options(plan.fastest)}")
    return lines


def speed(plan: RunPlan) -> list[str]:
    choice, rates, time = plan.chosen, plan.speed(plan.chosen), plan.chosen.time
    spent = {"products": time.products, "memory traffic": time.traffic, "launching": time.waiting,
             "optimizer": time.optimizer, "sending": time.sending}  # fmt: skip
    shares = ", ".join(f"{name} {seconds / time.total:.0%}" for name, seconds in spent.items() if seconds)
    rate, hours = rates["samples_per_s"], rates["hours"]
    price = f"${rates['dollars']:,.0f} at ${plan.price:.2f} per GPU and hour"
    return table([
        ["Forecast", "" if choice.fits else "if it did fit"],
        ["step", f"{1000 * rates['step_s']:,.0f} ms: {shares}"],
        ["samples", f"{whole(rate)} per second, {whole(rate / plan.gpus)} of each GPU"],
        ["MFU", f"{rates['mfu']:.1%} of {plan.gpu.peak_flops / 1e12:g} TFLOP/s"],
        [f"{plan.samples:,} samples", f"{duration(3600 * hours)}, {price}"],
    ])  # fmt: skip


def assumptions(plan: RunPlan) -> list[str]:
    return [
        f"Assumed: matrix products at {time.PRODUCTS:.0%} of the peak (dense bf16), memory and links at "
        f"{time.BANDWIDTH:.0%} of theirs,",
        f"{plan.gpu.bandwidth / 1e12:g} TB/s and {plan.gpu.link / 1e9:g} GB/s; data always there in time; prices of "
        "2025, --price gives yours.",
    ]


def whole(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def set_options(choice: Choice) -> str:
    return " ".join(f"--set {setting}" for setting in choice.settings) or "as it is"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align rows in columns: words to the left, numbers to the right; rows under the first are indented."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    widths[0] = max(len(rows[0][0]) - 2, *(len(row[0]) for row in rows[1:]))
    numbers = [all(re.fullmatch(r"[\d.,]+( M)?|", row[i]) for row in rows[1:2]) for i in range(len(widths))]
    lines = []
    for r, row in enumerate(rows):
        first = row[0].ljust(widths[0] + 2) if r == 0 else "  " + row[0].ljust(widths[0])
        cells = [cell.rjust(w) if n else cell.ljust(w) for cell, w, n in zip(row[1:], widths[1:], numbers[1:])]
        lines.append("  ".join([first, *cells]).rstrip())
    return lines


def millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M" if count >= 1e5 else f"{count / 1e6:.3f} M"


def operations(count: float) -> str:
    return f"{count / 1e12:.3g} TFLOP" if count >= 1e11 else f"{count / 1e9:.3g} GFLOP"


def gib(count: float) -> str:
    return f"{count / GIB:.1f}" if count >= 0.1 * GIB else f"{count / GIB:.3f}"
