"""The training loop.

Every batch and every noise draw is a function of (seed, step), so a resumed run is the same run.
"""

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pilot.data.layout import Batch
from pilot.infer.policy import export
from pilot.models.base import Draws, Model, Terms
from pilot.nn.lora import adapted, learned, merge, save_adapters
from pilot.train import checkpoint
from pilot.train.config import TrainConfig
from pilot.train.ema import Ema
from pilot.train.flops import Meter
from pilot.train.freezing import choose_learning
from pilot.train.metrics import Metrics
from pilot.train.optim import Optimizer
from pilot.train.setup import Setup, prepare
from pilot.train.spikes import Spikes
from pilot.train.validation import Validation, wearing

Evaluate = Callable[[Path], dict[str, float]]
"""From the folder of a policy to what is logged of it (`eval/while_training.py`)."""


def train(
    config: TrainConfig,
    *,
    out: str | Path,
    resume: bool = True,
    progress: bool = True,
    until: int | None = None,
    evaluate: Evaluate | None = None,
) -> Path:
    """Run `config` in folder `out`, from its last checkpoint if it has one; returns the policy folder.

    Stops cleanly after a step on SIGINT or SIGTERM, with a checkpoint. `until` ends the run early at that step (the
    schedule stays that of `config.steps`). Every `config.eval_every` steps `evaluate` is given the policy.

    Raises:
        ValueError: the folder holds another run, or the config cannot work.
        FloatingPointError: a loss or the gradient norm is NaN or leaps; the folder with the step's batch is named.
    """
    out = Path(out)
    torch.set_num_threads(1)
    setup = prepare(config, out, resume=resume, progress=progress)
    run = Run(config, setup, out)
    last = min(until or config.steps, config.steps)
    metrics = Metrics(
        out, steps=config.steps, start=run.step, title=config.name, progress=progress, log_to=config.log_to,
        settings=asdict(config),
    )  # fmt: skip
    try:
        with stop_signals() as stopped, setup.loader.prefetch(run.step, last) as batches:
            for batch in metrics.waiting(batches):
                values = run.advance(batch, logging=run.logs_next)
                metrics.advance()
                if values:
                    flops = run.meter.of(batch)
                    metrics.log(run.step, values, samples_per_step=config.batch_size, flops_per_sample=flops)
                if run.step % config.save_every == 0 or run.step == last or stopped():
                    run.save()
                with metrics.paused():
                    if found := run.looked_at(evaluate):
                        metrics.note(run.step, found)
                if stopped():
                    raise KeyboardInterrupt(f"stopped at step {run.step}; the same command goes on from there")
    finally:
        metrics.close()
        run.pool.shutdown()
    return out / "policy"


class Run:
    """Model, optimizer, average and step: what a checkpoint holds."""

    def __init__(self, config: TrainConfig, setup: Setup, out: Path) -> None:
        self.config, self.setup, self.out, self.step = config, setup, out, 0
        self.model: Model = setup.bundle.model.train()
        choose_learning(self.model, freeze=config.freeze, lora=config.lora, seed=config.seed)
        self.optimizer = Optimizer(self.model, config.optim, steps=config.steps)
        self.ema = Ema(self.model, decay=config.ema_decay, warmup=config.ema_warmup)
        self.pool = ThreadPoolExecutor(config.threads)
        self.drawn: Counter[str] = Counter()
        self.meter = Meter(config, self.model)
        self.validation = Validation(config, setup.loader, setup.held_out)
        factors = {"loss_factor": config.loss_spike, "grad_factor": config.grad_spike}
        self.spikes = Spikes(out=out, text=setup.bundle.text, **factors)
        if setup.resume_from is not None:
            self._load(checkpoint.load_state(setup.resume_from))

    @property
    def logs_next(self) -> bool:
        return (self.step + 1) % self.config.log_every == 0

    def advance(self, batch: list[Batch], *, logging: bool) -> dict[str, float]:
        """One step; the values to log if `logging`.

        The parts of a batch go forward and backward in threads of their own, each on one core: a small model's
        operations are too short to share. Gradients are summed in the order of the parts, so a step is the same each
        time.
        """
        draws, losses = self._draws(batch), self.config.losses
        counts = [self.model.loss_counts(part, d, losses=losses) for part, d in zip(batch, draws, strict=True)]
        scales = {name: self.config.weight_of(name) / total.clamp(min=1) for name, total in totals_of(counts).items()}
        results = list(self.pool.map(self._gradients, batch, draws, [scales] * len(batch)))
        self._add_up([gradients for _, gradients in results])
        terms = gathered([terms for terms, _ in results])
        lr, grad_norm = self.optimizer.step(self.step)
        self.ema.update(self.model)
        self.step += 1
        sources = [source for part in batch for source in part.sources]
        self.drawn.update(sources)
        loss = torch.stack([scales[name] * total.sum() for name, (total, _) in terms.items()]).sum()
        self.spikes.watch(self.step, batch, loss=loss, grad_norm=torch.as_tensor(grad_norm))
        if not logging:
            return {}
        named = {f"loss/{n}": (total.sum() / count.sum().clamp(min=1)).item() for n, (total, count) in terms.items()}
        shares = {f"share/{source}": count / self.drawn.total() for source, count in sorted(self.drawn.items())}
        return named | by_source(terms, sources) | shares | {"lr": lr, "grad_norm": grad_norm}

    def _draws(self, batch: list[Batch]) -> list[Draws]:
        """What is random about every part, from (seed, step)."""
        config = self.config
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + self.step)
        options = {"flow_draws": config.flow_draws, "time_s": config.time_s}
        return [self.model.draw(len(part.actions), generator, **options) for part in batch]

    def _gradients(
        self, part: Batch, draws: Draws, scales: dict[str, Tensor]
    ) -> tuple[Terms, tuple[Tensor | None, ...]]:
        """The losses of one part, and the gradients of their weighted sum."""
        terms = self.model.loss_terms(part, draws, losses=self.config.losses)
        loss = torch.stack([scales[name] * total.sum() for name, (total, _) in terms.items()]).sum()
        gradients = torch.autograd.grad(loss, self.optimizer.parameters, allow_unused=True)
        return {name: (total.detach(), count) for name, (total, count) in terms.items()}, gradients

    def _add_up(self, gradients: list[tuple[Tensor | None, ...]]) -> None:
        for p, *parts in zip(self.optimizer.parameters, *gradients, strict=True):
            known = [g for g in parts if g is not None]
            p.grad = torch.stack(known).sum(0) if known else None

    def looked_at(self, evaluate: Evaluate | None) -> dict[str, float]:
        """What validation and evaluation say of the moving average, if it is time for them."""
        found: dict[str, float] = {}
        if (every := self.config.validate_every) and self.step % every == 0:
            with wearing(self.model, self.ema.weights):
                found |= self.validation.run(self.model)
        if evaluate is not None and (every := self.config.eval_every) and self.step % every == 0:
            self.export()
            found |= evaluate(self.out / "policy")
        return found

    def save(self) -> None:
        self.spikes.settle()
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict(),
            "mixture": self.setup.loader.mixture.state_dict(),
            "drawn": dict(self.drawn),
        }
        checkpoint.save_state(self.out, self.step, state)
        self.export()

    def export(self) -> None:
        """Write the moving average as a policy; with LoRA also what was learned, as small files."""
        average, lora = self.ema.weights, self.config.lora
        export(self.setup.bundle, self.out / "policy", weights=merge(average, adapted(self.model)))
        if lora is not None:
            own = {name: average[name] for name in learned(self.model)}
            save_adapters(self.out / "adapters", own, config=lora, base=self.config.init_from or "")

    def _load(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema.load_state_dict(state["ema"])
        if "mixture" in state:  # checkpoints of before kept no account of what was drawn
            self.setup.loader.mixture.check(state["mixture"])
            self.drawn.update(state["drawn"])


def totals_of(counts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The count of each loss in the whole batch."""
    return {name: torch.cat([part[name] for part in counts]).sum() for name in counts[0]}


def gathered(terms: list[Terms]) -> Terms:
    """Sums and counts of all rows of a batch, part after part."""
    return {
        name: (torch.cat([part[name][0] for part in terms]), torch.cat([part[name][1] for part in terms]))
        for name in terms[0]
    }


def by_source(terms: Terms, sources: list[str]) -> dict[str, float]:
    """Each loss per source, for the sources that carry it."""
    values = {}
    for source in sorted(set(sources)):
        rows = torch.tensor([s == source for s in sources])
        for name, (total, count) in terms.items():
            if (n := count[rows].sum().item()) > 0:
                values[f"loss/{name}/{source}"] = total[rows].sum().item() / n
    return values


@contextmanager
def stop_signals() -> Iterator[Any]:
    """Within it SIGINT and SIGTERM are remembered, not obeyed; a second SIGINT interrupts at once."""
    seen: list[int] = []

    def remember(number: int, _frame: Any) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    try:
        before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are somebody else's
        yield lambda: False
        return
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
