"""Numbers in FP8 come back to within what its three bits of mantissa round."""

import torch

from pilot.infer.engine.fp8 import FP8, HEADROOM, LARGEST, quantize, quantize_layer
from pilot.infer.engine.stack import Weights


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_weight_comes_back():
    weight = draw(16, 32, seed=0)
    quantized, scale = quantize(weight)
    assert quantized.dtype == FP8 and quantized.float().abs().max() == LARGEST
    large = weight.abs() > weight.abs().max() / 64  # below that FP8 loses more
    error = (quantized.float() * scale - weight)[large].abs() / weight[large].abs()
    assert error.max() < 2**-4 + 1e-6


def test_the_scale_of_the_input_is_in_the_factor_before_it():
    weights = Weights(*(draw(8, 8, seed=seed) for seed in range(4)))
    layer = quantize_layer(weights, torch.ones(8), largest_input=3.0, largest_gated=5.0)
    torch.testing.assert_close(layer.factor * layer.input_scale, torch.ones(8))
    largest = 3.0 / layer.input_scale
    torch.testing.assert_close(largest, torch.tensor(LARGEST / HEADROOM))
    torch.testing.assert_close(torch.tensor(5.0 * layer.per_gated), torch.tensor(LARGEST / HEADROOM))
