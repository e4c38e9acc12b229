"""The backbone's MLP in FP8 (e4m3): twice the operations per second of bf16 on Hopper, for a prefill that they bound.

Scales are static. Those of weights follow from their largest number; those of activations from the largest that a
calibration has seen, with some room. One over the scale of the MLP's input is part of the norm's factor before it, so
that quantizing costs no pass of its own. What goes beyond the scale saturates.

Axes: `d` width, `i` width of the MLP, `r` rows.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pilot.infer.engine.stack import Weights

FP8, LARGEST = torch.float8_e4m3fn, 448.0
HEADROOM = 1.25
"""How much larger activations may be than in the calibration."""


class Fp8Layer(NamedTuple):
    """The two matrices of one MLP, each with the scale that brings it back, and those of what they are applied to."""

    factor: Float[Tensor, " d"]
    gate_up: Tensor
    gate_up_scale: Float[Tensor, ""]
    input_scale: Float[Tensor, ""]
    down: Tensor
    down_scale: Float[Tensor, ""]
    gated_scale: Float[Tensor, ""]
    per_gated: float


def quantize_layer(
    weights: Weights, factor: Float[Tensor, " d"], *, largest_input: float, largest_gated: float
) -> Fp8Layer:
    """Quantize one MLP for activations as large as a calibration has seen; `factor` is that of the norm before it."""
    gate_up, gate_up_scale = quantize(weights.gate_up.T)
    down, down_scale = quantize(weights.down.T)
    # A layer that was all zeros in the calibration still needs a scale that can be divided by.
    input_scale, gated_scale = (HEADROOM * max(x, 1e-6) / LARGEST for x in (largest_input, largest_gated))
    return Fp8Layer(
        factor=factor / input_scale,
        gate_up=gate_up,
        gate_up_scale=gate_up_scale,
        input_scale=factor.new_tensor(input_scale),
        down=down,
        down_scale=down_scale,
        gated_scale=factor.new_tensor(gated_scale),
        per_gated=1 / gated_scale,
    )


def quantize(weight: Float[Tensor, "o j"]) -> tuple[Tensor, Float[Tensor, ""]]:
    """Return a weight in FP8 and the scale that brings it back."""
    scale = weight.abs().amax().float() / LARGEST
    return (weight.float() / scale).clamp(-LARGEST, LARGEST).to(FP8), scale


def scaled_mm(
    x: Tensor, weight: Tensor, *, x_scale: Float[Tensor, ""], weight_scale: Float[Tensor, ""], out: Float[Tensor, "r o"]
) -> None:
    """`out = (x · x_scale) @ (weight · weight_scale).T` of numbers in FP8."""
    torch._scaled_mm(
        x, weight.T, scale_a=x_scale, scale_b=weight_scale, out_dtype=out.dtype, use_fast_accum=True, out=out
    )
