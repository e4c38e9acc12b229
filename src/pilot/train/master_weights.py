"""Weights in fp32 beside the bf16 copies that a model computes with, for a run of one process.

The model holds bf16 copies, so nothing is cast in a forward or backward pass. The fp32 weights are here: the optimizer
changes these, the moving average follows them, and checkpoints hold them. After each step the copies are refreshed.
Weights that do not learn are kept in bf16 alone. Many processes have FSDP2 for this (`distributed.py`).
"""

from functools import partial

import torch
from torch import Tensor, nn


class MasterWeights:
    """The fp32 weights of a model that this class has put in bf16, and their gradients.

    A pass leaves gradients in bf16. Where several passes make a step (`many_passes`), they are summed in fp32.
    """

    def __init__(self, model: nn.Module, *, many_passes: bool = False) -> None:
        self.copies = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.weights = {name: nn.Parameter(p.data.float()) for name, p in self.copies.items()}
        self._sums: dict[str, Tensor] = {}
        for p in model.parameters():
            # All weights, the frozen too; the names and the parameters stay, so the optimizer need not know.
            p.data = p.data.bfloat16()
        for name, p in self.copies.items() if many_passes else ():
            p.register_post_accumulate_grad_hook(partial(self._add, name))

    def _add(self, name: str, p: Tensor) -> None:
        """Take the gradient of one pass off the model, so that at most one pass's gradients live at a time."""
        assert p.grad is not None
        if name in self._sums:
            self._sums[name].add_(p.grad)
        else:
            self._sums[name] = p.grad.float()
        p.grad = None

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients of the step by name, for the weights that have one."""
        # After one pass the bf16 gradients are the step's; a sum in fp32 would only copy them.
        return self._sums or {name: p.grad for name, p in self.copies.items() if p.grad is not None}

    def clear_gradients(self) -> None:
        """Forget the gradients of the step."""
        self._sums = {}
        for p in self.copies.values():
            p.grad = None

    @torch.no_grad()
    def refresh(self) -> None:
        """Round the fp32 weights into the copies that the model computes with."""
        torch._foreach_copy_([p.data for p in self.copies.values()], [self.weights[name] for name in self.copies])
