"""Diffusion Policy with its convolutional network (Chi et al., arXiv 2303.04137), the paper's form.

Every camera has a ResNet-18 of its own, trained from scratch, with group norms in place of batch norms and a spatial
softmax in place of pooling ("visual encoder"). Their outputs and the state make one vector. A U-Net over the steps of a
chunk ("CNN-based Diffusion Policy") reads noisy actions, and in each of its blocks this vector and the noise level
scale and shift the channels (FiLM). It predicts the noise, at 100 levels of a squared cosine; chunks are drawn by DDIM
(`diffusion.py`).

Dims of the paper's runs from pictures: 512, 1024 and 2048 channels, kernels of 5, 8 groups, chunks of 16 of which 8
are executed. Sampling keeps actions within ±1, to which the paper scales their whole range. Here ±1 are the 1 % and
99 % quantiles, so rarer actions are cut off.

With `observation_steps=2`, as in the paper, the vector holds pictures and state of now and of one control step earlier;
with 1 those of now. The first action of a chunk is now (in the paper one step earlier).

Not the paper's: its policy learns one task and reads no text; with `reads_text` the mean of the prompt's word vectors
joins the vector. The moving average of weights that it needs is the trainer's, as are random crops (`augments`).

Axes: `b` batch, `s` steps of a chunk at some resolution, `c` channels, `d` width of the observation's vector, `g` with
the noise level beside it, `ah` action horizon, `ad` action dims.
"""

import math
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pilot.data.layout import Observation
from pilot.models.baselines.base import PromptEncoder, initialize
from pilot.models.baselines.configs import DiffusionPolicyConfig, diffusion_policy
from pilot.models.baselines.diffusion import Denoiser
from pilot.nn.resnet import ResNet, SpatialSoftmax
from pilot.types import moment_before

__all__ = ["DiffusionPolicy", "DiffusionPolicyConfig", "diffusion_policy"]


class ImageEncoder(nn.Sequential):
    """One camera's encoder: pictures to `feature_width` numbers."""

    def __init__(self, config: DiffusionPolicyConfig) -> None:
        vision = ResNet(config.resnet)
        super().__init__(vision, SpatialSoftmax(config.resnet.widths[-1], config.feature_width))


class FilmBlock(nn.Module):
    """Two convolutions over the steps of a chunk; between them the condition scales and shifts each channel (FiLM)."""

    def __init__(self, inputs: int, outputs: int, condition: int, *, config: DiffusionPolicyConfig) -> None:
        super().__init__()
        kernel, pad = config.kernel, config.kernel // 2
        self.first = nn.Conv1d(inputs, outputs, kernel, padding=pad)
        self.first_norm = nn.GroupNorm(config.groups, outputs)
        self.film = nn.Linear(condition, 2 * outputs)
        self.second = nn.Conv1d(outputs, outputs, kernel, padding=pad)
        self.second_norm = nn.GroupNorm(config.groups, outputs)
        self.around = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Float[Tensor, "b c s"], condition: Float[Tensor, "b g"]) -> Float[Tensor, "b c2 s"]:
        """Convolve over time twice; the condition scales and shifts in between."""
        scale, shift = self.film(F.mish(condition))[..., None].chunk(2, dim=1)
        h = F.mish(self.first_norm(self.first(x))) * scale + shift
        return F.mish(self.second_norm(self.second(h))) + self.around(x)


class UNet(nn.Module):
    """The noise in noisy chunks, given a condition.

    On the way up each resolution but the first joins its features from the way down, as in the published network.
    """

    def __init__(self, config: DiffusionPolicyConfig) -> None:
        super().__init__()
        channels, level = (config.action_dim, *config.channels), config.level_width
        self.level_in, self.level_out = nn.Linear(level, 4 * level), nn.Linear(4 * level, level)

        def pair(inputs: int, outputs: int) -> nn.ModuleList:
            width = level + config.observation_width
            return nn.ModuleList(FilmBlock(n, outputs, width, config=config) for n in (inputs, outputs))

        self.down = nn.ModuleList(pair(inputs, outputs) for inputs, outputs in pairwise(channels))
        self.downsample = nn.ModuleList(nn.Conv1d(n, n, 3, stride=2, padding=1) for n in config.channels[:-1])
        self.middle = pair(channels[-1], channels[-1])
        upwards = list(pairwise(reversed(config.channels)))
        self.up = nn.ModuleList(pair(2 * inputs, outputs) for inputs, outputs in upwards)
        self.upsample = nn.ModuleList(nn.ConvTranspose1d(n, n, 4, stride=2, padding=1) for _, n in upwards)
        first = config.channels[0]
        self.last = nn.Conv1d(first, first, config.kernel, padding=config.kernel // 2)
        self.last_norm = nn.GroupNorm(config.groups, first)
        self.out = nn.Conv1d(first, config.action_dim, 1)

    def forward(
        self, x: Float[Tensor, "b ah ad"], level: Int[Tensor, " b"], condition: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b ah ad"]:
        """Return the noise that is predicted in noisy actions at a noise level."""
        features = level_features(level, self.level_in.in_features).to(x.dtype)
        condition = torch.cat((self.level_out(F.mish(self.level_in(features))), condition), dim=-1)  # [b g]
        x, skips = x.mT, []  # [b c s]
        for i, pair in enumerate(self.down):
            x = run_pair(pair, x, condition)
            skips.append(x)
            x = self.downsample[i](x) if i < len(self.downsample) else x
        x = run_pair(self.middle, x, condition)
        for pair, upsample in zip(self.up, self.upsample, strict=True):
            x = upsample(run_pair(pair, torch.cat((x, skips.pop()), dim=1), condition))
        return self.out(F.mish(self.last_norm(self.last(x)))).mT


def run_pair(blocks: nn.Module, x: Float[Tensor, "b c s"], condition: Float[Tensor, "b g"]) -> Float[Tensor, "b c2 s"]:
    """Run the two blocks of a resolution."""
    for block in blocks.children():
        x = block(x, condition)
    return x


def level_features(level: Int[Tensor, " b"], width: int) -> Float[Tensor, "b g"]:
    """Return sines, then cosines, of a noise level at geometric periods from 2π to 10,000 · 2π."""
    half = width // 2
    frequencies = torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half, device=level.device))
    angles = level[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


class DiffusionPolicy(Denoiser):
    """The U-Net denoises a chunk, given pictures and state."""

    config: DiffusionPolicyConfig

    @property
    def default_replan_steps(self) -> int:
        """Half of the chunk is executed: 8 actions of 16 in the paper."""
        return self.config.replan_steps or max(1, self.config.action_horizon // 2)

    def __init__(self, config: DiffusionPolicyConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = nn.ModuleDict({camera: ImageEncoder(config) for camera in config.vision_towers})
        self.words = PromptEncoder(config.vocab_size, config.text_width) if config.reads_text else None
        self.unet = UNet(config)

    def blocks(self) -> list[nn.Module]:
        unet = self.unet
        return [*self.vision.values(), *(m for m in unet.modules() if isinstance(m, FilmBlock))]

    def encode(self, observation: Observation) -> Float[Tensor, "b d"]:
        """Return the features of every camera, 0 where there is none, then the state and, if it is read, the prompt.

        Of two moments each has its features, by the same encoders, and its state.
        """
        moments = [lambda camera: camera, moment_before][: self.config.observation_steps]
        features = [
            self._encode_image(self.vision[camera], moment(camera), observation)
            for moment in moments
            for camera in self.vision
        ]
        features.append(observation.state.to(self.unet.out.weight.dtype))
        if self.words is not None:
            features.append(self.words(observation))
        return torch.cat(features, dim=-1)

    def _encode_image(self, encoder: nn.Module, camera: str, observation: Observation) -> Float[Tensor, "b f"]:
        images = observation.images.get(camera)
        if images is None:
            return self.unet.out.weight.new_zeros(observation.batch_size, self.config.feature_width)
        present = observation.image_masks[camera][:, None]
        return encoder(images.to(self.unet.out.weight.dtype)) * present

    def predict_noise(
        self, noisy: Float[Tensor, "b ah ad"], level: Int[Tensor, " b"], condition: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b ah ad"]:
        return self.unet(noisy, level, condition)

    def initialize(
        self, generator: torch.Generator, *, ordered_tokens: tuple[list[int], ...] = ()
    ) -> "DiffusionPolicy":
        """Draw fresh weights; at first no noise is predicted."""
        initialize(self, generator)
        nn.init.zeros_(self.unet.out.weight)
        return self
