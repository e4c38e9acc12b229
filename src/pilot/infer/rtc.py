"""Real-time chunking: the next chunk continues what is left of the previous one.

While a chunk is computed, the robot executes the next `delay` actions of the old one. The new chunk must agree with
those, and should not turn sharply after them. There are three modes:

- `guided`: each denoising step is pulled towards the whole leftover, those `delay` actions fully and the others ever
  less. The pull goes backwards through the network (a vector-Jacobian product), about twice the work of a step. For any
  flow model. Source: arXiv 2506.07339, algorithm 1 and equations 2 to 5.
- `prefix`: the `delay` actions are held on their straight path from noise, as in inpainting; the rest of the leftover
  is not used. For any flow model, at no cost.
- `trained`: the `delay` actions are given clean, at flow time 0, to a model that has learned to continue them
  (`PiConfig.rtc_max_delay`). At no cost. Source: arXiv 2512.05964.

The engine prefills pictures and text once, in every mode, and denoises in modes `prefix` and `trained`. `guided` needs
gradients, and the engine works in place without any: there the plain model's velocity reads the engine's cache.

The time is ours: t = 1 is noise. The papers' τ is 1 − t and their velocity the negative of ours.

Axes: `b` batch, `ah` action horizon, `ad` the model's action dims, `rd` the robot's, `n` actions that are left, `sd`
state dims.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pilot.data import transforms
from pilot.data.pipeline import Pipeline
from pilot.infer.engine.plain import plain_velocity
from pilot.infer.engine.protocol import Engine
from pilot.models import flow
from pilot.types import Robot, Sample

Mode = Literal["guided", "prefix", "trained"]
Schedule = Literal["exponential", "linear", "hard"]


@dataclass(frozen=True, kw_only=True)
class Rtc:
    """The way to join chunks. `schedule` and `max_guidance` (β) belong to `guided`; the defaults are the paper's."""

    mode: Mode
    schedule: Schedule = "exponential"
    max_guidance: float = 5.0

    def __post_init__(self) -> None:
        for name, known in (("mode", get_args(Mode)), ("schedule", get_args(Schedule))):
            if getattr(self, name) not in known:
                raise ValueError(f"no RTC {name} '{getattr(self, name)}'; there are {', '.join(known)}")
        if not self.max_guidance >= 0:
            raise ValueError(f"max_guidance is a weight of 0 or more, got {self.max_guidance}")


@dataclass(frozen=True, kw_only=True)
class Previous:
    """One robot's actions from the tick of its observation on, in its own units; the first `delay` are certain.

    They come from `infer/executor.py`: `ChunkRequest.leftover` and `ChunkRequest.delay`.
    """

    actions: Float[np.ndarray, "n rd"]
    delay: int


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """The previous actions of a batch, as the model takes actions; action 0 is that of the observation's tick.

    `known` marks the elements that exist; the others are 0. Rows without any are joined to nothing.
    """

    actions: Float[Tensor, "b ah ad"]
    known: Bool[Tensor, "b ah ad"]
    delay: Int[Tensor, " b"]

    @property
    def left(self) -> Int[Tensor, " b"]:
        """The number of actions that are left in each row."""
        return self.known.any(-1).sum(1)

    def mark_given(self, most: int) -> Bool[Tensor, "b ah"]:
        """Mark the actions that will have been executed when the chunk comes, at most `most` of them."""
        count = self.delay.minimum(self.left).clamp(max=most)
        return torch.arange(self.actions.shape[1], device=count.device) < count[:, None]


def read_previous(value: Any, robot: Robot) -> Previous | None:
    """Read what an observation holds under "previous": `{"actions": [n rd], "delay": int}`, or None.

    Raises:
        ValueError: anything else, or not of this robot.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping) or set(value) != {"actions", "delay"}:
        got = sorted(value) if isinstance(value, Mapping) else type(value).__name__
        raise ValueError(f"'previous' holds 'actions' and 'delay', got {got}")
    actions, delay = np.asarray(value["actions"]), value["delay"]
    numbers = np.issubdtype(actions.dtype, np.number) and actions.ndim == 2
    if not numbers or actions.shape[1] != robot.action_dim or not np.isfinite(actions).all():
        raise ValueError(
            f"'previous' has actions [n {robot.action_dim}] of robot '{robot.name}', finite, in its own units; got "
            f"{actions.dtype} {list(actions.shape)}"
        )
    if isinstance(delay, bool) or not isinstance(delay, int | np.integer) or delay < 0:
        raise ValueError(f"a delay is a number of control ticks, 0 or more, got {delay!r}")
    return Previous(actions=actions.astype(np.float32), delay=int(delay))


def encode_leftover(
    pipelines: Sequence[Pipeline],
    previous: Sequence[Previous | None],
    states: Sequence[np.ndarray],
    *,
    device: Any = "cpu",
) -> Leftover:
    """Encode what is left for the model: relative to the state that the new chunk starts from, normalised and padded.

    Each row has the pipeline of its robot; all are of one model.

    The old chunk was relative to the state of its own observation. Its actions come here as commands (absolute), and
    are made relative to the new state.
    """
    model = pipelines[0].model
    horizon, dims, stride = model.action_horizon, model.action_dim, model.action_stride
    actions = np.zeros((len(previous), horizon, dims), np.float32)
    known = np.zeros(actions.shape, bool)
    for i, (pipeline, one, state) in enumerate(zip(pipelines, previous, states, strict=True)):
        if one is None or not len(one.actions):
            continue
        # Through the pipeline, as training data would go: adapter, delta, normalisation.
        left = one.actions[: model.chunk_steps]
        sample = Sample(images={}, prompt="", state=np.asarray(state, np.float32), actions=left)
        scaled = pipeline.scale_steps(pipeline.normalized_actions(sample))
        actions[i, : len(scaled)] = transforms.pad_dims(scaled, dims)
        known[i, : len(scaled), : pipeline.robot.action_dim] = True
    # No longer than what is left: a robot may say any number, also one that no tensor holds.
    delays = [0 if one is None else min(one.delay, len(one.actions)) for one in previous]
    delay = torch.tensor([-(-ticks // stride) for ticks in delays], device=device)
    return Leftover(
        actions=torch.from_numpy(actions).to(device), known=torch.from_numpy(known).to(device), delay=delay
    )  # fmt: skip


def denoise(
    engine: Engine,
    prefilled: Any,
    state: Float[Tensor, "b ad"],
    *,
    noise: Float[Tensor, "b ah ad"],
    leftover: Leftover,
    rtc: Rtc,
    num_steps: int = 10,
    solver: flow.Solver = "euler",
    padded_dims: Bool[Tensor, "#b ad"] | None = None,
) -> Float[Tensor, "p b ah ad"]:
    """Denoise a chunk that continues what is left of the last one; return all points on the way, the last is the chunk.

    In modes `prefix` and `trained` the chunk begins with the actions of the delay, bit by bit. A model that was trained
    for shorter delays is given the first `rtc_max_delay` of them.

    Raises:
        ValueError: mode `trained`, and the model has not learned it.
    """
    steps: dict[str, Any] = {"num_steps": num_steps, "solver": solver}
    if rtc.mode == "guided":
        return denoise_guided(
            engine, prefilled, state, noise=noise, leftover=leftover, rtc=rtc, padded_dims=padded_dims, **steps
        )
    most = noise.shape[1] if rtc.mode == "prefix" else engine.config.rtc_max_delay
    if not most:
        raise ValueError(
            "this model has not learned to continue given actions: train with rtc_max_delay, or take mode 'guided'"
        )
    with torch.inference_mode():
        given = leftover.mark_given(most)
        # Only a model trained for it may be shown clean actions; others see them on their way from noise.
        clean = given if rtc.mode == "trained" else None
        velocity = engine.velocity(prefilled, state, horizon=noise.shape[1], given=clean, **steps)
        is_given, actions = given[..., None], leftover.actions.to(noise)
        start = noise if clean is None else torch.where(is_given, actions, noise)
        path = start - actions  # a constant velocity that ends at the given action: 0 where it starts there

        def hold_given(x_t: Tensor, i: int) -> Tensor:
            return torch.where(is_given, path, velocity(x_t, i))

        points = flow.integrate(hold_given, start, padded_dims=padded_dims, **steps)
        points[-1] = torch.where(is_given, actions, points[-1])  # exactly, where steps have been rounded
        return points


def denoise_guided(
    engine: Engine,
    prefilled: Any,
    state: Tensor,
    *,
    noise: Tensor,
    leftover: Leftover,
    rtc: Rtc,
    num_steps: int,
    solver: flow.Solver,
    padded_dims: Bool[Tensor, "#b ad"] | None = None,
) -> Float[Tensor, "p b ah ad"]:
    """Denoise in mode `guided`. Only the way from `x_t` to the velocity is differentiated, not the weights."""
    # Inference tensors can never take part in autograd, and the pull below needs gradients of `x_t`.
    with torch.inference_mode(False), torch.no_grad():
        cache, kinds = prefilled.cache_and_kinds
        cache = [(k.clone(), v.clone()) for k, v in cache]  # autograd does not keep what was made in inference mode
        horizon, noise = noise.shape[1], noise.clone()
        velocity = plain_velocity(
            engine.model, (cache, kinds.clone()), state.clone(), horizon=horizon, num_steps=num_steps, solver=solver
        )
        weights = prefix_weights(horizon, delay=leftover.delay, left=leftover.left, schedule=rtc.schedule)
        guided = guide_velocity(
            velocity,
            leftover.actions.clone().to(noise),
            (weights[..., None] * leftover.known).to(noise),
            times=flow.solver_times(num_steps, solver).tolist(),
            max_guidance=rtc.max_guidance,
        )
        return flow.integrate(guided, noise, num_steps=num_steps, solver=solver, padded_dims=padded_dims)


def guide_velocity(
    velocity: flow.Velocity,
    target: Float[Tensor, "b ah ad"],
    weights: Float[Tensor, "b ah ad"],
    *,
    times: Sequence[float],
    max_guidance: float,
) -> flow.Velocity:
    """Return the velocity, pulled so that the chunk it leads to comes nearer to `target` where `weights` are large.

    The chunk it leads to is `x_0 = x_t − t·v(x_t)`. What moves it is `x_t`, so the error `weights·(target − x_0)` is
    taken back through `d x_0 / d x_t`, the network's Jacobian included: equation 2.
    """

    def guided(x_t: Tensor, i: int) -> Tensor:
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            v_t = velocity(x, i)
            x_0 = x - times[i] * v_t
        # The product of the error with the Jacobian: one backward pass, and the Jacobian itself never exists.
        (pull,) = torch.autograd.grad(x_0, x, weights * (target - x_0.detach()))
        return v_t.detach() - guidance_weight(times[i], max_guidance=max_guidance) * pull

    return guided


def guidance_weight(time: float, *, max_guidance: float) -> float:
    """Compute `min(β, (1 − τ) / (τ·r²))` with `r² = (1 − τ)² / (τ² + (1 − τ)²)` and τ = 1 − t: equations 2 and 4.

    That is `(t² + (1 − t)²) / (t·(1 − t))`, symmetric in time and infinite at both ends.
    """
    # At t = 1 the formula divides by zero; the cap is its limit.
    if not 0 < time < 1:
        return max_guidance
    return min(max_guidance, (time**2 + (1 - time) ** 2) / (time * (1 - time)))


def prefix_weights(
    horizon: int, *, delay: Int[Tensor, " b"], left: Int[Tensor, " b"], schedule: Schedule = "exponential"
) -> Float[Tensor, "b ah"]:
    """Compute how much each action of the new chunk must agree with the old one: equation 5.

    1 for the first `delay` actions, falling to 0 after the last that is `left`, or at once (`hard`). A delay of 2 with
    6 left: `linear` is 1 1 4/5 3/5 2/5 1/5 0 …, and `exponential` bends that down: `w·(e^w − 1)/(e − 1)`.
    """
    index = torch.arange(horizon, device=delay.device)
    start, end = delay.minimum(left)[:, None], left[:, None]
    if schedule == "hard":
        return (index < start).float()
    # The clamp makes the first `delay` weights 1 and those behind the leftover 0.
    weights = ((start - 1 - index) / (end - start + 1) + 1).clamp(0, 1)
    if schedule == "exponential":
        weights = weights * torch.expm1(weights) / math.expm1(1)
    return weights.masked_fill(index >= end, 0)
