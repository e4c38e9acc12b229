"""Floating-point operations of training: what samples/s mean as a share of a GPU's peak (MFU).

Counted are matrix products and attention scores, 2 per multiply and add, as they stand in the model: every token of a
row, padding too, and every pair of tokens that attention works out. Recomputing activations is not the model's work
and does not count.

A product costs its forward pass once. Backward costs the same again for the gradient of what came in, if anything
before it learns, and once more for the gradient of its weights, if it learns itself.

Torch's own counter has to run the model, and cannot on the meta device, where no index can depend on data. So the tests
run it beside these formulas, which are cheap enough for every batch.
"""

from collections import defaultdict
from dataclasses import dataclass

from torch import nn

from pilot.data.layout import Batch
from pilot.models.pi import Pi, PiConfig
from pilot.models.registry import require_pi
from pilot.nn.configs import GemmaConfig
from pilot.nn.lora import adapted_layers
from pilot.train.config import TrainConfig
from pilot.train.freezing import GROUPS
from pilot.train.robots import robots_of


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The contents of one row, on average over a batch."""

    pictures: tuple[int, ...]  # the side of each in pixels
    text: float  # tokens of prompt, subtask and FAST together, with padding
    spoken: float  # those of them that carry a cross-entropy
    draws: float  # flow blocks


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The losses of a run, and whether they reach the backbone."""

    text: bool
    flow: bool
    backbone: bool

    @classmethod
    def of(cls, config: TrainConfig) -> "Losses":
        """Return what the objective asks for and the model has."""
        model, losses = require_pi(config.model), config.objective.losses
        text, flow = model.generates_text and "text" in losses, model.has_flow and "flow" in losses
        return cls(text=text, flow=flow, backbone=text or (flow and not model.insulate))


def full_row(config: TrainConfig, *, text: int | None = None, spoken: int | None = None) -> Workload:
    """Return a full row of the run: all cameras of the robot that sees most, `text` tokens (default: `max_tokens`),
    `spoken` with a loss.

    `spoken` defaults to 44 % of the text, which is 140 of 320: 200 tokens of prompt and subtask, of which 20 are said,
    and 120 of FAST.
    """
    model, losses = config.model, Losses.of(config)
    pictures = [
        tuple(model.image_size(wrist=camera in robot.wrist_cameras) for camera in robot.shown_cameras)
        for robot in robots_of(config).values()
    ]
    text = model.max_tokens if text is None else text
    spoken = round(0.44 * text) if spoken is None else spoken
    if spoken > text:
        raise ValueError(f"of {text} text tokens {spoken} cannot be said; say fewer, or give the row more")
    return Workload(
        pictures=max(pictures, key=lambda sizes: sum(size**2 for size in sizes)),
        text=text,
        spoken=spoken if losses.text else 0,
        draws=config.objective.flow_draws if losses.flow else 0,
    )


def mean_row(config: TrainConfig, batch: list[Batch]) -> Workload:
    """Return what the rows of a batch hold on average."""
    losses, rows = Losses.of(config), sum(len(part.actions) for part in batch)
    shown = [(part.observation, camera) for part in batch for camera in part.observation.images]
    sides = [seen.images[camera].shape[1] for seen, camera in shown for _ in seen.rows_with(camera)]
    side = round((sum(p * p for p in sides) / max(1, len(sides))) ** 0.5)
    spoken = sum(int(part.observation.token_loss.sum()) for part in batch) / rows
    flow_rows = sum(len(part.rows_with_actions()) for part in batch)
    return Workload(
        pictures=(side,) * round(len(sides) / rows),
        text=sum(part.observation.tokens.numel() for part in batch) / rows,
        spoken=spoken if losses.text else 0,
        draws=config.objective.flow_draws * flow_rows / rows if losses.flow else 0,
    )


def count_tokens(model: PiConfig, work: Workload) -> dict[str, float]:
    """Count the tokens of a row by what they pass through.

    "prefix": what the backbone reads. "last": what goes on behind the attention of its last layer, which is all of it
    where the expert reads the backbone's output; else the text if it is generated, and nothing if the cache is all that
    counts. "chunk": one flow block, with the state where it is a token; "actions" are those of all draws.
    """
    patches = sum((side // model.vision.patch_size) ** 2 for side in work.pictures)
    chunk = model.action_horizon + (model.state_input == "token")
    tokens: dict[str, float] = {
        "patches": patches,
        "text": work.text,
        "prefix": patches + work.text,
        "last": patches + work.text if model.expert_reads == "output" else work.text if work.spoken else 0,
        "chunk": chunk,
        "actions": chunk * work.draws,
        "draws": work.draws,
    }
    stem = range(len(model.vision.stem))  # each convolution halves the side of the one before
    return tokens | {f"pixels {i}": sum((side >> i) ** 2 for side in work.pictures) for i in stem}


def tokens_through(layer: str, model: PiConfig) -> str:
    """Return which of `count_tokens` pass through the linear layer or convolution of this name."""
    match layer.split("."):
        case ["vision", *_, "convolutions", i]:
            return f"pixels {i}"
        case ["vision", *_]:
            return "patches"
        case ["text_encoder" | "text_out", *_]:
            return "text"
        case ["vlm", _, block, name]:
            return "last" if int(block) == model.vlm.depth - 1 and name != "qkv" else "prefix"
        case [*_, "memory_kv"]:
            return "prefix"
        case [*_, "modulation"] | ["state_in"]:
            return "draws"
        case ["time_mlp_in" | "time_mlp_out"] if model.time_conditioning == "adarms":
            return "draws"
    return "actions"


def forward(model: Pi, work: Workload) -> dict[str, tuple[float, float]]:
    """Count the operations of the forward pass of one row: products with weights, and attention, by part of the model.

    A linear layer takes 2 for each of its weights and each token that passes through it, whatever it is for.
    """
    config, tokens = model.config, count_tokens(model.config, work)
    products: dict[str, float] = defaultdict(float)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            part = name.partition(".")[0]
            part = "action_expert" if part in GROUPS["expert"] else "text_encoder" if part == "text_out" else part
            products[part] += layer.weight.numel() * tokens[tokens_through(name, config)]
    products["vision"] /= len(config.vision_towers) or 1  # each tower sees the pictures of its own camera alone

    products["head"] = work.spoken * config.vocab_size * config.vlm.width  # the embedding table, once more

    vision, prefix, text, chunk = config.vision, tokens["prefix"], tokens["text"], tokens["chunk"]
    scores = {
        "vision": vision.depth * 4 * vision.width * sum((side // vision.patch_size) ** 4 for side in work.pictures),
        "vlm": attention_flops(config.vlm, queries=prefix, keys=prefix, last=tokens["last"]),
        "text_encoder": attention_flops(config.text_encoder, queries=text, keys=text, last=text),
        "action_expert": work.draws
        * attention_flops(config.action_expert, queries=chunk, keys=prefix + chunk, last=chunk),
    }
    return {part: (2 * count, scores.get(part, 0.0)) for part, count in products.items() if count}


def attention_flops(config: GemmaConfig | None, *, queries: float, keys: float, last: float) -> float:
    """Count a stack's attention, in which `queries` tokens see `keys`; in the last block only `last` of them do."""
    return ((config.depth - 1) * queries + last) * 4 * keys * config.num_heads * config.head_dim if config else 0.0


def flop_factors(config: TrainConfig, model: nn.Module) -> dict[str, int]:
    """Return how many times its forward pass each part costs in a step.

    0 stands for a part that is not run, 1 for one that is, 2 for one that passes gradients on, 3 for one that learns.
    `model` is one after `choose_learning`; the meta device is enough.
    """
    losses = Losses.of(config)
    learning = {name: part for name, part in model.named_children() if any(w.requires_grad for w in part.parameters())}
    whole = {name for name, part in learning.items() if not adapted_layers(part)}  # adapters leave their matrix frozen
    inputs = ("vision", "embedding", "text_encoder")

    def factor(part: str, *before: str, reached: bool = losses.backbone) -> int:
        return 1 + reached * ((part in whole) + any(name in learning for name in (part, *before)))

    if not (losses.text or losses.flow):
        return {"vision": factor("vision", reached=True), "vlm": 0}  # the tower alone, naming what it sees
    return {
        "vision": factor("vision"),
        "text_encoder": factor("text_encoder", "embedding"),
        "vlm": factor("vlm", *inputs),
        "head": factor("embedding", "vlm", *inputs) if losses.text else 0,
        "action_expert": factor("action_expert", "action_in", "time_mlp_in", reached=losses.flow),
    }


def per_row(model: Pi, work: Workload, factors: dict[str, int]) -> dict[str, float]:
    """Return the operations of a row, forward and backward, by part.

    Attention has no weights and two things come into each of its products: passing gradients on costs it twice.
    """
    return {
        part: factors[part] * products + (3 if factors[part] > 1 else 1) * scores
        for part, (products, scores) in forward(model, work).items()
        if factors.get(part)
    }


class Meter:
    """Count the operations per row of a run's batches; 0 for models that are not of the π0 family."""

    def __init__(self, config: TrainConfig, model: nn.Module) -> None:
        self.config, self.model = config, model
        self.factors = flop_factors(config, model) if isinstance(model, Pi) else {}

    def of(self, batch: list[Batch]) -> float:
        """Return the operations that a row of this batch takes on average, forward and backward."""
        if not isinstance(self.model, Pi):
            return 0.0
        return sum(per_row(self.model, mean_row(self.config, batch), self.factors).values())
