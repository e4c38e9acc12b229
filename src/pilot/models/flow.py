"""Flow matching: how noise becomes actions.

t = 1 is noise, t = 0 is data: `x_t = t·noise + (1 − t)·actions`, `u_t = noise − actions`; a model's `v_t` estimates
`u_t`, and sampling walks from 1 to 0 with `dt = −1/num_steps`. Source: π0 (arXiv 2410.24164) section IV, in openpi's
direction of time.

An action that is given, because the robot is committed to it (trained real-time chunking), stays at t = 0 all the way
and has no loss.

**Padded dims.** Actions are padded with zeros up to the model's dims, and padded dims have no loss. So in training they
are at `t·noise`, whatever the model says of them. A solver that took the model's velocity there would leave them at
noise, and show the model what it has never seen; `integrate(…, padded_dims=…)` moves them along the path of training.
Weights of openpi were trained with a loss on padded dims too, and bring them to 0 by themselves.

Axes: `b` batch, `ah` action horizon, `ad` action dims, `d` width, `e` evaluations of the velocity.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor


def sample_time(count: int, generator: torch.Generator, *, s: float = 0.999) -> Float[Tensor, " b"]:
    """Draw times `(1 − s) + s·Beta(1.5, 1)`: most of them near noise, none at exactly 0.

    Beta(1.5, 1) is `uniform^(1/1.5)`.
    """
    uniform = torch.rand(count, generator=generator, device=generator.device)
    # More times near noise, where the model decides what to do; near 0 it only refines.
    return (1 - s) + s * uniform ** (1 / 1.5)


def zero_given_times(
    time: Float[Tensor, "*b"], horizon: int, *, max_delay: int, generator: torch.Generator
) -> Float[Tensor, "*b ah"]:
    """Return a time for each action, where the first 0 to `max_delay` (drawn evenly) are given and have t = 0.

    Source: training-time real-time chunking (arXiv 2512.05964).
    """
    assert 0 <= max_delay < horizon, (max_delay, horizon)
    delay = torch.randint(0, max_delay + 1, (*time.shape, 1), generator=generator, device=generator.device)
    # The delay is drawn for each row and draw, so the model meets all of them, 0 included.
    return time[..., None] * (torch.arange(horizon, device=time.device) >= delay)


def interpolate(
    actions: Float[Tensor, "b ah ad"],
    noise: Float[Tensor, "b ah ad"],
    time: Float[Tensor, " b"] | Float[Tensor, "b #ah"],
) -> tuple[Float[Tensor, "b ah ad"], Float[Tensor, "b ah ad"]]:
    """Return the point `x_t` on the straight way from noise to actions, and the velocity `u_t` along it.

    There is one time per chunk, or one for each action.
    """
    t = time.reshape(len(time), -1, 1)
    return t * noise + (1 - t) * actions, noise - actions


def time_features(
    time: Float[Tensor, "*b"], width: int, *, min_period: float = 4e-3, max_period: float = 4.0
) -> Float[Tensor, "*b d"]:
    """Return sines then cosines of `2π·time / period`, periods geometric from `min_period` to `max_period`, in fp32.

    The fastest angle is 1570 at t = 1, where one fp32 rounding is 1e-4: the steps below give the angles of openpi's
    JAX, to the bit.
    """
    if width % 2:
        raise ValueError(f"time features need an even width, got {width}")
    elsewhere = time.device.type != "cpu" and type(time) is Tensor  # a stand-in of a tracer must not be kept
    make = _kept_frequencies if elsewhere else _frequencies
    angles = time[..., None].float() * make(width, min_period, max_period, time.device)
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


def _frequencies(width: int, min_period: float, max_period: float, device: torch.device) -> Float[Tensor, " d"]:
    # The mixture of fp32 and fp64 is openpi's, whose angles these are to the bit.
    fraction = torch.arange(width // 2, dtype=torch.float32) * (1 / max(1, width // 2 - 1))
    period = min_period * ((max_period / min_period) ** fraction.double()).float()
    return (1 / period * 2 * math.pi).to(device)


_kept_frequencies = cache(_frequencies)
"""A copy from the CPU in the middle of a step would wait for all that the GPU has yet to do."""


def euler_times(num_steps: int, device: torch.device | None = None) -> Float[Tensor, " n"]:
    """Return the time of each Euler step, 1, 1 − 1/n, …, 1/n: each from the one before in fp32, as in openpi."""
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    # Summed up as openpi's loop does; `1 − i/n` rounds to other times.
    steps = np.full(num_steps, -1 / num_steps, np.float32)
    steps[0] = 1
    return torch.from_numpy(np.add.accumulate(steps)).to(device)


Solver = Literal["euler", "midpoint"]
"""How a step of the flow is taken: by the velocity where it starts, or by that halfway (two evaluations)."""


def solver_times(num_steps: int, solver: Solver, *, device: torch.device | None = None) -> Float[Tensor, " e"]:
    """Return the time of every evaluation of the velocity in `integrate`, in order."""
    times = euler_times(num_steps, device)
    if solver == "euler":
        return times
    if solver == "midpoint":
        return torch.stack((times, times - 0.5 / num_steps), dim=1).flatten()
    raise ValueError(f"no solver '{solver}'; there are {get_args(Solver)}")


Velocity = Callable[[Tensor, int], Tensor]
"""`v_t` of a noisy chunk [b ah ad] at the `i`-th of the `solver_times`."""


def integrate(
    velocity: Velocity,
    noise: Float[Tensor, "b ah ad"],
    *,
    num_steps: int,
    solver: Solver = "euler",
    padded_dims: Bool[Tensor, "#b ad"] | None = None,
) -> Float[Tensor, "n b ah ad"]:
    """Walk from noise (t = 1) to actions (t = 0) and return all `num_steps + 1` points.

    `velocity(x_t, i)` is evaluated at the `i`-th of the `solver_times`. `padded_dims` are those that a row's robot
    lacks, where they had no loss in training.
    """
    if padded_dims is not None:
        velocity = with_padding(velocity, noise, padded_dims)
    points = [noise]
    for step in range(num_steps):
        x = points[-1]
        if solver == "midpoint":
            # Go half a step, and take the whole step with the velocity found there.
            x = torch.add(x, velocity(x, 2 * step), alpha=-0.5 / num_steps)
        v = velocity(x, 2 * step + 1 if solver == "midpoint" else step)
        points.append(torch.add(points[-1], v, alpha=-1 / num_steps))
    return torch.stack(points)


def with_padding(velocity: Velocity, noise: Float[Tensor, "b ah ad"], padded_dims: Bool[Tensor, "#b ad"]) -> Velocity:
    """Return `velocity`, but for `u_t = noise − 0` in padded dims: they go from noise to 0 as in training."""
    padded = padded_dims[:, None]  # [#b 1 ad]
    return lambda x_t, i: torch.where(padded, noise, velocity(x_t, i))
