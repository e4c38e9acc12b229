"""The plain engine calls the model's own `prefill`, `generate` and `denoise`: for π0-small, and to check others.

Axes: `b` batch, `s` cache slots, `n` generated tokens, `p` points on the way, `ah` action horizon, `ad` action dims.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pilot.data.layout import Kind, Observation
from pilot.models import flow
from pilot.models.generation import Sampler
from pilot.models.pi import Pi, Prefix
from pilot.nn.attention import KV
from pilot.tokenizers.grammar import Allowed


@dataclass(frozen=True, kw_only=True)
class PlainPrefillState:
    """A model's prefix, and the observation that it was made from."""

    prefix: Prefix
    observation: Observation

    @property
    def cache_and_kinds(self) -> tuple[list[KV], Int[Tensor, "b s"]]:
        """Keys and values of each layer, and the kinds of their slots."""
        return self.prefix.cache, self.prefix.kinds


class PlainEngine:
    """An engine that calls the model's own methods; see `protocol.py` for what they are asked."""

    def __init__(self, model: Pi) -> None:
        self.model = model
        self.config = model.config
        self.input_device = next(model.parameters()).device

    @torch.inference_mode()
    def prefill(self, observation: Observation, *, max_new_tokens: int = 0) -> PlainPrefillState:
        prefix = self.model.prefill(observation, compute_hidden=max_new_tokens > 0)
        return PlainPrefillState(prefix=prefix, observation=observation)

    @torch.inference_mode()
    def generate(
        self,
        prefilled: PlainPrefillState,
        *,
        eos: int,
        max_new_tokens: int = 32,
        kind: Kind = Kind.TEXT,
        allowed: Allowed | None = None,
        sampler: Sampler | None = None,
        skip_rows: Bool[Tensor, " b"] | None = None,
    ) -> tuple[Int[Tensor, "b n"], PlainPrefillState]:
        tokens, prefix = self.model.generate(
            prefilled.prefix, prefilled.observation, eos=eos, max_new_tokens=max_new_tokens, kind=kind,
            allowed=allowed, sampler=sampler, skip_rows=skip_rows,
        )  # fmt: skip
        return tokens, replace(prefilled, prefix=prefix)

    @torch.inference_mode()
    def denoise(
        self,
        prefilled: PlainPrefillState,
        state: Float[Tensor, "b ad"],
        *,
        noise: Float[Tensor, "b ah ad"],
        num_steps: int = 10,
        solver: flow.Solver = "euler",
        padded_dims: Bool[Tensor, "#b ad"] | None = None,
    ) -> Float[Tensor, "p b ah ad"]:
        return self.model.denoise(
            prefilled.prefix, state, noise=noise, num_steps=num_steps, solver=solver, padded_dims=padded_dims
        )

    def velocity(
        self,
        prefilled: PlainPrefillState,
        state: Float[Tensor, "b ad"],
        *,
        horizon: int,
        num_steps: int = 10,
        solver: flow.Solver = "euler",
        given: Bool[Tensor, "b ah"] | None = None,
    ) -> flow.Velocity:
        return plain_velocity(
            self.model, prefilled.cache_and_kinds, state,
            horizon=horizon, num_steps=num_steps, solver=solver, given=given,
        )  # fmt: skip


def plain_velocity(
    model: Pi,
    cache_and_kinds: tuple[list[KV], Int[Tensor, "b s"]],
    state: Float[Tensor, "b ad"],
    *,
    horizon: int,
    num_steps: int,
    solver: flow.Solver,
    given: Bool[Tensor, "b ah"] | None = None,
) -> flow.Velocity:
    """Return `Engine.velocity` of the plain model, which can be differentiated."""
    block = model.flow_block(*cache_and_kinds, state, horizon=horizon)
    times = flow.solver_times(num_steps, solver, device=state.device)
    if given is None:
        conditions = model.embed_time(times, model.dtype).unbind()
    else:
        conditions = [model.embed_time(time * ~given, model.dtype) for time in times]
    return lambda x_t, i: model.velocity(block, x_t, conditions[i])
