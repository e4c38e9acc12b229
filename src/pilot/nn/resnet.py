"""ResNets of basic blocks under torchvision's names: ResNet-18, and narrower or shorter ones for small pictures.

ResNet-18 (He et al., arXiv 1512.03385) is the image encoder of ACT and Diffusion Policy. Its norms are either batch
norms that stay as they were learned (`frozen_batch`: ACT, with weights from ImageNet) or group norms of 16 channels
(`group`: Diffusion Policy, which trains from scratch; a moving average of weights does not go with running statistics).

Axes: `b` pictures, `h w` pixels or cells of a feature map, `c` channels, `k` points, `o` output width.
"""

from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from pilot.nn.configs import CHANNELS_PER_GROUP, ResNetConfig

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PUBLISHED = "https://download.pytorch.org/models/resnet18-f37072fd.pth"


class FrozenBatchNorm(nn.Module):
    """A batch norm that no longer learns: one factor and one shift per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, value in {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}.items():
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Scale and shift channels by the stored statistics."""
        weight, bias, mean, variance = (part[:, None, None] for part in self.buffers())
        # Four numbers per channel become two, in fp32; only the product with the picture is in its dtype.
        factor = weight * (variance + 1e-5).rsqrt()
        return x * factor.to(x.dtype) + (bias - mean * factor).to(x.dtype)


def make_norm(channels: int, config: ResNetConfig) -> nn.Module:
    """Return the norm that the config names."""
    if config.norm == "frozen_batch":
        return FrozenBatchNorm(channels)
    return nn.GroupNorm(channels // CHANNELS_PER_GROUP, channels)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a residual around them: the input, or a 1x1 convolution of it where shapes differ."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, config: ResNetConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = make_norm(outputs, config)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = make_norm(outputs, config)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            short = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(short, make_norm(outputs, config))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        """Return the sum of two convolutions and of the input, brought to the same shape."""
        residual = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(residual + self.bn2(self.conv2(x)))


class ResNet(nn.Module):
    """Pictures in [-1, 1] to a feature map, without the pooling over it and the classifier."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        first = config.widths[0]
        self.conv1 = nn.Conv2d(3, first, 7, stride=2, padding=3, bias=False)
        self.bn1 = make_norm(first, config)
        for i, (inputs, outputs) in enumerate(pairwise((first, *config.widths)), start=1):
            blocks = [
                BasicBlock(outputs if n else inputs, outputs, stride=2 if i > 1 and not n else 1, config=config)
                for n in range(config.blocks)
            ]
            self.add_module(f"layer{i}", nn.Sequential(*blocks))

    @property
    def layers(self) -> list[nn.Module]:
        """The stages, in order."""
        return [self.get_submodule(f"layer{i}") for i in range(1, len(self.config.widths) + 1)]

    def forward(self, images: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b c h2 w2"]:
        """Return the last feature map."""
        x = F.relu(self.bn1(self.conv1(normalize_imagenet(images))))
        x = F.max_pool2d(x, 3, stride=2, padding=1) if self.config.pool else x
        for layer in self.layers:
            x = layer(x)
        return x

    def load_torchvision(self, file: str | Path) -> None:
        """Load weights published for torchvision's `resnet18` (.pth or .safetensors), without the classifier.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the weights are not this network's, or it has group norms, for which none are published.
        """
        if not (path := Path(file)).is_file():
            raise FileNotFoundError(f"{path} is not there; it is published at {PUBLISHED}")
        weights = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
        own = {
            name: tensor
            for name, tensor in weights.items()
            if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
        }
        try:
            self.load_state_dict(own)
        except RuntimeError as error:
            raise ValueError(f"{path} does not fit this ResNet (norm '{self.config.norm}'): {error}") from error


def normalize_imagenet(images: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 h w"]:
    """Normalise each colour as the published weights saw it: by its mean and deviation over ImageNet."""
    # Pictures come in [-1, 1], the statistics are for [0, 1]: one factor and shift does both steps.
    scales = [(0.5 / std, (0.5 - mean) / std) for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    return torch.stack([images[..., i] * factor + shift for i, (factor, shift) in enumerate(scales)], dim=1)


class SpatialSoftmax(nn.Module):
    """The mean positions of `points` things in a feature map, in [-1, 1], projected to `out_width`.

    Source: Finn et al. (arXiv 1509.06113), in the form of Diffusion Policy's image encoder.
    """

    def __init__(self, channels: int, out_width: int, *, points: int = 32) -> None:
        super().__init__()
        self.points = nn.Conv2d(channels, points, 1)
        self.out = nn.Linear(2 * points, out_width)

    def keypoints(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k 2"]:
        """Return row and column of each point."""
        h, w = x.shape[-2:]
        attention = self.points(x).flatten(2).softmax(-1).unflatten(-1, (h, w))  # [b k h w]
        rows, columns = (torch.linspace(-1, 1, n, device=x.device, dtype=x.dtype) for n in (h, w))
        return torch.stack((attention.sum(3) @ rows, attention.sum(2) @ columns), dim=-1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o"]:
        """Return features of the keypoints' coordinates."""
        return self.out(self.keypoints(x).flatten(1))
