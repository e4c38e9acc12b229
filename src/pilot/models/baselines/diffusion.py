"""Denoising diffusion, which Diffusion Policy and Octo share: the model predicts the noise in a chunk.

At level `n` of `levels` a chunk is `sqrt(a_n)·actions + sqrt(1 − a_n)·noise`; `a` falls along a squared cosine from
nearly 1 (level 0) to nearly 0, so high levels are noise, in the direction of t (`types.py`). Chunks are drawn by DDIM
without fresh noise: the same start gives the same chunk. Sources: DDPM (arXiv 2006.11239), the squared cosine
(2102.09672), DDIM (2010.02502).

Axes: `b` batch, `k` noise draws, `ah` action horizon, `ad` action dims, `n` levels, `d` width of the condition.
"""

import math
from abc import abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pilot.data.layout import Batch, Observation
from pilot.models.base import Draws, Model, Terms
from pilot.models.baselines.base import count_elements, squared_error
from pilot.models.baselines.configs import DiffusionConfig

Denoise = Callable[[Tensor, int], Tensor]
"""The noise that a model predicts in a noisy chunk [b ah ad] of a level."""


def alphas_cumprod(levels: int) -> Float[Tensor, " n"]:
    """Return `a`, the share of the actions' variance that is left at each level.

    Each level keeps at least 1/1000 of the one below.
    """

    def signal(time: float) -> float:
        return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2

    factors = [max(signal((n + 1) / levels) / signal(n / levels), 1 - 0.999) for n in range(levels)]
    return torch.tensor(factors, dtype=torch.float64).cumprod(0).float()


def add_noise(
    actions: Float[Tensor, "b ah ad"], noise: Float[Tensor, "b ah ad"], level: Int[Tensor, " b"], *, levels: int
) -> Float[Tensor, "b ah ad"]:
    """Return noisy chunks, each at a level of its own."""
    a = alphas_cumprod(levels).to(actions.device)[level][:, None, None]
    return a.sqrt() * actions + (1 - a).sqrt() * noise


def ddim_levels(levels: int, num_steps: int) -> list[int]:
    """Return the levels at which DDIM predicts noise, evenly from the highest down; never more than there are.

    Raises:
        ValueError: fewer than one step.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    count = min(num_steps, levels)
    return [levels - 1 - levels * i // count for i in range(count)]


def ddim(
    denoise: Denoise, noise: Float[Tensor, "b ah ad"], *, levels: int, num_steps: int, clip: float
) -> Float[Tensor, "b ah ad"]:
    """Walk from noise to actions; the actions that a step estimates are kept within ±`clip`, where actions can be."""
    a = [*alphas_cumprod(levels).tolist(), 1.0]  # below level 0, at index −1, are the actions themselves
    visited = ddim_levels(levels, num_steps)
    x = noise
    for level, below in zip(visited, [*visited[1:], -1], strict=True):
        # 1) Estimate the actions, and the noise that would make `x` of them.
        actions = ((x - math.sqrt(1 - a[level]) * denoise(x, level)) / math.sqrt(a[level])).clamp(-clip, clip)
        implied = (x - math.sqrt(a[level]) * actions) / math.sqrt(1 - a[level])
        # 2) Mix the two again at the level below.
        x = math.sqrt(a[below]) * actions + math.sqrt(1 - a[below]) * implied
    return x


class Denoiser(Model):
    """A model that predicts the noise in a chunk from one vector about the observation: `encode`, then `predict_noise`.

    Dims that a robot lacks hold no noise: they are 0 in training, and a chunk that starts without noise in a dim stays
    0 there.
    """

    config: DiffusionConfig

    @property
    def default_num_steps(self) -> int:
        """The levels at which DDIM predicts noise: 10 of them unless the config says otherwise."""
        return self.config.num_steps or super().default_num_steps

    @abstractmethod
    def encode(self, observation: Observation) -> Float[Tensor, "b d"]:
        """Return the condition, which is the same at every level."""

    @abstractmethod
    def predict_noise(
        self, noisy: Float[Tensor, "b ah ad"], level: Int[Tensor, " b"], condition: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b ah ad"]:
        """Return the noise in chunks, each at a level of its own."""

    def draw(self, rows: int, generator: torch.Generator, *, flow_draws: int = 1, time_s: float = 0.999) -> Draws:
        """Draw `flow_draws` noises and levels for each row; all levels are equally likely."""
        shape, device = (rows, flow_draws), generator.device
        chunk = (self.config.action_horizon, self.config.action_dim)
        noise = torch.randn(*shape, *chunk, generator=generator, device=device)
        return {"noise": noise, "level": torch.randint(self.config.levels, shape, generator=generator, device=device)}

    def loss_counts(self, batch: Batch, draws: Draws, *, losses: frozenset[str]) -> dict[str, Float[Tensor, " b"]]:
        return {"noise": count_elements(batch.action_mask)}

    def loss_terms(self, batch: Batch, draws: Draws, *, losses: frozenset[str], run_all_modules: bool = False) -> Terms:
        """Return the squared error of the predicted noise over unmasked elements, the mean over draws."""
        level, dims = draws["level"], batch.action_mask.any(1)[:, None, None]  # [b k], [b 1 1 ad]
        noise, repeats = draws["noise"] * dims, level.shape[1]
        actions = batch.actions[:, None].expand_as(noise)
        x = add_noise(actions.flatten(0, 1), noise.flatten(0, 1), level.flatten(), levels=self.config.levels)
        x = x * dims.expand(-1, repeats, -1, -1).flatten(0, 1)
        condition = self.encode(batch.observation).repeat_interleave(repeats, dim=0)
        predicted = self.predict_noise(x.to(condition.dtype), level.flatten(), condition).float()
        return {"noise": squared_error(predicted.unflatten(0, level.shape), noise, batch.action_mask)}

    def sample_actions(
        self,
        observation: Observation,
        *,
        noise: Float[Tensor, "b ah ad"],
        num_steps: int = 10,
        padded_dims: Bool[Tensor, "#b ad"] | None = None,
    ) -> Float[Tensor, "b ah ad"]:
        """Return a chunk of normalised actions per row."""
        if padded_dims is not None:
            noise = noise.masked_fill(padded_dims[:, None], 0)
        condition, dims = self.encode(observation), (noise != 0).any(1, keepdim=True)

        def denoise(x: Tensor, level: int) -> Tensor:
            levels = torch.full((len(x),), level, device=x.device)
            return self.predict_noise(x.to(condition.dtype), levels, condition).to(x.dtype) * dims

        config = self.config
        return ddim(denoise, noise, levels=config.levels, num_steps=num_steps, clip=config.clip)
