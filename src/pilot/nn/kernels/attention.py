"""Attention of few queries, or many, over a cache: all heads that share keys are rows of one product.

Where there are few rows the keys are split among programs, and what they found is combined by a second launch: 400 rows
are 7 programs of a chip that has 132. Which slots are seen is the same for all queries of a row of the batch.

Axes: `b` batch, `r` rows (tokens × heads), `h` head dim, `s` cache slots, `p` parts of the keys.
"""

from typing import NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pilot.nn.kernels.products import Tile, _wait, options

_HIDDEN = tl.constexpr(-1e30)  # less than any score, and a row of nothing else averages
_LOG2_E = 1.4426950408889634


class Cut(NamedTuple):
    """The blocks of attention: rows and slots at a time, slots of each part (0: one part); warps and stages."""

    rows: int
    slots: int
    part: int = 0
    warps: int = 4
    stages: int = 2


class Parts(NamedTuple):
    """The results of the parts: an average of values each, and the logarithm (of 2) of the sum of its weights."""

    averages: Float[Tensor, "_ h"]
    logarithms: Float[Tensor, " _"]

    @classmethod
    def empty(cls, queries: Float[Tensor, "b r h"], *, slots: int, part: int) -> "Parts":
        """Make room for the parts of all queries, of `part` slots each."""
        rows = triton.cdiv(slots, part) * queries.shape[0] * queries.shape[1]
        return cls(queries.new_empty((rows, queries.shape[2])), queries.new_empty(rows, dtype=torch.float32))


@triton.jit
@no_type_check
def _attend_kernel(queries, keys, values, bias, out, logarithms, rows, slots, key_stride, bias_stride, scale,
                   PART: tl.constexpr, SPLIT: tl.constexpr, BIASED: tl.constexpr, HEAD_DIM: tl.constexpr,
                   BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, EARLY: tl.constexpr):  # fmt: skip
    part, batch = tl.program_id(1), tl.program_id(2)
    row, h = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M), tl.arange(0, HEAD_DIM)
    live = row < rows
    keys += batch.to(tl.int64) * key_stride
    values += batch.to(tl.int64) * key_stride
    most = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    weights = tl.zeros((BLOCK_M,), tl.float32)
    total = tl.zeros((BLOCK_M, HEAD_DIM), tl.float32)
    first = part * PART
    end = min(first + PART, slots)
    _wait(EARLY)
    q = tl.load(queries + (batch * rows + row)[:, None] * HEAD_DIM + h[None, :], mask=live[:, None], other=0.0)
    for start in range(first, end, BLOCK_N):
        slot = start + tl.arange(0, BLOCK_N)
        inside = slot < end
        k = tl.load(keys + slot[:, None] * HEAD_DIM + h[None, :], mask=inside[:, None], other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        if BIASED:
            seen = tl.load(bias + batch * bias_stride + slot, mask=inside, other=0.0).to(tl.float32) > -1.0
            scores = tl.where(seen[None, :], scores, _HIDDEN)
        scores = tl.where(inside[None, :], scores, float("-inf"))
        higher = tl.maximum(most, tl.max(scores, 1))
        weight, fade = tl.exp2(scores - higher[:, None]), tl.exp2(most - higher)
        v = tl.load(values + slot[:, None] * HEAD_DIM + h[None, :], mask=inside[:, None], other=0.0)
        total = tl.dot(weight.to(v.dtype), v, total * fade[:, None], input_precision="ieee")
        weights = weights * fade + tl.sum(weight, 1)
        most = higher
    total /= weights[:, None]
    at = (batch * tl.num_programs(1) + part) * rows + row
    tl.store(out + at[:, None] * HEAD_DIM + h[None, :], total.to(out.dtype.element_ty), mask=live[:, None])
    if SPLIT:
        tl.store(logarithms + at, most + tl.log2(weights), mask=live)


@triton.jit
@no_type_check
def _combine_kernel(averages, logarithms, out, rows, parts, HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr,
                    EARLY: tl.constexpr):  # fmt: skip
    batch, h = tl.program_id(1), tl.arange(0, HEAD_DIM)
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    live = row < rows
    most = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    weights = tl.zeros((BLOCK_M,), tl.float32)
    total = tl.zeros((BLOCK_M, HEAD_DIM), tl.float32)
    _wait(EARLY)
    for part in range(parts):
        at = (batch * parts + part) * rows + row
        logarithm = tl.load(logarithms + at, mask=live, other=0.0)
        average = tl.load(averages + at[:, None] * HEAD_DIM + h[None, :], mask=live[:, None], other=0.0)
        higher = tl.maximum(most, logarithm)
        fade, weight = tl.exp2(most - higher), tl.exp2(logarithm - higher)
        total = total * fade[:, None] + average.to(tl.float32) * weight[:, None]
        weights = weights * fade + weight
        most = higher
    at = (batch * rows + row)[:, None] * HEAD_DIM + h[None, :]
    tl.store(out + at, (total / weights[:, None]).to(out.dtype.element_ty), mask=live[:, None])


def attend(
    queries: Float[Tensor, "b r h"],
    keys: Float[Tensor, "b 1 s h"],
    values: Float[Tensor, "b 1 s h"],
    bias: Float[Tensor, "b s"] | None,
    *,
    out: Float[Tensor, "b r h"],
    cut: Cut,
    parts: Parts | None = None,
    early: bool = False,
) -> None:
    """Softmax attention scaled by `h**-0.5`. `bias` is 0 where a slot is seen and very negative elsewhere.

    `parts` are needed where the keys are split.
    """
    batch, rows, head_dim = queries.shape
    slots, split = keys.shape[2], parts is not None
    count = triton.cdiv(slots, cut.part) if split else 1
    assert keys.stride() == values.stride() and keys.stride()[2:] == (head_dim, 1)
    assert queries.is_contiguous() and out.is_contiguous() and cut.part % cut.slots == 0
    tile, scale = Tile(0, 0, warps=cut.warps, stages=cut.stages), head_dim**-0.5 * _LOG2_E
    _attend_kernel[(triton.cdiv(rows, cut.rows), count, batch)](
        queries, keys, values, bias, parts.averages if parts else out, parts.logarithms if parts else None, rows,
        slots, keys.stride(0), 0 if bias is None else bias.stride(0), scale, PART=cut.part or 1 << 30,
        SPLIT=split, BIASED=bias is not None, HEAD_DIM=head_dim, BLOCK_M=cut.rows, BLOCK_N=cut.slots, EARLY=early,
        **options(tile, early),
    )  # fmt: skip
    if parts is not None:
        tall = 4
        _combine_kernel[(triton.cdiv(rows, tall), batch)](
            parts.averages, parts.logarithms, out, rows, count, HEAD_DIM=head_dim, BLOCK_M=tall, EARLY=early,
            **options(Tile(0, 0, warps=4, stages=2), early),
        )  # fmt: skip


def plain_attend(
    queries: Float[Tensor, "b r h"],
    keys: Float[Tensor, "b 1 s h"],
    values: Float[Tensor, "b 1 s h"],
    bias: Float[Tensor, "b s"] | None,
    *,
    out: Float[Tensor, "b r h"],
) -> None:
    """`attend` in PyTorch."""
    mask = None if bias is None else bias[:, None, None].float()
    q, k, v = queries[:, None].float(), keys.float(), values.float()
    out.copy_(F.scaled_dot_product_attention(q, k, v, attn_mask=mask)[:, 0])
