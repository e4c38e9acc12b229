"""SigLIP's vision transformer: patches in, one token per patch out, projected to the width of the language model.

Axes: `b` pictures, `h w` pixels, `p` patches, `d` width, `o` output width.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class SiglipConfig:
    """`image_size` is the size whose patch grid the position table has; other sizes resample the table."""

    image_size: int = 224
    patch_size: int = 14
    width: int = 1152
    depth: int = 27
    mlp_dim: int = 4304
    num_heads: int = 16

    @property
    def grid(self) -> int:
        return self.image_size // self.patch_size


class SiglipBlock(nn.Module):
    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.attention_norm = nn.LayerNorm(config.width, eps=1e-6)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.mlp_norm = nn.LayerNorm(config.width, eps=1e-6)
        self.up = nn.Linear(config.width, config.mlp_dim)
        self.down = nn.Linear(config.mlp_dim, config.width)

    def forward(self, x: Float[Tensor, "b p d"]) -> Float[Tensor, "b p d"]:
        qkv = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.num_heads, -1))  # [b p 3 n h]
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.mlp_norm(x)), approximate="tanh"))


class Siglip(nn.Module):
    """Pictures in [-1, 1] → patch tokens [b p o]."""

    def __init__(self, config: SiglipConfig, out_width: int) -> None:
        super().__init__()
        self.config = config
        self.patch = nn.Linear(3 * config.patch_size**2, config.width)
        self.position = nn.Parameter(torch.zeros(config.grid**2, config.width))
        self.blocks = nn.ModuleList(SiglipBlock(config) for _ in range(config.depth))
        self.final_norm = nn.LayerNorm(config.width, eps=1e-6)
        self.head = nn.Linear(config.width, out_width)

    def positions(self, rows: int, columns: int) -> Float[Tensor, "p d"]:
        """The position table, resampled when the picture's grid is another."""
        grid = self.config.grid
        if (rows, columns) == (grid, grid):
            return self.position
        table = self.position.T.unflatten(-1, (grid, grid))[None]
        table = F.interpolate(table, (rows, columns), mode="bilinear", antialias=True, align_corners=False)
        return table[0].flatten(1).T

    def forward(self, images: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b p o"]:
        size = self.config.patch_size
        if images.shape[1] % size or images.shape[2] % size:
            raise ValueError(f"pictures of {tuple(images.shape[1:3])} pixels do not divide into patches of {size}")
        rows, columns = images.shape[1] // size, images.shape[2] // size
        patches = images.unflatten(2, (columns, size)).unflatten(1, (rows, size))  # [b rows size columns size 3]
        x = self.patch(patches.transpose(2, 3).flatten(3).flatten(1, 2)) + self.positions(rows, columns)  # [b p d]
        for block in self.blocks:
            x = block(x)
        return self.head(self.final_norm(x))


def sincos_table(grid: int, width: int) -> Float[Tensor, "p d"]:
    """Sine-cosine codes of a square grid, rows in the first half of the channels and columns in the second."""
    steps = (torch.arange(grid) + 0.5) / grid
    axis = fourier_features(steps, width // 2)
    rows = axis[:, None].expand(grid, grid, -1)
    return torch.cat((rows, rows.transpose(0, 1)), dim=-1).flatten(0, 1)


def fourier_features(values: Float[Tensor, " p"], width: int) -> Float[Tensor, "p d"]:
    """Sines and cosines of values in [0, 1] at geometric frequencies: near values get near vectors."""
    frequencies = torch.pi * 2.0 ** torch.linspace(-1.0, 6.0, width // 2)
    angles = values[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=-1)
