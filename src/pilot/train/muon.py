"""Muon: momentum whose update is made orthogonal, for the hidden matrices of a network.

Source: Keller Jordan, "Muon: an optimizer for hidden layers in neural networks" (2024). torch's own runs its iteration
in bf16, which a CPU without bf16 instructions executes some hundred times slower than fp32; this one stays in the dtype
of the weights and treats all matrices of a shape at once.

Axes: `m` matrices of one shape, `r c` their rows and columns.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Float
from torch import Tensor

from pilot.train.distributed import full_tensor, local_shard, shard_like, shard_of

# Keller Jordan's: they grow small singular values fastest, at the price of ending near 1 and not at 1.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalize(g: Float[Tensor, "m r c"]) -> Float[Tensor, "m r c"]:
    """Return each matrix with its singular values brought near 1 (0.7 to 1.2), by a quintic Newton-Schulz iteration."""
    wide = g.shape[1] <= g.shape[2]
    # `x xᵀ` is smaller on the short side.
    x = g if wide else g.mT
    # The iteration converges for singular values below 1, and none is above the Frobenius norm.
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):  # x ← a x + (b g + c g²) x with g = x xᵀ
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised and scaled by `sqrt(max(1, rows / columns))`; decoupled weight decay.

    Of a sharded matrix each rank keeps the momentum of its own rows; to be made orthogonal it is gathered, on every
    rank.

    `pool`: its `threads` share the matrices.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float = 2e-2,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        pool: ThreadPoolExecutor | None = None,
        threads: int = 0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.pool, self.threads = pool, threads

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    shapes.setdefault(p.shape, []).append(p)
            parts = [part for matrices in shapes.values() for part in self._split(matrices)]
            # The costliest first, so that all threads end at about the same time.
            parts.sort(key=lambda part: -len(part) * part[0].numel() * min(part[0].shape))
            run = map if self.pool is None else self.pool.map
            list(run(self._update, parts, [group] * len(parts)))

    def _split(self, matrices: list[Tensor]) -> list[list[Tensor]]:
        """Return the matrices of a shape in as many parts as there are threads; one without."""
        count = min(len(matrices), max(1, self.threads))
        return [matrices[first::count] for first in range(count)]

    @torch.no_grad()  # here, because each thread has a switch of its own
    def _update(self, matrices: list[Tensor], group: dict) -> None:
        directions = []
        for p in matrices:
            assert p.grad is not None
            momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
            own, gradient = local_shard(momentum), local_shard(p.grad)
            own.lerp_(gradient, 1 - group["momentum"])
            directions.append(full_tensor(shard_like(torch.lerp(gradient, own, group["momentum"]), p)))
        rows, columns = matrices[0].shape
        # An update of the same size for each output, whatever the shape: tall matrices would move too little.
        scale = max(1, rows / columns) ** 0.5
        for p, direction in zip(matrices, orthogonalize(torch.stack(directions)), strict=True):
            part = local_shard(p)
            part.mul_(1 - group["lr"] * group["weight_decay"]).sub_(shard_of(direction, p), alpha=group["lr"] * scale)
