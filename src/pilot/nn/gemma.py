"""Gemma's transformer, one weight set per expert.

The backbone and the action expert are two stacks of the same blocks with the same number of layers, key-value heads and
head dims, and widths of their own. Layer `i` of the expert attends to the keys and values of layer `i` of the backbone.
Nothing ever attends to the expert, so the two run one after the other and share nothing but the cache: training,
prefill and denoising are the same code, and insulation is a `detach` of the cache.

Axes: `b` batch, `t` query, `s` key, `n` heads, `k` key-value heads, `h` head dim, `d` width, `c` condition width,
`m` rows of a mask (`attention.repeat_for_groups`).
"""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pilot.nn.attention import KV, append_kv, attend, repeat_for_groups, rotate
from pilot.nn.configs import GemmaConfig
from pilot.nn.norms import AdaRMSNorm, Modulation, RMSNorm


def make_norm(config: GemmaConfig) -> RMSNorm | AdaRMSNorm:
    """Return the norm of a stack, adaptive if it has a condition."""
    return AdaRMSNorm(config.width, config.cond_width) if config.cond_width else RMSNorm(config.width)


class GemmaBlock(nn.Module):
    """Pre-norm attention and gated MLP; query, key and value share one matrix, gate and up another."""

    def __init__(self, config: GemmaConfig) -> None:
        super().__init__()
        self.config = config
        heads, kv_heads, head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        self.splits = [heads * head_dim, kv_heads * head_dim, kv_heads * head_dim]
        self.attention_norm = make_norm(config)
        self.qkv = nn.Linear(config.width, sum(self.splits), bias=False)
        self.out = nn.Linear(heads * head_dim, config.width, bias=False)
        self.mlp_norm = make_norm(config)
        self.gate_up = nn.Linear(config.width, 2 * config.mlp_dim, bias=False)
        self.down = nn.Linear(config.mlp_dim, config.width, bias=False)

    def project(self, x: Tensor, angles: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries [b n t h], keys and values [b k t h] of normed tokens, queries and keys rotated."""
        heads, kv_heads = self.config.num_heads, self.config.num_kv_heads
        qkv = self.qkv(x).unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)  # [b n+2k t h]
        # Queries and keys lie side by side and take the same angles: one rotation for both.
        qk = rotate(qkv[:, : heads + kv_heads], angles)
        return qk[:, :heads], qk[:, heads:], qkv[:, heads + kv_heads :]

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        angles: tuple[Tensor, Tensor],
        bias: Float[Tensor, "b 1 m s"],
        *,
        past: KV | None,
        modulations: tuple[Modulation, Modulation] | tuple[None, None],
        tail: int | None,
    ) -> tuple[Float[Tensor, "b u d"], KV]:
        """Return the block's output for the last `tail` tokens (all if None), and the layer's keys and values.

        Those of the past stand in front. The past may have fewer rows (see `append_kv`).
        """
        attention_modulation, mlp_modulation = modulations
        q, k, v = self.project(self.attention_norm(x, attention_modulation), angles)
        kv = append_kv(past, k, v) if past is not None else (k.clone(), v.clone())  # views would hold the queries
        if tail is not None:
            first = x.shape[1] - tail
            x, q, bias = x[:, first:], q[:, :, first:], bias[:, :, first:]
        # With `tail` 0 the cache was all that was wanted.
        if not x.shape[1]:
            return x, kv
        x = residual(x, self.out(attend(q, *kv, bias)), attention_modulation)
        gate, up = self.gate_up(self.mlp_norm(x, mlp_modulation)).chunk(2, dim=-1)
        return residual(x, self.down(F.gelu(gate, approximate="tanh") * up), mlp_modulation), kv


def residual(x: Tensor, branch: Tensor, modulation: Modulation | None) -> Tensor:
    """Add a branch, through the gate of its norm's modulation if it has one."""
    return x + branch if modulation is None else torch.addcmul(x, branch, modulation[2].to(x.dtype))


class Gemma(nn.Module):
    """A stack of blocks and its final norm."""

    def __init__(self, config: GemmaConfig) -> None:
        super().__init__()
        self.config = config
        blocks = nn.ModuleList(GemmaBlock(config) for _ in range(config.depth))
        self.blocks = cast(Sequence[GemmaBlock], blocks)  # a ModuleList does not say what it holds
        self.final_norm = make_norm(config)

    def modulate(self, cond: Float[Tensor, "b #t c"]) -> list[Modulation]:
        """Return the modulation of every adaptive norm for a condition, in order: two per block, then the final one."""
        norms = [norm for block in self.blocks for norm in (block.attention_norm, block.mlp_norm)]
        return [cast(AdaRMSNorm, norm).modulate(cond) for norm in [*norms, self.final_norm]]

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        *,
        angles: tuple[Float[Tensor, "b 1 t h"], Float[Tensor, "b 1 t h"]],
        bias: Float[Tensor, "b 1 t s"],
        past: list[KV] | None = None,
        modulations: list[Modulation] | None = None,
        tail: int | None = None,
        block_inputs: list[Tensor] | None = None,
        use_cache: bool = True,
    ) -> tuple[Float[Tensor, "b u d"], list[KV]]:
        """Return hidden states after the final norm and the cache of every layer, past keys and values in front.

        `angles` are `rotary_angles` of the tokens' positions, `bias` is the `additive_mask` of who sees whom. With
        `tail`, the last layer is computed for the last `tail` tokens only (0: keys and values alone), which is all that
        a text head or a denoising loop needs. What enters each block is appended to `block_inputs`. Without `use_cache`
        the returned cache is empty, and no layer's keys and values outlive the layer.
        """
        cache = []
        if tail is None or tail == x.shape[1]:
            # With a shorter tail the mask is cut in the last block, which a repeated one could not be.
            bias = repeat_for_groups(bias, self.config.num_heads // self.config.num_kv_heads)
        for i, block in enumerate(self.blocks):
            if block_inputs is not None:
                block_inputs.append(x)
            pair = (modulations[2 * i], modulations[2 * i + 1]) if modulations else (None, None)
            last = tail if i == len(self.blocks) - 1 else None
            x, kv = block(x, angles, bias, past=past[i] if past else None, modulations=pair, tail=last)
            if use_cache:
                cache.append(kv)
            # Free a layer's keys and values before the next one allocates its own.
            del kv
        return self.final_norm(x, modulations[-1] if modulations else None), cache
