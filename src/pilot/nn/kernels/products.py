"""Matrix products of a few rows, where a GPU spends its time on reading the weights: whole branches of Gemma's blocks.

A norm is taken apart so that no pass over the tokens stands alone. Who writes the residual stream `x` also writes
`scaled = x · factor` and, for each tile of columns, the sums of squares of the rows. Who reads it takes `scaled` as it
is and divides the finished product by the length of each row; a shift has been through the matrix beforehand
(`shift @ W`, `shifted`), since it is the same in every row. So a block is at most six launches: queries, keys and
values (rotated, into the cache); attention (`kernels/attention.py`, one or two); its projection (`add_product`); gate
and up (`gated_product`); down (`add_product`).

Weights are those of `nn.Linear`, [out in], as they lie. Products are summed in fp32, always in the same order.

Axes: `r` rows (tokens), `d` width, `i` inputs, `o` outputs, `u` tiles of columns, `n` heads, `h` head dim, `b` batch,
`t` tokens of each row of the batch, `s` cache slots.
"""

from typing import Any, NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from triton.language.extra import cuda as tl_cuda

from pilot.nn.norms import EPS

MAX_ROWS = 128
"""Of more rows a library's product and passes over the tokens are faster."""


class Tile(NamedTuple):
    """The tiles of a product: columns and inputs at a time, parts that the sum is split into; warps and stages."""

    columns: int
    inputs: int
    splits: int = 1
    warps: int = 4
    stages: int = 4


class Stream(NamedTuple):
    """The residual stream, as one branch leaves it to the next."""

    x: Float[Tensor, "r d"]
    scaled: Float[Tensor, "r d"]
    squares: Float[Tensor, "r u"]

    @classmethod
    def empty(cls, x: Float[Tensor, "r d"], *, columns: int) -> "Stream":
        """Make a stream around `x`, with a sum of squares for every so many columns."""
        tiles = x.shape[1] // columns
        return cls(x, torch.empty_like(x), x.new_empty((len(x), tiles), dtype=torch.float32))


class Workspace(NamedTuple):
    """The memory where the parts of split sums meet. `arrivals` are zero between launches."""

    parts: Float[Tensor, "_"]
    arrivals: Int[Tensor, "_"]

    @classmethod
    def empty(cls, *, floats: int, device: torch.device) -> "Workspace":
        """Make a workspace for parts of that many numbers in all."""
        return cls(torch.empty(floats, device=device), torch.zeros(4096, device=device, dtype=torch.int32))


def block_rows(rows: int) -> int:
    """Return how many rows one program works on: as few as a tensor core takes, at most 64."""
    return 16 if rows <= 16 else 32 if rows <= 32 else 64


# --- parts of kernels (`no_type_check` keeps the shape checks of tests out of what Triton compiles) -------------------


@triton.jit
@no_type_check
def _wait(EARLY: tl.constexpr):
    """With programmatic launches, the kernel before has finished from here on, and the one behind may be set up."""
    if EARLY:
        tl_cuda.gdc_launch_dependents()
        tl_cuda.gdc_wait()


@triton.jit
@no_type_check
def _lengths(squares, row, live, FLOOR: tl.constexpr, TILES: tl.constexpr):
    """One over the length of each row, from the squares of its tiles."""
    tiles = tl.arange(0, TILES)
    parts = tl.load(squares + row[:, None] * TILES + tiles[None, :], mask=live[:, None], other=1.0)
    return tl.rsqrt(tl.sum(parts, 1) + FLOOR)


@triton.jit
@no_type_check
def _two_sums(a, weight, row, live, first, second, INPUTS: tl.constexpr, BLOCK: tl.constexpr):
    """The rows times two groups of columns, each input read once."""
    k = tl.arange(0, BLOCK)
    one = tl.zeros((row.shape[0], first.shape[0]), tl.float32)
    two = tl.zeros((row.shape[0], first.shape[0]), tl.float32)
    for start in range(0, INPUTS, BLOCK):
        rows = tl.load(a + row[:, None] * INPUTS + (start + k)[None, :], mask=live[:, None], other=0.0)
        w_one = tl.load(weight + first[None, :] * INPUTS + (start + k)[:, None], eviction_policy="evict_first")
        w_two = tl.load(weight + second[None, :] * INPUTS + (start + k)[:, None], eviction_policy="evict_first")
        one = tl.dot(rows, w_one, one, input_precision="ieee")
        two = tl.dot(rows, w_two, two, input_precision="ieee")
    return one, two


@triton.jit
@no_type_check
def _finish(total, x, gate, factor, scaled, squares, row, live, column, tile, WIDTH: tl.constexpr, GATED: tl.constexpr,
            TILES: tl.constexpr):  # fmt: skip
    """The residual connection of one tile, and what the norm behind it takes from it."""
    at, inside = row[:, None] * WIDTH + column[None, :], live[:, None]
    if GATED:
        total *= tl.load(gate + column)[None, :].to(tl.float32)
    total += tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    rounded = total.to(x.dtype.element_ty)
    tl.store(x + at, rounded, mask=inside)
    rounded = rounded.to(tl.float32)
    tl.store(squares + row * TILES + tile, tl.sum(rounded * rounded, 1), mask=live)
    by_factor = rounded * tl.load(factor + column)[None, :]
    tl.store(scaled + at, by_factor.to(scaled.dtype.element_ty), mask=inside)


# --- kernels ---------------------------------------------------------------------------------------------------------


@triton.jit
@no_type_check
def _heads_kernel(scaled, squares, weight, shifted, cos, sin, queries, keys, values, slot, rows, tokens, angle_stride,
                  key_stride, HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, INPUTS: tl.constexpr, FLOOR: tl.constexpr,
                  TILES: tl.constexpr, SHIFTED: tl.constexpr, SLOTTED: tl.constexpr, BLOCK_M: tl.constexpr,
                  BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, EARLY: tl.constexpr):  # fmt: skip
    """A program has columns of the lower half of one head and the same of the upper, which the rotation mixes."""
    HALF: tl.constexpr = HEAD_DIM // 2
    tile = tl.program_id(0)
    head, low = tile // (HALF // BLOCK_N), (tile % (HALF // BLOCK_N)) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    live = row < rows
    _wait(EARLY)
    first = head * HEAD_DIM + low
    one, two = _two_sums(scaled, weight, row, live, first, first + HALF, INPUTS, BLOCK_K)
    length = _lengths(squares, row, live, FLOOR, TILES)
    one *= length[:, None]
    two *= length[:, None]
    if SHIFTED:
        one += tl.load(shifted + first)[None, :]
        two += tl.load(shifted + first + HALF)[None, :]
    batch, token = row // tokens, row % tokens
    inside = live[:, None]
    if head <= HEADS:  # queries and the keys
        at = batch[:, None] * angle_stride + token[:, None] * HEAD_DIM + low[None, :]
        c, s = tl.load(cos + at, mask=inside, other=0.0), tl.load(sin + at, mask=inside, other=0.0)
        one, two = one * c - two * s, two * c + one * s
    one, two = one.to(queries.dtype.element_ty), two.to(queries.dtype.element_ty)
    at = row[:, None] * (HEADS * HEAD_DIM) + first[None, :]
    place = batch[:, None] * key_stride + token[:, None] * HEAD_DIM + low[None, :]
    if SLOTTED:
        place += tl.load(slot) * HEAD_DIM
    if head < HEADS:
        tl.store(queries + at, one, mask=inside)
        tl.store(queries + at + HALF, two, mask=inside)
    elif head == HEADS:
        tl.store(keys + place, one, mask=inside)
        tl.store(keys + place + HALF, two, mask=inside)
    else:
        tl.store(values + place, one, mask=inside)
        tl.store(values + place + HALF, two, mask=inside)


@triton.jit
@no_type_check
def _gated_kernel(scaled, squares, weight, shifted, out, rows, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr,
                  FLOOR: tl.constexpr, TILES: tl.constexpr, SHIFTED: tl.constexpr, BLOCK_M: tl.constexpr,
                  BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, EARLY: tl.constexpr):  # fmt: skip
    """GELU of the gate times up: the same columns of both halves of the weights."""
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    live = row < rows
    _wait(EARLY)
    gate, up = _two_sums(scaled, weight, row, live, column, column + OUTPUTS, INPUTS, BLOCK_K)
    length = _lengths(squares, row, live, FLOOR, TILES)
    gate *= length[:, None]
    up *= length[:, None]
    if SHIFTED:
        gate += tl.load(shifted + column)[None, :]
        up += tl.load(shifted + column + OUTPUTS)[None, :]
    # tanh's GELU, as 0.5 (1 + tanh z) = sigmoid(2z)
    gate *= tl.sigmoid(1.5957691216057308 * (gate + 0.044715 * gate * gate * gate))
    tl.store(out + row[:, None] * OUTPUTS + column[None, :], (gate * up).to(out.dtype.element_ty), mask=live[:, None])


@triton.jit
@no_type_check
def _add_kernel(a, weight, x, gate, factor, scaled, squares, parts, arrivals, rows, WIDTH: tl.constexpr,
                INPUTS: tl.constexpr, TILES: tl.constexpr, GATED: tl.constexpr, SPLITS: tl.constexpr,
                BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
                EARLY: tl.constexpr):  # fmt: skip
    """Each program sums a part of the inputs; the last of a tile to arrive adds the parts up, in their order."""
    PART: tl.constexpr = INPUTS // SPLITS
    tile, split, group = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    column = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    row = group * BLOCK_M + tl.arange(0, BLOCK_M)
    live, k = row < rows, split * PART + tl.arange(0, BLOCK_K)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    _wait(EARLY)
    for start in range(0, PART, BLOCK_K):
        some = tl.load(a + row[:, None] * INPUTS + (start + k)[None, :], mask=live[:, None], other=0.0)
        w = tl.load(weight + column[None, :] * INPUTS + (start + k)[:, None], eviction_policy="evict_first")
        total = tl.dot(some, w, total, input_precision="ieee")
    if SPLITS == 1:
        _finish(total, x, gate, factor, scaled, squares, row, live, column, tile, WIDTH, GATED, TILES)
    else:
        at, inside = parts + row[:, None] * WIDTH + column[None, :], live[:, None]
        tl.store(at + split * (rows * WIDTH), total, mask=inside)
        tl.debug_barrier()
        arrival = arrivals + group * TILES + tile
        if tl.atomic_add(arrival, 1, sem="acq_rel") == SPLITS - 1:
            total = tl.load(at, mask=inside, other=0.0, cache_modifier=".cg")
            for i in tl.static_range(1, SPLITS):
                total += tl.load(at + i * (rows * WIDTH), mask=inside, other=0.0, cache_modifier=".cg")
            _finish(total, x, gate, factor, scaled, squares, row, live, column, tile, WIDTH, GATED, TILES)
            tl.store(arrival, 0)


@triton.jit
@no_type_check
def _begin_kernel(x, factor, scaled, squares, WIDTH: tl.constexpr, COLUMNS: tl.constexpr, TILES: tl.constexpr,
                  EARLY: tl.constexpr):  # fmt: skip
    row, tile = tl.program_id(0), tl.program_id(1)
    column = tile * COLUMNS + tl.arange(0, COLUMNS)
    _wait(EARLY)
    value = tl.load(x + row * WIDTH + column).to(tl.float32)
    tl.store(squares + row * TILES + tile, tl.sum(value * value, 0))
    by_factor = value * tl.load(factor + column)
    tl.store(scaled + row * WIDTH + column, by_factor.to(scaled.dtype.element_ty))


# --- launches --------------------------------------------------------------------------------------------------------


def options(tile: Tile, early: bool) -> dict[str, Any]:
    """Return launch options of a kernel; `early`: while the one before it still runs (Hopper and later)."""
    return {"num_warps": tile.warps, "num_stages": tile.stages} | ({"launch_pdl": True} if early else {})


def begin(stream: Stream, factor: Float[Tensor, " d"], *, early: bool = False) -> None:
    """Compute `scaled` and `squares` of a stream of which there is only `x`."""
    rows, width = stream.x.shape
    tiles = stream.squares.shape[1]
    _begin_kernel[(rows, tiles)](
        stream.x, factor, stream.scaled, stream.squares, WIDTH=width, COLUMNS=width // tiles, TILES=tiles, EARLY=early,
        **options(Tile(0, 0, warps=1), early),
    )  # fmt: skip


def plain_begin(stream: Stream, factor: Float[Tensor, " d"]) -> None:
    """`begin` in PyTorch."""
    x = stream.x.float()
    stream.scaled.copy_(x * factor)
    stream.squares.copy_(x.square().unflatten(1, (stream.squares.shape[1], -1)).sum(-1))


def project_heads(
    stream: Stream,
    weight: Float[Tensor, "o d"],
    shifted: Float[Tensor, " o"] | None,
    *,
    cos: Float[Tensor, "_ t 1 h"],
    sin: Float[Tensor, "_ t 1 _"],
    queries: Float[Tensor, "r nh"],
    keys: Float[Tensor, "b 1 s h"],
    values: Float[Tensor, "b 1 s h"],
    tile: Tile,
    slot: Int[Tensor, " 1"] | None = None,
    early: bool = False,
) -> None:
    """Write queries, and keys and values into their slots, queries and keys rotated. `sin` is that of the upper half.

    Angles are for each row of the batch, or one for all. There is one key-value head. With `slot`, keys and values are
    the whole cache, and the new ones begin at that slot of it.
    """
    rows, width = stream.x.shape
    tokens, head_dim = rows // len(keys), keys.shape[3]
    heads, tall = queries.shape[1] // head_dim, block_rows(rows)
    assert keys.stride()[2:] == values.stride()[2:] == (head_dim, 1) and cos.stride(1) == sin.stride(1) == head_dim
    grid = ((heads + 2) * (head_dim // 2) // tile.columns, triton.cdiv(rows, tall))
    _heads_kernel[grid](
        stream.scaled, stream.squares, weight, shifted, cos, sin, queries, keys, values, slot, rows, tokens,
        0 if len(cos) == 1 else cos.stride(0), keys.stride(0), HEADS=heads, HEAD_DIM=head_dim, INPUTS=width,
        FLOOR=width * EPS, TILES=stream.squares.shape[1], SHIFTED=shifted is not None, SLOTTED=slot is not None,
        BLOCK_M=tall, BLOCK_N=tile.columns, BLOCK_K=tile.inputs, EARLY=early, **options(tile, early),
    )  # fmt: skip


def normed_product(stream: Stream, weight: Float[Tensor, "o d"], shifted: Float[Tensor, " o"] | None) -> Tensor:
    """Compute the product behind a norm, in fp32."""
    length = (stream.squares.sum(1, keepdim=True) + stream.x.shape[1] * EPS).rsqrt()
    product = stream.scaled.float() @ weight.float().T * length
    return product if shifted is None else product + shifted


def plain_project_heads(
    stream: Stream,
    weight: Float[Tensor, "o d"],
    shifted: Float[Tensor, " o"] | None,
    *,
    cos: Float[Tensor, "_ t 1 h"],
    sin: Float[Tensor, "_ t 1 _"],
    queries: Float[Tensor, "r nh"],
    keys: Float[Tensor, "b 1 s h"],
    values: Float[Tensor, "b 1 s h"],
    slot: Int[Tensor, " 1"] | None = None,
) -> None:
    """`project_heads` in PyTorch."""
    batch, head_dim = len(keys), keys.shape[3]
    tokens = len(queries) // batch
    if slot is not None:
        keys, values = (cache[:, :, int(slot) : int(slot) + tokens] for cache in (keys, values))
    product = normed_product(stream, weight, shifted).view(batch, tokens, -1, head_dim)
    low, high = product[:, :, :-1].chunk(2, dim=-1)
    c = cos[..., : head_dim // 2]
    rotated = torch.cat((low * c - high * sin, high * c + low * sin), dim=-1)
    queries.copy_(rotated[:, :, :-1].reshape(len(queries), -1))
    keys.copy_(rotated[:, :, -1:].transpose(1, 2))
    values.copy_(product[:, :, -1:].transpose(1, 2))


def gated_product(
    stream: Stream,
    weight: Float[Tensor, "o d"],
    shifted: Float[Tensor, " o"] | None,
    *,
    out: Float[Tensor, "r i"],
    tile: Tile,
    early: bool = False,
) -> None:
    """`GELU(gate) · up` of what is behind the norm; gate and up are the halves of the weight."""
    rows, width = stream.x.shape
    outputs, tall = out.shape[1], block_rows(rows)
    _gated_kernel[(outputs // tile.columns, triton.cdiv(rows, tall))](
        stream.scaled, stream.squares, weight, shifted, out, rows, OUTPUTS=outputs, INPUTS=width,
        FLOOR=width * EPS, TILES=stream.squares.shape[1], SHIFTED=shifted is not None, BLOCK_M=tall,
        BLOCK_N=tile.columns, BLOCK_K=tile.inputs, EARLY=early, **options(tile, early),
    )  # fmt: skip


def plain_gated_product(
    stream: Stream, weight: Float[Tensor, "o d"], shifted: Float[Tensor, " o"] | None, *, out: Float[Tensor, "r i"]
) -> None:
    """`gated_product` in PyTorch."""
    gate, up = normed_product(stream, weight, shifted).chunk(2, dim=-1)
    out.copy_(F.gelu(gate, approximate="tanh") * up)


def add_product(
    a: Float[Tensor, "r i"],
    weight: Float[Tensor, "d i"],
    gate: Float[Tensor, " d"] | None,
    *,
    stream: Stream,
    factor: Float[Tensor, " d"],
    workspace: Workspace,
    tile: Tile,
    early: bool = False,
) -> None:
    """`x += gate · (a @ weight.T)`, and what the norm behind takes from the new `x` (its `factor`)."""
    (rows, inputs), width, tall = a.shape, stream.x.shape[1], block_rows(len(a))
    tiles, groups = width // tile.columns, triton.cdiv(rows, tall)
    assert tiles == stream.squares.shape[1], "the stream has a sum of squares for each tile"
    assert tile.splits * rows * width <= workspace.parts.numel() and tiles * groups <= workspace.arrivals.numel()
    _add_kernel[(tiles, tile.splits, groups)](
        a, weight, stream.x, gate, factor, stream.scaled, stream.squares, workspace.parts, workspace.arrivals, rows,
        WIDTH=width, INPUTS=inputs, TILES=tiles, GATED=gate is not None, SPLITS=tile.splits, BLOCK_M=tall,
        BLOCK_N=tile.columns, BLOCK_K=tile.inputs, EARLY=early, **options(tile, early),
    )  # fmt: skip


def plain_add_product(
    a: Float[Tensor, "r i"],
    weight: Float[Tensor, "d i"],
    gate: Float[Tensor, " d"] | None,
    *,
    stream: Stream,
    factor: Float[Tensor, " d"],
) -> None:
    """`add_product` in PyTorch."""
    branch = a.float() @ weight.float().T
    stream.x.copy_(stream.x.float() + (branch if gate is None else branch * gate.float()))
    plain_begin(stream, factor)
