"""DETR's transformer (Carion et al., arXiv 2005.12872), which ACT is built on.

Norms stand behind each residual sum, and positions are added to queries and keys in every layer, never to values.
Dropout is left out: a training step is a function of its seed, and dropout would draw from elsewhere.

Axes: `b` batch, `t` query, `s` key, `d` width, `p` positions.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class DetrConfig:
    width: int = 512
    mlp_dim: int = 3200
    num_heads: int = 8


class DetrAttention(nn.Module):
    """Multi-head attention; `seen` is False for keys that nobody looks at."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.q, self.k, self.v, self.out = (nn.Linear(config.width, config.width) for _ in range(4))

    def forward(
        self,
        queries: Float[Tensor, "b t d"],
        keys: Float[Tensor, "b s d"],
        values: Float[Tensor, "b s d"],
        seen: Bool[Tensor, "b s"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        projected = (self.q(queries), self.k(keys), self.v(values))
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in projected)  # [b n t h]
        mask = None if seen is None else seen[:, None, None]
        return self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.attention, self.attention_norm = DetrAttention(config), nn.LayerNorm(config.width)
        self.up, self.down = nn.Linear(config.width, config.mlp_dim), nn.Linear(config.mlp_dim, config.width)
        self.mlp_norm = nn.LayerNorm(config.width)

    def forward(
        self, x: Float[Tensor, "b t d"], positions: Float[Tensor, "#b t d"], seen: Bool[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t d"]:
        placed = x + positions
        x = self.attention_norm(x + self.attention(placed, placed, x, seen))
        return self.mlp_norm(x + self.down(F.relu(self.up(x))))


class DecoderLayer(EncoderLayer):
    """An encoder layer that also looks at a memory, between looking at itself and its MLP."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__(config)
        self.memory, self.memory_norm = DetrAttention(config), nn.LayerNorm(config.width)

    def forward(  # type: ignore[override]
        self,
        x: Float[Tensor, "b t d"],
        positions: Float[Tensor, "#b t d"],
        *,
        memory: Float[Tensor, "b s d"],
        memory_positions: Float[Tensor, "#b s d"],
        seen: Bool[Tensor, "b s"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        placed = x + positions
        x = self.attention_norm(x + self.attention(placed, placed, x))
        x = self.memory_norm(x + self.memory(x + positions, memory + memory_positions, memory, seen))
        return self.mlp_norm(x + self.down(F.relu(self.up(x))))


def sines(values: Float[Tensor, " p"], width: int) -> Float[Tensor, "p d"]:
    """Sines and cosines of values in turn, at geometric periods from 2π to 10,000 · 2π."""
    frequencies = 10_000 ** (-torch.arange(0, width, 2, device=values.device) / width)
    angles = values[:, None] * frequencies
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


def grid_positions(rows: int, columns: int, width: int, *, like: Tensor) -> Float[Tensor, "p d"]:
    """Codes of a grid's places, row by row: half of the channels for the row, half for the column, each in (0, 2π]."""
    axes = [sines(torch.arange(1, n + 1, device=like.device) / n * 2 * torch.pi, width // 2) for n in (rows, columns)]
    row, column = axes[0][:, None].expand(-1, columns, -1), axes[1][None].expand(rows, -1, -1)
    return torch.cat((row, column), dim=-1).flatten(0, 1).to(like.dtype)
