"""The shapes of the baselines, published and small: frozen dataclasses, free of torch. Sources: each model's file."""

from dataclasses import dataclass, replace
from typing import Literal

from pilot.nn.configs import DetrConfig, ResNetConfig, SiglipConfig

Size = Literal["debug", "nano", "paper"]
"""`paper` has the published dims; `debug` tests, `nano` trains on a laptop."""


LOSSES = ("l1", "kl", "noise")
"""The names of all losses that baselines have."""


@dataclass(frozen=True, kw_only=True)
class BaselineConfig:
    """The inputs of a baseline, and the answers to what the pipeline asks of every model's config."""

    action_dim: int
    action_horizon: int
    picture_size: int  # pictures are scaled to it
    wrist_picture_size: int | None = None  # pictures of wrist cameras may be smaller
    vision_towers: tuple[str, ...] = ()  # the robot's cameras, where each has an encoder of its own
    observation_steps: int = 1  # moments that it sees: 2 are now and one control step earlier
    reads_text: bool = True  # shows the prompt to a model whose paper trains it for one task
    vocab_size: int = 257_152
    max_tokens: int = 200
    norm: Literal["quantile", "zscore"] = "quantile"
    prompt: Literal["subtask"] = "subtask"
    state_input: Literal["token", "none"] = "token"
    # How it acts unless it is told otherwise; None: as its paper does.
    num_steps: int | None = None  # of denoising
    replan_steps: int | None = None  # actions between two looks
    # Average what all chunks say of a moment, with a look at every step, as ACT does.
    ensemble: bool = False

    # What the pipeline and the policy ask of every config; a baseline has none of it.

    @property
    def action_stride(self) -> int:
        """The control steps from one action of a chunk to the next."""
        return 1

    @property
    def chunk_steps(self) -> int:
        """The control steps of a chunk."""
        return self.action_horizon

    @property
    def generates_text(self) -> bool:
        """Whether the model writes text."""
        return False

    @property
    def fast_offset(self) -> int:
        """The number of ids above the action tokens in the vocabulary."""
        return 0

    @property
    def rtc_max_delay(self) -> int:
        """The most given actions that the model has learned to continue from."""
        return 0

    @property
    def integrate_padded_dims(self) -> bool:
        """Whether the model brings padded dims to 0 itself."""
        return False

    @property
    def always_shown(self) -> tuple[str, ...]:
        """The cameras that are in every row, whether the robot has them or not."""
        return ()

    def image_size(self, *, wrist: bool) -> int:
        """Return the side in pixels to which pictures of a camera are scaled."""
        return self.wrist_picture_size if wrist and self.wrist_picture_size else self.picture_size


@dataclass(frozen=True, kw_only=True)
class ActConfig(BaselineConfig):
    """The shape of an ACT; the defaults are the paper's."""

    resnet: ResNetConfig
    transformer: DetrConfig
    encoder_depth: int = 4  # of both encoders, that of the style and that of the observation
    decoder_depth: int = 7
    style_dim: int = 32


ACT_SIZES: dict[str, ActConfig] = {
    "debug": ActConfig(
        resnet=ResNetConfig(widths=(16, 32), blocks=1, pool=False),
        transformer=DetrConfig(width=32, mlp_dim=64, num_heads=2), encoder_depth=1, decoder_depth=1, style_dim=4,
        action_dim=8, action_horizon=6, picture_size=16, vocab_size=2080, max_tokens=80,
    ),
    "nano": ActConfig(
        resnet=ResNetConfig(widths=(32, 48, 96), pool=False),
        transformer=DetrConfig(width=128, mlp_dim=384, num_heads=4), encoder_depth=3, decoder_depth=3, style_dim=16,
        action_dim=8, action_horizon=16, picture_size=64, wrist_picture_size=32, vocab_size=2080, max_tokens=80,
    ),
    "paper": ActConfig(
        resnet=ResNetConfig(norm="frozen_batch"), transformer=DetrConfig(),
        action_dim=14, action_horizon=100, picture_size=480, reads_text=False, norm="zscore",
    ),
}  # fmt: skip


def act(size: Size = "paper", **changes: object) -> ActConfig:
    """Return ACT by size. `paper` is for ALOHA's 14 dims; its ResNet starts from ImageNet (`load_image_weights`)."""
    return replace(ACT_SIZES[size], **changes)


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig(BaselineConfig):
    """The inputs of a baseline that diffuses, and its noise."""

    levels: int  # of noise
    clip: float  # how far from 0 actions can be


@dataclass(frozen=True, kw_only=True)
class DiffusionPolicyConfig(DiffusionConfig):
    """The shape of a Diffusion Policy.

    Raises:
        ValueError: a horizon that does not halve at every resolution, or no cameras.
    """

    resnet: ResNetConfig
    channels: tuple[int, ...] = (512, 1024, 2048)  # of the U-Net at each resolution, half of the one before
    kernel: int = 5
    groups: int = 8  # of the norms
    level_width: int = 128  # of the noise level's features
    feature_width: int = 64  # of what is kept of a picture
    text_width: int = 64  # of what is kept of the prompt
    levels: int = 100
    clip: float = 1.0

    def __post_init__(self) -> None:
        parts = 2 ** (len(self.channels) - 1)
        if self.action_horizon % parts:
            raise ValueError(
                f"a U-Net of {len(self.channels)} resolutions takes chunks of a multiple of {parts} actions, got "
                f"action_horizon {self.action_horizon}"
            )
        if self.observation_steps not in (1, 2):
            raise ValueError(f"observation_steps is 1 or 2, got {self.observation_steps}")
        if not self.vision_towers:
            raise ValueError("Diffusion Policy has an encoder for each camera: name them in vision_towers")

    @property
    def observation_width(self) -> int:
        """The width of the observation's vector."""
        moment = len(self.vision_towers) * self.feature_width + self.action_dim
        return self.observation_steps * moment + self.reads_text * self.text_width


DIFFUSION_POLICY_SIZES: dict[str, DiffusionPolicyConfig] = {
    "debug": DiffusionPolicyConfig(
        resnet=ResNetConfig(widths=(16, 32), blocks=1, pool=False), vision_towers=("room", "wrist"),
        channels=(16, 32), kernel=3, level_width=16, feature_width=16, text_width=16,
        action_dim=8, action_horizon=6, picture_size=16, vocab_size=2080, max_tokens=80,
    ),
    "nano": DiffusionPolicyConfig(
        resnet=ResNetConfig(widths=(32, 48, 96), pool=False), vision_towers=("room", "wrist"),
        channels=(64, 128, 256), level_width=64,
        action_dim=8, action_horizon=16, picture_size=64, wrist_picture_size=32, vocab_size=2080, max_tokens=80,
    ),
    "paper": DiffusionPolicyConfig(
        resnet=ResNetConfig(), vision_towers=("base_0_rgb",), observation_steps=2,
        action_dim=2, action_horizon=16, picture_size=96, reads_text=False,
    ),
}  # fmt: skip


def diffusion_policy(size: Size = "paper", **changes: object) -> DiffusionPolicyConfig:
    """Return a Diffusion Policy by size; `paper` is that of PushT. `vision_towers` are the robot's cameras."""
    return replace(DIFFUSION_POLICY_SIZES[size], **changes)


@dataclass(frozen=True, kw_only=True)
class OctoConfig(DiffusionConfig):
    """The shape of the transformer and its head; the defaults are Octo-Base."""

    width: int = 768
    depth: int = 12
    mlp_dim: int = 3072
    num_heads: int = 12
    word_width: int = 768
    stem: tuple[int, ...] = (32, 96, 192, 384)  # channels of convolutions that each halve the picture
    stem_width: int = 512  # of a patch behind them
    head_width: int = 256
    head_blocks: int = 3
    wrist_towers: tuple[str, ...] = ()  # those of `vision_towers` whose pictures have the size of wrist cameras
    level_width: int = 32  # of the noise level's features
    levels: int = 20
    clip: float = 5.0
    state_input: Literal["token", "none"] = "none"
    norm: Literal["quantile", "zscore"] = "zscore"

    @property
    def block(self) -> SiglipConfig:
        """The shape of a layer."""
        return SiglipConfig(width=self.width, mlp_dim=self.mlp_dim, num_heads=self.num_heads)

    def patches(self, camera: str) -> int:
        """Return the number of patches of a camera's picture."""
        return (self.image_size(wrist=camera in self.wrist_towers) // 2 ** len(self.stem)) ** 2


OCTO_SIZES: dict[str, OctoConfig] = {
    "debug": OctoConfig(
        width=32, depth=2, mlp_dim=64, num_heads=2, word_width=16, stem=(32, 32), stem_width=16, head_width=32,
        head_blocks=1, level_width=8, vision_towers=("room", "wrist"), wrist_towers=("wrist",), state_input="token",
        action_dim=8, action_horizon=6, picture_size=16, vocab_size=2080, max_tokens=80,
    ),
    "nano": OctoConfig(
        width=128, depth=4, mlp_dim=384, num_heads=4, word_width=64, stem=(32, 64, 96), stem_width=128, head_width=128,
        vision_towers=("room", "wrist"), wrist_towers=("wrist",), state_input="token",
        action_dim=8, action_horizon=10, picture_size=64, wrist_picture_size=32, vocab_size=2080, max_tokens=80,
    ),
    "paper": OctoConfig(
        vision_towers=("base_0_rgb", "left_wrist_0_rgb"), wrist_towers=("left_wrist_0_rgb",),
        vocab_size=32_128, max_tokens=64, action_dim=7, action_horizon=4, picture_size=256, wrist_picture_size=128,
    ),
}  # fmt: skip


def octo(size: Size = "paper", **changes: object) -> OctoConfig:
    """Return Octo's form by size; `paper` is Octo-Base. `vision_towers` are the robot's cameras."""
    return replace(OCTO_SIZES[size], **changes)
