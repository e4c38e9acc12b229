"""Print a plan for people: aligned text, and the answer in words."""

from typing import Any

from pilot.train.metrics import duration
from pilot.train.plan.estimate import Choice
from pilot.train.plan.gpus import GIB
from pilot.train.plan.memory import KINDS
from pilot.train.plan.time import BANDWIDTH, PRODUCTS


def to_text(plan: dict[str, Any]) -> str:
    """Return the whole plan as text."""
    bandwidth, link = plan["gpu"]["bandwidth"] / 1e12, plan["gpu"]["link"] / 1e9
    assumed = [
        f"Assumed: matrix products at {PRODUCTS['bf16']:.0%} of the peak (dense bf16), memory and links at "
        f"{BANDWIDTH:.0%} of theirs,",
        f"{bandwidth:g} TB/s and {link:g} GB/s; data always there in time; prices of 2025, --price gives yours.",
    ]
    paragraphs = [work(plan), parameters(plan), memory_table(plan), verdict(plan), forecast(plan), assumed]
    return "\n\n".join("\n".join(lines) for lines in paragraphs)


def work(plan: dict[str, Any]) -> list[str]:
    """Return what a step learns from, and how many operations that takes."""
    row, flops = plan["row"], plan["asked"]["flops_per_sample"]
    total, sides = sum(flops.values()), row["pictures"]
    pictures = " and ".join(f"{sides.count(side)} of {side}" for side in dict.fromkeys(sides))
    blocks = f", {row['draws']:g} flow block{'s' * (row['draws'] > 1)}" if row["draws"] else ""
    operations = f"{total / 1e12:.3g} TFLOP" if total >= 1e11 else f"{total / 1e9:.3g} GFLOP"
    parts = ", ".join(f"{part} {count / total:.0%}" for part, count in flops.items())
    return [
        f"{plan['run']} on {plan['gpus']} × {plan['gpu']['name']}, {plan['batch_size']} rows per step",
        f"  a row: pictures {pictures} px, {row['text']:g} text tokens, {row['spoken']:g} of them with a loss{blocks}",
        f"  to learn from it: {operations} ({parts})",
    ]


def parameters(plan: dict[str, Any]) -> list[str]:
    """Return the number of parameters of each part, all and those that learn."""
    every, learning = ({**plan[kind], "total": sum(plan[kind].values())} for kind in ("parameters", "learning"))
    counts = {name: [every[name] / 1e6, learning[name] / 1e6] for name in every}
    lines = [f"  {name:15}" + "".join(f"{n:10,.{1 if n >= 0.1 else 3}f} M" for n in counts[name]) for name in counts]
    return [f"{'Parameters':17}{'all':>12}{'learn':>12}", *lines]


def memory_table(plan: dict[str, Any]) -> list[str]:
    """Return the kinds of memory side by side: as asked, and as it fits."""
    columns = {"as asked": plan["asked"]}
    if plan["best"] is not None and not plan["asked"]["fits"]:
        columns["smallest change"] = plan["best"]
    choices, rows = columns.values(), [("Memory of a GPU, GiB", list(columns), "")]
    for kind, note in (KINDS | {"peak": f"of {gib(plan['gpu']['memory'])}"}).items():
        if any(choice["bytes"][kind] for choice in choices):
            rows.append((f"  {kind}", [gib(choice["bytes"][kind]) for choice in choices], note))
    for name in ("parallel", "rows", "accumulate", "checkpointing", "lora"):
        rows.append((f"  {name}", [str(choice["layout"][name]).lower() for choice in choices], ""))
    return [f"{name:20}{''.join(f'{cell:>17}' for cell in cells)}  {note}".rstrip() for name, cells, note in rows]


def verdict(plan: dict[str, Any]) -> list[str]:
    """Return in words whether it fits, what makes it fit, and what makes it faster."""
    asked, best, fastest, least = plan["asked"], plan["best"], plan["fastest"], plan["least"]
    spare = plan["gpu"]["memory"] - asked["bytes"]["peak"]
    if asked["fits"]:
        how = f": {set_options(asked)}" if asked["settings"] else "."
        lines = [f"It fits, with {gib(spare)} GiB to spare{how}"]
    else:
        lines = [f"It does not fit: {gib(-spare)} GiB too much."]
        if best is None:
            at_least = f"the least is {gib(least['bytes']['peak'])} GiB, {set_options(least)}"
            needed = "More GPUs with parallel.strategy=fsdp, or GPUs with more memory, are needed."
            return [*lines, f"Nothing that was tried fits; {at_least}.", needed]
        lines.append(f"The smallest change that fits: {set_options(best)}")
    if fastest is not None and fastest["step_s"] < 0.98 * best["step_s"]:
        faster = best["step_s"] / fastest["step_s"]
        lines.append(f"The fastest that fits, {faster:.2f} × as fast: {set_options(fastest)}")
    return lines


def forecast(plan: dict[str, Any]) -> list[str]:
    """Return how long a step and all samples take, and what they cost, in the way that fits."""
    choice, names = plan["best"] or plan["asked"], {"traffic": "memory traffic", "waiting": "launching"}
    step, rate = choice["step_s"], choice["samples_per_s"]
    shares = {names.get(name, name): s / step for name, s in choice["seconds"].items() if s and name != "total"}
    rates = [f"{each:,.0f}" if each >= 100 else f"{each:.3g}" for each in (rate, rate / plan["gpus"])]
    price = f"${choice['dollars']:,.0f} at ${plan['price_per_hour']:.2f} per GPU and hour"
    rows = {
        "step": f"{1000 * step:,.0f} ms: " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items()),
        "samples": f"{rates[0]} per second, {rates[1]} of each GPU",
        "MFU": f"{choice['mfu']:.1%} of {plan['gpu']['peak_flops'] / 1e12:g} TFLOP/s",
        f"{plan['samples']:,} samples": f"{duration(3600 * choice['hours'])}, {price}",
    }
    head = "Forecast" if choice["fits"] else "Forecast, if it did fit"
    return [head, *(f"  {name:20}{text}" for name, text in rows.items())]


def set_options(choice: Choice) -> str:
    """Return the changes of a choice as they are typed."""
    return " ".join(f"--set {setting}" for setting in choice["settings"]) or "as it is"


def gib(count: float) -> str:
    """Format bytes in GiB."""
    return f"{count / GIB:.1f}" if count >= 0.1 * GIB else f"{count / GIB:.3f}"
