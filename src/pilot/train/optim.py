"""The optimizer and its schedule."""

import math
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from pilot.train.config import OptimConfig
from pilot.train.distributed import full_tensor
from pilot.train.muon import Muon


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """Return the learning rate of a step.

    It warms up linearly from `peak / (warmup + 1)`, then falls by a cosine to `final_lr` at `decay_steps`, or else the
    last step: optax's form, as in openpi.
    """
    steps = steps if config.decay_steps is None else config.decay_steps
    if step < config.warmup_steps:
        # Not from 0: optax gives the first step one share of the warm-up already.
        start = config.peak_lr / (config.warmup_steps + 1)
        return start + (config.peak_lr - start) * step / config.warmup_steps
    progress = min(1.0, (step - config.warmup_steps) / max(1, steps - config.warmup_steps))
    return config.final_lr + (config.peak_lr - config.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))


class Optimizer:
    """One or two torch optimizers stepped together; weight decay on matrices only, never on norms, biases or tables.

    `masters` are the weights to change, by name, where the model holds copies of them in bf16. `pool`: its `threads`
    share the long work.
    """

    def __init__(
        self,
        model: nn.Module,
        config: OptimConfig,
        *,
        steps: int,
        masters: Mapping[str, Tensor] | None = None,
        pool: ThreadPoolExecutor | None = None,
        threads: int = 0,
    ) -> None:
        self.config, self.steps = config, steps
        learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
        weights = {name: p if masters is None else masters[name] for name, p in learning.items()}
        self.names = {id(p): name for name, p in weights.items()}
        self.parameters = list(weights.values())
        linear = [f"{name}.weight".lstrip(".") for name, m in model.named_modules() if isinstance(m, nn.Linear)]
        matrices = [weights[name] for name in linear if name in weights]
        # The embedding is a table, not an `nn.Linear`, so it falls here: rows that are not met should not decay.
        others = [p for p in self.parameters if id(p) not in {id(m) for m in matrices}]
        use_muon = config.name == "muon"
        groups = [{"params": others, "weight_decay": 0.0}]
        if not use_muon:
            groups.append({"params": matrices, "weight_decay": config.weight_decay})
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, lr=config.peak_lr, betas=config.betas, eps=config.eps, fused=True)
        ]
        if use_muon:
            settings = {"lr": config.muon_lr, "weight_decay": config.weight_decay}
            self.parts.append(Muon(matrices, **settings, pool=pool, threads=threads))
        self.peaks = [config.peak_lr, config.muon_lr]

    def step(self, step: int) -> tuple[float, Tensor]:
        """Clip, update, clear the gradients; return the learning rate and, on its device, the norm before clipping."""
        norm = full_tensor(nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm))
        lr = learning_rate(self.config, step, self.steps)
        for part, peak in zip(self.parts, self.peaks, strict=False):
            for group in part.param_groups:
                # One schedule for both, each scaled to its own peak.
                group["lr"] = lr * peak / self.config.peak_lr
            part.step()
            part.zero_grad(set_to_none=True)
        return lr, norm

    def state(self) -> dict[str, Tensor]:
        """Return all that is remembered from step to step, by `key/weight`. The tensors are the optimizer's own."""
        states = [(p, state) for part in self.parts for p, state in part.state.items()]
        return {f"{key}/{self.names[id(p)]}": value for p, state in states for key, value in state.items()}

    def allocate_state(self, names: Collection[str]) -> None:
        """Allocate the tensors of `state` that have these names, so that a checkpoint can be read into them."""
        for part in self.parts:
            for p in (p for group in part.param_groups for p in group["params"]):
                for key in ("step", "exp_avg", "exp_avg_sq", "momentum"):
                    if f"{key}/{self.names[id(p)]}" in names:
                        # The step count is a tensor without dims, on the device since AdamW is fused.
                        like_p = torch.zeros((), device=p.device) if key == "step" else torch.zeros_like(p)
                        part.state[p][key] = like_p
