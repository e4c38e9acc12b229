"""Triton kernels of `cross_entropy.py`: each reads a row of scores once; their twins in plain torch are there.

Axes: `n` tokens, `v` vocabulary.
"""

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

BLOCK = 4096


@triton.jit
@no_type_check
def _log_sum_exp(scores, sums, words, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    scores += row.to(tl.int64) * words
    columns = tl.arange(0, BLOCK)
    largest = tl.full((BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, words, BLOCK):
        x = tl.load(scores + start + columns, mask=start + columns < words, other=float("-inf")).to(tl.float32)
        new = tl.maximum(tl.maximum(largest, x), -1e30)  # a lane with no word yet stays finite
        total = total * tl.exp(largest - new) + tl.exp(x - new)
        largest = new
    top = tl.max(largest)
    tl.store(sums + row, top + tl.log(tl.sum(total * tl.exp(largest - top))))


@triton.jit
@no_type_check
def _scores_to_gradients(scores, targets, sums, scales, words, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    scores += row.to(tl.int64) * words
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < words
    x = tl.load(scores + columns, mask=inside, other=float("-inf")).to(tl.float32)
    likelihood = tl.exp(x - tl.load(sums + row))
    likelihood = tl.where(columns == tl.load(targets + row), likelihood - 1, likelihood)
    tl.store(scores + columns, (likelihood * tl.load(scales + row)).to(scores.dtype.element_ty), mask=inside)


def log_sum_exp(scores: Float[Tensor, "n v"]) -> Float[Tensor, " n"]:
    """Return what `cross_entropy.log_sum_exp` does."""
    assert scores.is_contiguous()
    sums = torch.empty(len(scores), device=scores.device)
    options: dict[str, Any] = {"num_warps": 8}  # of the launch, which the kernel's signature does not name
    _log_sum_exp[(len(scores),)](scores, sums, scores.shape[1], BLOCK=BLOCK, **options)
    return sums


def scores_to_gradients(
    scores: Float[Tensor, "n v"], targets: Int[Tensor, " n"], *, sums: Float[Tensor, " n"], scales: Float[Tensor, " n"]
) -> None:
    """Do what `cross_entropy.scores_to_gradients` does, in place."""
    assert scores.is_contiguous()
    grid = (len(scores), triton.cdiv(scores.shape[1], BLOCK))
    options: dict[str, Any] = {"num_warps": 8}
    _scores_to_gradients[grid](
        scores, targets, sums.contiguous(), scales.contiguous(), scores.shape[1], BLOCK=BLOCK, **options
    )  # fmt: skip
