"""The engine of models that answer a chunk in one call: the baselines. Nothing is kept between calls.

Axes: `b` batch, `ah` action horizon, `ad` action dims.
"""

from typing import Any, NoReturn

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pilot.data.layout import Observation
from pilot.models import flow
from pilot.models.base import Model


class DirectEngine:
    """`prefill` keeps the observation, `denoise` asks the model."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.config = model.config
        self.input_device = next(model.parameters()).device

    def prefill(self, observation: Observation, *, max_new_tokens: int = 0) -> Observation:
        return observation

    @torch.inference_mode()
    def denoise(
        self,
        prefilled: Observation,
        state: Float[Tensor, "b ad"],
        *,
        noise: Float[Tensor, "b ah ad"],
        num_steps: int = 10,
        solver: flow.Solver = "euler",
        padded_dims: Bool[Tensor, "#b ad"] | None = None,
    ) -> Float[Tensor, "1 b ah ad"]:
        """Return the chunk, the one point on the way from noise to actions that is known."""
        return self.model.sample_actions(prefilled, noise=noise, num_steps=num_steps, padded_dims=padded_dims)[None]

    def generate(self, prefilled: Any, **options: object) -> NoReturn:
        """Refuse: these models write no text."""
        raise ValueError(f"{type(self.model).__name__} generates no text")

    def velocity(self, prefilled: Any, state: Any, **options: object) -> NoReturn:
        """Refuse: these models have no flow, so their chunks cannot be steered while they are denoised."""
        raise ValueError(f"{type(self.model).__name__} has no flow: its chunks are not joined")
