"""What training does to pictures: a crop, a small rotation, other light. The distribution of openpi's JAX trainer.

Outer cameras: a crop of 95 % anywhere in the picture, scaled back and turned by up to 5°, in one bilinear resampling
with black outside. All cameras: with probability one half, brightness (up to 0.3), contrast (0.4) and hue (0.1) of HSV
pixels; openpi asks for saturation too, but its library throws the result away. One draw per row serves all its outer
cameras, another all its wrist cameras.

Everything is drawn from (seed, step, row) when the row is made, so a resumed run sees the same pictures; the work is
done for a whole batch at once, in torch.

Axes: `b` batch, `h w` pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

CROP = 0.95
DEGREES = 5.0
BRIGHTNESS, CONTRAST, HUE = 0.3, 0.4, 0.1
JITTER_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The changes of one picture.

    `crop` is the share of the picture's side that stays (1: all), `centre` where its middle lies, −1 to 1 of the way
    to where the crop touches an edge (y, x), `angle` in radians; then the changes of light, 0 for none.
    """

    crop: float = 1.0
    centre: tuple[float, float] = (0.0, 0.0)
    angle: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    hue: float = 0.0

    @property
    def moves(self) -> bool:
        """Whether pixels change place, so that boxes have to follow."""
        return (self.crop, self.angle) != (1.0, 0.0)

    @property
    def changes_colors(self) -> bool:
        """Whether brightness, contrast or hue change."""
        return (self.brightness, self.contrast, self.hue) != (0.0, 0.0, 0.0)


UNCHANGED = Augmentation()


def draw_augmentation(rng: np.random.Generator, *, moves: bool) -> Augmentation:
    """Draw one row's augmentation of its outer cameras (`moves`) or its wrist cameras."""
    y, x, turn, brightness, contrast, hue = rng.uniform(-1, 1, 6).tolist()
    jittered = float(rng.random() < JITTER_SHARE)
    return Augmentation(
        crop=CROP if moves else 1.0,
        centre=(y, x) if moves else (0.0, 0.0),
        angle=math.radians(DEGREES) * turn if moves else 0.0,
        brightness=BRIGHTNESS * brightness * jittered,
        contrast=CONTRAST * contrast * jittered,
        hue=HUE * hue * jittered,
    )


def augment(images: Float[Tensor, "b h w 3"], augmentations: Sequence[Augmentation]) -> Float[Tensor, "b h w 3"]:
    """Apply to each of `images` in −1 to 1 its augmentation. Pictures that nothing happens to are not touched."""
    out = images
    moved = [i for i, plan in enumerate(augmentations) if plan.moves]
    recoloured = [i for i, plan in enumerate(augmentations) if plan.changes_colors]
    if moved:
        out = out.index_copy(0, _index(moved, out), crop_and_rotate(out[moved], [augmentations[i] for i in moved]))
    if recoloured:
        out = out.index_copy(
            0, _index(recoloured, out), change_colors(out[recoloured], [augmentations[i] for i in recoloured])
        )
    return out


def crop_and_rotate(
    images: Float[Tensor, "b h w 3"], augmentations: Sequence[Augmentation]
) -> Float[Tensor, "b h w 3"]:
    """Crop, scale back and rotate, in one bilinear resampling; outside is black."""
    height, width = images.shape[1:3]
    maps = [_pixel_map(plan, height=height, width=width) for plan in augmentations]
    theta = torch.tensor(maps, dtype=torch.float32, device=images.device)
    grid = F.affine_grid(theta, [len(images), 3, height, width], align_corners=False)
    light = (images.permute(0, 3, 1, 2) + 1) / 2  # [b 3 h w] in 0 to 1: what grid_sample adds outside is black
    sampled = F.grid_sample(light, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return sampled.permute(0, 2, 3, 1) * 2 - 1


def _pixel_map(plan: Augmentation, *, height: int, width: int) -> list[list[float]]:
    """Return where an output pixel comes from, for affine_grid: −1 and 1 are the picture's outer edges."""
    rows, columns = int(height * plan.crop), int(width * plan.crop)
    cos, sin = math.cos(plan.angle), math.sin(plan.angle)
    scale_y, scale_x = rows / height, columns / width
    y, x = plan.centre[0] * (1 - scale_y), plan.centre[1] * (1 - scale_x)
    return [
        [scale_x * cos, -scale_x * sin * height / width, x],
        [scale_y * sin * width / height, scale_y * cos, y],
    ]


def change_colors(images: Float[Tensor, "b h w 3"], augmentations: Sequence[Augmentation]) -> Float[Tensor, "b h w 3"]:
    """Change brightness, contrast and hue in HSV; saturation stays."""

    def amounts(name: str) -> Tensor:
        return torch.tensor([getattr(p, name) for p in augmentations], dtype=images.dtype, device=images.device).view(
            -1, 1, 1
        )

    hue, saturation, value = rgb_to_hsv((images + 1) / 2)
    value = _contrast(_brightness(value, amounts("brightness")), amounts("contrast"))
    return hsv_to_rgb(hue + amounts("hue"), saturation, value) * 2 - 1


def rgb_to_hsv(rgb: Float[Tensor, "b h w 3"]) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b h w"], Tensor]:
    """Convert colours in 0 to 1 to hue (a turn is 1), saturation and value."""
    value, strongest = rgb.max(-1)
    spread = value - rgb.amin(-1)
    following = rgb.gather(-1, ((strongest + 1) % 3)[..., None])[..., 0]
    last = rgb.gather(-1, ((strongest + 2) % 3)[..., None])[..., 0]
    grey = spread == 0
    hue = (2 * strongest + (following - last) / spread.masked_fill(grey, 1)) / 6
    saturation = spread / value.masked_fill(value == 0, 1)
    return hue.masked_fill(grey, 0), saturation, value


def hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Float[Tensor, "b h w 3"]:
    """Convert hue, saturation and value back to colours: the inverse of `rgb_to_hsv`."""
    channels = []
    for phase in (5, 3, 1):
        k = torch.remainder(phase + hue * 6, 6)
        channels.append(value - value * saturation * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, dim=-1)


def _brightness(value: Tensor, amount: Tensor) -> Tensor:
    """Towards white for positive amounts, towards black for negative ones."""
    return value * (1 - amount.abs()) + amount.clamp(min=0)


def _contrast(value: Tensor, amount: Tensor) -> Tensor:
    """Three straight pieces through (0, 0), (½, ½) and (1, 1): steep in the middle for positive amounts."""
    slant = torch.tan((amount + 1) * (math.pi / 4))
    knee = slant / (2 * (1 + slant))
    low, high = value / slant, (value - 1) / slant + 1
    middle = slant * (value - 0.5) + 0.5
    return torch.where(value < knee, low, torch.where(value > 1 - knee, high, middle))


def _index(rows: list[int], like: Tensor) -> Tensor:
    return torch.tensor(rows, device=like.device)
