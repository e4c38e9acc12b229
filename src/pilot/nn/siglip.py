"""SigLIP's vision transformer: it turns each patch of a picture into a token as wide as the language model.

Axes: `b` pictures, `h w` pixels, `p` patches, `d` width, `o` output width.
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pilot.nn.configs import SiglipConfig


class SiglipBlock(nn.Module):
    """Pre-norm attention and MLP; all patches see each other."""

    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.attention_norm = nn.LayerNorm(config.width, eps=1e-6)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.mlp_norm = nn.LayerNorm(config.width, eps=1e-6)
        self.up = nn.Linear(config.width, config.mlp_dim)
        self.down = nn.Linear(config.mlp_dim, config.width)

    def forward(
        self, x: Float[Tensor, "b p d"], bias: Float[Tensor, "b 1 p p"] | None = None
    ) -> Float[Tensor, "b p d"]:
        """Return the block's output; `bias` is the `additive_mask` of who sees whom, where not all see all."""
        qkv = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.num_heads, -1))  # [b p 3 n h]
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.mlp_norm(x)), approximate="tanh"))


class Stem(nn.Module):
    """3x3 convolutions that turn a picture into features of each patch [b p c], each halving the resolution."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 3, stride=1 if inputs == 3 else 2, padding=1)
            for inputs, outputs in pairwise((3, *channels))
        )

    def forward(self, images: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b p c"]:
        """Return the features of each patch."""
        x = images.permute(0, 3, 1, 2)  # [b 3 h w], channels last in memory
        for convolution in self.convolutions:
            x = F.gelu(convolution(x), approximate="tanh")
        return x.flatten(2).mT


class Siglip(nn.Module):
    """The tower: pictures in [-1, 1] to patch tokens [b p o]."""

    def __init__(self, config: SiglipConfig, out_width: int) -> None:
        super().__init__()
        self.config = config
        self.stem = Stem(config.stem) if config.stem else None
        self.patch = nn.Linear(config.stem[-1] if config.stem else 3 * config.patch_size**2, config.width)
        self.position = nn.Parameter(torch.zeros(config.grid**2, config.width))
        self.blocks = nn.ModuleList(SiglipBlock(config) for _ in range(config.depth))
        self.final_norm = nn.LayerNorm(config.width, eps=1e-6)
        self.head = nn.Linear(config.width, out_width)

    def positions(self, rows: int, columns: int) -> Float[Tensor, "p d"]:
        """Return the position table, resampled where the grid of the picture is another."""
        grid = self.config.grid
        if (rows, columns) == (grid, grid):
            return self.position
        # As big_vision resamples: bilinear, and smoothed where the grid gets coarser.
        table = self.position.float().T.unflatten(-1, (grid, grid))[None]
        table = F.interpolate(table, (rows, columns), mode="bilinear", antialias=True, align_corners=False)
        return table[0].flatten(1).T.to(self.position.dtype)

    def forward(self, images: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b p o"]:
        """Return the tokens of each picture's patches, row by row.

        Raises:
            ValueError: the sides are not multiples of the patch size.
        """
        size = self.config.patch_size
        if images.shape[1] % size or images.shape[2] % size:
            raise ValueError(f"pictures of {tuple(images.shape[1:3])} pixels do not divide into patches of {size}")
        rows, columns = images.shape[1] // size, images.shape[2] // size
        patches = self.stem(images) if self.stem else patchify(images, size)  # [b p c]
        x = self.patch(patches) + self.positions(rows, columns)  # [b p d]
        for block in self.blocks:
            x = block(x)
        return self.head(self.final_norm(x))


def patchify(images: Float[Tensor, "b h w 3"], size: int) -> Float[Tensor, "b p c"]:
    """Cut pictures into square patches, row by row, each a vector of its pixels."""
    # A convolution as wide as its stride is a matrix product of the cut patches.
    patches = images.unflatten(2, (-1, size)).unflatten(1, (-1, size))  # [b rows size columns size 3]
    return patches.transpose(2, 3).flatten(3).flatten(1, 2)


def sincos_table(grid: int, width: int) -> Float[Tensor, "p d"]:
    """Return sine-cosine codes of a square grid, rows in the first half of the channels, columns in the second."""
    steps = (torch.arange(grid) + 0.5) / grid
    axis = fourier_features(steps, width // 2)
    rows = axis[:, None].expand(grid, grid, -1)
    return torch.cat((rows, rows.transpose(0, 1)), dim=-1).flatten(0, 1)


def fourier_features(values: Float[Tensor, " p"], width: int) -> Float[Tensor, "p d"]:
    """Return sines and cosines of values in [0, 1] at geometric frequencies: near values get near vectors."""
    frequencies = torch.pi * 2.0 ** torch.linspace(-1.0, 6.0, width // 2)
    angles = values[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=-1)
