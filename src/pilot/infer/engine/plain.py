"""The plain engine calls the model's own `prefill`, `generate` and `denoise`: for π0-small, and to check others.

Axes: `b` batch, `s` cache slots, `n` said tokens, `ah` action horizon, `ad` action dims.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pilot.data.layout import Kind, Observation
from pilot.models import flow
from pilot.models.pi import Pi, Prefix
from pilot.nn.attention import KV
from pilot.tokenizers.grammar import Allowed


class PlainEngine:
    """An engine that calls the model's own methods; the fast engine is checked against it."""

    def __init__(self, model: Pi) -> None:
        self.model, self.config = model, model.config

    @torch.inference_mode()
    def prefill(self, observation: Observation, *, max_new_tokens: int = 0) -> "PlainPrefillState":
        return PlainPrefillState(
            context=self.model.prefill(observation, compute_hidden=max_new_tokens > 0), observation=observation
        )

    @torch.inference_mode()
    def generate(
        self,
        reading: "PlainPrefillState",
        *,
        eos: int,
        max_new_tokens: int = 32,
        kind: Kind = Kind.TEXT,
        allowed: Allowed | None = None,
        skip_rows: Bool[Tensor, " b"] | None = None,
    ) -> tuple[Int[Tensor, "b n"], "PlainPrefillState"]:
        said, context = self.model.generate(
            reading.context, reading.observation, eos=eos, max_new_tokens=max_new_tokens, kind=kind, allowed=allowed,
            skip_rows=skip_rows,
        )  # fmt: skip
        return said, replace(reading, context=context)

    @torch.inference_mode()
    def denoise(
        self,
        reading: "PlainPrefillState",
        state: Float[Tensor, "b ad"],
        *,
        noise: Float[Tensor, "b ah ad"],
        num_steps: int = 10,
        solver: flow.Solver = "euler",
    ) -> Float[Tensor, "n b ah ad"]:
        return self.model.denoise(reading.context, state, noise=noise, num_steps=num_steps, solver=solver)

    def velocity(
        self,
        reading: "PlainPrefillState",
        state: Float[Tensor, "b ad"],
        *,
        horizon: int,
        num_steps: int = 10,
        solver: flow.Solver = "euler",
        given: Bool[Tensor, "b ah"] | None = None,
    ) -> flow.Velocity:
        """As `Engine.velocity`."""
        return plain_velocity(
            self.model, reading.seen, state, horizon=horizon, num_steps=num_steps, solver=solver, given=given
        )


@dataclass(frozen=True, kw_only=True)
class PlainPrefillState:
    """What the plain model has read, and of what."""

    context: Prefix
    observation: Observation

    @property
    def seen(self) -> tuple[list[KV], Int[Tensor, "b s"]]:
        return self.context.cache, self.context.kinds


def plain_velocity(
    model: Pi,
    seen: tuple[list[KV], Int[Tensor, "b s"]],
    state: Float[Tensor, "b ad"],
    *,
    horizon: int,
    num_steps: int,
    solver: flow.Solver,
    given: Bool[Tensor, "b ah"] | None = None,
) -> flow.Velocity:
    """`Engine.velocity` of the plain model, which can be differentiated."""
    block = model.flow_block(*seen, state, horizon=horizon)
    times = flow.solver_times(num_steps, solver, device=state.device)
    if given is None:
        conditions = model.embed_time(times, model.dtype).unbind()
    else:
        conditions = [model.embed_time(time * ~given, model.dtype) for time in times]
    return lambda x_t, i: model.velocity(block, x_t, conditions[i])
