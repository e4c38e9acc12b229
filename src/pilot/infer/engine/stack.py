"""Gemma's blocks for acting: the numbers of `nn/gemma.py` with no autograd, in place, into a cache of fixed slots.

A small model spends its time on launching operations, a large one on reading memory. Both want few operations that
write where the next one reads: every pass through a stack works in one set of `Scratch` tensors, keys and values go
straight to their slots in a `Cache`, and the views that all layers share are made once. Nothing here depends on the
values of tensors, so that a pass can be captured as a CUDA graph.

Axes: `b` batch, `t` query, `s` cache slot, `n` heads, `k` key-value heads, `g` heads per key-value head, `h` head dim,
`d` width, `r` rows (all tokens of all rows of a batch), `e` evaluations of the expert.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pilot.nn.attention import rotary_angles
from pilot.nn.configs import GemmaConfig
from pilot.nn.gemma import Gemma
from pilot.nn.lora import adapted_layers
from pilot.nn.norms import EPS, Modulation, RMSNorm


class NormScale(NamedTuple):
    """Constants of a norm after the division by a token's length: a factor, and shift and gate if it is adaptive.

    The factor carries the `sqrt(d)` between the length and the root mean square. `shifted` is the shift behind the
    matrix that follows the norm, where kernels ask for it (`fused_stack.py`).
    """

    factor: Float[Tensor, " d"]
    shift: Float[Tensor, " d"] | None = None
    gate: Float[Tensor, " d"] | None = None
    shifted: Float[Tensor, " o"] | None = None


class Weights(NamedTuple):
    """The matrices of one block, transposed views of the module's own."""

    qkv: Tensor
    out: Tensor
    gate_up: Tensor
    down: Tensor


class Slots(NamedTuple):
    """The place for one layer's new keys and values, and all that its queries look at.

    With `index`, a slot that the device knows, new ones go to that slot of all (`keys`, `values`): one graph for any.
    """

    new_keys: Float[Tensor, "b k t h"]
    new_values: Float[Tensor, "b k t h"]
    keys: Float[Tensor, "b k s h"]
    values: Float[Tensor, "b k s h"]
    index: Int[Tensor, " 1"] | None = None


@dataclass(frozen=True)
class Cache:
    """Keys (rotated) and values of all layers, each [layers b k s h], allocated once for all slots."""

    keys: Float[Tensor, "l b k s h"]
    values: Float[Tensor, "l b k s h"]

    @classmethod
    def empty(cls, config: GemmaConfig, *, batch: int, slots: int, like: Tensor) -> "Cache":
        """Make a cache of that many slots, uninitialised, on the device and in the dtype of `like`."""
        shape = (config.depth, batch, config.num_kv_heads, slots, config.head_dim)
        return cls(like.new_empty(shape), like.new_empty(shape))

    @property
    def capacity(self) -> int:
        """The number of slots."""
        return self.keys.shape[3]

    def with_room(self, slots: int) -> "Cache":
        """Return the cache itself, or a copy with so many slots if it has fewer."""
        missing = (0, 0, 0, max(0, slots - self.capacity))
        return self if not missing[-1] else Cache(F.pad(self.keys, missing), F.pad(self.values, missing))

    def slots(self, start: int, *, tokens: int) -> list[Slots]:
        """Return for each layer slots from `start` on for new tokens, which see all slots up to their own."""
        end = start + tokens
        assert end <= self.capacity, (end, self.capacity)
        pairs = zip(self.keys[:, :, :, :end].unbind(0), self.values[:, :, :, :end].unbind(0), strict=True)
        return [Slots(k[:, :, start:], v[:, :, start:], k, v) for k, v in pairs]

    def slots_at(self, index: Int[Tensor, " 1"]) -> list[Slots]:
        """Return for each layer the slot that `index` holds, for one token that looks at all slots."""
        return [Slots(k, v, k, v, index) for k, v in zip(self.keys.unbind(0), self.values.unbind(0), strict=True)]


class Scratch:
    """The tensors that a pass over `batch` × `tokens` tokens works in; each kind of stack has its own."""

    def __init__(self, *, batch: int, tokens: int) -> None:
        self.batch, self.tokens, self.rows = batch, tokens, batch * tokens


class PlainScratch(Scratch):
    """The tensors of an `InferenceStack`, and the views of them that it needs."""

    def __init__(self, config: GemmaConfig, *, batch: int, tokens: int, like: Tensor) -> None:
        super().__init__(batch=batch, tokens=tokens)
        heads, kv_heads, half = config.num_heads, config.num_kv_heads, config.head_dim // 2
        rows, dtype, rotating = self.rows, like.dtype, heads + kv_heads
        self.length = like.new_empty((rows, 1), dtype=torch.float32)
        self.wide = like.new_empty((rows, config.width), dtype=torch.float32)
        # In fp32 there is nothing to round, so one tensor is both.
        self.normed = self.wide if dtype == torch.float32 else like.new_empty((rows, config.width))
        qkv = like.new_empty((batch, tokens, rotating + kv_heads, config.head_dim))
        self.qkv = qkv.view(rows, -1)
        self.values = qkv[:, :, rotating:].transpose(1, 2)  # [b k t h]
        self.straight = qkv[:, :, :rotating]  # [b t n+k h]
        self.straight_halves = self.straight[..., :half], self.straight[..., half:]
        self.rotated = torch.empty_like(self.straight, dtype=torch.float32)
        self.rotated_halves = self.rotated[..., :half], self.rotated[..., half:]
        self.rotated_queries = self.rotated[:, :, :heads].unflatten(2, (kv_heads, -1))  # [b t k g h]
        self.rotated_keys = self.rotated[:, :, heads:].transpose(1, 2)  # [b k t h]
        queries = like.new_empty((batch, kv_heads, tokens, heads // kv_heads, config.head_dim))
        # Two views of one memory: written token by token, read head by head as attention wants it.
        self.queries_by_token = queries.transpose(1, 2)  # [b t k g h]
        self.queries = queries.flatten(2, 3)  # [b k tg h]
        self.branch = like.new_empty((rows, config.width))
        self.gate_up = like.new_empty((rows, 2 * config.mlp_dim))
        self.gate, self.up = self.gate_up.chunk(2, dim=-1)

    def merge_heads(self, attended: Float[Tensor, "b k tg h"]) -> Float[Tensor, "r nh"]:
        """Bring the heads of each token side by side again; with one key-value head nothing moves."""
        by_head = attended.unflatten(2, (self.tokens, -1))  # [b k t g h]
        return by_head.transpose(1, 2).reshape(self.batch * self.tokens, -1)


class Angles(NamedTuple):
    """Cosines [b t 1 h] and the two halves [b t 1 h/2] of the signed sines of some tokens."""

    cos: Tensor
    low: Tensor
    high: Tensor


class AngleTable:
    """The angles of every position up to a growing limit, shared by the stacks of a model and by threads."""

    def __init__(self, head_dim: int, device: torch.device) -> None:
        self.head_dim, self.device = head_dim, device
        self.table = self.angles(0)

    def at(self, positions: Int[Tensor, "b t"], *, limit: int) -> Angles:
        """Return the angles of positions, all of them below `limit`."""
        cos, sin = self.table
        # Threads may both make a larger table; each then has one that is large enough.
        if limit > len(cos):
            self.table = cos, sin = self.angles(max(256, 2 * limit))
        return Angles(cos[positions].unsqueeze(2), *sin[positions].unsqueeze(2).chunk(2, dim=-1))

    def angles(self, limit: int) -> tuple[Tensor, Tensor]:
        """Return cosines and signed sines of the first `limit` positions, each [limit h]."""
        cos, sin = rotary_angles(torch.arange(limit, device=self.device)[None], self.head_dim)
        return cos[0, 0], sin[0, 0]


@dataclass(frozen=True, kw_only=True)
class Span:
    """Consecutive tokens on their way through a stack: their slots, their angles, whom they see, and their scratch."""

    slots: list[Slots]
    angles: Angles
    bias: Float[Tensor, "b 1 tg s"] | None
    scratch: Scratch


def check_weights(model: nn.Module) -> None:
    """Check that the weights are such as these operations take.

    Raises:
        ValueError: another dtype, or adapters, which these operations would leave out.
    """
    if other := {weight.dtype for weight in model.parameters()} - {torch.float32, torch.bfloat16}:
        raise ValueError(f"acting takes weights in float32 or bfloat16, got {other.pop()}; model.float() has them")
    if adapters := adapted_layers(model):
        raise ValueError(
            f"{len(adapters)} layers have adapters, which must be merged before acting: take the policy that a run "
            "writes, or merge them by merge_adapters of nn/lora.py"
        )


class InferenceStack:
    """The blocks of a `Gemma` for acting, without autograd. Weights are the module's own, not copies."""

    def __init__(self, gemma: Gemma) -> None:
        self.config = gemma.config
        self.layers = [
            Weights(block.qkv.weight.T, block.out.weight.T, block.gate_up.weight.T, block.down.weight.T)
            for block in gemma.blocks
        ]
        width = self.config.width
        self.like = self.layers[0].qkv.new_empty(0)
        # `hypot` adds the epsilon under the root without squaring in a tensor of its own.
        self.floor = torch.tensor((width * EPS) ** 0.5, device=self.like.device)
        self.norms: list[NormScale] = []
        if not self.config.cond_width:
            modules = [norm for block in gemma.blocks for norm in (block.attention_norm, block.mlp_norm)]
            plain = cast(Sequence[RMSNorm], [*modules, gemma.final_norm])
            # Dividing by the length and not by its root mean square leaves out √width, which goes into the factor.
            self.norms = [NormScale((1 + norm.weight.float()) * width**0.5) for norm in plain]

    def scratch(self, *, batch: int, tokens: int) -> Scratch:
        """Make the tensors that a pass over `tokens` tokens of `batch` rows works in."""
        return PlainScratch(self.config, batch=batch, tokens=tokens, like=self.like)

    def adaptive(self, modulations: list[Modulation]) -> list[list[NormScale]]:
        """Return the norms of each evaluation, from modulations [e 1 d] of all evaluations at once."""
        scale, dtype = self.config.width**0.5, self.like.dtype
        columns = [
            zip((factor * scale).flatten(1), shift.flatten(1), gate.flatten(1).to(dtype), strict=True)
            for factor, shift, gate in modulations
        ]
        return [[NormScale(*norm) for norm in row] for row in zip(*columns, strict=True)]

    def span(
        self, cache: Cache, start: int, *, angles: Angles, bias: Tensor | None = None, scratch: Scratch | None = None
    ) -> Span:
        """Return a span of as many tokens as there are angles, from slot `start` on.

        They see everything before them unless `bias` says otherwise.

        A scratch of another span of as many tokens can be used again.
        """
        batch, tokens = cache.keys.shape[1], angles.cos.shape[1]
        scratch = scratch or self.scratch(batch=batch, tokens=tokens)
        return Span(slots=cache.slots(start, tokens=tokens), angles=angles, bias=bias, scratch=scratch)

    def normalize(self, x: Float[Tensor, "r d"], norm: NormScale, scratch: PlainScratch) -> Float[Tensor, "r d"]:
        """Compute `x / sqrt(mean(x²) + eps)`, as `x · sqrt(d) / hypot(‖x‖, sqrt(d · eps))`: four operations."""
        torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32, out=scratch.length)
        torch.div(x, scratch.length.hypot_(self.floor), out=scratch.wide)
        if norm.shift is None:
            return torch.mul(scratch.wide, norm.factor, out=scratch.normed)
        return torch.addcmul(norm.shift, scratch.wide, norm.factor, out=scratch.normed)

    def project(self, normed: Tensor, weights: Weights, slots: Slots, *, angles: Angles, scratch: PlainScratch) -> None:
        """Write queries to the scratch, keys and values to their slots; queries and keys are rotated in fp32."""
        torch.mm(normed, weights.qkv, out=scratch.qkv)
        # `roll` would copy: the halves are read crosswise instead.
        low, high = scratch.straight_halves
        torch.mul(scratch.straight, angles.cos, out=scratch.rotated)
        scratch.rotated_halves[0].addcmul_(high, angles.low)
        scratch.rotated_halves[1].addcmul_(low, angles.high)
        scratch.queries_by_token.copy_(scratch.rotated_queries)
        if slots.index is None:
            slots.new_keys.copy_(scratch.rotated_keys)
            slots.new_values.copy_(scratch.values)
        else:
            # A slot by a number on the device, so that a graph works for all of them.
            slots.keys.index_copy_(2, slots.index, scratch.rotated_keys.to(slots.keys.dtype))
            slots.values.index_copy_(2, slots.index, scratch.values)

    def attend(self, weights: Weights, slots: Slots, *, bias: Tensor | None, scratch: PlainScratch) -> Tensor:
        """Compute the attention branch."""
        attended = F.scaled_dot_product_attention(scratch.queries, slots.keys, slots.values, attn_mask=bias)
        return torch.mm(scratch.merge_heads(attended), weights.out, out=scratch.branch)

    def run(
        self,
        x: Float[Tensor, "r d"],
        span: Span,
        *,
        norms: list[NormScale],
        only: Int[Tensor, " b"] | None = None,
        stop: bool = False,
    ) -> Float[Tensor, "u d"] | None:
        """Run all blocks; return hidden states after the final norm, in the scratch. `x` is overwritten.

        With `only`, the last layer continues with that token of each row alone; with `stop` it ends at its keys and
        values and nothing is returned.
        """
        scratch, bias = span.scratch, span.bias
        assert isinstance(scratch, PlainScratch)
        for i, (weights, slots) in enumerate(zip(self.layers, span.slots, strict=True)):
            before_attention, before_mlp = norms[2 * i], norms[2 * i + 1]
            normed = self.normalize(x, before_attention, scratch)
            self.project(normed, weights, slots, angles=span.angles, scratch=scratch)
            if i == len(self.layers) - 1:
                if stop:
                    return None
                if only is not None:
                    x, bias, scratch = self.narrow(x, only, bias=bias, scratch=scratch)
            add(x, self.attend(weights, slots, bias=bias, scratch=scratch), before_attention.gate)
            torch.mm(self.normalize(x, before_mlp, scratch), weights.gate_up, out=scratch.gate_up)
            gated = F.gelu(scratch.gate, approximate="tanh").mul_(scratch.up)
            add(x, torch.mm(gated, weights.down, out=scratch.branch), before_mlp.gate)
        return self.normalize(x, norms[-1], scratch)

    def narrow(
        self, x: Tensor, only: Tensor, *, bias: Tensor | None, scratch: PlainScratch
    ) -> tuple[Tensor, Tensor | None, PlainScratch]:
        """Return residual stream, bias, and a scratch with the queries, of one token in each row."""
        rows = torch.arange(scratch.batch, device=x.device)
        # Queries of all tokens were made with the keys; only one per row goes on from here.
        small = PlainScratch(self.config, batch=scratch.batch, tokens=1, like=self.like)
        small.queries_by_token.copy_(scratch.queries_by_token[rows, only][:, None])
        if bias is not None and bias.shape[2] > 1:
            bias = bias.unflatten(2, (scratch.tokens, -1))[rows, :, only]  # [b 1 g s]
        return x.unflatten(0, (scratch.batch, -1))[rows, only], bias, small


def add(x: Tensor, branch: Tensor, gate: Tensor | None) -> None:
    """Add a branch to the residual stream in place, gated if the norm before it is adaptive."""
    if gate is None:
        x.add_(branch)
    else:
        x.addcmul_(branch, gate)
