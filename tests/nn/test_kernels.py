"""Each Triton kernel does what its twin in PyTorch does: on a GPU, or elsewhere under Triton's interpreter."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("triton", reason="kernels are for GPUs, where Triton comes with PyTorch")

import triton.language as tl

from pilot.nn.attention import rotary_angles
from pilot.nn.kernels import attention, passes, products, steps
from pilot.nn.kernels.attention import Cut, Parts
from pilot.nn.kernels.products import Stream, Tile, Workspace

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
CLOSE = {torch.float32: {"atol": 2e-5, "rtol": 2e-5}, torch.bfloat16: {"atol": 2e-2, "rtol": 2e-2}}


def draw(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def stream(rows: int, width: int, dtype: torch.dtype, *, tiles: int = 4) -> Stream:
    made = Stream.empty(draw(rows, width, seed=0, dtype=dtype), columns=width // tiles)
    products.plain_begin(made, 1 + draw(width, seed=1) / 4)
    return made


def copy(made: Stream) -> Stream:
    return Stream(*(part.clone() for part in made))


def same(ours: Tensor | Stream | tuple, theirs: Tensor | Stream | tuple, dtype: torch.dtype) -> None:
    for a, b in zip(ours, theirs, strict=True) if isinstance(ours, tuple) else [(ours, theirs)]:
        torch.testing.assert_close(a, b, **CLOSE[dtype])


@pytest.fixture(autouse=not CUDA)
def bfloat16_arithmetic(monkeypatch) -> None:
    """The interpreter multiplies the bits of bfloat16 as whole numbers, and cuts where a GPU rounds: mended here."""
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    cast = InterpreterBuilder.cast_impl

    def wide(x: TensorHandle) -> np.ndarray:
        return (x.data.astype(np.uint32) << 16).view(np.float32) if x.dtype.scalar == tl.bfloat16 else x.data

    def create_dot(self: Any, a: TensorHandle, b: TensorHandle, d: TensorHandle, *_: Any) -> TensorHandle:
        return TensorHandle(np.matmul(wide(a), wide(b)) + d.data, d.dtype.scalar)

    def cast_impl(self: Any, x: TensorHandle, to: Any) -> TensorHandle:
        if (x.dtype.scalar, to.scalar) == (tl.float32, tl.bfloat16):
            rounded = torch.from_numpy(np.ascontiguousarray(x.data)).bfloat16()
            return TensorHandle(rounded.view(torch.uint16).numpy(), tl.bfloat16)
        widens = (x.dtype.scalar, to.scalar) == (tl.bfloat16, tl.float32)
        return TensorHandle(wide(x), tl.float32) if widens else cast(self, x, to)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)
    monkeypatch.setattr(InterpreterBuilder, "cast_impl", cast_impl)


class Places:
    """Where queries, keys and values go: keys into the middle of a cache."""

    def __init__(self, batch: int, tokens: int, dtype: torch.dtype, *, heads: int = 3, head_dim: int = 32) -> None:
        self.queries = torch.full((batch * tokens, heads * head_dim), torch.nan, dtype=dtype, device=DEVICE)
        self.cache = torch.zeros(2, batch, 1, tokens + 7, head_dim, dtype=dtype, device=DEVICE)
        keys, values = self.cache[:, :, :, 3 : 3 + tokens]
        positions = torch.arange(tokens, device=DEVICE)[None] + 5 * torch.arange(batch, device=DEVICE)[:, None]
        cos, sin = (part.transpose(1, 2) for part in rotary_angles(positions, head_dim))
        self.all = {
            "cos": cos,
            "sin": sin.chunk(2, dim=-1)[1],
            "queries": self.queries,
            "keys": keys,
            "values": values,
        }


@DTYPES
@pytest.mark.parametrize("rows", [5, 20, 70])
def test_a_stream_begins(rows, dtype):
    ours, factor = stream(rows, 64, dtype), draw(64, seed=2)
    theirs = copy(ours)
    products.begin(ours, factor)
    products.plain_begin(theirs, factor)
    same(ours, theirs, dtype)


@DTYPES
@pytest.mark.parametrize("shifted", [True, False], ids=["shifted", "plain"])
@pytest.mark.parametrize(("batch", "tokens"), [(1, 20), (3, 25)])
def test_heads_are_projected_rotated_and_put_into_the_cache(batch, tokens, shifted, dtype):
    read = stream(batch * tokens, 64, dtype)
    weight, shift = draw(5 * 32, 64, seed=3, dtype=dtype) / 8, draw(5 * 32, seed=4) if shifted else None
    ours, theirs = Places(batch, tokens, dtype), Places(batch, tokens, dtype)
    products.project_heads(read, weight, shift, tile=Tile(16, 32), **ours.all)
    products.plain_project_heads(read, weight, shift, **theirs.all)
    same((ours.queries, ours.cache), (theirs.queries, theirs.cache), dtype)


def test_the_slot_of_new_keys_can_be_known_to_the_device_alone():
    read, weight = stream(3, 64, torch.float32), draw(5 * 32, 64, seed=3) / 8
    ours, theirs = Places(3, 1, torch.float32), Places(3, 1, torch.float32)
    keys, values = ours.cache  # all slots
    slot = torch.tensor([4], device=DEVICE)
    products.project_heads(
        read, weight, None, tile=Tile(16, 32), slot=slot, **ours.all | {"keys": keys, "values": values}
    )
    fixed = {"keys": theirs.cache[0][:, :, 4:5], "values": theirs.cache[1][:, :, 4:5]}
    products.plain_project_heads(read, weight, None, **theirs.all | fixed)
    same((ours.queries, ours.cache), (theirs.queries, theirs.cache), torch.float32)


@DTYPES
@pytest.mark.parametrize("shifted", [True, False], ids=["shifted", "plain"])
@pytest.mark.parametrize("rows", [1, 50])
def test_gate_and_up(rows, shifted, dtype):
    read = stream(rows, 64, dtype)
    weight, shift = draw(2 * 48, 64, seed=3, dtype=dtype) / 8, draw(2 * 48, seed=4) if shifted else None
    ours, theirs = (torch.full((rows, 48), torch.nan, dtype=dtype, device=DEVICE) for _ in range(2))
    products.gated_product(read, weight, shift, out=ours, tile=Tile(16, 32))
    products.plain_gated_product(read, weight, shift, out=theirs)
    same(ours, theirs, dtype)


@DTYPES
@pytest.mark.parametrize("gated", [True, False], ids=["gated", "plain"])
@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("rows", [2, 51, 70])
def test_a_product_is_added_to_the_stream(rows, splits, gated, dtype):
    ours = stream(rows, 64, dtype)
    theirs, a, weight = copy(ours), draw(rows, 96, seed=5, dtype=dtype), draw(64, 96, seed=6, dtype=dtype) / 10
    gate, factor = draw(64, seed=7, dtype=dtype) if gated else None, 1 + draw(64, seed=8) / 4
    space = Workspace.empty(floats=splits * rows * 64, device=DEVICE)
    for _ in range(2):  # a second time: the arrivals of the first have been cleared
        products.add_product(a, weight, gate, stream=ours, factor=factor, workspace=space, tile=Tile(16, 32, splits))
        products.plain_add_product(a, weight, gate, stream=theirs, factor=factor)
        same(ours, theirs, dtype)
    assert not space.arrivals.any()


@DTYPES
@pytest.mark.parametrize("biased", [True, False], ids=["biased", "all seen"])
@pytest.mark.parametrize("part", [0, 32, 64])
@pytest.mark.parametrize("rows", [9, 40])
def test_attention(rows, part, biased, dtype):
    queries, cache = draw(2, rows, 32, seed=0, dtype=dtype), draw(2, 2, 1, 90, 32, seed=1, dtype=dtype)
    keys, values = cache[:, :, :, :75]  # slots behind them are not looked at
    bias = torch.zeros(2, 75, dtype=dtype, device=DEVICE) if biased else None
    if bias is not None:
        bias[0, 20:70], bias[1, 64:] = -2.3819763e38, -2.3819763e38
    parts = Parts.empty(queries, slots=75, part=part) if part else None
    ours, theirs = (torch.full_like(queries, torch.nan) for _ in range(2))
    attention.attend(queries, keys, values, bias, out=ours, cut=Cut(16, 16, part), parts=parts)
    attention.plain_attend(queries, keys, values, bias, out=theirs)
    same(ours, theirs, dtype)


def test_a_row_that_sees_nothing_averages():
    queries, keys, values = (draw(1, *shape, seed=i) for i, shape in enumerate([(4, 16), (1, 40, 16), (1, 40, 16)]))
    bias, ours = torch.full((1, 40), -2.3819763e38, device=DEVICE), torch.empty_like(queries)
    attention.attend(queries, keys, values, bias, out=ours, cut=Cut(16, 16))
    torch.testing.assert_close(ours[0, 0], values[0, 0].mean(0), atol=1e-5, rtol=1e-5)


@DTYPES
@pytest.mark.parametrize("own", [True, False], ids=["of each row", "of all rows"])
@pytest.mark.parametrize("parts", ["norm", "branch", "gated"])
def test_residual_and_norm(parts, own, dtype):
    rows, width = 7, 48
    x, constants = draw(rows, width, seed=0, dtype=dtype), (rows, width) if own else (width,)
    branch = None if parts == "norm" else draw(rows, width, seed=1, dtype=dtype)
    gate, shift = (
        (draw(*constants, seed=2, dtype=dtype), draw(*constants, seed=3)) if parts == "gated" else (None, None)
    )
    factor = draw(*constants, seed=4) * width**0.5
    ours, theirs = ((x.clone(), torch.empty_like(x)) for _ in range(2))
    passes.add_norm(ours[0], branch, gate, factor, shift, out=ours[1])
    passes.plain_add_norm(theirs[0], branch, gate, factor, shift, out=theirs[1])
    same(ours, theirs, dtype)


@DTYPES
@pytest.mark.parametrize("adds", [True, False], ids=["branch", "norm"])
def test_residual_and_layer_norm(adds, dtype):
    x, norm = draw(5, 36, seed=0, dtype=dtype), nn.LayerNorm(36, eps=1e-6, device=DEVICE, dtype=dtype)
    with torch.no_grad():
        norm.weight.copy_(draw(36, seed=1))
        norm.bias.copy_(draw(36, seed=2))
    branch, bias = (draw(5, 36, seed=3, dtype=dtype), draw(36, seed=4, dtype=dtype)) if adds else (None, None)
    ours, theirs = ((x.clone(), torch.empty_like(x)) for _ in range(2))
    with torch.no_grad():
        passes.add_layer_norm(ours[0], branch, bias, norm, out=ours[1])
        passes.plain_add_layer_norm(theirs[0], branch, bias, norm, out=theirs[1])
    same(ours, theirs, dtype)


@DTYPES
def test_rotation_into_the_cache(dtype):
    qkv = draw(2 * 9, 5 * 32, seed=0, dtype=dtype)
    ours, theirs = Places(2, 9, dtype), Places(2, 9, dtype)
    passes.rotate_into(qkv, **ours.all)
    passes.plain_rotate_into(qkv, **theirs.all)
    same((ours.queries, ours.cache), (theirs.queries, theirs.cache), dtype)


@DTYPES
@pytest.mark.parametrize("inner", [40, 64])
def test_gelu_product(inner, dtype):
    gate_up = draw(6, 2 * inner, seed=0, dtype=dtype)
    ours, theirs = (torch.full((6, inner), torch.nan, dtype=dtype, device=DEVICE) for _ in range(2))
    passes.gelu_product(gate_up, out=ours)
    passes.plain_gelu_product(gate_up, out=theirs)
    same(ours, theirs, dtype)


def linear(inputs: int, outputs: int, dtype: torch.dtype) -> nn.Linear:
    made = nn.Linear(inputs, outputs, device=DEVICE, dtype=dtype)
    with torch.no_grad():
        made.weight.copy_(draw(outputs, inputs, seed=11) / inputs**0.5)
        made.bias.copy_(draw(outputs, seed=12))
    return made.requires_grad_(False)


@DTYPES
@pytest.mark.parametrize("rows", [10, 70])
def test_actions_begin_a_stream(rows, dtype):
    ours, actions, factor = stream(rows, 64, dtype), draw(rows, 7, seed=1), draw(64, seed=2)
    theirs, layer = copy(ours), linear(7, 64, dtype)
    steps.embed_actions(actions, layer, stream=ours, factor=factor)
    steps.plain_embed_actions(actions, layer, stream=theirs, factor=factor)
    same(ours, theirs, dtype)


@DTYPES
@pytest.mark.parametrize("shifted", [True, False], ids=["shifted", "plain"])
@pytest.mark.parametrize("rows", [10, 70])
def test_a_step_along_the_flow(rows, shifted, dtype):
    end, layer, start = stream(rows, 64, dtype), linear(64, 7, dtype), draw(rows, 7, seed=1)
    shift, ours, theirs = draw(7, seed=2) if shifted else None, torch.empty_like(start), torch.empty_like(start)
    steps.step_along(end, layer, shift, start=start, by=-0.1, end=ours)
    steps.plain_step_along(end, layer, shift, start=start, by=-0.1, end=theirs)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
