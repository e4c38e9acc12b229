"""The interface of every model: what fulfils it is trained, evaluated and served by the same code.

A training step goes: `draw` what is random for all rows of the batch; `loss_counts`, how much each row counts (from
masks, before anything is computed, so that a loss can be normalised by its count in the whole batch, however many ranks
and passes that is spread over); then for each part of the batch `loss_terms` and backward. The π0 family is `pi.py`;
the baselines are in `baselines/`.

Axes: `b` batch, `ah` action horizon, `ad` action dims.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pilot.data.layout import Batch, Observation

Draws = Mapping[str, Tensor]
"""All that is random about a step, by the model's own names: noise, flow times. Each tensor has the rows first."""

Terms = dict[str, tuple[Tensor, Tensor]]
"""Sum and count of each loss, both [b]: a loss is the sum over all rows divided by the count over all rows."""


class Model(nn.Module, ABC):
    """A model as the trainer and the policy see it: its losses, its samples, and what it can do."""

    config: Any
    """A frozen dataclass; the pipeline takes `action_dim`, `action_horizon`, picture sizes and `norm` from it."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.parameters()).dtype

    # --- what it can do ----------------------------------------------------------------------------------------------

    @property
    def has_flow(self) -> bool:
        """Whether a flow turns noise into actions step by step, so that real-time chunking can guide it."""
        return False

    @property
    def samples_actions(self) -> bool:
        """Whether `sample_actions` makes chunks; if not, as in π0-FAST, actions are written as tokens."""
        return True

    @property
    def generates_text(self) -> bool:
        """Whether the model writes text: subtasks, answers, action tokens."""
        return False

    @property
    def needs_all_cameras(self) -> bool:
        """Whether every camera of the robot must be in an observation; if not, a missing one is masked."""
        return True

    @property
    def default_num_steps(self) -> int:
        """The denoising steps of `sample_actions` that a policy takes unless it is told otherwise."""
        return 10

    @property
    def default_replan_steps(self) -> int | None:
        """The actions of a chunk that are executed before the policy looks again; None leaves it to the time below."""
        return None

    @property
    def default_replan_seconds(self) -> float:
        """The control time from one look of the policy to the next, where no number of actions is named."""
        return 0.2

    @property
    def default_executor(self) -> Literal["open-loop", "ensemble"]:
        """How chunks are executed in an evaluation where the world waits (`infer/executor.py`)."""
        return "open-loop"

    # --- training ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def initialize(self, generator: torch.Generator, *, ordered_tokens: tuple[list[int], ...] = ()) -> "Model":
        """Draw fresh weights. `ordered_tokens` are tokens that stand for positions or numbers, each list in order."""

    def load_image_weights(self, file: str | Path) -> None:
        """Load published weights of torchvision's ResNet-18 into the image encoder.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the model looks with something else, or the weights do not fit.
        """
        raise ValueError(
            f"weights of torchvision are for ACT, which looks with a ResNet, not for {type(self).__name__}"
        )

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """Return the layers in the order in which they run: each is sharded, compiled and checkpointed as one."""

    def separate_modules(self) -> list[nn.Module]:
        """Return modules inside of blocks that are called before their block is, and so are sharded on their own."""
        return []

    @abstractmethod
    def draw(self, rows: int, generator: torch.Generator, *, flow_draws: int = 1, time_s: float = 0.999) -> Draws:
        """Draw what is random about `rows` rows, on the generator's device: `flow_draws` noises and times for each.

        A model without a flow ignores what it has no use for.
        """

    @abstractmethod
    def loss_counts(self, batch: Batch, draws: Draws, *, losses: frozenset[str]) -> dict[str, Float[Tensor, " b"]]:
        """Return the counts of `loss_terms`, from masks alone, on the device of the batch."""

    @abstractmethod
    def loss_terms(
        self, batch: Batch, draws: Draws, *, losses: frozenset[str], run_all_modules: bool = False
    ) -> dict[str, tuple[Float[Tensor, " b"], Float[Tensor, " b"]]]:
        """Return the sum and the count of each loss per row, on the model's device.

        `losses` are those that the run asks for ("text", "fast", "flow", "point", "name", "place"); a model whose
        losses go by other names returns its own. With `run_all_modules` all blocks run in the same order whatever the
        rows hold: ranks that share the blocks wait for each other in each.
        """

    # --- acting ------------------------------------------------------------------------------------------------------

    def padded_dims(self, action_dim: int) -> Bool[Tensor, "1 ad"] | None:
        """Return which action dims a robot with `action_dim` of them lacks, for `sample_actions`.

        None where it lacks none, or where the model has learned to bring them to 0 itself.
        """
        if action_dim == self.config.action_dim or self.config.integrate_padded_dims:
            return None
        return torch.arange(self.config.action_dim)[None] >= action_dim

    @abstractmethod
    def sample_actions(
        self,
        observation: Observation,
        *,
        noise: Float[Tensor, "b ah ad"],
        num_steps: int = 10,
        padded_dims: Bool[Tensor, "#b ad"] | None = None,
    ) -> Float[Tensor, "b ah ad"]:
        """Return a chunk of normalised actions per row. A model that does not start from noise ignores it.

        `padded_dims` are action dims that a row's robot lacks, to be treated as in training.
        """
