"""A moving average of the weights: what is evaluated and shipped."""

import torch
from torch import Tensor, nn

from pilot.train.distributed import local


class Ema:
    """`average ← decay·average + (1 − decay)·weights` after every step.

    With `warmup` the decay is `(1 + n) / (10 + n)` early on, so that the average does not remember the random start for
    long; openpi, whose runs start from trained weights, has none.

    Weights that do not learn are their own average and take no memory. Of a model that is spread over ranks, each rank
    averages its own part.
    """

    def __init__(self, model: nn.Module, *, decay: float, warmup: bool = True) -> None:
        self.decay, self.warmup, self.updates = decay, warmup, 0
        self.learned = [name for name, p in model.named_parameters() if p.requires_grad]
        self.weights = {name: p.detach() for name, p in model.state_dict().items()}
        self.weights |= {name: self.weights[name].clone() for name in self.learned}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warmup else self.decay
        averages, current = self._pairs(model)
        torch._foreach_lerp_(averages, current, 1 - decay)

    def _pairs(self, model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        """Averages and weights that learn, this rank's part of them."""
        current = dict(model.named_parameters())
        return [local(self.weights[n]) for n in self.learned], [local(current[n].detach()) for n in self.learned]
