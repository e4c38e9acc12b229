"""What only π0-small has: a vision tower per camera, and a decoder that reads an encoder's output by cross-attention.

In the rest of the family layer `i` of the action expert sees the keys and values of layer `i` of the backbone. Here the
backbone is an encoder, and every layer of the expert makes keys and values of its own from what the encoder puts out;
they are the same at each flow time, so a chunk needs them once. Source: π0 (arXiv 2410.24164), appendix C; the blocks
are those of DiT with AdaLN-Zero (2212.09748), written with the RMS norms and gated MLPs of `gemma.py`.

Axes: `b` batch, `t` query, `s` key, `k` key-value heads, `h` head dim, `d` width, `m` memory width, `c` condition.
"""

from collections.abc import Sequence
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pilot.nn.attention import KV, attend
from pilot.nn.configs import GemmaConfig, SiglipConfig
from pilot.nn.gemma import GemmaBlock, make_norm, residual
from pilot.nn.norms import AdaRMSNorm, Modulation
from pilot.nn.siglip import Siglip


class Towers(nn.ModuleDict):
    """A vision tower for each camera by name; they share no weights."""

    def __init__(self, config: SiglipConfig, out_width: int, *, cameras: tuple[str, ...]) -> None:
        super().__init__({camera: Siglip(config, out_width) for camera in cameras})

    def tower(self, camera: str) -> Siglip:
        """Return the tower of a camera."""
        if camera not in self:
            raise ValueError(f"no vision tower for camera '{camera}'; vision_towers names {', '.join(self)}")
        return cast(Siglip, self[camera])


class DecoderBlock(GemmaBlock):
    """Self-attention, cross-attention and gated MLP, each behind an adaptive norm and a gate that starts closed."""

    def __init__(self, config: GemmaConfig, memory_width: int) -> None:
        super().__init__(config)
        heads, kv_heads, head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        self.memory_norm = make_norm(config)
        self.memory_q = nn.Linear(config.width, heads * head_dim, bias=False)
        self.memory_kv = nn.Linear(memory_width, 2 * kv_heads * head_dim, bias=False)
        self.memory_out = nn.Linear(heads * head_dim, config.width, bias=False)

    def project_memory(self, memory: Float[Tensor, "b s m"]) -> KV:
        """Return keys and values of the encoder's output, unrotated: the encoder has seen its positions already."""
        kv = self.memory_kv(memory).unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)  # [b 2k s h]
        k, v = kv.chunk(2, dim=1)
        return k, v

    def forward(  # type: ignore[override]
        self,
        x: Float[Tensor, "b t d"],
        angles: tuple[Tensor, Tensor],
        *,
        bias: Float[Tensor, "b 1 t t"],
        memory: KV,
        memory_bias: Float[Tensor, "b 1 t s"],
        modulations: tuple[Modulation, Modulation, Modulation],
    ) -> Float[Tensor, "b t d"]:
        own, other, mlp = modulations
        q, k, v = self.project(self.attention_norm(x, own), angles)
        x = residual(x, self.out(attend(q, k, v, bias)), own)
        q = self.memory_q(self.memory_norm(x, other)).unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)
        x = residual(x, self.memory_out(attend(q, *memory, memory_bias)), other)
        gate, up = self.gate_up(self.mlp_norm(x, mlp)).chunk(2, dim=-1)
        return residual(x, self.down(F.gelu(gate, approximate="tanh") * up), mlp)


class Decoder(nn.Module):
    """A stack of decoder blocks, called like `Gemma`: the cache that it is given is the memory."""

    def __init__(self, config: GemmaConfig, memory_width: int) -> None:
        super().__init__()
        self.config = config
        blocks = nn.ModuleList(DecoderBlock(config, memory_width) for _ in range(config.depth))
        self.blocks = cast(Sequence[DecoderBlock], blocks)  # a ModuleList does not say what it holds
        self.final_norm = make_norm(config)

    def project_memory(self, memory: Float[Tensor, "b s m"]) -> list[KV]:
        """Return every layer's keys and values of the encoder's output."""
        return [block.project_memory(memory) for block in self.blocks]

    def modulate(self, cond: Float[Tensor, "b #t c"]) -> list[Modulation]:
        """Return the modulation of every adaptive norm for a condition, in order: three per block, then the final."""
        norms = [n for block in self.blocks for n in (block.attention_norm, block.memory_norm, block.mlp_norm)]
        return [cast(AdaRMSNorm, n).modulate(cond) for n in [*norms, self.final_norm]]

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        *,
        angles: tuple[Float[Tensor, "b 1 t h"], Float[Tensor, "b 1 t h"]],
        bias: Float[Tensor, "b 1 t st"],
        past: list[KV] | None,
        modulations: list[Modulation] | None,
        tail: int,
        use_cache: bool = True,
    ) -> tuple[Float[Tensor, "b u d"], list[KV]]:
        """Return hidden states of the last `tail` tokens after the final norm, and with `use_cache` the memory.

        `past` is the memory of each layer; it may have fewer rows, see `attend`. `bias` is the `additive_mask` over the
        memory and then over the decoder's own tokens.
        """
        assert past and modulations, "a decoder has something to read, and a condition"
        # One mask covers memory and own tokens; the two attentions take a part each.
        memory_bias, own_bias = bias.split([past[0][0].shape[2], x.shape[1]], dim=-1)
        for i, (block, memory) in enumerate(zip(self.blocks, past, strict=True)):
            three = modulations[3 * i], modulations[3 * i + 1], modulations[3 * i + 2]
            x = block(x, angles, bias=own_bias, memory=memory, memory_bias=memory_bias, modulations=three)
        return self.final_norm(x[:, x.shape[1] - tail :], modulations[-1]), past if use_cache else []
