"""The training loop.

Every batch and every noise draw is a function of (seed, step), so a resumed run is the same run.
"""

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pilot.data.layout import Batch
from pilot.data.storage.files import output_folder
from pilot.infer.policy import export
from pilot.memory import ALL, keep_freed_memory
from pilot.models.base import Terms
from pilot.nn.lora import adapter_scales, merge_adapters
from pilot.train import checkpoint
from pilot.train.adapters import save_adapters
from pilot.train.anomalies import SpikeDetector
from pilot.train.checkpoint import Checkpoints
from pilot.train.config import TrainConfig
from pilot.train.distributed import Ranks, connect, gather_weights
from pilot.train.learner import Learner
from pilot.train.metrics import Metrics
from pilot.train.origin import origin_of
from pilot.train.plan.flops import mean_flops
from pilot.train.setup import Setup, prepare
from pilot.train.sources import without_empty_sources
from pilot.train.validation import Validation

Evaluate = Callable[[Path], dict[str, float]]
"""From the folder of a policy to what is logged of it (`eval/during_training.py`)."""


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

    Started by `torchrun`, all its processes are one run (`distributed.py`).

    Stops cleanly after a step on SIGINT or SIGTERM (to any rank), with a checkpoint. `until` ends the run early at that
    step (the schedule stays that of `config.steps`). Every `evaluation.every` steps `evaluate` is given the policy.

    Raises:
        ValueError: the folder holds another run, or the config cannot work.
        FolderInUseError: another process trains in the folder.
        FloatingPointError: a loss or the gradient norm is NaN or leaps; the folder with the step's batch is named.
        RuntimeError: another rank failed or is gone. Like every error on the way it names the last good checkpoint.
    """
    out, config = Path(out), without_empty_sources(config)  # nothing that is written names what was not learned from
    with connect(config) as ranks, ExitStack() as held:
        if ranks.device.type == "cpu":
            # The parts of a batch go in threads of their own (`learner.py`): more threads inside each would fight over
            # the cores.
            torch.set_num_threads(1)
            keep_freed_memory(ALL)

        def begin() -> Setup:
            if ranks.is_main:
                held.enter_context(output_folder(out))
            return prepare(config, out, resume=resume, progress=progress, ranks=ranks)

        # The main rank decodes, computes statistics and writes them; the others then find them on disk.
        setup = ranks.main_first(begin)
        run = Run(config, setup, out, ranks=ranks)
        try:
            run.go(until=until, progress=progress, evaluate=evaluate)
        except Exception as error:
            # A save in progress may still succeed, and is then the last good checkpoint.
            run.checkpoints.settle()
            last = checkpoint.last_checkpoint(out)
            begun = "no checkpoint has been written yet: the same command begins anew, also with other settings"
            error.add_note(f"the last good checkpoint is {last}" if last else begun)
            raise
        finally:
            run.learner.close()
    return out / "policy"


class Run:
    """A run at some step: a learner, its data, its checkpoints and its metrics."""

    def __init__(self, config: TrainConfig, setup: Setup, out: Path, *, ranks: Ranks | None = None) -> None:
        self.config, self.setup, self.out, self.ranks = config, setup, out, ranks or Ranks()
        self.learner = Learner(setup.bundle.model, config, ranks=self.ranks)
        self.checkpoints = Checkpoints(
            out, ranks=self.ranks, keep=config.checkpoints.keep, every=config.checkpoints.keep_every
        )
        self.origin = origin_of(config, setup.loader.mixture.sources)
        self.drawn: Counter[str] = Counter()
        self.validation = Validation(config, setup.loader, setup.held_out, device=self.ranks.device)
        self.spikes = SpikeDetector(
            out=out, text=setup.bundle.text, rank=self.ranks.rank, loss_factor=config.logging.loss_spike,
            grad_factor=config.logging.grad_spike,
        )  # fmt: skip
        if setup.resume_from is not None:
            self._load(setup.resume_from)

    @property
    def step(self) -> int:
        """The number of steps taken so far, those before a resume included."""
        return self.learner.step

    def go(self, *, until: int | None, progress: bool, evaluate: Evaluate | None) -> None:
        """Take all steps that are left, up to `until`; log, validate and save on the way."""
        config, ranks, last = self.config, self.ranks, min(until or self.config.steps, self.config.steps)
        metrics = Metrics(
            self.out, steps=config.steps, start=self.step, title=config.name, progress=progress,
            log_to=config.logging.log_to, settings=asdict(config), device=ranks.device,
            ranks=ranks.world_size, main=ranks.is_main,
        )  # fmt: skip
        try:
            with stop_signals() as stopped, self.setup.loader.prefetch(self.step, last) as batches:
                coming = metrics.timed(batches)
                while self.step < last:
                    with ranks.fail_together():
                        batch = next(coming)
                    number = self.step + 1
                    values = self.advance(batch, logging=number % config.logging.log_every == 0 or number == last)
                    metrics.advance()
                    if values:
                        flops = mean_flops(self.learner.model, config, batch)
                        metrics.log(self.step, values, samples_per_step=config.batch_size, flops_per_sample=flops)
                    # A signal may reach one rank alone; all must save in the same step.
                    stopping = ranks.any(stopped())
                    if self.step % config.checkpoints.save_every == 0 or self.step == last or stopping:
                        self.save()
                    with metrics.pause():
                        if measured := self.evaluate_average(evaluate):
                            metrics.log_evaluation(self.step, measured)
                    if stopping:
                        self.checkpoints.finish()
                        raise KeyboardInterrupt(f"stopped at step {self.step}; the same command goes on from there")
            self.checkpoints.finish()
        finally:
            metrics.close()

    def advance(self, batch: list[Batch], *, logging: bool) -> dict[str, float]:
        """Take one step; if `logging`, return the values to log, those of all ranks."""
        outcome = self.learner.train_step(batch)
        self.drawn.update(outcome.sources)
        with self.ranks.fail_together():
            # A rank's loss is its part of a sum. Times their number, it is comparable when fewer ranks resume the run.
            loss = self.ranks.world_size * outcome.loss
            self.spikes.watch(self.step, batch, loss=loss, grad_norm=outcome.grad_norm)
        if not logging:
            return {}
        # What follows waits for the GPU, so it is done for steps that are logged, and for no others.
        drawn = sum(self.ranks.gather(self.drawn), Counter())
        shares = {f"share/{source}": count / drawn.total() for source, count in sorted(drawn.items())}
        losses = mean_losses(self.ranks.gather(sum_losses(outcome.terms, outcome.sources)))
        dropped = sum(self.ranks.gather(self.setup.loader.fast_dropped))  # rows whose FAST tokens did not fit
        counts = {"fast_dropped": dropped} if dropped else {}
        return losses | shares | counts | {"lr": outcome.lr, "grad_norm": outcome.grad_norm.item()}

    def evaluate_average(self, evaluate: Evaluate | None) -> dict[str, float]:
        """Validate and evaluate the moving average, each when it is due; return what is logged of it."""
        measured: dict[str, float] = {}
        if (every := self.config.evaluation.validate_every) and self.step % every == 0:
            with self.learner.average_parameters() as model:
                measured |= self.validation.run(model)
        if evaluate is not None and (every := self.config.evaluation.every) and self.step % every == 0:
            self.export()
            with self.ranks.fail_together(patient=True):
                measured |= evaluate(self.out / "policy") if self.ranks.is_main else {}
        return measured

    def save(self) -> None:
        """Write the policy, and begin to write the checkpoint."""
        with self.ranks.fail_together():
            # No checkpoint of weights that a NaN has already reached.
            self.spikes.settle()
        self.export()
        values = {
            "ema_updates": self.learner.ema.updates,
            "mixture": self.setup.loader.mixture.state_dict(),
            "spikes": self.spikes.state_dict(),
            "drawn": dict(sum(self.ranks.gather(self.drawn), Counter())),
        }
        self.checkpoints.save(self.step, self.learner.tensors(), values=values)

    def export(self) -> None:
        """Write the moving average as a policy; with LoRA also what was learned, as a small one."""
        bundle, average = self.setup.bundle, gather_weights(self.learner.ema.weights, self.ranks)
        with self.ranks.fail_together():
            if not self.ranks.is_main:
                return
            merged, origin = (
                merge_adapters(average, adapter_scales(self.learner.model)),
                self.origin | {"step": self.step},
            )
            export(bundle, self.out / "policy", weights=merged, origin=origin)
            if self.config.lora is not None:
                save_adapters(bundle, self.out / "adapters", average=average, config=self.config, origin=origin)

    def _load(self, folder: Path) -> None:
        values = checkpoint.read_values(folder)
        # First of all: with other data the same step number would mean other rows.
        self.setup.loader.mixture.check(values["mixture"])
        tensors = self.learner.allocate_tensors(checkpoint.names_in(folder))
        checkpoint.read_tensors(folder, tensors, ranks=self.ranks)
        self.learner.after_load()
        self.learner.step, self.learner.ema.updates = values["step"], values["ema_updates"]
        self.spikes.load_state_dict(values.get("spikes", {}))  # not yet in older checkpoints
        if self.ranks.is_main:  # it counts for all until now
            self.drawn.update(values["drawn"])


LossSums = dict[tuple[str, str], tuple[float, float]]
"""Sum and count by (loss, source); the source "" is all rows."""


def sum_losses(terms: Terms, sources: list[str]) -> LossSums:
    """Return the sum and count of each loss over this rank's rows, of all and of each source."""
    result: LossSums = {}
    for name, (total, count) in terms.items():
        # In fp64, so that a mean does not depend on how rows are spread over ranks.
        total, count = total.double().cpu(), count.double().cpu()
        result[name, ""] = total.sum().item(), count.sum().item()
        for source in set(sources):
            rows = torch.tensor([s == source for s in sources])
            result[name, source] = total[rows].sum().item(), count[rows].sum().item()
    return result


def mean_losses(sums_of_ranks: list[LossSums]) -> dict[str, float]:
    """Return the mean of each loss over all ranks, and over each source that carries it."""
    sums: dict[tuple[str, str], list[float]] = {}
    for one in sums_of_ranks:
        for key, numbers in one.items():
            sums[key] = [a + b for a, b in zip(sums.get(key, (0.0, 0.0)), numbers, strict=True)]
    shown = {key: (total, count) for key, (total, count) in sorted(sums.items()) if count > 0 or not key[1]}
    return {f"loss/{'/'.join(filter(None, key))}": total / max(1.0, count) for key, (total, count) in shown.items()}


@contextmanager
def stop_signals() -> Iterator[Any]:
    """Hold SIGINT and SIGTERM back: yield a function that says whether one came. A second SIGINT interrupts."""
    received: list[int] = []

    def remember(number: int, _frame: Any) -> None:
        if number == signal.SIGINT and number in received:
            raise KeyboardInterrupt
        received.append(number)  # SIGTERM may come twice, from a scheduler and from a launcher

    try:
        before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are somebody else's
        yield lambda: False
        return
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
