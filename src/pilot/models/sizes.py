"""Shapes of the family by size: the published ones, and two small enough to train and to test on a laptop.

`2b` is PaliGemma with the action expert of π0 and π0.5. `470m` is π0-small. `debug` tests, `nano` trains in hours.
"""

from typing import Any, Literal

from pilot.nn.gemma import GemmaConfig
from pilot.nn.siglip import SiglipConfig

Size = Literal["debug", "nano", "2b"]
SmallSize = Literal["debug", "nano", "470m"]

_DEBUG: dict[str, Any] = {
    "vocab_size": 2080, "action_dim": 8, "action_horizon": 6,
    "fast_vocab_size": 256, "fast_offset": 0, "loc_start": 276,
}  # fmt: skip
_NANO: dict[str, Any] = _DEBUG | {"action_horizon": 10, "wrist_image_size": 32, "max_tokens": 80}

SIZES: dict[str, tuple[SiglipConfig, GemmaConfig, GemmaConfig, dict[str, Any]]] = {
    "debug": (
        SiglipConfig(image_size=16, patch_size=8, width=16, depth=1, mlp_dim=32, num_heads=2),
        GemmaConfig(width=32, depth=2, mlp_dim=64, num_heads=2, head_dim=16),
        GemmaConfig(width=24, depth=2, mlp_dim=48, num_heads=2, head_dim=16),
        _DEBUG,
    ),
    "nano": (
        SiglipConfig(image_size=64, patch_size=8, width=96, depth=2, mlp_dim=256, num_heads=3, stem=(24, 48, 96, 96)),
        GemmaConfig(width=128, depth=4, mlp_dim=256, num_heads=4, head_dim=32),
        GemmaConfig(width=64, depth=4, mlp_dim=192, num_heads=4, head_dim=32),
        _NANO | {"point_layer": 2},
    ),
    "2b": (
        SiglipConfig(),
        GemmaConfig(width=2048, depth=18, mlp_dim=16_384, num_heads=8, head_dim=256),
        GemmaConfig(width=1024, depth=18, mlp_dim=4096, num_heads=8, head_dim=256),
        {},
    ),
}
"""Vision tower, backbone, action expert, and what else differs."""

SMALL_SIZES: dict[str, tuple[SiglipConfig, GemmaConfig, GemmaConfig, GemmaConfig, dict[str, Any]]] = {
    "debug": (
        SiglipConfig(image_size=16, patch_size=8, width=16, depth=1, mlp_dim=32, num_heads=2),
        GemmaConfig(width=16, depth=1, mlp_dim=32, num_heads=2, head_dim=16),
        GemmaConfig(width=32, depth=2, mlp_dim=64, num_heads=2, head_dim=16),
        GemmaConfig(width=24, depth=3, mlp_dim=48, num_heads=2, num_kv_heads=2, head_dim=16),
        _DEBUG | {"vision_towers": ("room", "wrist")},
    ),
    "nano": (
        SiglipConfig(image_size=64, patch_size=8, width=96, depth=2, mlp_dim=256, num_heads=3, stem=(24, 48, 96, 96)),
        GemmaConfig(width=96, depth=2, mlp_dim=192, num_heads=3, num_kv_heads=3, head_dim=32),
        GemmaConfig(width=128, depth=3, mlp_dim=256, num_heads=4, num_kv_heads=4, head_dim=32),
        GemmaConfig(width=96, depth=4, mlp_dim=192, num_heads=3, num_kv_heads=3, head_dim=32),
        _NANO | {"vision_towers": ("room", "wrist")},
    ),
    "470m": (
        SiglipConfig(
            image_size=224, patch_size=32, width=384, depth=12, mlp_dim=1536, num_heads=6,
            stem=(16, 32, 64, 128, 256, 512),
        ),
        GemmaConfig(width=768, depth=6, mlp_dim=2048, num_heads=12, num_kv_heads=12, head_dim=64),
        GemmaConfig(width=1024, depth=12, mlp_dim=2752, num_heads=16, num_kv_heads=16, head_dim=64),
        GemmaConfig(width=768, depth=12, mlp_dim=2048, num_heads=12, num_kv_heads=12, head_dim=64),
        {"vocab_size": 30_522, "max_tokens": 48,
         "vision_towers": ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")},
    ),
}  # fmt: skip
"""Vision tower of one camera, text encoder, observation encoder, action expert, and what else differs.

The paper gives the parts (R26-S/32, which is a ViT-S behind a ResNet of 26 layers; DistilBERT; a transformer; DiT) and
the total. Here the ViT-S stands behind six convolutions that make the same patches, the text encoder has DistilBERT's
depth, width, vocabulary and number of parameters, and the other two share what is left. All of it starts from scratch,
where the paper's image and text encoders were pre-trained.
"""
