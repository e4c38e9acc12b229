"""Flow matching: how noise becomes actions.

t = 1 is noise, t = 0 is data: `x_t = t·noise + (1 − t)·actions`, `u_t = noise − actions`; a model's `v_t` estimates
`u_t`, and sampling walks from 1 to 0 with `dt = −1/num_steps`. Source: π0 (arXiv 2410.24164) section IV, in openpi's
direction of time.

Axes: `b` batch, `ah` action horizon, `ad` action dims, `d` width.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def sample_time(count: int, generator: torch.Generator, *, s: float = 0.999) -> Float[Tensor, " b"]:
    """Times `(1 − s) + s·Beta(1.5, 1)`: most of them near noise, none at exactly 0.

    Beta(1.5, 1) is `uniform^(1/1.5)`.
    """
    uniform = torch.rand(count, generator=generator, device=generator.device)
    return (1 - s) + s * uniform ** (1 / 1.5)


def path(
    actions: Float[Tensor, "b ah ad"], noise: Float[Tensor, "b ah ad"], time: Float[Tensor, " b"]
) -> tuple[Float[Tensor, "b ah ad"], Float[Tensor, "b ah ad"]]:
    """The point `x_t` on the straight way from noise to actions, and the velocity `u_t` along it."""
    t = time[:, None, None]
    return t * noise + (1 - t) * actions, noise - actions


def time_features(
    time: Float[Tensor, " b"], width: int, *, min_period: float = 4e-3, max_period: float = 4.0
) -> Float[Tensor, "b d"]:
    """Sines then cosines of `2π·time / period`, periods geometric from `min_period` to `max_period`, in fp32."""
    if width % 2:
        raise ValueError(f"time features need an even width, got {width}")
    fraction = torch.linspace(0.0, 1.0, width // 2, device=time.device, dtype=torch.float32)
    period = min_period * (max_period / min_period) ** fraction
    angles = time[:, None].float() * (2 * math.pi / period)
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


def euler_times(num_steps: int, device: torch.device | None = None) -> Float[Tensor, " n"]:
    """Where each Euler step looks: 1, 1 − 1/n, …, 1/n."""
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    return 1 - torch.arange(num_steps, device=device, dtype=torch.float32) / num_steps


def integrate(
    velocity: Callable[[Tensor, int], Tensor], noise: Float[Tensor, "b ah ad"], *, num_steps: int
) -> Float[Tensor, "n b ah ad"]:
    """Euler steps from noise (t = 1) to actions (t = 0); `velocity(x_t, step)`.

    All `num_steps + 1` points are returned.
    """
    points = [noise]
    for step in range(num_steps):
        points.append(torch.add(points[-1], velocity(points[-1], step), alpha=-1 / num_steps))
    return torch.stack(points)
