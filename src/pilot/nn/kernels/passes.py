"""Passes over many tokens, each of which reads and writes memory once: what stands between large matrix products.

Axes: `r` rows (tokens), `d` width, `i` width of the MLP, `n` heads, `h` head dim, `b` batch, `t` tokens of each row.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pilot.nn.kernels.products import Tile, options
from pilot.nn.norms import EPS


@triton.jit
@no_type_check
def _norm_kernel(x, branch, gate, factor, shift, out, gate_stride, factor_stride, WIDTH: tl.constexpr,
                 BLOCK: tl.constexpr, ADDS: tl.constexpr, GATED: tl.constexpr, SHIFTED: tl.constexpr,
                 FLOOR: tl.constexpr, LIMIT: tl.constexpr):  # fmt: skip
    row, d = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = d < WIDTH
    value = tl.load(x + row * WIDTH + d, mask=inside, other=0.0).to(tl.float32)
    if ADDS:
        added = tl.load(branch + row * WIDTH + d, mask=inside, other=0.0).to(tl.float32)
        if GATED:
            added *= tl.load(gate + row * gate_stride + d, mask=inside, other=0.0).to(tl.float32)
        rounded = (value + added).to(x.dtype.element_ty)
        tl.store(x + row * WIDTH + d, rounded, mask=inside)
        value = rounded.to(tl.float32)
    value *= tl.rsqrt(tl.sum(value * value, 0) + FLOOR)
    value *= tl.load(factor + row * factor_stride + d, mask=inside, other=0.0)
    if SHIFTED:
        value += tl.load(shift + row * factor_stride + d, mask=inside, other=0.0)
    if LIMIT > 0:
        value = tl.clamp(value, -LIMIT, LIMIT)
    tl.store(out + row * WIDTH + d, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
@no_type_check
def _layer_norm_kernel(x, branch, added_bias, weight, bias, out, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
                       ADDS: tl.constexpr, FLOOR: tl.constexpr):  # fmt: skip
    row, d = tl.program_id(0), tl.arange(0, BLOCK)
    inside = d < WIDTH
    value = tl.load(x + row * WIDTH + d, mask=inside, other=0.0).to(tl.float32)
    if ADDS:
        value += tl.load(branch + row * WIDTH + d, mask=inside, other=0.0).to(tl.float32)
        value += tl.load(added_bias + d, mask=inside, other=0.0).to(tl.float32)
        rounded = value.to(x.dtype.element_ty)
        tl.store(x + row * WIDTH + d, rounded, mask=inside)
        value = rounded.to(tl.float32)
    value = tl.where(inside, value - tl.sum(value, 0) / WIDTH, 0.0)
    value *= tl.rsqrt(tl.sum(value * value, 0) / WIDTH + FLOOR)
    value *= tl.load(weight + d, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(bias + d, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * WIDTH + d, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
@no_type_check
def _rotate_kernel(qkv, cos, sin, queries, keys, values, tokens, angle_stride, key_stride, HEADS: tl.constexpr,
                   BLOCK_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr):  # fmt: skip
    """One token: its queries and its key rotated, its value moved."""
    HALF: tl.constexpr = HEAD_DIM // 2
    row = tl.program_id(0).to(tl.int64)
    batch, token = row // tokens, row % tokens
    head, low = tl.arange(0, BLOCK_HEADS)[:, None], tl.arange(0, HALF)[None, :]
    at, inside = row * ((HEADS + 2) * HEAD_DIM) + head * HEAD_DIM + low, (head <= HEADS) & (low < HALF)
    one = tl.load(qkv + at, mask=inside, other=0.0).to(tl.float32)
    two = tl.load(qkv + at + HALF, mask=inside, other=0.0).to(tl.float32)
    angle = batch * angle_stride + token * HEAD_DIM + low
    c, s = tl.load(cos + angle), tl.load(sin + angle)
    kind = queries.dtype.element_ty
    one, two = (one * c - two * s).to(kind), (two * c + one * s).to(kind)
    at = row * (HEADS * HEAD_DIM) + head * HEAD_DIM + low
    tl.store(queries + at, one, mask=head < HEADS)
    tl.store(queries + at + HALF, two, mask=head < HEADS)
    slot = batch * key_stride + token * HEAD_DIM
    at = keys + slot + head * 0 + low
    tl.store(at, one, mask=head == HEADS)
    tl.store(at + HALF, two, mask=head == HEADS)
    h = tl.arange(0, HEAD_DIM)
    tl.store(values + slot + h, tl.load(qkv + row * ((HEADS + 2) * HEAD_DIM) + (HEADS + 1) * HEAD_DIM + h))


@triton.jit
@no_type_check
def _gelu_kernel(gate_up, out, scale, INNER: tl.constexpr, BLOCK: tl.constexpr, LIMIT: tl.constexpr):
    row, i = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = i < INNER
    gate = tl.load(gate_up + row * (2 * INNER) + i, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * (2 * INNER) + INNER + i, mask=inside, other=0.0).to(tl.float32)
    gate *= tl.sigmoid(1.5957691216057308 * (gate + 0.044715 * gate * gate * gate))
    product = gate * up
    if LIMIT > 0:
        product = tl.clamp(product * scale, -LIMIT, LIMIT)
    tl.store(out + row * INNER + i, product.to(out.dtype.element_ty), mask=inside)


def add_norm(
    x: Float[Tensor, "r d"],
    branch: Float[Tensor, "r d"] | None,
    gate: Float[Tensor, "#r d"] | Float[Tensor, " d"] | None,
    factor: Float[Tensor, "#r d"] | Float[Tensor, " d"],
    shift: Float[Tensor, "#r d"] | Float[Tensor, " d"] | None,
    *,
    out: Float[Tensor, "r d"],
) -> None:
    """`x += gate · branch`, then `x / ‖x‖ · factor + shift`: a residual connection and the norm behind it.

    The factor carries `sqrt(d)`. Gate, factor and shift are the same for all rows, or of each row.
    """
    rows, width = x.shape
    block = triton.next_power_of_2(width)
    _norm_kernel[(rows,)](
        x, branch, gate, factor, shift, out, _row_stride(gate), _row_stride(factor), WIDTH=width, BLOCK=block,
        ADDS=branch is not None, GATED=gate is not None, SHIFTED=shift is not None, FLOOR=width * EPS,
        LIMIT=_limit(out),
        **options(Tile(0, 0, warps=max(1, min(8, block // 512))), False),
    )  # fmt: skip


def _row_stride(constants: Tensor | None) -> int:
    return 0 if constants is None or constants.ndim == 1 or len(constants) == 1 else constants.stride(0)


def plain_add_norm(
    x: Float[Tensor, "r d"],
    branch: Float[Tensor, "r d"] | None,
    gate: Float[Tensor, "#r d"] | Float[Tensor, " d"] | None,
    factor: Float[Tensor, "#r d"] | Float[Tensor, " d"],
    shift: Float[Tensor, "#r d"] | Float[Tensor, " d"] | None,
    *,
    out: Float[Tensor, "r d"],
) -> None:
    """`add_norm` in PyTorch."""
    if branch is not None:
        x.copy_(x.float() + (branch.float() if gate is None else branch.float() * gate.float()))
    value = x.float()
    value = value * (value.square().sum(-1, keepdim=True) + x.shape[1] * EPS).rsqrt() * factor
    _write(value if shift is None else value + shift, out)


def add_layer_norm(
    x: Float[Tensor, "r d"],
    branch: Float[Tensor, "r d"] | None,
    branch_bias: Float[Tensor, " d"] | None,
    norm: torch.nn.LayerNorm,
    *,
    out: Float[Tensor, "r d"],
) -> None:
    """`x += branch + branch_bias`, then the norm of it: the same for SigLIP."""
    rows, width = x.shape
    block = triton.next_power_of_2(width)
    _layer_norm_kernel[(rows,)](
        x, branch, branch_bias, norm.weight, norm.bias, out, WIDTH=width, BLOCK=block, ADDS=branch is not None,
        FLOOR=norm.eps, **options(Tile(0, 0, warps=max(1, min(8, block // 512))), False),
    )  # fmt: skip


def plain_add_layer_norm(
    x: Float[Tensor, "r d"],
    branch: Float[Tensor, "r d"] | None,
    branch_bias: Float[Tensor, " d"] | None,
    norm: torch.nn.LayerNorm,
    *,
    out: Float[Tensor, "r d"],
) -> None:
    """`add_layer_norm` in PyTorch."""
    if branch is not None and branch_bias is not None:
        x.copy_(x.float() + branch.float() + branch_bias.float())
    out.copy_(F.layer_norm(x.float(), x.shape[1:], norm.weight.float(), norm.bias.float(), norm.eps))


def rotate_into(
    qkv: Float[Tensor, "r o"],
    *,
    cos: Float[Tensor, "_ t 1 h"],
    sin: Float[Tensor, "_ t 1 _"],
    queries: Float[Tensor, "r nh"],
    keys: Float[Tensor, "b 1 t h"],
    values: Float[Tensor, "b 1 t h"],
) -> None:
    """Queries, keys and values from where a product put them to where attention looks for them, rotated."""
    rows, (tokens, head_dim) = len(qkv), keys.shape[2:]
    heads = queries.shape[1] // head_dim
    assert keys.stride()[2:] == values.stride()[2:] == (head_dim, 1) and cos.stride(1) == sin.stride(1) == head_dim
    _rotate_kernel[(rows,)](
        qkv, cos, sin, queries, keys, values, tokens, 0 if len(cos) == 1 else cos.stride(0), keys.stride(0),
        HEADS=heads, BLOCK_HEADS=triton.next_power_of_2(heads + 1), HEAD_DIM=head_dim,
        **options(Tile(0, 0, warps=4), False),
    )  # fmt: skip


def plain_rotate_into(
    qkv: Float[Tensor, "r o"],
    *,
    cos: Float[Tensor, "_ t 1 h"],
    sin: Float[Tensor, "_ t 1 _"],
    queries: Float[Tensor, "r nh"],
    keys: Float[Tensor, "b 1 t h"],
    values: Float[Tensor, "b 1 t h"],
) -> None:
    """`rotate_into` in PyTorch."""
    batch, _, tokens, head_dim = keys.shape
    product = qkv.float().view(batch, tokens, -1, head_dim)
    low, high = product[:, :, :-1].chunk(2, dim=-1)
    c = cos[..., : head_dim // 2]
    rotated = torch.cat((low * c - high * sin, high * c + low * sin), dim=-1)
    queries.copy_(rotated[:, :, :-1].reshape(len(queries), -1))
    keys.copy_(rotated[:, :, -1:].transpose(1, 2))
    values.copy_(product[:, :, -1:].transpose(1, 2))


def gelu_product(gate_up: Float[Tensor, "r _"], *, out: Float[Tensor, "r i"], scale: float = 1.0) -> None:
    """`GELU(gate) · up` of the two halves of each row; `scale` times that into an `out` of FP8."""
    rows, inner = out.shape
    block = min(2048, triton.next_power_of_2(inner))
    grid = (rows, triton.cdiv(inner, block))
    assert scale == 1 or out.dtype.itemsize == 1
    _gelu_kernel[grid](
        gate_up, out, scale, INNER=inner, BLOCK=block, LIMIT=_limit(out), **options(Tile(0, 0, warps=4), False)
    )


def plain_gelu_product(gate_up: Float[Tensor, "r _"], *, out: Float[Tensor, "r i"], scale: float = 1.0) -> None:
    """`gelu_product` in PyTorch."""
    gate, up = gate_up.float().chunk(2, dim=-1)
    _write(F.gelu(gate, approximate="tanh") * up * scale, out)


def _limit(out: Tensor) -> float:
    """Return the largest number of FP8, where numbers saturate; 0 for wider ones, which have room."""
    return torch.finfo(out.dtype).max if out.dtype.itemsize == 1 else 0.0


def _write(value: Tensor, out: Tensor) -> None:
    out.copy_(value.clamp(-_limit(out), _limit(out)) if _limit(out) else value)
