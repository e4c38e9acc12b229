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
from typing import Any, get_args

from pilot.models.bundle import empty_model
from pilot.models.pi import Pi, PiConfig
from pilot.models.registry import require_pi
from pilot.nn.lora import LoraConfig
from pilot.train.config import TrainConfig
from pilot.train.freezing import choose_learning
from pilot.train.plan.flops import Workload, full_row
from pilot.train.plan.gpus import GPUS, GPUS_PER_NODE, Gpu, parse_gpus
from pilot.train.plan.memory import Checkpointing, Counts, Layout, Memory, Parallel, memory
from pilot.train.plan.time import StepTime, step_time


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way to run it: a layout, its memory on each GPU and its time. `flops` are those of a row, by part.

    `changed` holds the settings that are not the config's, as `--set` takes them.
    """

    layout: Layout
    lora: bool
    flops: dict[str, float]
    memory: Memory
    time: StepTime
    fits: bool
    changed: dict[str, str]

    @classmethod
    def of(cls, config: TrainConfig, counts: Counts, *, layout: Layout, lora: bool, gpu: Gpu) -> "Choice":
        pairs = {  # what the config says, and what is tried; one GPU shares with none, whatever the config says
            "parallel.strategy": ("none" if layout.gpus == 1 else config.parallel.strategy, layout.parallel),
            "parallel.accumulate": (config.parallel.accumulate, layout.accumulate),
            "compute.checkpointing": (config.compute.checkpointing, layout.checkpointing),
            "lora": (config.lora is not None, lora),
        }
        used = memory(counts, layout)
        return cls(
            layout=layout,
            lora=lora,
            flops=counts.flops,
            memory=used,
            time=step_time(counts, layout, gpu),
            fits=used.peak <= gpu.memory,
            changed={name: str(tried).lower() for name, (own, tried) in pairs.items() if tried != own},
        )

    @property
    def settings(self) -> list[str]:
        """The changes as `--set` takes them."""
        return [f"{name}={value}" for name, value in self.changed.items()]


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """Everything that `pilot plan` says. `requested` is the config as it is, `best` the smallest change that fits.

    `parameters` are counted by part of the model, and `learning` are those of them that learn.
    """

    config: TrainConfig
    gpu_name: str
    gpus: int
    work: Workload
    parameters: dict[str, int]
    learning: dict[str, int]
    requested: Choice
    best: Choice | None
    fastest: Choice | None
    least: Choice
    samples: int
    price: float

    @property
    def gpu(self) -> Gpu:
        return GPUS[self.gpu_name]

    @property
    def chosen(self) -> Choice:
        """The choice that time and price are of: the config's own if it fits, else the smallest change."""
        return self.best or self.requested

    def speed(self, choice: Choice) -> dict[str, float]:
        """Return samples per second, the model's share of the GPUs' peak, and what `samples` samples take and cost."""
        rate = self.config.batch_size / choice.time.total
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
        return {
            "run": self.config.name,
            "gpus": self.gpus,
            "gpu": {"name": self.gpu_name, **asdict(self.gpu)},
            "row": asdict(self.work),
            "parameters": self.parameters,
            "learning": self.learning,
            "batch_size": self.config.batch_size,
            "samples": self.samples,
            "price_per_hour": self.price,
        } | {name: self._choice_json(choice) if choice else None for name, choice in choices.items()}

    def _choice_json(self, choice: Choice) -> dict[str, Any]:
        return {
            "fits": choice.fits,
            "settings": choice.settings,
            "layout": asdict(choice.layout) | {"lora": choice.lora},
            "flops_per_sample": choice.flops,
            "bytes": asdict(choice.memory) | {"peak": choice.memory.peak},
            "seconds": asdict(choice.time) | {"total": choice.time.total},
        } | self.speed(choice)


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
    models = models_of(config)
    counts = {lora: Counts.of(model, config, work) for lora, model in models.items()}
    requested_layout = layout_of(config, gpus=count)
    choices = [
        Choice.of(config, counts[lora], layout=layout, lora=lora, gpu=GPUS[name])
        for layout, lora in [(requested_layout, own), *product(layouts_like(requested_layout), models)]
    ]
    fitting = sorted((choice for choice in choices if choice.fits), key=smallest_change)
    without_lora = [choice for choice in fitting if "lora" not in choice.changed]
    return RunPlan(
        config=config,
        gpu_name=name,
        gpus=count,
        work=work,
        parameters=parameter_counts(models[own], learning=False),
        learning=parameter_counts(models[own], learning=True),
        requested=choices[0],
        best=choices[0] if choices[0].fits else next(iter(fitting), None),
        fastest=min(without_lora, key=lambda choice: choice.time.total, default=None),
        least=min(choices, key=lambda choice: choice.memory.peak),
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


def models_of(config: TrainConfig) -> dict[bool, Pi]:
    """Return the run's model on the meta device, without LoRA (False) and with it (True).

    A run that has LoRA keeps it, and one whose layers cannot be adapted has none.
    """

    def model(lora: LoraConfig | None) -> Pi:
        return choose_learning(empty_model(require_pi(config.model)), freeze=config.freeze, lora=lora)

    if config.lora is not None:
        return {True: model(config.lora)}
    models = {False: model(None)}
    with suppress(ValueError):  # nothing that learns has layers to adapt
        models[True] = model(LoraConfig())
    return models


def layouts_like(requested: Layout) -> Iterator[Layout]:
    """Yield every combination of parallelism, checkpointing and rows per pass for the same batch."""
    rows = requested.rows * requested.accumulate
    passes = [n for n in range(requested.accumulate, rows + 1) if rows % n == 0]
    parallel: list[Parallel] = ["none"] if requested.gpus == 1 else ["ddp", "fsdp"]
    if requested.gpus > GPUS_PER_NODE:
        parallel.append("hsdp")
    for strategy, keeps, times in product(parallel, get_args(Checkpointing), passes):
        yield replace(requested, parallel=strategy, checkpointing=keeps, accumulate=times, rows=rows // times)


def parameter_counts(model: Pi, *, learning: bool) -> dict[str, int]:
    """Count parameters by part of the model; small parts together are "other"."""
    counts = {
        name: sum(p.numel() for p in part.parameters() if p.requires_grad or not learning)
        for name, part in model.named_children()
    }
    large = ("vision", "embedding", "text_encoder", "vlm", "action_expert")
    shown = {name: count for name, count in counts.items() if name in large}
    return shown | {"other": sum(count for name, count in counts.items() if name not in large)}
