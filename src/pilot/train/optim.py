"""The optimizer and its schedule."""

import math

import torch
from torch import nn

from pilot.train.config import OptimConfig
from pilot.train.muon import Muon


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """Linear warm-up from `peak / (warmup + 1)`, then a cosine to `final_lr` at `decay_steps`, or else the last step.

    This is optax's form, as in openpi.
    """
    steps = config.decay_steps or steps
    if step < config.warmup_steps:
        start = config.peak_lr / (config.warmup_steps + 1)
        return start + (config.peak_lr - start) * step / config.warmup_steps
    progress = min(1.0, (step - config.warmup_steps) / max(1, steps - config.warmup_steps))
    return config.final_lr + (config.peak_lr - config.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))


class Optimizer:
    """One or two torch optimizers stepped together; weight decay on matrices only, never on norms, biases or tables."""

    def __init__(self, model: nn.Module, config: OptimConfig, *, steps: int) -> None:
        self.config, self.steps = config, steps
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
        matrices = [p for m in model.modules() if isinstance(m, nn.Linear) for p in (m.weight,) if p.requires_grad]
        others = [p for p in self.parameters if id(p) not in {id(m) for m in matrices}]
        assert all(id(m) not in tables for m in matrices)
        use_muon = config.name == "muon"
        groups = [{"params": others, "weight_decay": 0.0}]
        if not use_muon:
            groups.append({"params": matrices, "weight_decay": config.weight_decay})
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, lr=config.peak_lr, betas=config.betas, eps=config.eps, fused=True)
        ]
        if use_muon:
            self.parts.append(Muon(matrices, lr=config.muon_lr, weight_decay=config.weight_decay))
        self.peaks = [config.peak_lr, config.muon_lr]

    def step(self, step: int) -> tuple[float, float]:
        """Clip, update, clear; returns the learning rate and the gradient norm before clipping."""
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        lr = learning_rate(self.config, step, self.steps)
        for part, peak in zip(self.parts, self.peaks, strict=False):
            for group in part.param_groups:
                group["lr"] = lr * peak / self.config.peak_lr
            part.step()
            part.zero_grad(set_to_none=True)
        return lr, float(norm)

    def state_dict(self) -> list[dict]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict]) -> None:
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)
