"""Floating-point operations of training: what samples/s mean as a share of a GPU's peak (MFU).

Counted are matrix products and attention scores, 2 per multiply and add, of every token of a row, padding too, and of
every pair of tokens that attention works out. Recomputing activations is not the model's work and does not count.

Torch's own counter counts the same (the tests run it beside these formulas), but has to run the model, which takes
seconds for `2b` even without data. These formulas are cheap enough for every batch.
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from pilot.data.layout import Batch
from pilot.models.pi import Pi, PiConfig
from pilot.models.registry import require_pi
from pilot.nn.configs import GemmaConfig
from pilot.nn.lora import adapted_layers
from pilot.train.config import TrainConfig
from pilot.train.freezing import GROUPS
from pilot.train.robots import robots_of

COUNTED_WITH = dict.fromkeys(GROUPS["expert"], "action_expert") | {"text_out": "text_encoder"}
"""Parts of the model that count as another."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The contents of one row, on average over a batch."""

    pictures: tuple[int, ...]  # the side of each in pixels
    text: float  # tokens of prompt, subtask and FAST together, with padding
    spoken: float  # those of them that carry a cross-entropy
    draws: float  # flow blocks


class Losses(NamedTuple):
    """The losses of a run, and whether they reach the backbone and the vision tower."""

    text: bool
    flow: bool
    backbone: bool
    vision: bool  # alone, naming what it sees, where there is no other loss

    @classmethod
    def of(cls, config: TrainConfig) -> "Losses":
        """Return what the objective asks for and the model has."""
        model, losses = require_pi(config.model), config.objective.losses
        text, flow = model.generates_text and "text" in losses, model.has_flow and "flow" in losses
        backbone = text or (flow and not model.insulate)
        return cls(text, flow, backbone, vision=backbone or not flow)


def full_row(config: TrainConfig, *, text: int | None = None, spoken: int | None = None) -> Workload:
    """Return a full row of the run: all cameras of the robot that sees most, `text` tokens, `spoken` with a loss.

    By default the text is `max_tokens` and 44 % of it are spoken, which is 140 of 320: 200 tokens of prompt and
    subtask, of which 20 are said, and 120 of FAST.
    """
    model, losses, robots = require_pi(config.model), Losses.of(config), robots_of(config).values()
    cameras = [[camera in robot.wrist_cameras for camera in robot.shown_cameras] for robot in robots]
    pictures = [tuple(model.image_size(wrist=wrist) for wrist in seen) for seen in cameras]
    text = model.max_tokens if text is None else text
    spoken = round(0.44 * text) if spoken is None else spoken
    if spoken > text:
        raise ValueError(f"of {text} text tokens {spoken} cannot be said; say fewer, or give the row more")
    return Workload(
        pictures=max(pictures, key=lambda sides: sum(side**2 for side in sides)),
        text=text,
        spoken=losses.text * spoken,
        draws=losses.flow * config.objective.flow_draws,
    )


def mean_row(config: TrainConfig, batch: list[Batch]) -> Workload:
    """Return what the rows of a batch hold on average."""
    losses, rows = Losses.of(config), sum(len(part.actions) for part in batch)
    seen = [part.observation for part in batch]
    sides = [each.images[name].shape[1] for each in seen for name in each.images for _ in each.rows_with(name)]
    side = round((sum(side**2 for side in sides) / max(1, len(sides))) ** 0.5)
    flow_rows = sum(len(part.rows_with_actions()) for part in batch)
    return Workload(
        pictures=(side,) * round(len(sides) / rows),
        text=sum(each.tokens.numel() for each in seen) / rows,
        spoken=losses.text * sum(int(each.token_loss.sum()) for each in seen) / rows,
        draws=losses.flow * config.objective.flow_draws * flow_rows / rows,
    )


class Tokens(NamedTuple):
    """The tokens of a row by what they pass through."""

    patches: float  # the vision tower
    prefix: float  # the backbone
    last: float  # what stands behind the attention of its last layer
    chunk: float  # the expert, in one flow block: with the state where it is a token


def count_tokens(model: PiConfig, work: Workload) -> Tokens:
    """Count the tokens of a row."""
    patches = sum((side // model.vision.patch_size) ** 2 for side in work.pictures)
    prefix = patches + work.text
    # The last layer goes on with all that the expert reads, or with text that is generated, or stops at its cache.
    last = prefix if model.expert_reads == "output" else work.text if work.spoken else 0
    return Tokens(patches, prefix, last, model.action_horizon + model.has_state_token)


def forward(model: Pi, work: Workload) -> dict[str, tuple[float, float]]:
    """Count the operations of the forward pass of one row: products with weights, and attention, by part of the model.

    A linear layer takes 2 for each of its weights and each token that passes through it, whatever it is for.
    """
    config, vision = model.config, model.config.vision
    patches, prefix, last, chunk = count_tokens(config, work)
    once = "|time_mlp" if config.time_conditioning == "adarms" else ""
    # Tokens by names of layers, of which the first that matches counts. Convolutions halve the side of a picture.
    tokens = {rf".*convolutions\.{i}": sum((side >> i) ** 2 for side in work.pictures) for i in range(len(vision.stem))}
    tokens |= {
        "vision": patches,
        "text_encoder|text_out": work.text,
        rf"vlm\.blocks\.{config.vlm.depth - 1}\.(out|gate_up|down)": last,
        r"vlm|.*memory_kv": prefix,
        rf".*modulation|state_in{once}": work.draws,
        "": chunk * work.draws,
    }
    products: dict[str, float] = defaultdict(float)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            part = name.partition(".")[0]
            passing = next(count for pattern, count in tokens.items() if re.match(pattern, name))
            products[COUNTED_WITH.get(part, part)] += layer.weight.numel() * passing
    products["vision"] /= len(config.vision_towers) or 1  # each tower sees the pictures of its own camera alone
    products["head"] = work.spoken * config.vocab_size * config.vlm.width  # the embedding table, once more

    def attention(stack: GemmaConfig | None, *, queries: float, keys: float, last: float) -> float:
        """Count a stack in which `queries` tokens see `keys`; in the last block only `last` of them do."""
        return ((stack.depth - 1) * queries + last) * 4 * keys * stack.num_heads * stack.head_dim if stack else 0.0

    scores = {
        "vision": vision.depth * 4 * vision.width * sum((side // vision.patch_size) ** 4 for side in work.pictures),
        "vlm": attention(config.vlm, queries=prefix, keys=prefix, last=last),
        "text_encoder": attention(config.text_encoder, queries=work.text, keys=work.text, last=work.text),
        "action_expert": work.draws * attention(config.action_expert, queries=chunk, keys=prefix + chunk, last=chunk),
    }
    return {part: (2 * count, scores.get(part, 0.0)) for part, count in products.items() if count}


def per_row(model: Pi, config: TrainConfig, work: Workload) -> dict[str, float]:
    """Return the operations of a row, forward and backward, by part of a model after `choose_learning`.

    A product costs its forward pass once. Backward costs the same again if it passes gradients on, and once more if its
    weights learn. Attention has no weights and two things come into each of its products: backward costs it twice.
    """
    losses, inputs = Losses.of(config), ("vision", "embedding", "text_encoder")
    learning = {name: part for name, part in model.named_children() if any(p.requires_grad for p in part.parameters())}
    whole = {name for name, part in learning.items() if not adapted_layers(part)}  # adapters leave their matrix frozen

    def factor(part: str, *before: str, reached: bool = losses.backbone) -> int:
        return 1 + reached * ((part in whole) + any(name in learning for name in (part, *before)))

    factors = {"vision": factor("vision", reached=losses.vision)}
    if losses.text or losses.flow:
        factors["text_encoder"] = factor("text_encoder", "embedding")
        factors["vlm"] = factor("vlm", *inputs)
        factors["head"] = factor("embedding", "vlm", *inputs)
        factors["action_expert"] = factor("action_expert", "action_in", "time_mlp_in", reached=losses.flow)
    return {
        part: factors[part] * products + (3 if factors[part] > 1 else 1) * scores
        for part, (products, scores) in forward(model, work).items()
        if part in factors
    }


def mean_flops(model: nn.Module, config: TrainConfig, batch: list[Batch]) -> float:
    """Return the operations of a row of this batch on average; 0 for models that are not of the π0 family."""
    return sum(per_row(model, config, mean_row(config, batch)).values()) if isinstance(model, Pi) else 0.0
