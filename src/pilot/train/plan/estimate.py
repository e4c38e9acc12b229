"""What a run needs before it is started: memory on each GPU, whether it fits, how long it takes, what it costs.

Nothing is run: parameters are counted on a model without weights, the rest follows from the config (`flops.py`,
`memory.py`, `time.py`). Where a run does not fit, the smallest change that makes it fit is searched for, in this order:
settings that change how it is computed before LoRA, which changes what is learned; one setting before two, two before
three; and of equally many the one whose step is shortest.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import product
from typing import Any

from pilot.models.bundle import empty_model
from pilot.models.pi import PiConfig
from pilot.models.registry import require_pi
from pilot.nn.configs import LoraConfig
from pilot.train.config import TrainConfig
from pilot.train.freezing import choose_learning
from pilot.train.plan.flops import Workload, full_row
from pilot.train.plan.gpus import GPUS, GPUS_PER_NODE, parse_gpus
from pilot.train.plan.memory import Counts, Layout, memory
from pilot.train.plan.time import step_time

Choice = dict[str, Any]
"""One way to run it: the settings that it changes, and the bytes, seconds and dollars that it takes."""

LARGE_PARTS = ("vision", "embedding", "text_encoder", "vlm", "action_expert")


def plan_run(
    config: TrainConfig, *, gpus: str, samples: int | None = None, price: float | None = None,
    text: int | None = None, spoken: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return what a run takes on GPUs such as `8xH100`, as `pilot plan --json` prints it.

    "asked" is the config's own way, "best" the smallest change that fits, "fastest" the shortest step without another
    LoRA, "least" the way that takes least memory. `samples` defaults to all that the run learns from, `price` (of a
    GPU, per hour) to the table's, `text` and `spoken` tokens of a row to those of `flops.full_row`.

    Raises:
        ValueError: unknown GPUs, a batch that they cannot share, or a model that is not of the π0 family.
    """
    if not isinstance(config.model, PiConfig):
        raise ValueError(f"plans are made for models of the π0 family; '{config.name}' trains another")
    if config.batch_size < 1 or config.steps < 1:
        raise ValueError(f"a run has 1 step of 1 row or more, got {config.steps} of {config.batch_size}")
    work, (count, name) = full_row(config, text=text, spoken=spoken), parse_gpus(gpus)
    gpu, counts, choices = GPUS[name], counts_of(config, work), []
    samples = config.steps * config.batch_size if samples is None else samples
    price = gpu.price if price is None else price
    for layout, lora, settings in ways_of(config, gpus=count, loras=list(counts)):
        flops, taken, seconds = counts[lora].flops, memory(counts[lora], layout), step_time(counts[lora], layout, gpu)
        rate = config.batch_size / seconds["total"]
        hours = samples / rate / 3600
        choice = {
            "fits": taken["peak"] <= gpu.memory,
            "settings": settings,
            "layout": vars(layout) | {"lora": lora},
            "flops_per_sample": flops,
            "bytes": taken,
            "seconds": seconds,
            "step_s": seconds["total"],
            "samples_per_s": rate,
            "mfu": rate * sum(flops.values()) / (count * gpu.peak_flops),
            "hours": hours,
            "dollars": hours * count * price,
        }
        choices.append(choice)
    parameters, learning = count_parameters(counts[config.lora is not None])
    return {
        "run": config.name,
        "gpus": count,
        "gpu": {"name": name, **gpu._asdict()},
        "row": asdict(work),
        "parameters": parameters,
        "learning": learning,
        "batch_size": config.batch_size,
        "samples": samples,
        "price_per_hour": price,
    } | pick(choices)


def pick(choices: list[Choice]) -> dict[str, Choice | None]:
    """Return the choices that a plan shows, of which the first is the config's own."""
    asked = choices[0]
    fitting = [choice for choice in choices if choice["fits"]]
    alike = [choice for choice in fitting if choice["layout"]["lora"] == asked["layout"]["lora"]]
    # Of steps that only a rounding error tells apart, the one with fewer changes.
    fastest = min(alike, key=lambda c: (float(f"{c['step_s']:.6g}"), len(c["settings"])), default=None)
    best = min(fitting, key=lambda c: (c not in alike, len(c["settings"]), c["step_s"]), default=None)
    least = min(choices, key=lambda c: c["bytes"]["peak"])
    return {"asked": asked, "best": asked if asked["fits"] else best, "fastest": fastest, "least": least}


def ways_of(config: TrainConfig, *, gpus: int, loras: list[bool]) -> Iterator[tuple[Layout, bool, list[str]]]:
    """Yield the config's own way, then every combination of parallelism, passes, checkpointing and LoRA.

    With each come the settings that it changes, as `--set` takes them.
    """
    parallel, rows = config.parallel, config.batch_size // gpus
    strategies = ["none"] if gpus == 1 else ["ddp", "fsdp", *["hsdp"] * (gpus > GPUS_PER_NODE)]
    passes = [times for times in range(parallel.accumulate, rows + 1) if rows % times == 0]
    ways = product(strategies, passes, ("none", "selective", "blocks"), loras)
    # One GPU shares with none, whatever the config says.
    strategy = parallel.strategy if gpus > 1 else "none"
    own = strategy, parallel.accumulate, config.compute.checkpointing, config.lora is not None
    for strategy, accumulate, checkpointing, lora in [own, *ways]:
        shared = replace(parallel, strategy=strategy, accumulate=accumulate)
        compute = replace(config.compute, checkpointing=checkpointing)
        layout = Layout(replace(config, parallel=shared, compute=compute), gpus=gpus)
        names = "parallel.strategy", "parallel.accumulate", "compute.checkpointing", "lora"
        tried = zip(names, own, (layout.parallel, accumulate, checkpointing, lora), strict=True)
        yield layout, lora, [f"{name}={str(new).lower()}" for name, old, new in tried if new != old]


def counts_of(config: TrainConfig, work: Workload) -> dict[bool, Counts]:
    """Return the numbers of the run's model without LoRA (False) and with it (True).

    A run that has LoRA keeps it, and one whose layers cannot be adapted has none.
    """

    def count(lora: LoraConfig | None) -> Counts:
        model = empty_model(require_pi(config.model))
        choose_learning(model, freeze=config.freeze, lora=lora)
        return Counts(model, config, work)

    counts = {config.lora is not None: count(config.lora)}
    if config.lora is None:
        with suppress(ValueError):  # nothing that learns has layers to adapt
            counts[True] = count(LoraConfig())
    return counts


def count_parameters(counts: Counts) -> tuple[Counter[str], Counter[str]]:
    """Count parameters by part of the model, all and those that learn; small parts together are "other"."""
    every, learning = Counter(), Counter()
    for name, weight in counts.model.named_parameters():
        part = name.partition(".")[0]
        shown = part if part in LARGE_PARTS else "other"
        every[shown] += weight.numel()
        learning[shown] += weight.numel() * weight.requires_grad
    return every, learning
