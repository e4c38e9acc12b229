"""One step of training: losses, gradients, clipped update, moving average, on one process or on many.

Every loss is a mean over its own tokens or elements in the whole batch: their number is counted from masks, over all
parts of the batch and all ranks, before anything is computed. So each part goes forward and backward by itself and its
activations are freed, and neither padding, nor what comes together in a part, nor the number of ranks changes a loss.

What is random about a step is a function of (seed, step) and of the row's place in the batch, so a resumed run is the
same run, and so is one on another number of ranks up to rounding.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pilot.data.layout import Batch
from pilot.models.base import Draws, Model, Terms
from pilot.nn.devices import to_device
from pilot.train.config import TrainConfig
from pilot.train.cuda_graph import Scales, StepGraphs
from pilot.train.distributed import Ranks, parallelize
from pilot.train.ema import Ema, swap_weights
from pilot.train.freezing import choose_learning, freeze_unreached, halve_frozen
from pilot.train.fused_adamw import FusedAdamW
from pilot.train.master_weights import MasterWeights
from pilot.train.optim import Optimizer


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """The outcome of one step. Tensors are on the model's device: nothing has waited for them.

    `terms` are this rank's rows, in the order of `sources`; `loss` is their part of the objective.
    """

    terms: Terms
    sources: list[str]
    loss: Tensor
    lr: float
    grad_norm: Tensor


class Learner:
    """Model, optimizer, average and step.

    On a CPU, one process takes the parts of a batch in threads of their own, each on one core: a small model's
    operations are too short to share. Elsewhere they go one after the other.
    """

    def __init__(self, model: Model, config: TrainConfig, *, ranks: Ranks | None = None) -> None:
        self.config, self.ranks, self.step = config, ranks or Ranks(), 0
        self.model = model.train()
        choose_learning(self.model, freeze=config.freeze, lora=config.lora, seed=config.seed)
        low = config.computes_in_bf16(self.ranks.device.type)
        if config.lora is not None and low:
            # Before `parallelize` moves the model to its device, where frozen weights then take half the room.
            halve_frozen(self.model)
        if config.lora is None:
            # However it is computed: any kind of run must find in a checkpoint what it averages.
            freeze_unreached(self.model, config.objective.losses)
        parallelize(self.model, config, self.ranks)
        # The order matters: masters take the weights in fp32 before the model is put in bf16, and the optimizer and the
        # average then follow the masters.
        alone = self.ranks.mesh is None
        self.masters = MasterWeights(self.model, many_passes=config.parallel.accumulate > 1) if alone and low else None
        weights = None if self.masters is None else self.masters.weights
        threads = config.parallel.threads if uses_threads(config, self.ranks) else 0
        self.pool = ThreadPoolExecutor(threads) if threads else None
        self.optimizer = Optimizer(
            self.model, config.optim, steps=config.steps, masters=weights, pool=self.pool, threads=threads
        )
        self.ema = Ema(self.model, decay=config.ema.decay, warmup=config.ema.warmup, masters=weights)
        fused = self.masters is not None and FusedAdamW.fits(self.optimizer, self.ranks.device)
        self.fused = FusedAdamW(self.optimizer, self.ema, self.masters) if fused and self.masters else None
        self.graphs = StepGraphs(self._gradients_in_turn, self._need_fused()) if config.compute.cuda_graph else None

    def _need_fused(self) -> FusedAdamW:
        if self.fused is None:
            raise ValueError(
                "compute.cuda_graph is for one process that trains in bf16 with AdamW on an NVIDIA GPU; "
                "set compute.cuda_graph=false"
            )
        return self.fused

    def train_step(self, batch: list[Batch]) -> StepResult:
        """Take one step on this rank's rows of a batch."""
        if self.graphs is not None:
            draws = self.draw(batch)
            scales = self.loss_scales(batch, draws)
            terms, loss, lr, grad_norm = self.graphs.step(batch, draws, scales, step=self.step)
        else:
            terms, loss = self.compute_gradients(batch)
            lr, grad_norm = self.update()
        self.step += 1
        sources = [source for part in batch for source in part.sources]
        return StepResult(terms=terms, sources=sources, loss=loss, lr=lr, grad_norm=grad_norm)

    def update(self) -> tuple[float, Tensor]:
        """Update weights and average; return the learning rate and the gradient norm before clipping."""
        if self.fused is not None:
            return self.fused.step(self.step)
        if self.masters is not None:
            for name, gradient in self.masters.gradients().items():
                self.masters.weights[name].grad = gradient.float()
            self.masters.clear_gradients()
        result = self.optimizer.step(self.step)
        self.ema.update()
        if self.masters is not None:
            self.masters.refresh()
        return result

    def compute_gradients(self, batch: list[Batch]) -> tuple[Terms, Tensor]:
        """Compute the gradients of all weights that learn; return this rank's loss terms and their objective."""
        draws = self.draw(batch)
        scales = self.loss_scales(batch, draws)
        work = self._gradients_in_threads if self.pool else self._gradients_in_turn
        return work(batch, draws, scales)

    def draw(self, batch: list[Batch]) -> list[Draws]:
        """Draw noise and flow times for each part of the batch."""
        config, model = self.config, self.model
        # A prime factor keeps (seed, step) apart: step 1 of seed 0 is not step 0 of seed 1.
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + self.step)
        options = {"flow_draws": config.objective.flow_draws, "time_s": config.objective.time_s}
        if config.objective.noise_per == "step":
            return [model.draw(len(part.actions), generator, **options) for part in batch]
        whole = model.draw(config.batch_size, generator, **options)  # of all ranks, so that a row's noise is its own
        return [{name: values[list(part.row_ids)] for name, values in whole.items()} for part in batch]

    def loss_scales(self, batch: list[Batch], draws: list[Draws]) -> Scales:
        """Return for each loss its weight over its count in the batch of all ranks: the factor of its sum."""
        losses = self.config.objective.losses
        counts = [self.model.loss_counts(part, d, losses=losses) for part, d in zip(batch, draws, strict=True)]
        totals = {name: torch.cat([part[name] for part in counts]).sum() for name in counts[0]}
        if self.ranks.world_size > 1:
            # Over the CPU's group, so that counting does not wait behind gradients on the GPU.
            sums = self.ranks.sum([total.item() for total in totals.values()])
            totals = {name: torch.tensor(total) for name, total in zip(totals, sums, strict=True)}
        weight_of = self.config.objective.weight_of
        # A loss that no row of the batch carries has the sum 0; dividing by 1 keeps it so.
        return {name: weight_of(name) / total.float().clamp(min=1) for name, total in totals.items()}

    def _gradients_in_turn(self, batch: list[Batch], draws: list[Draws], scales: Scales) -> tuple[Terms, Tensor]:
        """Compute gradients part after part; they add up in the weights.

        FSDP averages gradients over ranks, so losses are scaled by their number. Each rank runs all modules, because
        ranks wait for each other in every block.
        """
        count, results, losses = self.ranks.world_size, [], self.config.objective.losses
        move = partial(to_device, device=self.ranks.device)
        for part, own in zip(batch, draws, strict=True):
            own = {name: move(t) for name, t in own.items()}
            terms = self.model.loss_terms(part.map(move), own, losses=losses, run_all_modules=count > 1)
            # Backward at once: the activations of a part are free before the next one starts.
            (count * weighted_loss(terms, scales)).backward()
            results.append(detach_terms(terms))
        terms = concatenate_terms(results)
        return terms, weighted_loss(terms, scales)

    def _gradients_in_threads(self, batch: list[Batch], draws: list[Draws], scales: Scales) -> tuple[Terms, Tensor]:
        """Compute all parts at once; gradients are summed in the order of the parts, so a step repeats exactly."""
        assert self.pool is not None
        results = list(self.pool.map(self._gradients_of_part, batch, draws, [scales] * len(batch)))
        # `backward` in threads would add in the order in which they finish, and rounding would differ from run to run.
        for p, *parts in zip(self.optimizer.parameters, *(gradients for _, gradients in results), strict=True):
            # A part whose rows lack a loss reaches fewer weights.
            known = [g for g in parts if g is not None]
            p.grad = sum_in_order(known) if known else None
        terms = concatenate_terms([terms for terms, _ in results])
        return terms, weighted_loss(terms, scales)

    def _gradients_of_part(self, part: Batch, draws: Draws, scales: Scales) -> tuple[Terms, tuple[Tensor | None, ...]]:
        """Return the losses of one part, and the gradients of their weighted sum."""
        terms = self.model.loss_terms(part, draws, losses=self.config.objective.losses)
        loss = weighted_loss(terms, scales)
        return detach_terms(terms), torch.autograd.grad(loss, self.optimizer.parameters, allow_unused=True)

    # --- on disk -----------------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Return all that a step depends on, each tensor as it is sharded over the ranks."""
        masters = {} if self.masters is None else {n: p.detach() for n, p in self.masters.weights.items()}
        # The fp32 masters stand for the bf16 copies under the same names, so any kind of run can go on from a
        # checkpoint.
        own = {f"model/{name}": weight for name, weight in (self.model.state_dict() | masters).items()}
        own |= {f"ema/{name}": self.ema.weights[name] for name in self.ema.learned}
        return own | {f"optimizer/{name}": value for name, value in self.optimizer.state().items()}

    def allocate_tensors(self, names: set[str]) -> dict[str, Tensor]:
        """Return `tensors`, with room for the optimizer state of a checkpoint that has these `names`."""
        prefix = "optimizer/"
        self.optimizer.allocate_state({name.removeprefix(prefix) for name in names if name.startswith(prefix)})
        return self.tensors()

    def after_load(self) -> None:
        """Refresh the bf16 copies, after a checkpoint has been read into `allocate_tensors`."""
        if self.masters is not None:
            self.masters.refresh()

    @contextmanager
    def average_parameters(self) -> Iterator[Model]:
        """Give the model the weights of the moving average within a `with` block."""
        if self.masters is None:
            with swap_weights(self.model, self.ema.weights):
                yield self.model
            return
        with torch.no_grad():
            for name, copy in self.masters.copies.items():
                # There is no need to keep the copies: `refresh` makes them again from the masters.
                copy.copy_(self.ema.weights[name])
        try:
            yield self.model
        finally:
            self.masters.refresh()

    def close(self) -> None:
        if self.pool is not None:
            self.pool.shutdown()


def uses_threads(config: TrainConfig, ranks: Ranks) -> bool:
    """Return whether the parts of a batch are computed at the same time, in threads."""
    # FSDP and compiled blocks are not for several threads at once, and a GPU is busy with one part already.
    plain = ranks.mesh is None and not config.computes_in_bf16(ranks.device.type) and not config.compute.compile
    return plain and ranks.device.type == "cpu" and config.parallel.accumulate == 1


def sum_in_order(gradients: list[Tensor]) -> Tensor:
    """Return the sum of at least one gradient, in memory of its own."""
    total = gradients[0].clone()
    for gradient in gradients[1:]:
        total.add_(gradient)
    return total


def weighted_loss(terms: Terms, scales: Scales) -> Tensor:
    """Return the part of these rows in the objective."""
    return torch.stack([scales[name] * total.sum() for name, (total, _) in terms.items()]).sum()


def detach_terms(terms: Terms) -> Terms:
    """Return sums and counts without the graph that leads to them."""
    return {name: (total.detach(), count) for name, (total, count) in terms.items()}


def concatenate_terms(parts: list[Terms]) -> Terms:
    """Concatenate sums and counts of all rows, part after part."""
    return {
        name: (torch.cat([part[name][0] for part in parts]), torch.cat([part[name][1] for part in parts]))
        for name in parts[0]
    }
