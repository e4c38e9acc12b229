"""A moving average of the weights: what is evaluated and shipped."""

import torch
from torch import nn


class Ema:
    """`average ← decay·average + (1 − decay)·weights` after every step.

    With `warmup` the decay is `(1 + n) / (10 + n)` early on, so that the average does not remember the random start for
    long; openpi, whose runs start from trained weights, has none.
    """

    def __init__(self, model: nn.Module, *, decay: float, warmup: bool = True) -> None:
        self.decay, self.warmup, self.updates = decay, warmup, 0
        self.weights = {name: p.detach().clone() for name, p in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warmup else self.decay
        current = model.state_dict()
        averages = list(self.weights.values())
        torch._foreach_lerp_(averages, [current[name].detach() for name in self.weights], 1 - decay)

    def state_dict(self) -> dict:
        return {"updates": self.updates, "weights": self.weights}

    def load_state_dict(self, state: dict) -> None:
        self.updates, self.weights = state["updates"], state["weights"]
