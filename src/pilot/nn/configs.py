"""The shapes of all building blocks, and which layers get adapters: frozen dataclasses, free of torch.

A run is made of them (`configs/`), so its settings are read and checked before torch is imported, which takes seconds.
"""

from dataclasses import dataclass
from typing import Literal

CHANNELS_PER_GROUP = 16  # of group norms
# Layers by the last part of their names, which adapters may stand beside.
ATTENTION, MLP = ("qkv", "out", "memory_q", "memory_kv", "memory_out"), ("gate_up", "up", "down")
TIME = ("time_mlp_in", "time_mlp_out")


@dataclass(frozen=True, kw_only=True)
class GemmaConfig:
    """The shape of one stack."""

    width: int
    depth: int
    mlp_dim: int
    num_heads: int
    num_kv_heads: int = 1
    head_dim: int
    cond_width: int = 0  # above 0 every norm is adaptive, with a condition of this width

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}")


@dataclass(frozen=True, kw_only=True)
class SiglipConfig:
    """The shape of a tower; the defaults are SigLIP So400m/14.

    `stem` puts convolutions in front of the patches, for small towers that train from scratch: their channels, the
    first at full resolution and each of the others at half of the one before, so that `patch_size` is
    `2**(len(stem) - 1)`. They learn shapes from far fewer pictures (Xiao et al., arXiv 2106.14881). Empty is SigLIP's
    own way, which cuts patches.
    """

    image_size: int = 224  # the position table is for this size, and is resampled for others
    patch_size: int = 14
    width: int = 1152
    depth: int = 27
    mlp_dim: int = 4304
    num_heads: int = 16
    stem: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "stem", tuple(self.stem))  # a list when it was read from a file
        if self.stem and self.patch_size != 2 ** (len(self.stem) - 1):
            raise ValueError(
                f"a stem of {len(self.stem)} convolutions makes patches of {2 ** (len(self.stem) - 1)} pixels, "
                f"patch_size is {self.patch_size}"
            )

    @property
    def grid(self) -> int:
        """Patches along a side of a picture."""
        return self.image_size // self.patch_size


@dataclass(frozen=True, kw_only=True)
class DetrConfig:
    """The shape of a layer; the defaults are ACT's."""

    width: int = 512
    mlp_dim: int = 3200
    num_heads: int = 8


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """The shape of a ResNet; the defaults are ResNet-18.

    Without `pool`, and with fewer stages, the feature map of a small picture keeps enough cells to be worth reading.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)  # channels of each stage, at half the resolution of the one before
    blocks: int = 2  # in each stage
    pool: bool = True  # a max-pool behind the first convolution
    norm: Literal["frozen_batch", "group"] = "group"

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))  # a list when it was read from a file
        if self.norm == "group" and (odd := [width for width in self.widths if width % CHANNELS_PER_GROUP]):
            raise ValueError(f"group norms take {CHANNELS_PER_GROUP} channels each, which does not divide {odd}")


@dataclass(frozen=True, kw_only=True)
class LoraGroup:
    """The adapters of one group of weights. With rank 0 it has none and learns whole."""

    rank: int
    alpha: float  # the detour is scaled by alpha / rank

    def __post_init__(self) -> None:
        if self.rank < 0 or (self.rank and self.alpha <= 0):
            raise ValueError(
                f"adapters have a rank of 0 or more and an alpha above 0, got {self.rank} and {self.alpha}"
            )


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """The layers that learn through adapters. All else in a group that has them is frozen, except the parts in `whole`.

    Ranks and alphas are those of openpi's `gemma_2b_lora` and `gemma_300m_lora`, which leave the vision tower without.
    """

    language: LoraGroup = LoraGroup(rank=16, alpha=16.0)
    expert: LoraGroup = LoraGroup(rank=32, alpha=32.0)
    vision: LoraGroup = LoraGroup(rank=0, alpha=16.0)
    targets: tuple[str, ...] = ATTENTION + MLP + TIME  # layers by the last part of their names
    whole: tuple[str, ...] = ("action_in", "action_out", "state_in")  # parts of the model that learn whole
    rank_stabilized: bool = False  # scale by alpha / √rank (arXiv 2312.03732)

    def scale(self, adapters: LoraGroup) -> float:
        """Return what the detours of a group are scaled by."""
        return adapters.alpha / (adapters.rank**0.5 if self.rank_stabilized else adapters.rank)
