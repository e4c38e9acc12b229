"""Every choice that tells the members of the π0 family apart, and the published shapes.

`2b` is PaliGemma with the action expert of π0 and π0.5. `470m` is π0-small. `debug` is for tests, and `nano` trains in
hours on a laptop. The constructors `pi0`, `pi05`, `pi0_fast` and `pi0_small` make the config of a member by size; any
field can be changed by keyword. Sources: π0 (arXiv 2410.24164), FAST (2501.09747), π0.5 (2504.16054), knowledge
insulation (2505.23705).
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

from pilot.nn.configs import GemmaConfig, SiglipConfig
from pilot.tokenizers.text import LOC_BINS
from pilot.types import Kind


@dataclass(frozen=True, kw_only=True)
class PiConfig:
    """The shape of a model, how it is trained to see its inputs, and the tokens that it writes.

    Raises:
        ValueError: choices that do not fit each other.
    """

    # The three stacks.
    vision: SiglipConfig
    vlm: GemmaConfig  # the language backbone
    action_expert: GemmaConfig | None  # None is π0-FAST: actions are tokens of the backbone

    # States and actions.
    action_dim: int = 32  # states and actions of robots with fewer dims are padded with zeros
    action_horizon: int = 50  # actions in a chunk
    action_stride: int = 1  # control steps from one of them to the next; commands in between lie on straight lines
    replan_seconds: float | None = None  # the low level looks again after so long (None: a fifth of a second)
    norm: Literal["quantile", "zscore"] = "quantile"  # how they are normalised: π0.5 and FAST, or π0
    state_input: Literal["text", "token", "both", "none"] = "text"  # in the prompt (π0.5), a token of the flow (π0)

    # The flow.
    time_conditioning: Literal["adarms", "concat"] = "adarms"  # in the norms (π0.5), or beside each action (π0)
    insulate: bool = True  # no gradient of the flow loss reaches the backbone
    rtc_max_delay: int = 0  # the flow learns to continue from up to this many given actions (`infer/rtc.py`)
    integrate_padded_dims: bool = False  # take the model's velocity in padded dims, as openpi does (`models/flow.py`)
    expert_reads: Literal["layers", "output"] = "layers"  # each layer of the backbone, or its output (π0-small)

    # Pictures.
    wrist_image_size: int | None = None  # pictures of wrist cameras may be smaller than the others
    always_shown: tuple[str, ...] = ()  # cameras in every row, in this order, black where a robot has none (π0-FAST)
    vision_towers: tuple[str, ...] = ()  # cameras with a tower of their own (π0-small); none named: one tower for all

    # Text.
    prompt: Literal["subtask", "pi05", "pi0", "pi0_fast", "openvla"] = "subtask"  # format in `tokenizers/prompts.py`
    max_tokens: int = 200  # text tokens of a row
    text_encoder: GemmaConfig | None = None  # reads the prompt before the backbone does (π0-small): no text comes out
    vocab_size: int = 257_152
    fast_vocab_size: int = 2048  # action tokens
    fast_offset: int = 128  # action token `i` is token `vocab_size − 1 − fast_offset − i`
    loc_start: int = 256_000  # the id of `<loc0000>`
    point_layer: int | None = None  # a layer whose first head learns to look at a named box (`models/pointing.py`)

    def __post_init__(self) -> None:
        expert = self.action_expert
        if self.replan_seconds is not None and not 0 < self.replan_seconds < float("inf"):
            raise ValueError(f"replan_seconds is above 0, got {self.replan_seconds}")
        if not 0 <= self.rtc_max_delay < self.action_horizon:
            raise ValueError(
                f"rtc_max_delay is below the action_horizon of {self.action_horizon}, got {self.rtc_max_delay}"
            )
        if self.action_stride < 1 or (self.action_stride > 1 and self.rtc_max_delay):
            raise ValueError(
                f"action_stride is 1 or more, and 1 with rtc_max_delay, whose delays are of single steps; got "
                f"{self.action_stride}"
            )
        if self.text_encoder is not None and self.text_encoder.head_dim != self.vlm.head_dim:
            raise ValueError("text encoder and backbone take the same rotary angles, but differ in head_dim")
        if expert is None:
            return
        shared = ("depth", "num_kv_heads", "head_dim") if self.expert_reads == "layers" else ("head_dim",)
        if different := [n for n in shared if getattr(expert, n) != getattr(self.vlm, n)]:
            raise ValueError(f"backbone and action expert share their cache, but differ in {', '.join(different)}")
        if self.expert_reads == "output" and (self.insulate or self.time_conditioning != "adarms"):
            raise ValueError("an expert that reads the backbone's output teaches it: insulate=False, with 'adarms'")
        if (expert.cond_width > 0) != (self.time_conditioning == "adarms"):
            raise ValueError("time_conditioning 'adarms' needs an expert with cond_width > 0, and 'concat' one without")

    def image_size(self, *, wrist: bool) -> int:
        """Return the side in pixels to which pictures of a camera are scaled."""
        return self.wrist_image_size if wrist and self.wrist_image_size else self.vision.image_size

    @property
    def chunk_steps(self) -> int:
        """The control steps of a chunk."""
        return self.action_horizon * self.action_stride

    @property
    def has_state_token(self) -> bool:
        """Whether the flow block begins with a token of the state."""
        return self.state_input in ("token", "both")

    @property
    def generates_text(self) -> bool:
        """Whether the model writes text. A model with a `text_encoder` reads words that the backbone never sees."""
        return self.text_encoder is None

    def loc_token_range(self, kind: Kind) -> tuple[int, int] | None:
        """Return the first `<loc>` token and the one after the last; None where a token of this kind is never one.

        They are written in text only. Published FAST ids lie over them.
        """
        start, stop = self.loc_start, self.loc_start + LOC_BINS
        return (start, stop) if kind == Kind.TEXT and stop <= self.vocab_size else None

    @property
    def has_flow(self) -> bool:
        """Whether actions come from the flow of an action expert; if not, they are FAST tokens."""
        return self.action_expert is not None


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
"""Vision tower, backbone, action expert, and the other fields that differ."""

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
"""Vision tower of one camera, text encoder, observation encoder, action expert, and the other fields that differ.

The paper gives the parts (R26-S/32, which is a ViT-S behind a ResNet of 26 layers; DistilBERT; a transformer; DiT) and
the total. Here the ViT-S stands behind six convolutions that make the same patches, the text encoder has DistilBERT's
depth, width, vocabulary and number of parameters, and the other two share what is left. All of it starts from scratch,
where the paper's image and text encoders were pre-trained.
"""


def pi05(size: Size = "2b", **changes: object) -> PiConfig:
    """Return π0.5: state as text, adaptive norms for the flow time, subtask and FAST tokens beside the flow."""
    vision, vlm, expert, extra = SIZES[size]
    expert = replace(expert, cond_width=expert.width)
    return replace(PiConfig(vision=vision, vlm=vlm, action_expert=expert, **extra), **changes)


def pi0(size: Size = "2b", **changes: object) -> PiConfig:
    """Return π0: a state token and the time beside each noisy action, no insulation."""
    vision, vlm, expert, extra = SIZES[size]
    base = PiConfig(
        vision=vision, vlm=vlm, action_expert=expert,
        state_input="token", time_conditioning="concat", insulate=False, norm="zscore", **extra,
    )  # fmt: skip
    return replace(base, **({"max_tokens": 48} if size == "2b" else {}), **changes)


def pi0_fast(size: Size = "2b", **changes: object) -> PiConfig:
    """Return π0-FAST: the backbone alone, actions as tokens."""
    vision, vlm, _, extra = SIZES[size]
    return replace(PiConfig(vision=vision, vlm=vlm, action_expert=None, insulate=False, **extra), **changes)


def pi0_small(size: SmallSize = "470m", **changes: object) -> PiConfig:
    """Return π0-small, the paper's baseline without a VLM (appendix C): its own encoder, and an expert that reads it.

    `vision_towers` are the robot's cameras. It writes no text and has a flow loss only.
    """
    vision, text, vlm, expert, extra = SMALL_SIZES[size]
    expert = replace(expert, cond_width=expert.width)
    base = PiConfig(
        vision=vision, vlm=vlm, action_expert=expert, text_encoder=text, expert_reads="output",
        state_input="token", insulate=False, **extra,
    )  # fmt: skip
    return replace(base, **changes)
