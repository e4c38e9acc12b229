"""The two ends of a denoising step: noisy actions into the residual stream, and out of it a step along the flow.

Axes: `r` rows (actions of all chunks), `ad` action dims, `d` width.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pilot.nn.kernels.products import Stream, Tile, _lengths, _wait, block_rows, normed_product, options, plain_begin
from pilot.nn.norms import EPS


@triton.jit
@no_type_check
def _embed_kernel(actions, weight, bias, factor, x, scaled, squares, rows, DIMS: tl.constexpr, WIDTH: tl.constexpr,
                  TILES: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
                  EARLY: tl.constexpr):  # fmt: skip
    tile, k = tl.program_id(0), tl.arange(0, BLOCK_K)
    column = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    live, known = row < rows, k < DIMS
    w = tl.load(weight + column[None, :] * DIMS + k[:, None], mask=known[:, None], other=0.0)
    _wait(EARLY)
    a = tl.load(actions + row[:, None] * DIMS + k[None, :], mask=live[:, None] & known[None, :], other=0.0)
    total = tl.dot(a.to(w.dtype), w, input_precision="ieee") + tl.load(bias + column)[None, :].to(tl.float32)
    at, inside = row[:, None] * WIDTH + column[None, :], live[:, None]
    rounded = total.to(x.dtype.element_ty)
    tl.store(x + at, rounded, mask=inside)
    rounded = rounded.to(tl.float32)
    tl.store(squares + row * TILES + tile, tl.sum(rounded * rounded, 1), mask=live)
    tl.store(scaled + at, (rounded * tl.load(factor + column)[None, :]).to(scaled.dtype.element_ty), mask=inside)


@triton.jit
@no_type_check
def _step_kernel(scaled, squares, weight, bias, shifted, start, end, by, rows, DIMS: tl.constexpr,
                 BLOCK_DIMS: tl.constexpr, WIDTH: tl.constexpr, FLOOR: tl.constexpr, TILES: tl.constexpr,
                 SHIFTED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr,
                 EARLY: tl.constexpr):  # fmt: skip
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    dim, k = tl.arange(0, BLOCK_DIMS), tl.arange(0, BLOCK_K)
    live, known = row < rows, dim < DIMS
    velocity = tl.zeros((BLOCK_M, BLOCK_DIMS), tl.float32)
    _wait(EARLY)
    for first in range(0, WIDTH, BLOCK_K):
        a = tl.load(scaled + row[:, None] * WIDTH + (first + k)[None, :], mask=live[:, None], other=0.0)
        w = tl.load(weight + dim[None, :] * WIDTH + (first + k)[:, None], mask=known[None, :], other=0.0)
        velocity = tl.dot(a, w, velocity, input_precision="ieee")
    velocity *= _lengths(squares, row, live, FLOOR, TILES)[:, None]
    velocity += tl.load(bias + dim, mask=known, other=0.0)[None, :].to(tl.float32)
    if SHIFTED:
        velocity += tl.load(shifted + dim, mask=known, other=0.0)[None, :]
    at, inside = row[:, None] * DIMS + dim[None, :], live[:, None] & known[None, :]
    tl.store(end + at, tl.load(start + at, mask=inside, other=0.0) + by * velocity, mask=inside)


def embed_actions(
    actions: Float[Tensor, "r ad"],
    linear: torch.nn.Linear,
    *,
    stream: Stream,
    factor: Float[Tensor, " d"],
    early: bool = False,
) -> None:
    """Begin a stream with `linear(actions)`; `factor` is that of the first norm."""
    (rows, dims), width, tiles = actions.shape, stream.x.shape[1], stream.squares.shape[1]
    tall = block_rows(rows)
    _embed_kernel[(tiles, triton.cdiv(rows, tall))](
        actions, linear.weight, linear.bias, factor, stream.x, stream.scaled, stream.squares, rows, DIMS=dims,
        WIDTH=width, TILES=tiles, BLOCK_M=tall, BLOCK_N=width // tiles,
        BLOCK_K=max(16, triton.next_power_of_2(dims)), EARLY=early, **options(Tile(0, 0), early),
    )  # fmt: skip


def plain_embed_actions(
    actions: Float[Tensor, "r ad"], linear: torch.nn.Linear, *, stream: Stream, factor: Float[Tensor, " d"]
) -> None:
    """`embed_actions` in PyTorch."""
    stream.x.copy_(F.linear(actions.to(linear.weight.dtype).float(), linear.weight.float(), linear.bias.float()))
    plain_begin(stream, factor)


def step_along(
    stream: Stream,
    linear: torch.nn.Linear,
    shifted: Float[Tensor, " ad"] | None,
    *,
    start: Float[Tensor, "r ad"],
    by: float,
    end: Float[Tensor, "r ad"],
    early: bool = False,
) -> None:
    """`end = start + by · velocity`, where the velocity is `linear` of the stream behind its final norm."""
    (rows, dims), width = start.shape, stream.x.shape[1]
    inputs = min(width & -width, 256)
    _step_kernel[(triton.cdiv(rows, 16),)](
        stream.scaled, stream.squares, linear.weight, linear.bias, shifted, start, end, by, rows, DIMS=dims,
        BLOCK_DIMS=max(16, triton.next_power_of_2(dims)), WIDTH=width, FLOOR=width * EPS,
        TILES=stream.squares.shape[1], SHIFTED=shifted is not None, BLOCK_M=16, BLOCK_K=inputs, EARLY=early,
        **options(Tile(0, 0, stages=3), early),
    )  # fmt: skip


def plain_step_along(
    stream: Stream,
    linear: torch.nn.Linear,
    shifted: Float[Tensor, " ad"] | None,
    *,
    start: Float[Tensor, "r ad"],
    by: float,
    end: Float[Tensor, "r ad"],
) -> None:
    """`step_along` in PyTorch."""
    velocity = normed_product(stream, linear.weight, shifted) + linear.bias.float()
    end.copy_(start + by * velocity)
