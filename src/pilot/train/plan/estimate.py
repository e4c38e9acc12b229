"""What a run needs before it is started: memory on each GPU, whether it fits, how long it takes, what it costs.

Nothing is run: parameters are counted on a model without weights, the rest follows from the config (`flops.py`,
`memory.py`, `time.py`). Where a run does not fit, the smallest change that makes it fit is searched for, in
this order: settings that change how it is computed before LoRA, which changes what is learned; one setting before two,
two before three; and of equally many the one whose step is shortest.
"""

from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

from pilot.models.bundle import empty_model
from pilot.models.pi import Pi, PiConfig
from pilot.models.registry import require_pi
from pilot.nn.configs import LoraConfig
from pilot.train.config import TrainConfig
from pilot.train.freezing import choose_learning
from pilot.train.plan.flops import full_row
from pilot.train.plan.gpus import GPUS, GPUS_PER_NODE, Gpu, parse_gpus
from pilot.train.plan.memory import Counts, Layout, memory
from pilot.train.plan.time import step_time


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way to run it: a layout, with or without LoRA, and what follows from them."""

    config: TrainConfig
    counts: Counts
    layout: Layout
    lora: bool
    gpu: Gpu

    @cached_property
    def memory(self) -> dict[str, float]:
        """Bytes on each GPU by kind."""
        return memory(self.counts, self.layout)

    @cached_property
    def time(self) -> dict[str, float]:
        """Seconds of a step by what takes them."""
        return step_time(self.counts, self.layout, self.gpu)

    @property
    def fits(self) -> bool:
        """Whether the GPUs have the memory."""
        return self.memory["peak"] <= self.gpu.memory

    @property
    def changed(self) -> dict[str, str]:
        """The settings that are not the config's; one GPU shares with none, whatever the config says."""
        config, layout = self.config, self.layout
        own_and_tried = {
            "parallel.strategy": ("none" if layout.gpus == 1 else config.parallel.strategy, layout.parallel),
            "parallel.accumulate": (config.parallel.accumulate, layout.accumulate),
            "compute.checkpointing": (config.compute.checkpointing, layout.checkpointing),
            "lora": (config.lora is not None, self.lora),
        }
        return {name: str(tried).lower() for name, (own, tried) in own_and_tried.items() if tried != own}

    @property
    def settings(self) -> list[str]:
        """The changes as `--set` takes them."""
        return [f"{name}={value}" for name, value in self.changed.items()]

    def smallest_change(self) -> tuple[bool, int, float]:
        """Return the order of the search: without LoRA first, then fewer changes, then the shorter step."""
        return "lora" in self.changed, len(self.changed), self.time["total"]

    def shortest_step(self) -> tuple[float, int]:
        """Return the order of speed; of those that a rounding error tells apart, the one with fewer changes first."""
        return float(f"{self.time['total']:.6g}"), len(self.changed)


class RunPlan:
    """Everything that `pilot plan` says about a run on GPUs such as `8xH100`.

    `samples` defaults to all that the run learns from, `price` (of a GPU, per hour) to the table's, `text` and `spoken`
    tokens of a row to those of `flops.full_row`.

    Raises:
        ValueError: unknown GPUs, a batch that they cannot share, or a model that is not of the π0 family.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        gpus: str,
        samples: int | None = None,
        price: float | None = None,
        text: int | None = None,
        spoken: int | None = None,
    ) -> None:
        if not isinstance(config.model, PiConfig):
            raise ValueError(f"plans are made for models of the π0 family; '{config.name}' trains another")
        if config.batch_size < 1 or config.steps < 1:
            raise ValueError(f"a run has 1 step of 1 row or more, got {config.steps} of {config.batch_size}")
        self.config, self.work = config, full_row(config, text=text, spoken=spoken)
        self.gpus, self.gpu_name = parse_gpus(gpus)
        self.gpu = GPUS[self.gpu_name]
        self.samples = config.steps * config.batch_size if samples is None else samples
        self.price = self.gpu.price if price is None else price
        counts = {lora: Counts(model, config, self.work) for lora, model in models_of(config).items()}
        first, *others = layouts_of(config, gpus=self.gpus)
        choices = [
            Choice(config=config, counts=counts[lora], layout=layout, lora=lora, gpu=self.gpu)
            for layout, lora in [(first, config.lora is not None), *product(others, counts)]
        ]
        fitting = [choice for choice in choices if choice.fits]
        without_lora = [choice for choice in fitting if "lora" not in choice.changed]
        self.requested = choices[0]
        self.best = self.requested if self.requested.fits else min(fitting, key=Choice.smallest_change, default=None)
        self.fastest = min(without_lora, key=Choice.shortest_step, default=None)
        self.least = min(choices, key=lambda choice: choice.memory["peak"])

    @property
    def chosen(self) -> Choice:
        """The choice that time and price are of: the config's own if it fits, else the smallest change."""
        return self.best or self.requested

    def speed(self, choice: Choice) -> dict[str, float]:
        """Return samples per second, the model's share of the GPUs' peak, and what `samples` samples take and cost."""
        rate = self.config.batch_size / choice.time["total"]
        hours = self.samples / rate / 3600
        return {
            "step_s": choice.time["total"],
            "samples_per_s": rate,
            "mfu": rate * sum(choice.counts.flops.values()) / (self.gpus * self.gpu.peak_flops),
            "hours": hours,
            "dollars": hours * self.gpus * self.price,
        }

    def parameters(self) -> dict[str, tuple[int, int]]:
        """Count parameters by part of the model, all and those that learn; small parts together are "other"."""
        counts: dict[str, tuple[int, int]] = {}
        for name, part in self.requested.counts.model.named_children():
            shown = name if name in ("vision", "embedding", "text_encoder", "vlm", "action_expert") else "other"
            every, learning = counts.get(shown, (0, 0))
            sizes = [(p.numel(), p.numel() * p.requires_grad) for p in part.parameters()]
            counts[shown] = every + sum(size for size, _ in sizes), learning + sum(size for _, size in sizes)
        return counts

    def to_json(self) -> dict[str, Any]:
        """Return the plan in bytes, seconds and dollars."""
        choices = {"asked": self.requested, "best": self.best, "fastest": self.fastest, "least": self.least}
        return {
            "run": self.config.name,
            "gpus": self.gpus,
            "gpu": {"name": self.gpu_name, **self.gpu._asdict()},
            "row": asdict(self.work),
            "parameters": {name: every for name, (every, _) in self.parameters().items()},
            "learning": {name: learning for name, (_, learning) in self.parameters().items()},
            "batch_size": self.config.batch_size,
            "samples": self.samples,
            "price_per_hour": self.price,
        } | {name: self._choice_json(choice) if choice else None for name, choice in choices.items()}

    def _choice_json(self, choice: Choice) -> dict[str, Any]:
        return {
            "fits": choice.fits,
            "settings": choice.settings,
            "layout": vars(choice.layout) | {"lora": choice.lora},
            "flops_per_sample": choice.counts.flops,
            "bytes": choice.memory,
            "seconds": choice.time,
        } | self.speed(choice)


def layouts_of(config: TrainConfig, *, gpus: int) -> Iterator[Layout]:
    """Yield the config's own layout, then every combination of parallelism, checkpointing and passes for its batch."""
    yield Layout(config, gpus=gpus)
    rows, least = config.batch_size // gpus, config.parallel.accumulate
    strategies = ["none"] if gpus == 1 else ["ddp", "fsdp", *["hsdp"] * (gpus > GPUS_PER_NODE)]
    passes = [times for times in range(least, rows + 1) if rows % times == 0]
    for strategy, keeps, times in product(strategies, ("none", "selective", "blocks"), passes):
        parallel = replace(config.parallel, strategy=strategy, accumulate=times)
        compute = replace(config.compute, checkpointing=keeps)
        yield Layout(replace(config, parallel=parallel, compute=compute), gpus=gpus)


def models_of(config: TrainConfig) -> dict[bool, Pi]:
    """Return the run's model on the meta device, without LoRA (False) and with it (True).

    A run that has LoRA keeps it, and one whose layers cannot be adapted has none.
    """
    models = {}
    for lora in (None, LoraConfig()) if config.lora is None else (config.lora,):
        with suppress(ValueError) if models else nullcontext():  # nothing that learns has layers to adapt
            model = empty_model(require_pi(config.model))
            models[lora is not None] = choose_learning(model, freeze=config.freeze, lora=lora)
    return models
