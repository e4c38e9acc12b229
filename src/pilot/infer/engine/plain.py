"""The model's own `read`, `speak` and `act` behind an engine's face: for π0-small, and to measure the engine against.

Axes: `b` batch, `s` cache slots, `n` said tokens, `ah` action horizon, `ad` action dims.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pilot.data.layout import Kind, Observation
from pilot.models import flow
from pilot.models.pi import Context, Pi
from pilot.nn.attention import KV
from pilot.tokenizers.grammar import Allowed


class PlainEngine:
    """The model's own `read`, `speak` and `act` behind the engine's face: what the engine is measured against."""

    def __init__(self, model: Pi) -> None:
        self.model, self.config = model, model.config

    @torch.inference_mode()
    def read(self, observation: Observation, *, room: int = 0) -> "PlainReading":
        return PlainReading(context=self.model.read(observation, hidden=room > 0), observation=observation)

    @torch.inference_mode()
    def speak(
        self,
        reading: "PlainReading",
        *,
        eos: int,
        max_tokens: int = 32,
        kind: Kind = Kind.TEXT,
        allowed: Allowed | None = None,
        silent: Bool[Tensor, " b"] | None = None,
    ) -> tuple[Int[Tensor, "b n"], "PlainReading"]:
        said, context = self.model.speak(
            reading.context, reading.observation, eos=eos, max_tokens=max_tokens, kind=kind, allowed=allowed,
            silent=silent,
        )  # fmt: skip
        return said, replace(reading, context=context)

    @torch.inference_mode()
    def act(
        self,
        reading: "PlainReading",
        state: Float[Tensor, "b ad"],
        *,
        noise: Float[Tensor, "b ah ad"],
        num_steps: int = 10,
        solver: flow.Solver = "euler",
    ) -> Float[Tensor, "n b ah ad"]:
        return self.model.act(reading.context, state, noise=noise, num_steps=num_steps, solver=solver)

    def velocity(
        self,
        reading: "PlainReading",
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
class PlainReading:
    """What the plain model has read, and of what."""

    context: Context
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
        conditions = model.time_condition(times, model.dtype).unbind()
    else:
        conditions = [model.time_condition(time * ~given, model.dtype) for time in times]
    return lambda x_t, i: model.velocity(block, x_t, conditions[i])
