"""Cross-entropy of words from hidden states, without the scores of all words in memory at once.

π0.5 has 257,152 words. The scores of a thousand tokens are 0.5 GB in bf16, and what autograd keeps of their softmax is
twice that in fp32, two times over. Where they are many, they are made some rows at a time, in the forward and again
in the backward pass. Where they are few, this is `torch.nn.functional.cross_entropy`.

Axes: `n` tokens, `d` width, `v` vocabulary.
"""

from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

AT_ONCE = 2**27
"""Scores in memory at once: 0.27 GB in bf16."""


def cross_entropy(
    hidden: Float[Tensor, "n d"], weight: Float[Tensor, "v d"], targets: Int[Tensor, " n"], *, at_once: int = AT_ONCE
) -> Float[Tensor, " n"]:
    """Return the negative log likelihood of each target in fp32, where word `i` has the score `hidden · weight[i]`."""
    if hidden.shape[0] * weight.shape[0] <= at_once:
        return F.cross_entropy((hidden @ weight.T).float(), targets, reduction="none")
    return ChunkedCrossEntropy.apply(hidden, weight, targets, max(1, at_once // weight.shape[0]))


class ChunkedCrossEntropy(torch.autograd.Function):
    """`cross_entropy`, `rows` tokens at a time; keeps one number per token for the backward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, rows: int) -> Tensor:
        """Return the loss of each target; scores exist for `rows` of them at a time."""
        sums = torch.empty(len(hidden), device=hidden.device)  # log of the sum of exponentials
        chosen = torch.empty_like(sums)
        for h, target, total, score in _chunks(rows, hidden, targets, sums, chosen):
            scores = h @ weight.T
            total.copy_(log_sum_exp(scores))
            score.copy_(scores.gather(1, target[:, None])[:, 0])
        ctx.save_for_backward(hidden, weight, targets, sums)
        ctx.rows = rows
        return sums - chosen

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Return the gradients of hidden states and weight, from scores that are computed again."""
        hidden, weight, targets, sums = ctx.saved_tensors
        of_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        of_weight = None
        for start in range(0, len(hidden), ctx.rows):
            part = slice(start, start + ctx.rows)
            scores = hidden[part] @ weight.T
            # Gradients are written over the scores: a second tensor of that size is what all this is to avoid.
            scores_to_gradients(scores, targets[part], sums=sums[part], scales=gradients[0][part])
            if of_hidden is not None:
                torch.mm(scores, weight, out=of_hidden[part])
            if ctx.needs_input_grad[1]:
                if of_weight is None:
                    # The first part makes the tensor, the others add to it: no zeros are written first.
                    of_weight = scores.T @ hidden[part]
                else:
                    of_weight.addmm_(scores.T, hidden[part])
        return of_hidden, of_weight, None, None


def _chunks(rows: int, *tensors: Tensor) -> zip:
    return zip(*(tensor.split(rows) for tensor in tensors), strict=True)


def log_sum_exp(scores: Float[Tensor, "n v"]) -> Float[Tensor, " n"]:
    """Return the logarithm of each row's sum of exponentials, in fp32."""
    if _with_kernels(scores):
        from pilot.nn import cross_entropy_kernels as kernels

        return kernels.log_sum_exp(scores)
    return scores.float().logsumexp(-1)


def scores_to_gradients(
    scores: Float[Tensor, "n v"], targets: Int[Tensor, " n"], *, sums: Float[Tensor, " n"], scales: Float[Tensor, " n"]
) -> None:
    """Write over scores with their gradients: `(softmax − one at the target) · scale`, with `sums` of `log_sum_exp`."""
    if _with_kernels(scores):
        from pilot.nn import cross_entropy_kernels as kernels

        return kernels.scores_to_gradients(scores, targets, sums=sums, scales=scales)
    likelihood = (scores.float() - sums[:, None]).exp_()
    likelihood[torch.arange(len(targets), device=targets.device), targets] -= 1
    scores.copy_(likelihood.mul_(scales[:, None]))
    return None


def _with_kernels(scores: Tensor) -> bool:
    return scores.is_cuda and find_spec("triton") is not None
