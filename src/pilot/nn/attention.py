"""Rotary positions and grouped-query attention over a key-value cache.

Axes: `b` batch, `t` query, `s` key, `n` heads, `k` key-value heads, `h` head dim.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

MASKED = -2.3819763e38
"""Added to a score where a query may not look."""

KV = tuple[Tensor, Tensor]
"""Keys (after the rotation) and values of one layer, each [b k s h]."""


def rotary_angles(
    positions: Int[Tensor, "b t"], head_dim: int, base: float = 10_000.0
) -> tuple[Float[Tensor, "b 1 t h"], Float[Tensor, "b 1 t h"]]:
    """Cosines and signed sines for `rotate`, in fp32.

    The reference's PyTorch port rounds them to bf16, its JAX does not.
    """
    exponent = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    angles = positions[:, None, :, None].float() * base**-exponent
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(
    x: Float[Tensor, "b n t h"], angles: tuple[Float[Tensor, "b 1 t h"], Float[Tensor, "b 1 t h"]]
) -> Float[Tensor, "b n t h"]:
    """Half-split rotary embedding: dim `i` of the first half pairs with dim `i` of the second."""
    cos, signed_sin = angles
    x_ = x.float()
    return torch.addcmul(x_ * cos, x_.roll(x.shape[-1] // 2, dims=-1), signed_sin).to(x.dtype)


def additive_mask(mask: Bool[Tensor, "b t s"], dtype: torch.dtype) -> Float[Tensor, "b 1 t s"]:
    """0 where a query may look, a very negative number elsewhere: a row that sees nothing averages, it is never NaN."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, MASKED)[:, None]


def attend(
    q: Float[Tensor, "b n t h"],
    k: Float[Tensor, "b k s h"],
    v: Float[Tensor, "b k s h"],
    mask: Float[Tensor, "b 1 t s"],
) -> Float[Tensor, "b t nh"]:
    """Softmax attention scaled by `h**-0.5`; key-value heads are shared, never copied."""
    if k.shape[1] != q.shape[1]:
        groups = q.shape[1] // k.shape[1]
        k, v = (x.unsqueeze(2).expand(-1, -1, groups, -1, -1).flatten(1, 2) if x.shape[1] > 1
                else x.expand(-1, q.shape[1], -1, -1) for x in (k, v))  # fmt: skip
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # [b n t h]
    return out.transpose(1, 2).flatten(2)


def concatenate(past: KV, k: Tensor, v: Tensor) -> KV:
    """The layer's keys and values with new ones behind."""
    return torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)


def detach(cache: list[KV]) -> list[KV]:
    """The same numbers without a way back for gradients: knowledge insulation (arXiv 2505.23705)."""
    return [(k.detach(), v.detach()) for k, v in cache]
