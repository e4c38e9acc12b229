"""ACT: action chunking with transformers (Zhao et al., arXiv 2304.13705), the paper's form.

A conditional variational autoencoder (section IV-B, figure 4). The style encoder, used in training alone, reads state
and demonstrated chunk and estimates in what style `z` it was done, as a normal distribution. The policy reads pictures,
state and `z`, and its decoder puts out all steps of the chunk at once. The loss is the L1 distance to the demonstrated
chunk plus 10 times the divergence of the style from a standard normal (algorithm 1; the weights are those of the run,
`TrainConfig.loss_weights`). When the policy acts, `z` is 0.

The paper's dims: width 512, MLP 3200, 8 heads, 4 encoder and 7 decoder layers, chunks of 100, ResNet-18. As in its
code, one ResNet serves all cameras and the queries are learned. That code uses the output of the first of the seven
decoder layers; here, as in the paper, it is that of the last.

Not the paper's: a prompt. The paper learns one task and reads no text; with `reads_text` the mean of the prompt's word
vectors is one more token beside state and style. Nor is there dropout (the paper has 0.1): see `nn/detr.py`. With
`ensemble` it is evaluated as in the paper: it looks at every step, and what all chunks say of it is averaged
(`infer/executor.py`).

Axes: `b` batch, `s` encoder tokens, `p` picture tokens, `ah` action horizon, `ad` action dims, `d` width, `z`
style dims.
"""

from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pilot.data.layout import Batch, Observation
from pilot.models.base import Draws, Model, Terms
from pilot.models.baselines.base import PromptEncoder, count_elements, initialize
from pilot.models.baselines.configs import ActConfig, act
from pilot.nn.detr import DecoderLayer, EncoderLayer, grid_positions, sine_features
from pilot.nn.resnet import ResNet

__all__ = ["Act", "ActConfig", "act"]


class StyleEncoder(nn.Module):
    """Mean and log variance of a chunk's style `z`, from a learned token that reads state and chunk."""

    def __init__(self, config: ActConfig) -> None:
        super().__init__()
        width = config.transformer.width
        self.token = nn.Parameter(torch.zeros(width))
        self.state_in = nn.Linear(config.action_dim, width)
        self.action_in = nn.Linear(config.action_dim, width)
        self.layers = nn.ModuleList(EncoderLayer(config.transformer) for _ in range(config.encoder_depth))
        self.out = nn.Linear(width, 2 * config.style_dim)

    def forward(
        self, state: Float[Tensor, "b ad"], actions: Float[Tensor, "b ah ad"], action_mask: Bool[Tensor, "b ah ad"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, "b z"]]:
        """Return mean and log variance of the style, from the state and the actions that are not padding."""
        token = self.token.expand(len(state), 1, -1)
        x = torch.cat((token, self.state_in(state)[:, None], self.action_in(actions * action_mask)), dim=1)
        steps = torch.arange(x.shape[1], device=x.device, dtype=torch.float32)
        positions = sine_features(steps, x.shape[-1]).to(x.dtype)[None]
        mask = torch.cat((torch.ones_like(action_mask[:, :2, 0]), action_mask.any(-1)), dim=1)
        for layer in self.layers:
            x = layer(x, positions, mask)
        mean, log_variance = self.out(x[:, 0]).chunk(2, dim=-1)
        return mean, log_variance


class Act(Model):
    """The policy and its style encoder. A chunk follows from the observation alone; its losses are "l1" and "kl"."""

    config: ActConfig

    @property
    def default_replan_steps(self) -> int:
        """With the ensemble of overlapping chunks 1, as in the paper; without it the whole chunk is executed."""
        return self.config.replan_steps or (1 if self.config.ensemble else self.config.action_horizon)

    @property
    def default_executor(self) -> Literal["open-loop", "ensemble"]:
        return "ensemble" if self.config.ensemble else "open-loop"

    def __init__(self, config: ActConfig) -> None:
        super().__init__()
        self.config = config
        width = config.transformer.width
        self.vision = ResNet(config.resnet)
        self.image_in = nn.Conv2d(config.resnet.widths[-1], width, 1)
        self.state_in = nn.Linear(config.action_dim, width)
        self.words = PromptEncoder(config.vocab_size, width) if config.reads_text else None
        self.style = StyleEncoder(config)
        self.style_in = nn.Linear(config.style_dim, width)
        self.places = nn.Parameter(torch.zeros(2 + config.reads_text, width))
        self.encoder = nn.ModuleList(EncoderLayer(config.transformer) for _ in range(config.encoder_depth))
        self.queries = nn.Parameter(torch.zeros(config.action_horizon, width))
        self.decoder = nn.ModuleList(DecoderLayer(config.transformer) for _ in range(config.decoder_depth))
        self.final_norm = nn.LayerNorm(width)
        self.action_out = nn.Linear(width, config.action_dim)

    def blocks(self) -> list[nn.Module]:
        return [self.vision, *self.style.layers, *self.encoder, *self.decoder]

    # --- training ----------------------------------------------------------------------------------------------------

    def draw(self, rows: int, generator: torch.Generator, *, flow_draws: int = 1, time_s: float = 0.999) -> Draws:
        """Draw the deviation of each row's style from its mean; nothing else is random."""
        return {"style": torch.randn(rows, self.config.style_dim, generator=generator, device=generator.device)}

    def loss_counts(self, batch: Batch, draws: Draws, *, losses: frozenset[str]) -> dict[str, Float[Tensor, " b"]]:
        return {"l1": count_elements(batch.action_mask), "kl": batch.action_mask.flatten(1).any(1).float()}

    def loss_terms(self, batch: Batch, draws: Draws, *, losses: frozenset[str], run_all_modules: bool = False) -> Terms:
        """Return the distance to the chunk over its unmasked elements, and the divergence of its style, one per row."""
        mask = batch.action_mask
        counts = self.loss_counts(batch, draws, losses=losses)
        dtype = self.queries.dtype
        mean, log_variance = self.style(batch.observation.state.to(dtype), batch.actions.to(dtype), mask)
        mean, log_variance = mean.float(), log_variance.float()
        style = mean + (log_variance / 2).exp() * draws["style"]
        distance = (self.decode(batch.observation, style.to(dtype)).float() - batch.actions).abs() * mask
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1) / 2
        return {"l1": (distance.flatten(1).sum(1), counts["l1"]), "kl": (divergence * counts["kl"], counts["kl"])}

    # --- acting ------------------------------------------------------------------------------------------------------

    def encode_images(
        self, observation: Observation
    ) -> tuple[Float[Tensor, "b p d"], Float[Tensor, "p d"], Bool[Tensor, "b p"]]:
        """Return the tokens of all pictures, their positions and their mask."""
        tokens, positions, masks = [], [], []
        for name, images in observation.images.items():
            features = self.image_in(self.vision(images.to(self.queries.dtype)))  # [b d rows columns]
            rows, columns = features.shape[-2:]
            positions.append(grid_positions(rows, columns, features.shape[1], like=features))
            tokens.append(features.flatten(2).mT)
            masks.append(observation.image_masks[name][:, None].expand(-1, tokens[-1].shape[1]))
        return torch.cat(tokens, dim=1), torch.cat(positions), torch.cat(masks, dim=1)

    def decode(self, observation: Observation, style: Float[Tensor, "b z"]) -> Float[Tensor, "b ah ad"]:
        """Return the chunk that is done in a style."""
        first = [self.style_in(style), self.state_in(observation.state.to(style.dtype))]
        if self.words is not None:
            first.append(self.words(observation))
        # 1) The encoder reads style, state, prompt and pictures.
        images, image_positions, image_mask = self.encode_images(observation)
        x = torch.cat((torch.stack(first, dim=1), images), dim=1)  # [b s d]
        positions = torch.cat((self.places, image_positions))[None]
        mask = torch.cat((image_mask.new_ones(len(x), len(first)), image_mask), dim=1)
        for layer in self.encoder:
            x = layer(x, positions, mask)
        # 2) The decoder turns one query for each step of the chunk into an action.
        steps = torch.zeros_like(self.queries).expand(len(x), -1, -1)
        for layer in self.decoder:
            steps = layer(steps, self.queries[None], memory=x, memory_positions=positions, memory_mask=mask)
        return self.action_out(self.final_norm(steps))

    def sample_actions(
        self,
        observation: Observation,
        *,
        noise: Float[Tensor, "b ah ad"],
        num_steps: int = 10,
        padded_dims: Bool[Tensor, "#b ad"] | None = None,
    ) -> Float[Tensor, "b ah ad"]:
        """Return the chunk of the mean style, 0, into which nothing but the observation enters."""
        style = self.queries.new_zeros(len(noise), self.config.style_dim)
        return self.decode(observation, style).to(noise.dtype)

    # --- starting ----------------------------------------------------------------------------------------------------

    def load_image_weights(self, file: str | Path) -> None:
        self.vision.load_torchvision(file)

    def initialize(self, generator: torch.Generator, *, ordered_tokens: tuple[list[int], ...] = ()) -> "Act":
        """Draw fresh weights."""
        initialize(self, generator)
        return self
