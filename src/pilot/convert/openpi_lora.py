"""openpi's LoRA checkpoints as checkpoints without LoRA: each adapter is added to the array beside which it is stored.

| array | adapters | adds |
|---|---|---|
| `…_einsum/w` [… d h] | `…_einsum/lora_a` [… d r], `lora_b` [… r h] | `a b`, for each head |
| `attn_vec_einsum/w` [l n h d] | `lora_a` [l n h r], `lora_b` [l n r d] | `aₙ Σₘ bₘ`: it sums over heads twice |
| `gating_einsum`, `linear` | `…_lora_a`, `…_lora_b` | `a b` |

Scales are not stored. They are 1 in every variant that openpi has (alpha is the rank), and taken to be that.
"""

import torch
from torch import Tensor

from pilot.convert.keymap import TensorSource

SUMMED = "attn_vec_einsum"


class MergedLoraSource:
    """A `TensorSource` whose adapters are added to their arrays, in fp32.

    An adapter without its other half or without its array stays, and is then reported as left over.
    """

    def __init__(self, source: TensorSource) -> None:
        self._source = source
        names = source.keys()
        pairs = {key: adapters_of(key) for key in names}
        self._adapters = {key: pair for key, pair in pairs.items() if {*pair} <= pairs.keys()}
        used = {half for pair in self._adapters.values() for half in pair}
        self._keys = [key for key in names if key not in used]

    @property
    def location(self) -> str:
        return self._source.location

    def keys(self) -> list[str]:
        return self._keys

    def shape(self, key: str) -> tuple[int, ...]:
        return self._source.shape(key)

    def dtype(self, key: str) -> torch.dtype:
        return self._source.dtype(key)

    @torch.no_grad()
    def read(self, key: str) -> Tensor:
        array = self._source.read(key)
        if key not in self._adapters:
            return array
        a, b = (self._source.read(name).float() for name in self._adapters[key])
        if SUMMED in key:
            b = b.sum(dim=-3, keepdim=True)
        if (got := torch.broadcast_shapes(a.shape[:-1] + (1,), b.shape[:-2] + (1, b.shape[-1]))) != array.shape:
            raise ValueError(
                f"{self.location}: the adapters of {key} add up to {tuple(got)}, it is {tuple(array.shape)}"
            )
        merged = array.float()
        for layer, (down, up) in enumerate(zip(a, b, strict=True)):  # layer by layer: a whole stack is gigabytes
            merged[layer] += down @ up
        return merged


def adapters_of(key: str) -> tuple[str, str]:
    """Return the names of the two adapters of an array."""
    stem = key.removesuffix("w") if key.endswith("/w") else f"{key}_"
    return f"{stem}lora_a", f"{stem}lora_b"
