"""The methods of every engine, whichever model it runs and however it does so.

Acting has three parts: `prefill` reads pictures and text once, `generate` makes text or action tokens behind them, and
`denoise` turns noise into a chunk of actions beside them. What is prefilled is the engine's own and opaque to callers:
they hand it on. Which engine runs a model is `choose.py`'s to say.

Axes: `b` batch, `n` generated tokens, `p` points on the way, `ah` action horizon, `ad` action dims.
"""

from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pilot.data.layout import Kind, Observation
from pilot.models import flow
from pilot.models.generation import Sampler
from pilot.tokenizers.grammar import Allowed


class Engine(Protocol):
    """A model as it acts: weights and constants, nothing of any robot."""

    @property
    def model(self) -> Any:
        """The model whose weights are used."""
        ...

    @property
    def config(self) -> Any:
        """The model's config."""
        ...

    @property
    def input_device(self) -> torch.device:
        """The device for observations, states and noise; with a GPU often the host, which then need not wait."""
        ...

    def prefill(self, observation: Observation, *, max_new_tokens: int = 0) -> Any:
        """Read pictures and text, with room for `max_new_tokens` behind them."""
        ...

    def generate(
        self,
        prefilled: Any,
        *,
        eos: int,
        max_new_tokens: int = 32,
        kind: Kind = Kind.TEXT,
        allowed: Allowed | None = None,
        sampler: Sampler | None = None,
        skip_rows: Bool[Tensor, " b"] | None = None,
    ) -> tuple[Int[Tensor, "b n"], Any]:
        """Generate tokens up to and with `eos`, 0 behind it, greedily or by `sampler`; also return the state after.

        Rows in `skip_rows` get no tokens and stay as they are; where all are, there are none.

        Raises:
            ValueError: the model generates no text, or `prefill` left no room for so many tokens.
        """
        ...

    def denoise(
        self,
        prefilled: Any,
        state: Float[Tensor, "b ad"],
        *,
        noise: Float[Tensor, "b ah ad"],
        num_steps: int = 10,
        solver: flow.Solver = "euler",
        padded_dims: Bool[Tensor, "#b ad"] | None = None,
    ) -> Float[Tensor, "p b ah ad"]:
        """Return points on the way from noise to actions; the last is the chunk. `padded_dims` as in `flow.integrate`.

        The same state can be denoised from many times.

        Raises:
            ValueError: the model has no action expert; no such number of steps or solver.
        """
        ...

    def velocity(
        self,
        prefilled: Any,
        state: Float[Tensor, "b ad"],
        *,
        horizon: int,
        num_steps: int = 10,
        solver: flow.Solver = "euler",
        given: Bool[Tensor, "b ah"] | None = None,
    ) -> flow.Velocity:
        """Return `v_t` at each of the `solver_times`, for `flow.integrate`; actions that are `given` are at t = 0.

        Raises:
            ValueError: the model has no flow.
        """
        ...
