"""A model that answers a chunk in one call, behind an engine's face: the baselines. Nothing is kept between calls.

Axes: `b` batch, `ah` action horizon, `ad` action dims.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from pilot.data.layout import Observation
from pilot.models.base import Model


class DirectEngine:
    """`prefill` keeps the observation, `denoise` asks the model."""

    def __init__(self, model: Model) -> None:
        self.model, self.config = model, model.config

    def prefill(self, observation: Observation, *, max_new_tokens: int = 0) -> Observation:
        return observation

    @torch.inference_mode()
    def denoise(
        self, reading: Observation, state: Float[Tensor, "b ad"], *, noise: Float[Tensor, "b ah ad"], num_steps: int
    ) -> Float[Tensor, "1 b ah ad"]:
        """Of the way from noise to actions only its end is known: the chunk."""
        return self.model.sample_actions(reading, noise=noise, num_steps=num_steps)[None]
