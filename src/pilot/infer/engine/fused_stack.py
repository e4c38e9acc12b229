"""Gemma's blocks and SigLIP's in kernels, for a GPU: the numbers of `stack.py` in fewer launches, moving less memory.

Few tokens (a chunk of actions, a word) take products that end in what comes next (`nn/kernels/products.py`); many take
the library's products with one pass between them (`nn/kernels/passes.py`). The number of rows decides.

Axes: as in `stack.py`; `p` patches, `o` output width.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from pilot.infer.engine.fp8 import FP8, Fp8Layer, quantize_layer, scaled_mm
from pilot.infer.engine.stack import InferenceStack, NormScale, Scratch, Slots, Span, Weights
from pilot.nn.configs import GemmaConfig
from pilot.nn.gemma import Gemma
from pilot.nn.kernels import attention, passes, products
from pilot.nn.kernels.attention import Cut, Parts
from pilot.nn.kernels.products import MAX_ROWS, Stream, Tile, Workspace
from pilot.nn.norms import Modulation
from pilot.nn.siglip import Siglip, SiglipBlock, patchify

SMALLEST = 16
"""Rows, columns or inputs that a tensor core takes at least."""
SHARED_MEMORY = 99 * 1024
"""Bytes of shared memory that every GPU since Ampere gives to a program."""
PROGRAMS = 132
"""Programs that keep a GPU busy (an H100 has so many multiprocessors)."""


class Tiles(NamedTuple):
    """How the products of a block of few rows are cut; `out` and `down` have columns in common."""

    qkv: Tile
    out: Tile
    gate_up: Tile
    down: Tile


def tiles_for(config: GemmaConfig) -> Tiles:
    """Choose tiles for a stack, in sizes that divide what there is: the fastest at `2b` on an H100."""
    heads, width, inner = config.num_heads * config.head_dim, config.width, config.mlp_dim
    narrow = width <= 1024
    columns = largest_divisor(width, 32)

    def adding(inputs: int, most: int) -> Tile:
        splits = min(most, largest_divisor(inputs, inputs) // SMALLEST)
        return Tile(columns, largest_divisor(inputs // splits, 128), splits)

    return Tiles(
        qkv=Tile(
            largest_divisor(config.head_dim // 2, 16 if narrow else 32),
            largest_divisor(width, 128),
            stages=6 if narrow else 4,
        ),
        out=adding(heads, 2 if narrow else 4),
        gate_up=Tile(largest_divisor(inner, 16 if narrow else 32), largest_divisor(width, 128)),
        down=adding(inner, 4),
    )


def fit_tiles(tiles: Tiles, like: Tensor) -> Tiles:
    """Take as many stages as a multiprocessor's shared memory holds of these numbers: an RTX has half of an H100's."""
    if not like.is_cuda:
        return tiles
    properties = torch.cuda.get_device_properties(like.device)
    room = getattr(properties, "shared_memory_per_block_optin", SHARED_MEMORY)

    def fit(tile: Tile, weights: int) -> Tile:
        stage = (64 + weights * tile.columns) * tile.inputs * like.element_size()  # rows, and columns of the weights
        return tile._replace(stages=max(2, min(tile.stages, room // stage)))

    return Tiles(*(fit(tile, weights) for tile, weights in zip(tiles, (2, 1, 2, 1), strict=True)))


def can_launch_early(device: torch.device) -> bool:
    """Return whether a kernel can be set up while the one before it runs."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


def largest_divisor(count: int, most: int) -> int:
    """Return the largest power of two that divides `count` and is at most `most`."""
    return min(count & -count, most)


def can_fuse(config: GemmaConfig) -> bool:
    """Return whether the kernels take such a stack: one key-value head, and sizes that divide into tiles."""
    sizes = (config.head_dim // 2, config.width, config.mlp_dim)
    return config.num_kv_heads == 1 and all(size % SMALLEST == 0 for size in sizes)


def choose_cut(rows: int, slots: int, *, batch: int) -> Cut:
    """Choose how attention is cut: keys are split until there are about as many programs as multiprocessors."""
    tall = 16 if rows <= 16 else 32 if rows * batch <= 32 * PROGRAMS else 64
    parts = max(1, PROGRAMS // (-(-rows // tall) * batch))
    part = max(64, -(-slots // parts // 64) * 64)
    return Cut(tall, 64, part if part < slots else 0)


class ExtraRows(NamedTuple):
    """Rows that each product has beyond the tokens there are: for some numbers of rows the library is much slower."""

    qkv: int = 0
    out: int = 0
    gate_up: int = 0
    down: int = 0


class FusedScratch(Scratch):
    """The tensors that a pass over `batch` × `tokens` tokens works in.

    The large products take `extra` rows, which nobody reads, from the tensors in `padded`.
    """

    def __init__(
        self,
        config: GemmaConfig,
        *,
        batch: int,
        tokens: int,
        like: Tensor,
        columns: int,
        extra: ExtraRows = ExtraRows(),  # noqa: B008 (a constant)
        fp8: bool = False,
    ) -> None:
        super().__init__(batch=batch, tokens=tokens)
        self.extra = extra
        few = self.rows <= MAX_ROWS
        width, heads = config.width, config.num_heads * config.head_dim
        self.padded: dict[str, Tensor] = {}

        def rows_of(name: str, columns: int, dtype: torch.dtype = like.dtype) -> Tensor:
            self.padded[name] = like.new_empty((self.rows + (0 if few else max(extra)), columns), dtype=dtype)
            return self.padded[name][: self.rows]

        self.queries = like.new_empty((batch, tokens * config.num_heads, config.head_dim))
        self.attended = rows_of("attended", heads).view(self.queries.shape)
        self.gated = rows_of("gated", config.mlp_dim)
        self.normed = rows_of("normed", width)
        self.branch = rows_of("branch", width)
        if few:
            self.squares = like.new_empty((self.rows, width // columns), dtype=torch.float32)
        self.qkv = rows_of("qkv", heads + 2 * config.head_dim)
        self.gate_up = rows_of("gate_up", 2 * config.mlp_dim)
        if fp8 and not few:
            self.normed_fp8, self.gated_fp8 = (
                rows_of("normed_fp8", width, FP8),
                rows_of("gated_fp8", config.mlp_dim, FP8),
            )

    def product(self, kind: str, source: str, weight: Tensor, target: str) -> None:
        """Multiply the rows of one tensor by a weight, into another."""
        rows = self.rows + (0 if self.rows <= MAX_ROWS else getattr(self.extra, kind))
        torch.mm(self.padded[source][:rows], weight, out=self.padded[target][:rows])


class FusedStack(InferenceStack):
    """An `InferenceStack` in kernels. Weights are the module's own, as they lie.

    With `early`, kernels of few rows are set up while the one before them still runs (programmatic dependent launches);
    by default where the GPU can do so, from Hopper on.
    """

    def __init__(self, gemma: Gemma, *, early: bool | None = None) -> None:
        super().__init__(gemma)
        self.early = can_launch_early(self.like.device) if early is None else early
        self.tiles = fit_tiles(tiles_for(gemma.config), self.like)
        splits = max(self.tiles.out.splits, self.tiles.down.splits)
        # Shared by all layers, for they run one after the other.
        self.workspace = Workspace.empty(floats=splits * MAX_ROWS * self.config.width, device=self.like.device)
        self.extra = ExtraRows()
        self.fp8: list[Fp8Layer | None] = []
        self.largest: Tensor | None = None  # while calibrating: largest input of each MLP, and of what is gated in it

    def scratch(self, *, batch: int, tokens: int) -> FusedScratch:
        return FusedScratch(
            self.config, batch=batch, tokens=tokens, like=self.like, columns=self.tiles.out.columns, extra=self.extra,
            fp8=bool(self.fp8),
        )  # fmt: skip

    def quantize(self, calibrate: Callable[[], Any]) -> None:
        """Compute the MLPs of many rows in FP8 from now on, for activations as large as `calibrate` makes them."""
        self.fp8, self.largest = [], torch.zeros(len(self.layers), 2, device=self.like.device)
        calibrate()
        sizes, self.largest = self.largest.tolist(), None
        for i, (weights, (of_input, of_gated)) in enumerate(zip(self.layers, sizes, strict=True)):
            factor = self.norms[2 * i + 1].factor
            layer = (
                quantize_layer(weights, factor, largest_input=of_input, largest_gated=of_gated) if of_input else None
            )
            self.fp8.append(layer)

    def adaptive(self, modulations: list[Modulation]) -> list[list[NormScale]]:
        """Return the norms as `InferenceStack.adaptive` does, each shift also behind the matrix that follows."""
        matrices = [w for weights in self.layers for w in (weights.qkv, weights.gate_up)]
        rows = super().adaptive(modulations)
        for i, matrix in enumerate(matrices):
            shifts = torch.stack([cast(Tensor, norms[i].shift) for norms in rows])
            for norms, shifted in zip(rows, shifts @ matrix.float(), strict=True):
                norms[i] = norms[i]._replace(shifted=shifted)
        return rows

    def run(
        self,
        x: Float[Tensor, "r d"],
        span: Span,
        *,
        norms: list[NormScale],
        only: Int[Tensor, " b"] | None = None,
        stop: bool = False,
    ) -> Float[Tensor, "u d"] | None:
        """Run all blocks as `InferenceStack.run` does, by the kernels for few rows or those for many."""
        # Kernels for few rows hold a row's norm in registers; many rows are better off with the library's products.
        few = len(x) <= MAX_ROWS and only is None and norms[0].factor.ndim == 1
        if few and (norms[0].shift is None or norms[0].shifted is not None):
            return self.run_few(x, span, norms=norms, stop=stop)
        return self.run_many(x, span, norms=norms, only=only, stop=stop)

    # --- few rows ----------------------------------------------------------------------------------------------------

    def run_few(
        self, x: Float[Tensor, "r d"], span: Span, *, norms: list[NormScale], stop: bool
    ) -> Float[Tensor, "r d"] | None:
        """Run all blocks on few rows, with at most six launches for each."""
        scratch = span.scratch
        assert isinstance(scratch, FusedScratch)
        stream = Stream(x, scratch.normed, scratch.squares)
        products.begin(stream, norms[0].factor, early=self.early)
        if not self.run_stream(stream, span, norms=norms, stop=stop):
            return None
        passes.add_norm(x, None, None, norms[-1].factor, norms[-1].shift, out=scratch.branch)
        return scratch.branch

    def run_stream(self, stream: Stream, span: Span, *, norms: list[NormScale], stop: bool = False) -> bool:
        """Run all blocks on a stream that has begun, up to the final norm; return False if stopped before."""
        scratch, last = span.scratch, len(self.layers) - 1
        assert isinstance(scratch, FusedScratch)
        cut, parts = self.cut_of(scratch, span.slots[0])
        bias = None if span.bias is None else span.bias[:, 0, 0]
        for i, (weights, slots) in enumerate(zip(self.layers, span.slots, strict=True)):
            before_attention, before_mlp, after = norms[2 * i : 2 * i + 3]
            products.project_heads(
                stream, weights.qkv.T, before_attention.shifted, cos=span.angles.cos, sin=span.angles.high,
                queries=scratch.queries.view(len(stream.x), -1), keys=slots.new_keys, values=slots.new_values,
                tile=self.tiles.qkv, slot=slots.index, early=self.early,
            )  # fmt: skip
            if stop and i == last:
                return False
            attention.attend(
                scratch.queries, slots.keys, slots.values, bias, out=scratch.attended, cut=cut, parts=parts,
                early=self.early,
            )  # fmt: skip
            products.add_product(
                scratch.attended.view(len(stream.x), -1), weights.out.T, before_attention.gate, stream=stream,
                factor=before_mlp.factor, workspace=self.workspace, tile=self.tiles.out, early=self.early,
            )  # fmt: skip
            products.gated_product(
                stream, weights.gate_up.T, before_mlp.shifted, out=scratch.gated, tile=self.tiles.gate_up,
                early=self.early,
            )  # fmt: skip
            products.add_product(
                scratch.gated, weights.down.T, before_mlp.gate, stream=stream, factor=after.factor,
                workspace=self.workspace, tile=self.tiles.down, early=self.early,
            )  # fmt: skip
        return True

    def cut_of(self, scratch: FusedScratch, slots: Slots) -> tuple[Cut, Parts | None]:
        """Choose how attention is cut over the slots, and make room for the parts if it is cut at all."""
        queries, count = scratch.queries, slots.keys.shape[2]
        cut = choose_cut(queries.shape[1], count, batch=len(queries))
        return cut, Parts.empty(queries, slots=count, part=cut.part) if cut.part else None

    # --- many rows ---------------------------------------------------------------------------------------------------

    def run_many(
        self,
        x: Float[Tensor, "r d"],
        span: Span,
        *,
        norms: list[NormScale],
        only: Int[Tensor, " b"] | None,
        stop: bool,
    ) -> Float[Tensor, "u d"] | None:
        """Run all blocks on many rows: the library's products, with one pass over the tokens between them."""
        scratch, bias = span.scratch, span.bias
        assert isinstance(scratch, FusedScratch)
        passes.add_norm(x, None, None, norms[0].factor, norms[0].shift, out=scratch.normed)
        for i, (weights, slots) in enumerate(zip(self.layers, span.slots, strict=True)):
            before_attention, before_mlp, after = norms[2 * i : 2 * i + 3]
            scratch.product("qkv", "normed", weights.qkv, "qkv")
            keys, values = slots.new_keys, slots.new_values
            if slots.index is not None:  # the kernel writes to fixed slots
                # Into memory of their own first, and from there to the slot that the device knows.
                keys, values = (x.new_empty((scratch.batch, 1, scratch.tokens, keys.shape[3])) for _ in range(2))
            passes.rotate_into(
                scratch.qkv, cos=span.angles.cos, sin=span.angles.high, queries=scratch.queries.view(len(x), -1),
                keys=keys, values=values,
            )  # fmt: skip
            if slots.index is not None:
                slots.keys.index_copy_(2, slots.index, keys)
                slots.values.index_copy_(2, slots.index, values)
            if i == len(self.layers) - 1:
                if stop:
                    return None
                if only is not None:
                    x, bias, scratch = self.narrow(x, only, bias=bias, scratch=scratch)
            self.attend_many(scratch, slots, bias=bias)
            scratch.product("out", "attended", weights.out, "branch")
            # Only where products are bound by arithmetic; few rows wait for memory, and weights in bf16 are there
            # anyway.
            fp8 = self.fp8[i] if self.fp8 and len(x) > MAX_ROWS else None
            factor, normed = (before_mlp.factor, scratch.normed) if fp8 is None else (fp8.factor, scratch.normed_fp8)
            passes.add_norm(x, scratch.branch, before_attention.gate, factor, before_mlp.shift, out=normed)
            if fp8 is None:
                self.mlp(weights, scratch)
            else:
                self.mlp_fp8(fp8, scratch)
            if self.largest is not None and len(x) > MAX_ROWS:
                self.largest[i] = torch.stack([y.abs().amax() for y in (scratch.normed, scratch.gated)])
            passes.add_norm(x, scratch.branch, before_mlp.gate, after.factor, after.shift, out=scratch.normed)
        return scratch.normed

    def mlp(self, weights: Weights, scratch: FusedScratch) -> None:
        """Compute the gated MLP of a block, from `normed` into `branch`."""
        scratch.product("gate_up", "normed", weights.gate_up, "gate_up")
        passes.gelu_product(scratch.gate_up, out=scratch.gated)
        scratch.product("down", "gated", weights.down, "branch")

    def mlp_fp8(self, layer: Fp8Layer, scratch: FusedScratch) -> None:
        """Compute the gated MLP of a block in fp8, with scales that were measured before."""
        scaled_mm(
            scratch.normed_fp8, layer.gate_up, x_scale=layer.input_scale, weight_scale=layer.gate_up_scale,
            out=scratch.gate_up,
        )  # fmt: skip
        passes.gelu_product(scratch.gate_up, out=scratch.gated_fp8, scale=layer.per_gated)
        scaled_mm(
            scratch.gated_fp8, layer.down, x_scale=layer.gated_scale, weight_scale=layer.down_scale, out=scratch.branch
        )

    def attend_many(self, scratch: FusedScratch, slots: Slots, *, bias: Tensor | None) -> None:
        """Compute attention of many rows: by the library where each query has a mask of its own, else by the kernel."""
        if bias is not None and bias.shape[2] > 1:
            q = scratch.queries[:, None]
            scratch.attended.copy_(F.scaled_dot_product_attention(q, slots.keys, slots.values, attn_mask=bias)[:, 0])
            return
        row_bias = None if bias is None else bias[:, 0, 0]
        cut, parts = self.cut_of(scratch, slots)
        attention.attend(
            scratch.queries, slots.keys, slots.values, row_bias, out=scratch.attended, cut=cut, parts=parts
        )

    def narrow(
        self, x: Tensor, only: Tensor, *, bias: Tensor | None, scratch: FusedScratch
    ) -> tuple[Tensor, Tensor | None, FusedScratch]:
        """Return the inputs of one token in each row, as `InferenceStack.narrow` does."""
        rows = torch.arange(scratch.batch, device=x.device)
        small = self.scratch(batch=scratch.batch, tokens=1)
        small.queries.copy_(scratch.queries.unflatten(1, (scratch.tokens, -1))[rows, only])
        if bias is not None and bias.shape[2] > 1:
            bias = bias.unflatten(2, (scratch.tokens, -1))[rows, :, only]  # [b 1 g s]
        return x.unflatten(0, (scratch.batch, -1))[rows, only], bias, small


class FusedSiglip:
    """A `Siglip` as it acts. Weights are the module's own."""

    def __init__(self, siglip: Siglip) -> None:
        self.siglip = siglip

    def __call__(self, images: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b p o"]:
        siglip, size = self.siglip, self.siglip.config.patch_size
        rows, columns = images.shape[1] // size, images.shape[2] // size
        patches = siglip.stem(images) if siglip.stem else patchify(images, size)
        x = (siglip.patch(patches) + siglip.positions(rows, columns)).flatten(0, 1)
        normed, branch, bias = torch.empty_like(x), None, None
        for block in siglip.blocks:
            assert isinstance(block, SiglipBlock)
            passes.add_layer_norm(x, branch, bias, block.attention_norm, out=normed)
            branch, bias = self.attend(block, normed, pictures=len(images)), block.out.bias
            passes.add_layer_norm(x, branch, bias, block.mlp_norm, out=normed)
            # The bias and the sum with the residual wait for the next norm's pass over the tokens, which reads them
            # anyway.
            branch, bias = torch.mm(gelu_linear(normed, block.up), block.down.weight.T), block.down.bias
        passes.add_layer_norm(x, branch, bias, siglip.final_norm, out=normed)
        return siglip.head(normed).unflatten(0, (len(images), -1))

    def attend(self, block: SiglipBlock, normed: Float[Tensor, "r d"], *, pictures: int) -> Float[Tensor, "r d"]:
        """Compute the attention branch before its bias, each patch seeing all of its picture."""
        qkv = block.qkv(normed).view(pictures, -1, 3, block.num_heads, normed.shape[1] // block.num_heads)
        q, k, v = qkv.transpose(1, 3).unbind(2)  # [b n p h]
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(normed.shape)
        return torch.mm(attended, block.out.weight.T)


def gelu_linear(x: Float[Tensor, "r d"], linear: torch.nn.Linear) -> Float[Tensor, "r o"]:
    """Apply a linear layer and tanh's GELU; on a GPU the product ends in it."""
    if x.is_cuda:
        return torch._addmm_activation(linear.bias, x, linear.weight.T, use_gelu=True)
    return F.gelu(linear(x), approximate="tanh")
