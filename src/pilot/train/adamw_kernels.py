"""The two Triton kernels of `fused_adamw.py`, which says what they compute.

Both take tensors of any sizes at once. `table` [8 tensors] holds addresses of gradients, weights, first and second
moments, averages and bf16 copies, then how many elements have a gradient (all or none), and how many there are.
`EVEN` says that 16 divides all sizes. Program `i` works on one block of one tensor, and `of_block` [i 2] holds the
tensor's number and the block's.
"""

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

BLOCK = 4096
"""Elements of one tensor that one program works on."""


@triton.jit
@no_type_check
def _sum_squares(table, of_block, sums, count, BF16: tl.constexpr, EVEN: tl.constexpr, BLOCK: tl.constexpr):
    program = tl.program_id(0)
    tensor = tl.load(of_block + 2 * program)
    start = tl.load(of_block + 2 * program + 1).to(tl.int64) * BLOCK
    gradient: tl.constexpr = tl.bfloat16 if BF16 else tl.float32
    gradients = tl.multiple_of(tl.load(table + tensor).to(tl.pointer_type(gradient)), 16)
    end = tl.load(table + 6 * count + tensor)
    if EVEN:
        end = tl.multiple_of(end, 16)  # whole vectors are within the tensor, so they are read at once
    offsets = tl.multiple_of(start, BLOCK) + tl.arange(0, BLOCK)
    inside = offsets < end
    g = tl.load(gradients + offsets, mask=inside, other=0.0).to(tl.float32)
    tl.store(sums + program, tl.sum(g * g))


@triton.jit
@no_type_check
def _update(
    table, of_block, decays, corrections, clip, rates, count,
    beta1, beta2, eps,
    BF16: tl.constexpr, EVEN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    tensor = tl.load(of_block + 2 * program)
    start = tl.load(of_block + 2 * program + 1).to(tl.int64) * BLOCK
    gradient: tl.constexpr = tl.bfloat16 if BF16 else tl.float32
    gradients = tl.multiple_of(tl.load(table + tensor).to(tl.pointer_type(gradient)), 16)
    weights = tl.multiple_of(tl.load(table + count + tensor).to(tl.pointer_type(tl.float32)), 16)
    firsts = tl.multiple_of(tl.load(table + 2 * count + tensor).to(tl.pointer_type(tl.float32)), 16)
    seconds = tl.multiple_of(tl.load(table + 3 * count + tensor).to(tl.pointer_type(tl.float32)), 16)
    averages = tl.multiple_of(tl.load(table + 4 * count + tensor).to(tl.pointer_type(tl.float32)), 16)
    copies = tl.multiple_of(tl.load(table + 5 * count + tensor).to(tl.pointer_type(tl.bfloat16)), 16)
    change_end, end = tl.load(table + 6 * count + tensor), tl.load(table + 7 * count + tensor)
    if EVEN:
        change_end, end = tl.multiple_of(change_end, 16), tl.multiple_of(end, 16)
    offsets = tl.multiple_of(start, BLOCK) + tl.arange(0, BLOCK)
    inside = offsets < end
    changes = offsets < change_end  # no gradient, no change; but the average follows
    w = tl.load(weights + offsets, mask=inside)
    g = tl.load(gradients + offsets, mask=changes, other=0.0).to(tl.float32) * tl.load(clip)
    m = tl.load(firsts + offsets, mask=changes, other=0.0)
    v = tl.load(seconds + offsets, mask=changes, other=0.0)
    m = m + (1 - beta1) * (g - m)
    v = beta2 * v + (1 - beta2) * g * g
    lr, ema_decay = tl.load(rates), tl.load(rates + 1)
    first = tl.load(corrections + tensor)
    second = tl.load(corrections + count + tensor)
    denominator = tl.sqrt_rn(v) * second + eps
    new = w * (1 - lr * tl.load(decays + tensor)) - lr * first * tl.div_rn(m, denominator)
    w = tl.where(changes, new, w)
    a = tl.load(averages + offsets, mask=inside)
    tl.store(weights + offsets, w, mask=changes)
    tl.store(firsts + offsets, m, mask=changes)
    tl.store(seconds + offsets, v, mask=changes)
    tl.store(averages + offsets, a + (1 - ema_decay) * (w - a), mask=inside)
    tl.store(copies + offsets, w.to(tl.bfloat16, fp_downcast_rounding="rtne"), mask=changes)


def sum_squares(
    table: Int[Tensor, "8 n"], of_block: Int[Tensor, "i 2"], *, bf16: bool, even: bool
) -> Float[Tensor, " i"]:
    """Return the sum of the squares of the gradients in each block; `bf16` says what gradients are in."""
    sums = table.new_empty(len(of_block), dtype=torch.float32)
    _sum_squares[(len(of_block),)](table, of_block, sums, table.shape[1], BF16=bf16, EVEN=even, BLOCK=BLOCK)
    return sums


def update(
    table: Int[Tensor, "8 n"],
    of_block: Int[Tensor, "i 2"],
    *,
    decays: Float[Tensor, " n"],
    corrections: Float[Tensor, "2 n"],
    clip: Float[Tensor, ""],
    rates: Float[Tensor, "2"],
    betas: tuple[float, float],
    eps: float,
    bf16: bool,
    even: bool,
) -> None:
    """Change all tensors of `table` as `fused_adamw.update_plain` would change each.

    `decays` are the weight decays, `corrections` the factors that make up for moments that start at zero, `rates` the
    learning rate and the decay of the average.
    """
    options: dict[str, Any] = {"num_warps": 8}  # of the launch, which the kernel's signature does not name
    _update[(len(of_block),)](
        table, of_block, decays, corrections, clip, rates, table.shape[1],
        *betas, eps,
        BF16=bf16, EVEN=even, BLOCK=BLOCK, **options,
    )  # fmt: skip
