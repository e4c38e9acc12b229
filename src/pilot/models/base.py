"""What the trainer asks of a model: anything that answers is trained by the same loop, on the same data.

A step goes: `draw` what is random for all rows of the batch, `loss_counts` of what each row will be judged by (from
masks, before anything is computed, so that a loss can be normalised by its count in the whole batch, however many
ranks and passes that is spread over), then for each part of the batch `loss_terms` and backward. The π0 family is
`pi.py`; the baselines are the other files here.

Axes: `b` batch, `ah` action horizon, `ad` action dims.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pilot.data.layout import Batch, Observation

Draws = Mapping[str, Tensor]
"""All that is random about a step, by the model's own names: noise, flow times. Each tensor has the rows first."""

Terms = dict[str, tuple[Tensor, Tensor]]
"""Sum and count of each loss, each of them [b]: a loss is the sum over all rows divided by the count over all rows."""


class Model(nn.Module, ABC):
    """A model as the trainer sees it: a module that also says what it is made of and what it is judged by."""

    config: Any
    """A frozen dataclass; the pipeline takes `action_dim`, `action_horizon`, picture sizes and `norm` from it."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.parameters()).dtype

    @abstractmethod
    def initialize(self, generator: torch.Generator, *, ordered_tokens: tuple[list[int], ...] = ()) -> "Model":
        """The model with fresh weights. `ordered_tokens` are tokens that stand for places or numbers, each in order."""

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """The layers, in the order in which they run: what is sharded, compiled and checkpointed as one."""

    def separate_modules(self) -> list[nn.Module]:
        """Modules inside of blocks that are called before their block is, and so are sharded on their own."""
        return []

    @abstractmethod
    def draw(self, rows: int, generator: torch.Generator, *, flow_draws: int = 1, time_s: float = 0.999) -> Draws:
        """What is random about `rows` rows: `flow_draws` draws of noise and time each, on the generator's device.

        A model without a flow takes from the two what it has a use for.
        """

    @abstractmethod
    def loss_counts(self, batch: Batch, draws: Draws, *, losses: frozenset[str]) -> dict[str, Float[Tensor, " b"]]:
        """What `loss_terms` would return as counts, from masks alone, on the device of the batch."""

    @abstractmethod
    def loss_terms(
        self, batch: Batch, draws: Draws, *, losses: frozenset[str], run_all_modules: bool = False
    ) -> dict[str, tuple[Float[Tensor, " b"], Float[Tensor, " b"]]]:
        """Sum and count of each loss per row, on the model's device.

        `losses` are those that the run asks for ("text", "fast", "flow", "point", "name"); a model whose losses go by
        other names returns its own. With `run_all_modules` all blocks run whatever the rows hold, in the same
        order: ranks that share them wait for each other in each.
        """

    @abstractmethod
    def sample_actions(
        self, observation: Observation, *, noise: Float[Tensor, "b ah ad"], num_steps: int = 10
    ) -> Float[Tensor, "b ah ad"]:
        """A chunk of normalised actions per row. A model that does not start from noise makes no use of it."""
