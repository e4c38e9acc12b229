"""Rotary positions and grouped-query attention over a key-value cache.

Axes: `b` batch, `p` rows of a past (each for one or several of the batch), `t` query, `s` key, `n` heads, `k` key-value
heads, `h` head dim, `m` rows of a mask: queries, or those of each head of a group (`g` heads to a key-value head).
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
    """Return cosines and signed sines for `rotate`, in fp32.

    openpi's PyTorch port rounds them to bf16, its JAX does not.
    """
    exponent = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    angles = positions[:, None, :, None].float() * base**-exponent
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(
    x: Float[Tensor, "b n t h"], angles: tuple[Float[Tensor, "b 1 t h"], Float[Tensor, "b 1 t h"]]
) -> Float[Tensor, "b n t h"]:
    """Apply the half-split rotary embedding: dim `i` of the first half pairs with dim `i` of the second."""
    cos, signed_sin = angles
    # In fp32: bf16 has 8 bits for an angle's sine, too few to tell neighbouring positions apart.
    x_ = x.float()
    return torch.addcmul(x_ * cos, x_.roll(x.shape[-1] // 2, dims=-1), signed_sin).to(x.dtype)


def additive_mask(mask: Bool[Tensor, "b t s"], dtype: torch.dtype) -> Float[Tensor, "b 1 t s"]:
    """Return 0 where a query may look, and a very negative number elsewhere.

    It is not −inf: a query that sees nothing averages over all keys, and is never NaN.
    """
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, MASKED)[:, None]


def attend(
    q: Float[Tensor, "b n t h"],
    k: Float[Tensor, "p k s h"],
    v: Float[Tensor, "p k s h"],
    mask: Float[Tensor, "b 1 m s"],
) -> Float[Tensor, "b t nh"]:
    """Compute softmax attention scaled by `h**-0.5`; keys and values are shared and never copied.

    They may have fewer rows than the queries: then each of their rows serves the same number of consecutive query rows.
    Heads share them too. With a mask from `repeat_for_groups`, the heads of a group become queries of one head, so the
    gradients of keys and values are as large as the keys and values, and not that large once for each head.
    """
    if (rows := q.shape[0] // k.shape[0]) > 1:
        assert mask.shape[2] == q.shape[2], "a mask for groups of heads is not for rows that share"
        # Rows that share keys become queries of one row: a product over shared keys instead of copies of them.
        q, mask = (x.unflatten(0, (-1, rows)).transpose(1, 2).flatten(2, 3) for x in (q, mask))  # [p n b/p*t h]
        return attend(q, k, v, mask).unflatten(1, (rows, -1)).flatten(0, 1)
    heads, queries = q.shape[1:3]
    if mask.shape[2] != queries:
        q = q.unflatten(1, (k.shape[1], -1)).flatten(2, 3)  # [b k gt h]
    elif (groups := heads // k.shape[1]) > 1:
        # One key-value head needs no copy to serve all heads; several are repeated, each for its group.
        k, v = (x.unsqueeze(2).expand(-1, -1, groups, -1, -1).flatten(1, 2) if x.shape[1] > 1
                else x.expand(-1, heads, -1, -1) for x in (k, v))  # fmt: skip
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return out.reshape(q.shape[0], heads, queries, -1).transpose(1, 2).flatten(2)


def repeat_for_groups(mask: Float[Tensor, "b 1 t s"], groups: int) -> Float[Tensor, "b 1 m s"]:
    """Repeat a mask for the heads that share a key-value head, so that `attend` can treat them as queries of one head.

    Where queries are many the mask would be large: it comes back as it is.
    """
    return mask.repeat(1, 1, groups, 1) if groups * mask.shape[2] <= mask.shape[3] else mask


def append_kv(past: KV, k: Tensor, v: Tensor) -> KV:
    """Return a layer's keys and values with new ones behind.

    The past may have fewer rows: then each of its rows stands in front of the same number of consecutive new rows.
    """
    return _append(past[0], k), _append(past[1], v)


def _append(past: Float[Tensor, "p k s h"], new: Float[Tensor, "b k t h"]) -> Float[Tensor, "b k s+t h"]:
    if past.shape[0] == new.shape[0]:
        return torch.cat((past, new), dim=2)
    # Only here are shared keys copied, since each row goes on with tokens of its own.
    several = new.unflatten(0, (len(past), -1))  # [p b/p k t h]
    return torch.cat((past[:, None].expand(-1, several.shape[1], -1, -1, -1), several), dim=3).flatten(0, 1)


def detach(cache: list[KV]) -> list[KV]:
    """Return the cache without its gradients: knowledge insulation (arXiv 2505.23705)."""
    return [(k.detach(), v.detach()) for k, v in cache]
