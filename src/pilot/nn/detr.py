"""DETR's transformer (Carion et al., arXiv 2005.12872), which ACT is built on.

Norms come after each residual sum, and positions are added to queries and keys in every layer, never to values.
Dropout is left out: a training step is a function of its seed, and dropout would draw from another generator.

Axes: `b` batch, `t` query, `s` key, `d` width, `p` positions.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from pilot.nn.configs import DetrConfig


class DetrAttention(nn.Module):
    """Multi-head attention; `key_mask` is False for keys that nobody sees."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.q = nn.Linear(config.width, config.width)
        self.k = nn.Linear(config.width, config.width)
        self.v = nn.Linear(config.width, config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(
        self,
        queries: Float[Tensor, "b t d"],
        keys: Float[Tensor, "b s d"],
        values: Float[Tensor, "b s d"],
        key_mask: Bool[Tensor, "b s"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Compute multi-head attention; keys where `key_mask` is false are not seen."""
        projected = (self.q(queries), self.k(keys), self.v(values))
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in projected)  # [b n t h]
        mask = None if key_mask is None else key_mask[:, None, None]
        return self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """Self-attention and MLP, each with a norm behind it."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.attention = DetrAttention(config)
        self.attention_norm = nn.LayerNorm(config.width)
        self.up = nn.Linear(config.width, config.mlp_dim)
        self.down = nn.Linear(config.mlp_dim, config.width)
        self.mlp_norm = nn.LayerNorm(config.width)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        positions: Float[Tensor, "#b t d"],
        key_mask: Bool[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Return the layer's output; positions are added to queries and keys, not to values."""
        positioned = x + positions
        x = self.attention_norm(x + self.attention(positioned, positioned, x, key_mask))
        return self.mlp_norm(x + self.down(F.relu(self.up(x))))


class DecoderLayer(EncoderLayer):
    """An encoder layer that also looks at a memory, between looking at itself and its MLP."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__(config)
        self.memory = DetrAttention(config)
        self.memory_norm = nn.LayerNorm(config.width)

    def forward(  # type: ignore[override]
        self,
        x: Float[Tensor, "b t d"],
        positions: Float[Tensor, "#b t d"],
        *,
        memory: Float[Tensor, "b s d"],
        memory_positions: Float[Tensor, "#b s d"],
        memory_mask: Bool[Tensor, "b s"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        positioned = x + positions
        x = self.attention_norm(x + self.attention(positioned, positioned, x))
        x = self.memory_norm(x + self.memory(x + positions, memory + memory_positions, memory, memory_mask))
        return self.mlp_norm(x + self.down(F.relu(self.up(x))))


def sine_features(values: Float[Tensor, " p"], width: int) -> Float[Tensor, "p d"]:
    """Return alternating sines and cosines of values, at geometric periods from 2π to 10,000 · 2π."""
    frequencies = 10_000 ** (-torch.arange(0, width, 2, device=values.device) / width)
    angles = values[:, None] * frequencies
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


def grid_positions(rows: int, columns: int, width: int, *, like: Tensor) -> Float[Tensor, "p d"]:
    """Return position codes of a grid's cells, row by row: half of the channels code the row, half the column.

    Both coordinates run over (0, 2π]; the codes have the dtype and device of `like`.
    """

    def code(count: int) -> Tensor:
        return sine_features(torch.arange(1, count + 1, device=like.device) / count * 2 * torch.pi, width // 2)

    row = code(rows)[:, None].expand(-1, columns, -1)
    column = code(columns)[None].expand(rows, -1, -1)
    return torch.cat((row, column), dim=-1).flatten(0, 1).to(like.dtype)
