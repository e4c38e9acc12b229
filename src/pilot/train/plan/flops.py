"""Floating-point operations of training: what samples/s mean as a share of a GPU's peak (MFU).

Counted are matrix products and attention scores, 2 per multiply and add, as they stand in the model: every token of a
row, padding too, and every pair of tokens that attention works out. Recomputing activations is not the model's work
and does not count.

A product costs its forward pass once. Backward costs the same again for the gradient of what came in, if anything
before it learns, and once more for the gradient of its weights, if it learns itself.
"""

from dataclasses import dataclass

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


@dataclass(frozen=True)
class FlopCount:
    """Operations of a forward pass: products with weights, and of attention, which has none."""

    products: float = 0.0
    scores: float = 0.0

    def __add__(self, other: "FlopCount") -> "FlopCount":
        return FlopCount(self.products + other.products, self.scores + other.scores)

    def __mul__(self, times: float) -> "FlopCount":
        return FlopCount(times * self.products, times * self.scores)

    @property
    def total(self) -> float:
        return self.products + self.scores


def forward(model: PiConfig, work: Workload) -> dict[str, FlopCount]:
    """Count the operations of the forward pass of one row, by part of the model."""
    patches = sum((side // model.vision.patch_size) ** 2 for side in work.pictures)
    seen, width = patches + work.text, model.vlm.width
    pictures = [vision(model.vision, side, out_width=width) for side in work.pictures]
    parts = {
        "vision": sum(pictures, FlopCount()),
        "vlm": stack(model.vlm, queries=seen, keys=seen, last=_last(model, work)),
        "head": FlopCount(2 * work.spoken * width * model.vocab_size),
    }
    if (text := model.text_encoder) is not None:
        encoded = stack(text, queries=work.text, keys=work.text, last=work.text)
        parts["text_encoder"] = encoded + FlopCount(2 * work.text * text.width * width)
    if work.draws:
        parts["action_expert"] = expert(model, work, seen=seen)
    return parts


def _last(model: PiConfig, work: Workload) -> float | None:
    """Return the queries of the backbone's last layer: the text if it has a loss, else 0, as only its cache counts.

    None stands for all of them, where the expert reads what the backbone puts out.
    """
    if model.expert_reads == "output":
        return None
    return work.text if work.spoken else 0


def vision(config: SiglipConfig, side: int, *, out_width: int) -> FlopCount:
    """Count the vision tower on one picture: stem or patches, blocks, and the layer to the backbone's width."""
    tokens, width = (side // config.patch_size) ** 2, config.width
    stem, channels = 0.0, 3
    for i, out in enumerate(config.stem):
        stem += 2 * (side >> i) ** 2 * 9 * channels * out
        channels = out
    ends = 2 * tokens * width * ((channels if config.stem else 3 * config.patch_size**2) + out_width)
    block = FlopCount(2 * tokens * (4 * width**2 + 2 * width * config.mlp_dim), 4 * tokens**2 * width)
    return FlopCount(stem + ends) + block * config.depth


def stack(config: GemmaConfig, *, queries: float, keys: float, last: float | None = None) -> FlopCount:
    """Count a stack of blocks in which `queries` tokens see `keys`; in the last block only `last` of them go on."""
    width, heads = config.width, config.num_heads * config.head_dim
    qkv = FlopCount(2 * width * (config.num_heads + 2 * config.num_kv_heads) * config.head_dim)
    rest = FlopCount(2 * width * (heads + 3 * config.mlp_dim), 4 * keys * heads)
    remaining = (config.depth - 1) * queries + (queries if last is None else last)
    return qkv * (config.depth * queries) + rest * remaining


def expert(model: PiConfig, work: Workload, *, seen: float) -> FlopCount:
    """Count the flow blocks of a row: as many as it has noise draws."""
    config = model.action_expert
    assert config is not None
    tokens, cross = model.action_horizon + (model.state_input == "token"), model.expert_reads == "output"
    blocks, memory = stack(config, queries=tokens, keys=tokens if cross else seen + tokens), FlopCount()
    if cross:  # each layer makes keys and values of what the encoder puts out, once for all draws
        heads, kv_heads = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        memory = FlopCount(config.depth * seen * 2 * model.vlm.width * 2 * kv_heads)
        blocks += FlopCount(4 * config.width * heads, 4 * seen * heads) * (config.depth * tokens)
    norms = (3 if cross else 2) * config.depth + 1
    modulation = 2 * config.cond_width * 3 * config.width * norms
    time = 2 * 2 * config.width**2 if model.time_conditioning == "adarms" else 2 * tokens * 3 * config.width**2
    ends = 2 * tokens * 2 * model.action_dim * config.width + time
    return memory + (blocks + FlopCount(modulation + ends)) * work.draws


FlopFactors = dict[str, int]
"""How many times its forward pass each part costs: 0 not run, 1 run, 2 gradients passed on, 3 learns.

Attention has no weights and two things come into each of its products: passing gradients on costs it twice.
"""


def flop_factors(config: TrainConfig, model: nn.Module) -> FlopFactors:
    """Return the factor of each part of `model` (after `choose_learning`; the meta device is enough) in a step."""
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


def per_row(model: PiConfig, work: Workload, flop_factors: FlopFactors) -> dict[str, float]:
    """Return the operations of a row, forward and backward, by part."""
    return {
        part: flop_factors[part] * ops.products + (3 if flop_factors[part] > 1 else 1) * ops.scores
        for part, ops in forward(model, work).items()
        if flop_factors[part]
    }
