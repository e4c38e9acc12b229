"""A moving average of the weights: what is evaluated and shipped."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pilot.train.distributed import local_shard, reshard


class Ema:
    """`average ← decay·average + (1 − decay)·weights` after every step.

    With `warmup` the decay is `(1 + n) / (10 + n)` early on, so that the average does not remember the random start for
    long; openpi, whose runs start from trained weights, has none.

    Weights that do not learn are their own average and take no memory. Of a model that is sharded over ranks, each rank
    averages its own part. `masters` are the weights to follow where the model holds copies of them in bf16.
    """

    def __init__(
        self, model: nn.Module, *, decay: float, warmup: bool = True, masters: Mapping[str, Tensor] | None = None
    ) -> None:
        self.decay, self.warmup, self.updates = decay, warmup, 0
        parameters = masters if masters is not None else dict(model.named_parameters())
        self.learned = [name for name, p in model.named_parameters() if p.requires_grad]
        # Frozen weights are the model's own tensors, not copies.
        self.weights = {name: p.detach() for name, p in model.state_dict().items()}
        self.weights |= {name: parameters[name].detach().clone() for name in self.learned}
        self._current = {name: parameters[name] for name in self.learned}

    def next_decay(self) -> float:
        """Count an update, and return the share of the average that it leaves as it is."""
        self.updates += 1
        return min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warmup else self.decay

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights of now."""
        decay = self.next_decay()
        averages = [local_shard(self.weights[name]) for name in self.learned]
        # One launch for all weights; one by one would take as long as the optimizer on a GPU.
        torch._foreach_lerp_(averages, [local_shard(self._current[name].detach()) for name in self.learned], 1 - decay)


@contextmanager
def swap_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Give the model these weights within a `with` block, and its own back behind it.

    Weights change places one by one, so memory for one tensor is enough.
    """
    own = model.state_dict()

    def change() -> None:
        reshard(model)
        for name, other in weights.items():
            mine = own[name].detach()
            before = mine.clone()
            mine.copy_(other)
            other.copy_(before)

    with torch.no_grad():
        change()
    try:
        yield
    finally:
        with torch.no_grad():
            change()
