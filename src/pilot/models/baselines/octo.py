"""A policy in the form of Octo (arXiv 2405.12213): a transformer reads task and pictures, a small diffusion head acts.

Words of the task and patches of every camera are tokens; one more, the readout, is learned and sees all of them, and
nobody sees it (section III, "architecture"). Its output is the vector that conditions the head: an MLP with residual
blocks that predicts the noise in a flattened chunk, at 20 levels of a squared cosine. Norms come before each layer, and
positions are learned, for each camera separately. The paper sums the loss over the 7 action dims, which here is a
weight of 7 (`TrainConfig.loss_weights`).

Dims: ViT-S (width 384, 12 layers, 27 M parameters) is Octo-Small, ViT-B (768, 93 M) is Octo-Base, here `paper`;
patches of 16 behind four convolutions with standardised weights, pictures of 256 pixels and of 128 from the wrist,
chunks of 4, head of 3 blocks of width 256.

Not the paper's: words come from a table that is learned with the rest, as wide as T5-base's (the paper's are what a
frozen T5-base makes of them, another 111 M); no goal pictures; one observation step instead of two (`base.py`); DDIM
in place of sampling with fresh noise at each level, so that a chunk follows from the noise that it starts from.
`state_input="token"` adds the state as a token, as the paper does in fine-tuning.

Axes: `b` batch, `s` tokens, `p` patches, `h w` pixels or patches, `ah` action horizon, `ad` action dims, `d` width.
"""

from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pilot.data.layout import Observation
from pilot.models.baselines.base import initialize, prompt_mask
from pilot.models.baselines.configs import OctoConfig, octo
from pilot.models.baselines.diffusion import Denoiser
from pilot.nn.attention import additive_mask
from pilot.nn.siglip import SiglipBlock

__all__ = ["Octo", "OctoConfig", "octo"]


class StandardizedConv(nn.Conv2d):
    """A 3x3 convolution that halves the picture; the weights of each output have mean 0 and deviation 1."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, stride=2, padding=1)

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        """Convolve with weights of mean 0 and deviation 1 in each output channel."""
        weight = self.weight.flatten(1)
        deviation = weight.std(1, correction=0, keepdim=True) + 1e-5
        weight = ((weight - weight.mean(1, keepdim=True)) / deviation).view_as(self.weight)
        return F.conv2d(input, weight, self.bias, self.stride, self.padding)


class PatchEncoder(nn.Module):
    """A token for each patch of one camera's pictures, with its position."""

    def __init__(self, config: OctoConfig, camera: str) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(StandardizedConv(a, b) for a, b in pairwise((3, *config.stem)))
        self.norms = nn.ModuleList(nn.GroupNorm(32, channels) for channels in config.stem)
        self.patch = nn.Conv2d(config.stem[-1], config.stem_width, 1)
        self.out = nn.Linear(config.stem_width, config.width)
        self.position = nn.Parameter(torch.zeros(config.patches(camera), config.width))
        self.camera = camera

    def forward(self, images: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b p d"]:
        """Return a token with its position for each patch.

        Raises:
            ValueError: pictures of another size than the positions are for.
        """
        x = images.permute(0, 3, 1, 2)  # [b 3 h w]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.relu(norm(convolution(x)))
        tokens = self.out(self.patch(x).flatten(2).mT)
        if tokens.shape[1:] != self.position.shape:
            raise ValueError(
                f"camera '{self.camera}' shows {tokens.shape[1]} patches, the model has positions for "
                f"{len(self.position)}: wrist_towers are to be the robot's wrist cameras"
            )
        return tokens + self.position


class ResidualBlock(nn.Module):
    """A norm and an MLP with a residual around them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Add an MLP of the normed input to the input."""
        return x + self.down(F.silu(self.up(self.norm(x))))


class DiffusionHead(nn.Module):
    """The noise in a noisy chunk, given its level and the readout, for all steps and dims at once."""

    def __init__(self, config: OctoConfig) -> None:
        super().__init__()
        level, width, chunk = config.level_width, config.head_width, config.action_horizon * config.action_dim
        self.frequencies = nn.Parameter(torch.zeros(level // 2))
        self.level_in = nn.Linear(level, 2 * level)
        self.level_out = nn.Linear(2 * level, level)
        self.enter = nn.Linear(level + config.width + chunk, width)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(config.head_blocks))
        self.out = nn.Linear(width, chunk)

    def forward(
        self, noisy: Float[Tensor, "b ah ad"], level: Int[Tensor, " b"], condition: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b ah ad"]:
        """Return the noise that is predicted in noisy actions at a noise level."""
        angles = 2 * torch.pi * level[:, None] * self.frequencies.float()
        features = self.level_in(torch.cat((angles.cos(), angles.sin()), dim=-1).to(condition.dtype))
        x = self.enter(torch.cat((self.level_out(F.silu(features)), condition, noisy.flatten(1)), dim=-1))
        for block in self.blocks:
            x = block(x)
        return self.out(F.silu(x)).view_as(noisy)


class Octo(Denoiser):
    """The head denoises a chunk, given the transformer's readout."""

    config: OctoConfig

    @property
    def default_num_steps(self) -> int:
        """The number of noise levels, each of which is one step; 20 in the paper."""
        return self.config.num_steps or self.config.levels

    @property
    def default_replan_steps(self) -> int | None:
        """The actions of a chunk that are executed; the paper leaves it to the robot."""
        return self.config.replan_steps

    def __init__(self, config: OctoConfig) -> None:
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocab_size, config.word_width)
        self.word_in = nn.Linear(config.word_width, config.width)
        self.word_position = nn.Parameter(torch.zeros(config.max_tokens, config.width))
        self.vision = nn.ModuleDict({camera: PatchEncoder(config, camera) for camera in config.vision_towers})
        self.state_in = nn.Linear(config.action_dim, config.width) if config.state_input == "token" else None
        self.readout = nn.Parameter(torch.zeros(config.width))
        self.transformer = nn.ModuleList(SiglipBlock(config.block) for _ in range(config.depth))
        self.final_norm = nn.LayerNorm(config.width, eps=1e-6)
        self.head = DiffusionHead(config)

    def blocks(self) -> list[nn.Module]:
        return [*self.vision.values(), *self.transformer]

    def tokens(self, observation: Observation) -> tuple[Float[Tensor, "b s d"], Bool[Tensor, "b s"], Int[Tensor, " s"]]:
        """Return all tokens, their mask, and the group of each: 0 the task, 1 the observation, 2 the readout."""
        rows, dtype = observation.batch_size, self.readout.dtype
        words = self.word_in(self.words(observation.tokens)) + self.word_position[: observation.tokens.shape[1]]
        blocks = [(words, prompt_mask(observation), 0)]
        for camera, stem in self.vision.items():
            if camera in observation.images:
                patches = stem(observation.images[camera].to(dtype))
                mask = observation.image_masks[camera][:, None].expand(-1, patches.shape[1])
                blocks.append((patches, mask, 1))
        one = torch.ones(rows, 1, dtype=torch.bool, device=words.device)
        if self.state_in is not None:
            blocks.append((self.state_in(observation.state.to(dtype))[:, None], one, 1))
        blocks.append((self.readout.expand(rows, 1, -1), one, 2))
        groups = [torch.full((x.shape[1],), group, device=words.device) for x, _, group in blocks]
        return torch.cat([x for x, _, _ in blocks], 1), torch.cat([mask for _, mask, _ in blocks], 1), torch.cat(groups)

    def encode(self, observation: Observation) -> Float[Tensor, "b d"]:
        """Return the readout. Each group of tokens sees itself and those before it, and nobody sees a masked token."""
        x, mask, groups = self.tokens(observation)
        bias = additive_mask((groups[:, None] >= groups[None, :]) & mask[:, None, :], x.dtype)
        for block in self.transformer:
            x = block(x, bias)
        return self.final_norm(x[:, -1])

    def predict_noise(
        self, noisy: Float[Tensor, "b ah ad"], level: Int[Tensor, " b"], condition: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b ah ad"]:
        return self.head(noisy, level, condition)

    def initialize(self, generator: torch.Generator, *, ordered_tokens: tuple[list[int], ...] = ()) -> "Octo":
        """Draw fresh weights; at first no noise is predicted."""
        initialize(self, generator)
        nn.init.normal_(self.head.frequencies, std=0.2, generator=generator)
        nn.init.zeros_(self.head.out.weight)
        return self
