"""Floating-point operations of training: what samples/s mean as a share of a GPU's peak (MFU).

Counted are matrix products and attention scores, 2 per multiply and add, as they stand in the model: every token of a
row, padding too, and every pair of tokens that attention works out. Recomputing activations is not the model's work
and does not count.

A product costs its forward pass once. Backward costs the same again for the gradient of what came in, if anything
before it learns, and once more for the gradient of its weights, if it learns itself.

Torch's own counter has to run the model, and cannot on the meta device, where no index can depend on data. So the tests
run it beside these formulas, which are cheap enough for every batch.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from torch import nn

from pilot.data.layout import Batch
from pilot.models.pi import PiConfig
from pilot.models.registry import require_pi
from pilot.nn.gemma import GemmaConfig
from pilot.nn.lora import adapted_layers
from pilot.nn.siglip import SiglipConfig
from pilot.robots import load_robot
from pilot.train.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The contents of one row, on average over a batch.

    `pictures`: the side of each in pixels. `text` tokens are prompt, subtask and FAST together, with padding; `spoken`
    are those that carry a cross-entropy. `draws` are flow blocks.
    """

    pictures: tuple[int, ...]
    text: float
    spoken: float
    draws: float


def full_row(config: TrainConfig, *, text: int | None = None, spoken: int | None = None) -> Workload:
    """Return a full row of the run's robot: all cameras, `text` tokens (default: `max_tokens`), `spoken` with a loss.

    `spoken` defaults to 44 % of the text, which is 140 of 320: 200 tokens of prompt and subtask, of which 20 are said,
    and 120 of FAST.
    """
    robot, model = load_robot(config.robot), config.model
    shown = [camera for camera in robot.cameras if robot.slot(camera) is not None]
    text = model.max_tokens if text is None else text
    loss = Losses.of(config)
    if spoken is not None and spoken > text:
        raise ValueError(f"of {text} text tokens {spoken} cannot be said; say fewer, or give the row more")
    return Workload(
        pictures=tuple(model.image_size(wrist=camera in robot.wrist_cameras) for camera in shown),
        text=text,
        spoken=(round(0.44 * text) if spoken is None else spoken) if loss.text else 0,
        draws=config.objective.flow_draws if loss.flow else 0,
    )


def mean_row(config: TrainConfig, batch: list[Batch]) -> Workload:
    """Return what the rows of a batch hold on average."""
    rows = sum(len(part.actions) for part in batch)
    pictures = [
        images.shape[1]
        for part in batch
        for camera, images in part.observation.images.items()
        for _ in part.observation.rows_with(camera)
    ]
    losses = Losses.of(config)
    side = round((sum(p * p for p in pictures) / max(1, len(pictures))) ** 0.5)
    flow_rows = sum(len(part.rows_with_actions()) for part in batch)
    return Workload(
        pictures=(side,) * round(len(pictures) / rows),
        text=sum(part.observation.tokens.numel() for part in batch) / rows,
        spoken=sum(int(part.observation.token_loss.sum()) for part in batch) / rows if losses.text else 0,
        draws=config.objective.flow_draws * flow_rows / rows if losses.flow else 0,
    )


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The losses of a run, and whether they reach the backbone."""

    text: bool
    flow: bool
    backbone: bool

    @classmethod
    def of(cls, config: TrainConfig) -> "Losses":
        text = config.model.generates_text and (config.objective.text_weight > 0 or config.objective.fast_weight > 0)
        model = require_pi(config.model)
        flow = config.objective.alpha > 0 and model.action_expert is not None
        return cls(text=text, flow=flow, backbone=text or (flow and not model.insulate))


def prefix_tokens(model: PiConfig, work: Workload) -> float:
    """Count the tokens of a row that the backbone reads: patches of pictures, and text."""
    return sum((side // model.vision.patch_size) ** 2 for side in work.pictures) + work.text


def last_tokens(model: PiConfig, work: Workload) -> float:
    """Count those that go on behind the attention of the backbone's last layer.

    All of them where the expert reads what the backbone puts out; else the text if it is generated, and none if the
    cache is all that counts.
    """
    if model.expert_reads == "output":
        return prefix_tokens(model, work)
    return work.text if work.spoken else 0


def action_tokens(model: PiConfig) -> int:
    """Count the tokens of one flow block: the chunk, and the state where it is a token."""
    return model.action_horizon + (model.state_input == "token")


class FlopCount(NamedTuple):
    """Operations of a forward pass: products with weights, and of attention, which has none."""

    products: float = 0.0
    scores: float = 0.0

    @property
    def total(self) -> float:
        return self.products + self.scores


def forward(model: PiConfig, work: Workload) -> dict[str, FlopCount]:
    """Count the operations of the forward pass of one row, by part of the model."""
    prefix, width = prefix_tokens(model, work), model.vlm.width
    pictures = [vision(model.vision, side, out_width=width) for side in work.pictures]
    parts = {
        "vision": FlopCount(*map(sum, zip(*pictures, strict=True))),
        "vlm": stack(model.vlm, queries=prefix, keys=prefix, last=last_tokens(model, work)),
        "head": FlopCount(2 * work.spoken * width * model.vocab_size),
    }
    if (text := model.text_encoder) is not None:
        products, scores = stack(text, queries=work.text, keys=work.text, last=work.text)
        parts["text_encoder"] = FlopCount(products + 2 * work.text * text.width * width, scores)
    if work.draws:
        parts["action_expert"] = expert(model, work)
    return parts


def vision(config: SiglipConfig, side: int, *, out_width: int) -> FlopCount:
    """Count the vision tower on one picture: stem or patches, blocks, and the layer to the backbone's width."""
    tokens, width = (side // config.patch_size) ** 2, config.width
    channels = (3, *config.stem)
    stem = sum(2 * (side >> i) ** 2 * 9 * before * after for i, (before, after) in enumerate(pairwise(channels)))
    ends = 2 * tokens * width * ((channels[-1] if config.stem else 3 * config.patch_size**2) + out_width)
    block = 2 * tokens * (4 * width**2 + 2 * width * config.mlp_dim)
    return FlopCount(stem + ends + config.depth * block, config.depth * 4 * tokens**2 * width)


def stack(config: GemmaConfig, *, queries: float, keys: float, last: float) -> FlopCount:
    """Count a stack of blocks in which `queries` tokens see `keys`; in the last block only `last` of them go on."""
    width, heads = config.width, config.num_heads * config.head_dim
    qkv = 2 * width * (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    rest = 2 * width * (heads + 3 * config.mlp_dim)
    remaining = (config.depth - 1) * queries + last
    return FlopCount(config.depth * queries * qkv + remaining * rest, remaining * 4 * keys * heads)


def expert(model: PiConfig, work: Workload) -> FlopCount:
    """Count the flow blocks of a row: as many as it has noise draws."""
    config, prefix, tokens = model.action_expert, prefix_tokens(model, work), action_tokens(model)
    assert config is not None
    cross, width, depth = model.expert_reads == "output", config.width, config.depth
    products, scores = stack(config, queries=tokens, keys=tokens if cross else prefix + tokens, last=tokens)
    memory = 0.0
    if cross:  # each layer makes keys and values of what the encoder puts out, once for all draws
        heads, kv_heads = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        memory = depth * prefix * 4 * model.vlm.width * kv_heads
        products += depth * tokens * 4 * width * heads
        scores += depth * tokens * 4 * prefix * heads
    norms = (3 if cross else 2) * depth + 1
    products += norms * 6 * config.cond_width * width + 4 * tokens * model.action_dim * width
    products += 4 * width**2 if model.time_conditioning == "adarms" else 6 * tokens * width**2
    return FlopCount(memory + products * work.draws, scores * work.draws)


def flop_factors(config: TrainConfig, model: nn.Module) -> dict[str, int]:
    """Return how many times its forward pass each part costs in a step.

    0 stands for a part that is not run, 1 for one that is, 2 for one that passes gradients on, 3 for one that learns.
    `model` is one after `choose_learning`; the meta device is enough.
    """
    losses, learning = Losses.of(config), trainable_parts(model)
    if not losses.text and not losses.flow:  # the vision tower alone, naming what it sees
        head = 2 + (learning.get("embedding") == "whole")
        return {"vision": 3 if "vision" in learning else 1, "head": head, "vlm": 0, "text_encoder": 0}

    def factor(part: str, *, reached: bool, before: tuple[str, ...] = ()) -> int:
        weights = reached and learning.get(part) == "whole"
        return 1 + weights + (reached and bool({part, *before} & learning.keys()))

    reached, before = losses.backbone, ("vision", "embedding", "text_encoder")
    head = 1 + (learning.get("embedding") == "whole") + bool({"vlm", *before} & learning.keys())
    return {
        "vision": factor("vision", reached=reached),
        "text_encoder": factor("text_encoder", reached=reached, before=("embedding",)),
        "vlm": factor("vlm", reached=reached, before=before),
        "head": head if losses.text else 0,
        "action_expert": factor("action_expert", reached=losses.flow, before=("action_in", "time_mlp_in")),
    }


def trainable_parts(model: nn.Module) -> dict[str, str]:
    """Return the parts that learn: "whole", or through "adapters" beside frozen matrices."""
    parts = {name: part for name, part in model.named_children() if any(w.requires_grad for w in part.parameters())}
    return {name: "adapters" if adapted_layers(part) else "whole" for name, part in parts.items()}


class Meter:
    """Count the operations per row of a run's batches; 0 for models that are not of the π0 family."""

    def __init__(self, config: TrainConfig, model: nn.Module) -> None:
        self.config = config
        self.flop_factors = flop_factors(config, model) if isinstance(config.model, PiConfig) else {}

    def of(self, batch: list[Batch]) -> float:
        if not self.flop_factors:
            return 0.0
        return sum(per_row(require_pi(self.config.model), mean_row(self.config, batch), self.flop_factors).values())


def per_row(model: PiConfig, work: Workload, flop_factors: dict[str, int]) -> dict[str, float]:
    """Return the operations of a row, forward and backward, by part.

    Attention has no weights and two things come into each of its products: passing gradients on costs it twice.
    """
    return {
        part: flop_factors[part] * ops.products + (3 if flop_factors[part] > 1 else 1) * ops.scores
        for part, ops in forward(model, work).items()
        if flop_factors[part]
    }
