"""Bytes of training on one GPU by what they are for, from the config alone.

Weights, gradients, optimizer and moving average are counted on a model on the meta device. What autograd saves in
a forward pass (`saved_activations`) is counted operation by operation, as the model is written: a linear layer saves
its input, a norm its input and what it scales (both in fp32), attention its queries, keys, values, output and one
number per query and head, a gated MLP both halves, the activated one and their product. `bench/memory.py` measures
a step on a CPU beside it.

In the formulas `c` is the bytes of a number in compute, and others are bytes per token: `x` of what goes from block to
block, `mlp` of one half of the MLP, `q` of all queries, `kv` of all keys and values.
"""

from copy import copy
from functools import cached_property

from torch import nn

from pilot.models.pi import Pi, PiConfig
from pilot.nn.configs import GemmaConfig, SiglipConfig
from pilot.nn.cross_entropy import AT_ONCE
from pilot.nn.lora import adapted_layers
from pilot.train.config import TrainConfig
from pilot.train.freezing import GROUPS
from pilot.train.plan.flops import Losses, Workload, count_tokens, flop_factors, per_row
from pilot.train.plan.gpus import GIB, GPUS_PER_NODE

FP32, BF16 = 4, 2
CONTEXT = 1.0 * GIB  # of the driver, of matrix and communication libraries
FRAGMENTS = 0.04  # share of what comes and goes that an allocator loses between blocks

KINDS = {
    "weights": "fp32",
    "gradients": "they come as activations go, unless passes are accumulated",
    "optimizer": "first and second moments",
    "average": "moving average of what learns",
    "copies": "of weights, cast or gathered for computing",
    "activations": "saved for the backward pass",
    "logits": "of the text tokens with a loss, and their gradient",
    "recomputed": "the largest block, computed again when the logits are gone",
    "prefill": "a backbone that does not learn; before all of the last three",
    "workspace": "driver, libraries, fragments",
}
"""What takes memory. Not all of it is there at once, so "peak" is less than the sum."""


class Layout:
    """The division of a run's step over GPUs and passes: each of `gpus` takes `rows` rows `accumulate` times.

    Raises:
        ValueError: the batch does not split over them.
    """

    def __init__(self, config: TrainConfig, *, gpus: int) -> None:
        self.gpus, self.accumulate, strategy = gpus, config.parallel.accumulate, config.parallel.strategy
        if config.batch_size % (gpus * self.accumulate):
            raise ValueError(
                f"a batch of {config.batch_size} rows does not split over {gpus} GPUs of {self.accumulate} passes "
                "each; --set batch_size=… to a multiple"
            )
        self.rows = config.batch_size // gpus // self.accumulate
        # One GPU shares with none; several work as DDP where the config names no parallelism.
        self.parallel = "none" if gpus == 1 else "ddp" if strategy == "none" else strategy
        # GPUs that share one copy of the weights: all, those of a node, or each for itself.
        inside = config.parallel.shards or GPUS_PER_NODE
        self.shards = {"fsdp": gpus, "hsdp": min(gpus, inside)}.get(self.parallel, 1)
        self.checkpointing, self.compiled = config.compute.checkpointing, config.compute.compile
        self.precision = "fp32" if config.compute.precision == "fp32" else "bf16"
        self.c = BF16 if self.precision == "bf16" else FP32  # bytes of a number in compute
        # A run of one process has fp32 weights beside bf16 copies (`train/master_weights.py`).
        self.has_masters = gpus == 1 and self.precision == "bf16"

    @property
    def way(self) -> str:
        """The way in which blocks are computed, which decides what each saves.

        `blocks`: what entered the block, and keys and values where the expert reads them. `selective`: also what
        matrix products and attention put out; the compiler's budget leaves out the widest. `compiled` blocks make norms
        and activation functions again in fused kernels, and keep what enters a matrix product and attention.
        """
        if self.checkpointing == "none":
            return "compiled" if self.compiled else "as written"
        return "compiled selective" if self.checkpointing == "selective" and self.compiled else self.checkpointing

    def saving_all(self) -> "Layout":
        """Return the same layout without checkpointing."""
        whole = copy(self)
        whole.checkpointing = "none"
        return whole


class Counts:
    """The numbers that all layouts of a run share, from its model after `choose_learning` (on the meta device, say)."""

    def __init__(self, model: Pi, config: TrainConfig, work: Workload) -> None:
        self.model, self.config, self.work, self.losses = model, model.config, work, Losses.of(config)
        self.tokens, self.flop_factors = count_tokens(model.config, work), flop_factors(config, model)
        blocks = [sum(p.numel() for p in block.parameters()) for block in model.blocks()]
        reached = [p for part in reached_parts(model, self.losses) for p in part.parameters() if p.requires_grad]
        linear = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Linear)}
        # Parameters: all, those that learn, and those of them that a loss reaches.
        self.everything = sum(p.numel() for p in model.parameters())
        self.learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.reached = sum(p.numel() for p in reached)
        # Those beside adapters, which are kept in the dtype of compute; and those that Muon moves.
        self.halved = self.everything - self.learning if adapted_layers(model) else 0
        self.muon = sum(p.numel() for p in reached if id(p) in linear) if config.optim.name == "muon" else 0
        # Those outside of blocks, those of the largest block, and the number of blocks.
        self.outside, self.largest, self.blocks = self.everything - sum(blocks), max(blocks), len(blocks)

    @cached_property
    def flops(self) -> dict[str, float]:
        """Operations of a row, forward and backward, by part."""
        return per_row(self.model, self.work, self.flop_factors)

    def learning_in(self, layout: Layout) -> int:
        """Count the numbers that learn; one process in bf16 freezes a backbone that no loss reaches (`freezing.py`)."""
        freezes = layout.has_masters and not self.halved and self.losses.flow and not self.losses.backbone
        return min(self.learning, self.reached) if freezes else self.learning


def reached_parts(model: Pi, losses: Losses) -> list[nn.Module]:
    """Return the parts of the model that get gradients; an optimizer keeps nothing for the others."""
    if not (losses.backbone or losses.flow):
        return [model.vision, model.embedding]
    return [m for name, m in model.named_children() if (losses.flow if name in GROUPS["expert"] else losses.backbone)]


def memory(counts: Counts, layout: Layout) -> dict[str, float]:
    """Return the bytes that a step of the run takes on one GPU, by `KINDS`; and at most, without and with all else.

    "passing" is the most that a forward and backward pass hold beside gradients: the logits are gone before a block is
    recomputed, and the prefill of a backbone that does not learn is gone before any of the others comes. "peak" is the
    most of all kinds. Gradients come as activations go, unless they stay from pass to pass.
    """
    losses, rows = counts.losses, layout.rows
    found = kept_between_steps(counts, layout) | {
        "activations": rows * sum(saved_activations(counts, layout).values()),
        "logits": logits_bytes(counts.config, rows * counts.work.spoken, c=layout.c) if losses.text else 0.0,
        "recomputed": rows * recomputed_block_bytes(counts, layout),
        "prefill": rows * frozen_prefill_bytes(counts, layout) if losses.flow and not losses.backbone else 0.0,
    }
    passing = max(found["activations"] + max(found["logits"], found["recomputed"]), found["prefill"])
    moving = passing + found["gradients"] if layout.accumulate > 1 else max(passing, found["gradients"])
    found["workspace"] = CONTEXT + FRAGMENTS * passing
    kept = sum(found[kind] for kind in ("weights", "optimizer", "average", "copies", "workspace"))
    return found | {"passing": passing, "peak": kept + moving}


def kept_between_steps(counts: Counts, layout: Layout) -> dict[str, float]:
    """Return the bytes of weights, gradients, optimizer, average and copies on one GPU.

    Copies are weights cast or gathered for computing (`train/distributed.py`): what stands outside of blocks, two
    blocks (one ahead), and the gradients of one before they are spread.
    """
    c, shards, learning = layout.c, layout.shards, counts.learning_in(layout)
    if layout.has_masters:
        return {
            "weights": FP32 * learning,
            "gradients": (BF16 if layout.accumulate == 1 else FP32) * counts.reached,
            "optimizer": FP32 * (2 * learning - counts.muon),
            "average": FP32 * learning,
            "copies": BF16 * counts.everything,
        }
    in_place = layout.parallel == "none" and c == FP32
    return {
        "weights": (FP32 * counts.everything - (FP32 - c) * counts.halved) / shards,
        "gradients": FP32 * counts.reached / shards,
        "optimizer": FP32 * (2 * counts.reached - counts.muon) / shards,
        "average": FP32 * learning / shards,
        "copies": 0.0 if in_place else c * (counts.outside + 2 * counts.largest) + FP32 * counts.largest,
    }


def logits_bytes(model: PiConfig, tokens: float, *, c: int) -> float:
    """Return the bytes of the scores of `tokens` and of their gradients; many are made in turn (`cross_entropy.py`)."""
    if tokens * model.vocab_size > AT_ONCE:
        return tokens * (model.vlm.width * c + 2 * FP32) + AT_ONCE * c
    return tokens * (model.vlm.width * c + model.vocab_size * (2 * FP32 + c))


def saved_activations(counts: Counts, layout: Layout, *, run_all: bool = False) -> dict[str, float]:
    """Return the bytes of one row that are saved until its backward pass, by part of the model, beside logits.

    With `run_all` also those of a backbone that sends no gradients, if it saved any.
    """
    model, losses, tokens, c, parts = counts.config, counts.losses, counts.tokens, layout.c, {}
    backbone, prefix, words = losses.backbone or run_all, tokens["prefix"], tokens["text"]
    if backbone or not losses.flow:  # with neither words nor flow the vision tower learns alone
        stem = sum(2 * channels * tokens[f"pixels {i}"] * c for i, channels in enumerate(model.vision.stem))
        block, ends = vision_block_bytes(model.vision, layout), model.vision.width * 2 * c + 2 * FP32
        pixels = 3 * c * sum(side**2 for side in counts.work.pictures)
        parts["vision"] = pixels + stem + tokens["patches"] * (ends + model.vision.depth * block)
    if backbone:
        read = model.expert_reads == "layers"
        parts["vlm"] = stack_bytes(model.vlm, layout, tokens=prefix, last=tokens["last"], read=read)
        parts["vlm"] += prefix * (prefix * c + 2 * model.vlm.head_dim * FP32) + words * 8  # mask, angles, token ids
        if (text := model.text_encoder) is not None:
            parts["vlm"] += stack_bytes(text, layout, tokens=words, last=words, read=False) + words * text.width * c
    elif losses.flow:  # no way back, but a cache for the expert
        parts["vlm"] = prefix * model.vlm.depth * kv_bytes(model.vlm, layout)
    if losses.flow and counts.work.draws and (expert := model.action_expert) is not None:
        parts["action_expert"] = counts.work.draws * flow_block_bytes(counts, layout)
        if model.expert_reads == "output":
            parts["memory"] = prefix * expert.depth * kv_bytes(expert, layout)
    return parts


def vision_block_bytes(config: SiglipConfig, layout: Layout) -> float:
    """Return the bytes that a block of the vision tower saves, per patch."""
    x, mlp = config.width * layout.c, config.mlp_dim * layout.c
    attention = 4 * x + FP32 * config.num_heads  # q, k, v and the mean of the values
    norms = 2 * (2 * x + 2 * FP32)
    return {
        "as written": attention + norms + 2 * mlp,
        "compiled": attention + norms + mlp,
        "selective": attention + 3 * x + mlp,
        "compiled selective": 5 * x + mlp,
        "blocks": x,
    }[layout.way]


def stack_bytes(config: GemmaConfig, layout: Layout, *, tokens: float, last: float, read: bool) -> float:
    """Return the bytes that a stack and its final norm save for `tokens` tokens, of which `last` leave the last block.

    `read`: the expert reads its cache.
    """
    before, after = block_bytes(config, layout, read=read)
    blocks = config.depth * tokens * before + ((config.depth - 1) * tokens + last) * after
    return blocks + last * norm_bytes(config, layout)


def block_bytes(config: GemmaConfig, layout: Layout, *, read: bool, copied: bool = False) -> tuple[float, float]:
    """Return the bytes that a block saves per token: before attention, and from its output on.

    Queries are kept with the keys beside which they were rotated; keys and values are copies, which are counted
    elsewhere where they are `copied` behind others. Where they are not `read` by another stack, checkpointed blocks
    make them again.
    """
    x, mlp, q = (n * layout.c for n in (config.width, config.mlp_dim, config.num_heads * config.head_dim))
    kv, norm = kv_bytes(config, layout), norm_bytes(config, layout)
    own = 0 if copied else kv
    out = q + FP32 * config.num_heads  # of attention, with one number per query and head
    gates = 2 * x if config.cond_width else 0  # the branches that adaptive norms gate
    return {
        "as written":         (norm + q + kv / 2 + own,    out + norm + gates + 4 * mlp),
        "compiled":           (norm + q + kv / 2 + own,    out + norm + gates + 3 * mlp),
        "selective":          (x + q + kv + own * read,    out + 2 * x + 2 * mlp),
        "compiled selective": (x + q + own * read,         x),
        "blocks":             (x + own * read,             0.0),
    }[layout.way]  # fmt: skip


def norm_bytes(config: GemmaConfig, layout: Layout) -> float:
    """Return the bytes that a norm saves: its input, what it scales, one over the root, and its output."""
    return config.width * ((layout.c if layout.compiled else 2 * FP32) + layout.c) + FP32


def kv_bytes(config: GemmaConfig, layout: Layout) -> float:
    """Return the bytes of a block's keys and values, per token."""
    return 2 * config.num_kv_heads * config.head_dim * layout.c


def flow_block_bytes(counts: Counts, layout: Layout) -> float:
    """Return the bytes that one noise draw of a row saves: the expert's blocks, with copies of all keys and values."""
    model, config, c, tokens = counts.config, counts.config.action_expert, layout.c, counts.tokens["chunk"]
    assert config is not None
    x, heads, kv = config.width * c, config.num_heads * config.head_dim * c, kv_bytes(config, layout)
    cross, keys = model.expert_reads == "output", counts.tokens["prefix"] + tokens
    groups = config.num_heads // config.num_kv_heads
    grouped = not cross and 1 < groups <= keys / tokens
    block = tokens * sum(block_bytes(config, layout, read=False, copied=not cross))
    if layout.checkpointing == "none":
        # Cross-attention: a norm, queries, as they come and by draws, and their mean of values, a branch.
        block += tokens * (norm_bytes(config, layout) + 3 * heads + x) if cross else keys * kv
        if grouped:  # queries by groups, without the keys, and what attention puts out by tokens too
            block += tokens * (heads - kv / 2)
    ends = tokens * (norm_bytes(config, layout) + 2 * model.action_dim * FP32)
    if config.cond_width:  # what adaptive norms scale, shift and gate by
        ends += ((3 if cross else 2) * config.depth + 1) * 4 * config.width * FP32
    else:  # actions and time, mixed
        ends += tokens * 4 * x
    mask_and_angles = tokens * ((1 + groups * grouped) * keys * c + 2 * config.head_dim * FP32)
    return config.depth * block + ends + mask_and_angles


def frozen_prefill_bytes(counts: Counts, layout: Layout) -> float:
    """Return the most bytes of one row at once while a backbone without gradients reads it, in its last whole block."""
    config, c, prefix = counts.config.vlm, layout.c, counts.tokens["prefix"]
    heads = 2 * config.num_heads + 3 * config.num_kv_heads  # with keys rotated and not, and values, in two wholes
    block = heads * config.head_dim * c + (3 if layout.compiled else 4) * config.mlp_dim * c + 3 * config.width * c
    mask = prefix * c + 2 * config.head_dim * FP32
    return prefix * (block + mask + (config.depth - 1) * kv_bytes(config, layout))


def recomputed_block_bytes(counts: Counts, layout: Layout) -> float:
    """Return the bytes of a row that the largest block recomputes in its backward pass, beside what is saved of it.

    With it live the gradients of its MLP: of both halves and their product, or of what is activated; and where it has
    adapters, what they add to both halves and to their product, and the gradients of that.
    """
    model, tokens, c = counts.config, counts.tokens, layout.c

    def in_each(way: Layout) -> tuple[float, float, float]:
        expert = model.action_expert
        flow = counts.work.draws * flow_block_bytes(counts, way) / expert.depth if expert is not None else 0.0
        return vision_block_bytes(model.vision, way), sum(block_bytes(model.vlm, way, read=True)), flow

    if layout.checkpointing == "none":
        return 0.0
    whole, saved = in_each(layout.saving_all()), in_each(layout)
    vision, vlm, flow = (a - b for a, b in zip(whole, saved, strict=True))
    vision = tokens["patches"] * (vision + 2 * model.vision.mlp_dim * c)
    vlm = tokens["prefix"] * (vlm + (8 if counts.halved else 3) * model.vlm.mlp_dim * c)
    return max(counts.losses.backbone * max(vision, vlm), counts.losses.flow * flow)
