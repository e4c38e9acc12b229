"""What a run needs before it is started: memory on each GPU, whether it fits, how long it takes, what it costs.

Nothing is run: parameters are counted on a model without weights, the rest follows from the config (`flops.py`,
`memory.py`, `time.py`). Where a run does not fit, the smallest change that makes it fit is searched for, in
this order: settings that change how it is computed before LoRA, which changes what is learned; one setting before two,
two before three; and of equally many the one whose step is shortest.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any, cast, get_args

from pilot.models.bundle import empty_model
from pilot.models.pi import Pi, PiConfig
from pilot.models.registry import require_pi
from pilot.nn.lora import LoraConfig
from pilot.train.config import TrainConfig
from pilot.train.freezing import choose_learning
from pilot.train.plan.flops import FlopFactors, Workload, flop_factors, full_row, per_row
from pilot.train.plan.gpus import GPUS, GPUS_PER_NODE, Gpu, parse_gpus
from pilot.train.plan.memory import Checkpointing, Counts, Layout, Memory, Parallel, memory
from pilot.train.plan.time import StepTime, step_time

SETTINGS = {
    "parallel": "parallel.strategy",
    "accumulate": "parallel.accumulate",
    "checkpointing": "compute.checkpointing",
    "lora": "lora",
}
"""What the search may change: fields of a layout, and the settings of a run that they are."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way to run it: a layout, its memory on each GPU and its time. `flops` are those of a row, by part.

    `changed` names the settings that are not the config's.
    """

    layout: Layout
    lora: bool
    flops: dict[str, float]
    memory: Memory
    time: StepTime
    fits: bool
    changed: tuple[str, ...]

    def settings(self) -> list[str]:
        """Return the changes as `--set` takes them."""
        values = {name: "true" if name == "lora" else getattr(self.layout, name) for name in self.changed}
        return [f"{SETTINGS[name]}={value}" for name, value in values.items()]


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """Everything that `pilot plan` says. `requested` is the config as it is, `best` the smallest change that fits."""

    name: str
    gpu_name: str
    gpu: Gpu
    gpus: int
    work: Workload
    parameters: dict[str, int]
    learning: dict[str, int]
    requested: Choice
    best: Choice | None
    fastest: Choice | None
    least: Choice
    batch_size: int
    samples: int
    price: float

    @property
    def chosen(self) -> Choice:
        """The choice that time and price are of: the config's own if it fits, else the smallest change."""
        return self.best or self.requested

    def speed(self, choice: Choice) -> dict[str, float]:
        """Return samples per second, the model's share of the GPUs' peak, and what `samples` samples take and cost."""
        rate = self.batch_size / choice.time.total
        hours = self.samples / rate / 3600
        return {
            "step_s": choice.time.total,
            "samples_per_s": rate,
            "mfu": rate * sum(choice.flops.values()) / (self.gpus * self.gpu.peak_flops),
            "hours": hours,
            "dollars": hours * self.gpus * self.price,
        }

    def to_json(self) -> dict[str, Any]:
        choices = {"asked": self.requested, "best": self.best, "fastest": self.fastest, "least": self.least}
        predicted = {
            name: {
                "fits": choice.fits,
                "settings": choice.settings(),
                "layout": asdict(choice.layout) | {"lora": choice.lora},
                "flops_per_sample": choice.flops,
                "bytes": asdict(choice.memory) | {"peak": choice.memory.peak},
                "seconds": asdict(choice.time) | {"total": choice.time.total},
            }
            | self.speed(choice)
            if choice is not None
            else None
            for name, choice in choices.items()
        }
        return {
            "run": self.name, "gpus": self.gpus, "gpu": {"name": self.gpu_name, **asdict(self.gpu)},
            "row": asdict(self.work), "parameters": self.parameters, "learning": self.learning,
            "batch_size": self.batch_size, "samples": self.samples,
            "price_per_hour": self.price, **predicted,
        }  # fmt: skip


def plan(
    config: TrainConfig,
    *,
    gpus: str,
    samples: int | None = None,
    price: float | None = None,
    text: int | None = None,
    spoken: int | None = None,
) -> RunPlan:
    """Return the plan of a run on GPUs such as `8xH100`.

    `samples` defaults to all that the run learns from, `price` (of a GPU, per hour) to the table's, `text` and `spoken`
    tokens of a row to those of `flops.full_row`.

    Raises:
        ValueError: unknown GPUs, a batch that they cannot share, or a model that is not of the π0 family.
    """
    if not isinstance(config.model, PiConfig):
        raise ValueError(f"plans are made for models of the π0 family; '{config.name}' trains another")
    if config.batch_size < 1 or config.steps < 1:
        raise ValueError(f"a run has 1 step of 1 row or more, got {config.steps} of {config.batch_size}")
    count, name = parse_gpus(gpus)
    work, own = full_row(config, text=text, spoken=spoken), config.lora is not None
    variants = variants_of(config)
    requested_layout = layout_of(config, gpus=count)
    options = Options(config=config, work=work, gpu=GPUS[name], variants=variants, requested=requested_layout)
    requested = options.choice(requested_layout, lora=own)
    choices = [requested, *options.all()]
    fitting = sorted((choice for choice in choices if choice.fits), key=smallest_change)
    whole = [choice for choice in fitting if "lora" not in choice.changed]
    return RunPlan(
        name=config.name,
        gpu_name=name,
        gpu=GPUS[name],
        gpus=count,
        work=work,
        parameters=parameter_counts(variants[own].model, learning=False),
        learning=parameter_counts(variants[own].model, learning=True),
        requested=requested,
        best=requested if requested.fits else next(iter(fitting), None),
        fastest=min(whole, key=lambda choice: choice.time.total, default=None),
        least=min(choices, key=lambda choice: choice.memory.peak),
        batch_size=config.batch_size,
        samples=config.steps * config.batch_size if samples is None else samples,
        price=GPUS[name].price if price is None else price,
    )


def smallest_change(choice: Choice) -> tuple[bool, int, float]:
    """Return the order of the search: without LoRA first, then fewer changes, then the shorter step."""
    return "lora" in choice.changed, len(choice.changed), choice.time.total


def layout_of(config: TrainConfig, *, gpus: int) -> Layout:
    """Return the config's own layout on that many GPUs; where it names no parallelism, several GPUs work as DDP.

    Raises:
        ValueError: the batch does not split over them.
    """
    if config.batch_size % (gpus * config.parallel.accumulate):
        raise ValueError(
            f"a batch of {config.batch_size} rows does not split over {gpus} GPUs of {config.parallel.accumulate} "
            "passes each; --set batch_size=… to a multiple"
        )
    parallel = "none" if gpus == 1 else "ddp" if config.parallel.strategy == "none" else config.parallel.strategy
    return Layout(
        gpus=gpus,
        parallel=parallel,
        rows=config.batch_size // gpus // config.parallel.accumulate,
        accumulate=config.parallel.accumulate,
        inside=config.parallel.shards or GPUS_PER_NODE,
        checkpointing=config.compute.checkpointing,
        precision="fp32" if config.compute.precision == "fp32" else "bf16",
        compiled=config.compute.compile,
    )


@dataclass(frozen=True, kw_only=True)
class Variant:
    """The run's model with or without LoRA, on the meta device, and what follows from it alone."""

    model: Pi
    counts: Counts
    flop_factors: FlopFactors

    @classmethod
    def of(cls, config: TrainConfig, *, lora: bool) -> "Variant":
        adapters = (config.lora or LoraConfig()) if lora else None
        model = choose_learning(empty_model(require_pi(config.model)), freeze=config.freeze, lora=adapters)
        return cls(model=model, counts=Counts.of(model, config), flop_factors=flop_factors(config, model))


def variants_of(config: TrainConfig) -> dict[bool, Variant]:
    """Return the run's model as it is, and with LoRA where something that learns has layers for it."""
    own = config.lora is not None
    variants = {own: Variant.of(config, lora=own)}
    if not own:
        with suppress(ValueError):  # no layer to adapt: not a choice
            variants[True] = Variant.of(config, lora=True)
    return variants


@dataclass(frozen=True, kw_only=True)
class Options:
    """All ways to run a config on given GPUs."""

    config: TrainConfig
    work: Workload
    gpu: Gpu
    variants: dict[bool, Variant]
    requested: Layout

    def choice(self, layout: Layout, *, lora: bool) -> Choice:
        config, work, variant = self.config, self.work, self.variants[lora]
        used = memory(config, variant.counts, work=work, layout=layout)
        seconds = step_time(
            config, variant.counts, work, layout=layout, gpu=self.gpu, flop_factors=variant.flop_factors
        )
        own = {
            "parallel": config.parallel.strategy,
            "accumulate": config.parallel.accumulate,
            "checkpointing": config.compute.checkpointing,
        }
        changed = [name for name, value in own.items() if getattr(layout, name) != value]
        if layout.gpus == 1 and "parallel" in changed:
            changed.remove("parallel")  # one GPU needs none, whatever the config says
        changed += ["lora"] if lora and config.lora is None else []
        fits = used.peak <= self.gpu.memory
        flops = per_row(require_pi(config.model), work, variant.flop_factors)
        return Choice(
            layout=layout, lora=lora, flops=flops, memory=used, time=seconds, fits=fits, changed=tuple(changed)
        )  # fmt: skip

    def all(self) -> Iterator[Choice]:
        """Yield every combination of parallelism, checkpointing, rows per pass, and LoRA."""
        rows = self.requested.rows * self.requested.accumulate
        passes = [n for n in range(self.requested.accumulate, rows + 1) if rows % n == 0]
        parallel: list[Parallel] = ["none"] if self.requested.gpus == 1 else ["ddp", "fsdp"]
        if self.requested.gpus > GPUS_PER_NODE:
            parallel.append("hsdp")
        checkpointing = cast(tuple[Checkpointing, ...], get_args(Checkpointing))
        for strategy, keeps, times, lora in product(parallel, checkpointing, passes, self.variants):
            layout = replace(
                self.requested, parallel=strategy, checkpointing=keeps, accumulate=times, rows=rows // times
            )  # fmt: skip
            yield self.choice(layout, lora=lora)


def parameter_counts(model: Pi, *, learning: bool) -> dict[str, int]:
    """Count parameters by part of the model; small parts together are "other"."""
    counts = {
        name: sum(p.numel() for p in part.parameters() if p.requires_grad or not learning)
        for name, part in model.named_children()
    }
    large = ("vision", "embedding", "text_encoder", "vlm", "action_expert")
    shown = {name: count for name, count in counts.items() if name in large}
    return shown | {"other": sum(count for name, count in counts.items() if name not in large)}
