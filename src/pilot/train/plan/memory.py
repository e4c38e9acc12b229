"""Bytes of training on one GPU by what they are for, from the config alone.

Weights, gradients, optimizer and moving average are counted on a model on the meta device. What autograd saves in
a forward pass (`saved_activations`) is counted operation by operation, as the model is written: a linear layer saves
its input, a norm its input and what it scales (both in fp32), attention its queries, keys, values, output and one
number per query and head, a gated MLP both halves, the activated one and their product. `bench/memory.py` measures
a step on a CPU beside it.

In the formulas: `d` width, `m` width of the MLP, `n` heads, `k` key-value heads, `h` head dim, `c` bytes of a number in
compute.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from pilot.models.pi import Pi, PiConfig
from pilot.models.registry import require_pi
from pilot.nn.cross_entropy import AT_ONCE
from pilot.nn.gemma import GemmaConfig
from pilot.nn.lora import adapted_layers
from pilot.nn.siglip import SiglipConfig
from pilot.train.config import TrainConfig
from pilot.train.freezing import GROUPS
from pilot.train.plan.flops import Losses, Workload
from pilot.train.plan.gpus import GIB, GPUS_PER_NODE

FP32, BF16 = 4, 2
CONTEXT = 1.0 * GIB
"""Of the driver, of matrix and communication libraries."""
FRAGMENTS = 0.04
"""Share of what comes and goes that an allocator loses between blocks."""

Parallel = Literal["none", "ddp", "fsdp", "hsdp"]
Checkpointing = Literal["none", "selective", "blocks"]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The division of a step over GPUs and passes: each of `gpus` takes `rows` rows `accumulate` times.

    `inside`: how many GPUs share a copy of the model under `hsdp`.
    """

    gpus: int
    parallel: Parallel
    rows: int
    accumulate: int = 1
    inside: int = GPUS_PER_NODE
    checkpointing: Checkpointing = "none"
    precision: Literal["fp32", "bf16"] = "bf16"
    compiled: bool = False

    @property
    def shards(self) -> int:
        """The number of GPUs that weights are sharded over: all, those of a node (hsdp), or 1."""
        return {"fsdp": self.gpus, "hsdp": min(self.gpus, self.inside)}.get(self.parallel, 1)

    @property
    def has_masters(self) -> bool:
        """Whether fp32 weights stand beside bf16 copies, as in a run of one process (`train/master_weights.py`)."""
        return self.gpus == 1 and self.precision == "bf16"

    @property
    def settings(self) -> "BlockSettings":
        c = BF16 if self.precision == "bf16" else FP32
        return BlockSettings(c=c, checkpointing=self.checkpointing, compiled=self.compiled)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one GPU.

    Not all of it is there at once: `gradients` come as `activations` go, unless they stay from pass to pass; the
    `logits` are gone before a block is `recomputed`; and all of the `prefill` of a backbone that does not learn is gone
    before any of the others comes.
    """

    weights: float
    gradients: float
    optimizer: float
    average: float
    copies: float
    activations: float
    logits: float
    recomputed: float
    prefill: float
    workspace: float
    gradients_stay: bool = False

    @property
    def passing(self) -> float:
        """The most that a forward and backward pass hold beside gradients."""
        return max(self.activations + max(self.logits, self.recomputed), self.prefill)

    @property
    def peak(self) -> float:
        moving = self.passing + self.gradients if self.gradients_stay else max(self.passing, self.gradients)
        return self.weights + self.optimizer + self.average + self.copies + moving + self.workspace


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Numbers in a model (after `choose_learning`; the meta device is enough): all, those that learn, those of them
    that a loss reaches, those beside adapters (kept in the dtype of compute: `halve_frozen`), matrices that Muon
    learns, those outside of blocks, the largest block, and how many blocks."""

    everything: int
    learning: int
    reached: int
    halved: int
    muon: int
    outside: int
    largest: int
    blocks: int

    @classmethod
    def of(cls, model: Pi, config: TrainConfig) -> "Counts":
        units = [sum(p.numel() for p in block.parameters()) for block in model.blocks()]
        everything = sum(p.numel() for p in model.parameters())
        learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
        reached = [model.get_submodule(part) for part in reached_parts(model, Losses.of(config))]
        linear = [m.weight for part in reached for m in part.modules() if isinstance(m, nn.Linear)]
        linear = [weight for weight in linear if weight.requires_grad]
        return cls(
            everything=everything,
            learning=learning,
            reached=sum(p.numel() for part in reached for p in part.parameters() if p.requires_grad),
            halved=everything - learning if adapted_layers(model) else 0,
            muon=sum(p.numel() for p in linear) if config.optim.name == "muon" else 0,
            outside=everything - sum(units),
            largest=max(units),
            blocks=len(units),
        )


def reached_parts(model: Pi, losses: Losses) -> list[str]:
    """Return the parts of the model that get gradients; an optimizer keeps nothing for the others."""
    expert = [name for name, _ in model.named_children() if name in GROUPS["expert"]]
    backbone = [name for name, _ in model.named_children() if name not in expert]
    if not (losses.backbone or losses.flow):
        return ["vision", "embedding"]
    return backbone * losses.backbone + expert * losses.flow


def memory(config: TrainConfig, counts: Counts, *, work: Workload, layout: Layout) -> Memory:
    """Return the memory that a step of the run takes on one GPU."""
    losses, settings, rows, model = (
        Losses.of(config),
        layout.settings,
        layout.rows,
        require_pi(config.model),
    )
    parts = saved_activations(model, work, losses=losses, settings=settings)
    parts.pop("logits", 0.0)
    logits = logits_bytes(model, rows * work.spoken, c=settings.c) if losses.text else 0.0
    activations = rows * sum(parts.values())
    adapted = counts.halved > 0
    recomputed = rows * recomputed_block_bytes(model, work, losses=losses, settings=settings, adapted=adapted)
    prefill = 0.0 if losses.backbone or not losses.flow else rows * frozen_prefill_bytes(model, work, settings=settings)
    return Memory(
        **kept_between_steps(counts, layout, learning=learning_numbers(counts, losses, layout)),
        activations=activations,
        logits=logits,
        recomputed=recomputed,
        prefill=prefill,
        workspace=CONTEXT + FRAGMENTS * max(activations + max(logits, recomputed), prefill),
        gradients_stay=layout.accumulate > 1,
    )


def learning_numbers(counts: Counts, losses: Losses, layout: Layout) -> int:
    """Count the numbers that learn; one process in bf16 freezes a backbone that no loss reaches (`freezing.py`)."""
    unreached = layout.has_masters and not counts.halved and losses.flow and not losses.backbone
    return min(counts.learning, counts.reached) if unreached else counts.learning


def kept_between_steps(counts: Counts, layout: Layout, *, learning: int) -> dict[str, float]:
    """Return the bytes of weights, gradients, optimizer, average and copies on one GPU."""
    if layout.has_masters:
        return {
            "weights": FP32 * learning,
            "gradients": (BF16 if layout.accumulate == 1 else FP32) * counts.reached,
            "optimizer": FP32 * (2 * learning - counts.muon),
            "average": FP32 * learning,
            "copies": BF16 * counts.everything,
        }
    return {
        "weights": (FP32 * counts.everything - (FP32 - layout.settings.c) * counts.halved) / layout.shards,
        "gradients": FP32 * counts.reached / layout.shards,
        "optimizer": FP32 * (2 * counts.reached - counts.muon) / layout.shards,
        "average": FP32 * learning / layout.shards,
        "copies": copies(counts, layout),
    }


def logits_bytes(model: PiConfig, tokens: float, *, c: int) -> float:
    """Return the bytes of the scores of `tokens` and of their gradients; many are made in turn (`cross_entropy.py`)."""
    if tokens * model.vocab_size > AT_ONCE:
        return tokens * (model.vlm.width * c + 2 * FP32) + AT_ONCE * c
    return tokens * (model.vlm.width * c + model.vocab_size * (2 * FP32 + c))


def copies(counts: Counts, layout: Layout) -> float:
    """Return the bytes of weights that are cast or gathered for computing (`train/distributed.py`).

    That is what stands outside of blocks, two blocks (one ahead), and the gradients of one before they are spread.
    """
    c = layout.settings.c
    if layout.parallel == "none" and c == FP32:
        return 0.0
    return c * (counts.outside + 2 * counts.largest) + FP32 * counts.largest


@dataclass(frozen=True, kw_only=True)
class BlockSettings:
    """The way in which blocks are computed, which decides what is saved of each.

    `c`: bytes of a number in compute. `blocks`: what entered the block, and keys and values, which the expert reads;
    the rest of one block at a time. `selective`: also what matrix products and attention put out. `compiled` blocks
    make norms and activation functions again in fused kernels, and keep what enters a matrix product and attention.
    """

    c: int = FP32
    checkpointing: Checkpointing = "none"
    compiled: bool = False


def saved_activations(model: PiConfig, work: Workload, *, losses: Losses, settings: BlockSettings) -> dict[str, float]:
    """Return the bytes of one row that are saved until its backward pass, by part of the model."""
    patches = sum((side // model.vision.patch_size) ** 2 for side in work.pictures)
    seen, c = patches + work.text, settings.c
    parts: dict[str, float] = {}
    if losses.backbone or not losses.flow:  # with neither words nor flow the vision tower learns alone
        parts["vision"] = sum(vision_tower_bytes(model.vision, side, settings) for side in work.pictures)
    if losses.backbone:
        read = model.expert_reads == "layers"
        tail = (work.text if work.spoken else 0) if read else seen
        parts["vlm"] = stack(model.vlm, settings, tokens=seen, tail=tail, read=read)
        parts["vlm"] += seen * (seen * c + 2 * model.vlm.head_dim * FP32) + work.text * 8  # mask, angles, token ids
        if model.text_encoder is not None:
            parts["vlm"] += stack(model.text_encoder, settings, tokens=work.text, tail=work.text, read=False)
            parts["vlm"] += work.text * model.text_encoder.width * c
    elif losses.flow:  # no way back, but a cache for the expert
        parts["vlm"] = seen * model.vlm.depth * kv_bytes(model.vlm, settings)
    if losses.text:
        parts["logits"] = work.spoken * (model.vlm.width * c + model.vocab_size * FP32)
    if losses.flow and work.draws:
        parts["action_expert"] = work.draws * flow_block_bytes(model, settings, seen=seen)
        if model.expert_reads == "output" and (expert := model.action_expert) is not None:
            parts["memory"] = seen * expert.depth * kv_bytes(expert, settings)
    return parts


def vision_tower_bytes(config: SiglipConfig, side: int, settings: BlockSettings) -> float:
    """Return the bytes that one picture's pass through the vision tower saves."""
    tokens, c = (side // config.patch_size) ** 2, settings.c
    total = 3.0 * side**2 * c
    for i, channels in enumerate(config.stem):  # what a convolution puts out, and that activated
        total += 2 * channels * (side >> i) ** 2 * c
    ends = config.width * (c + c) + 2 * FP32  # the final norm and the layer behind it
    return total + tokens * (ends + config.depth * vision_block_bytes(config, settings))


def vision_block_bytes(config: SiglipConfig, settings: BlockSettings) -> float:
    """Return the bytes that a block of the vision tower saves, per patch."""
    d, m, c = config.width, config.mlp_dim, settings.c
    if settings.checkpointing == "blocks":
        return d * c
    attention = 4 * d * c + FP32 * config.num_heads  # q, k, v and the mean of the values
    if settings.checkpointing == "selective" and settings.compiled:  # the compiler's budget leaves out attention
        return 5 * d * c + m * c
    if settings.checkpointing == "selective":  # and what comes in and what the other products put out
        return attention + 3 * d * c + m * c
    norms = 2 * (2 * d * c + 2 * FP32)
    return attention + norms + (1 if settings.compiled else 2) * m * c


def stack(config: GemmaConfig, settings: BlockSettings, *, tokens: float, tail: float, read: bool = True) -> float:
    """Return the bytes that a stack and its final norm save for `tokens` tokens, of which `tail` leave the last block.

    `read`: the expert reads its cache.
    """
    before, after = (
        saved_before_attention(config, settings, read=read),
        saved_after_attention(config, settings),
    )
    remaining = (config.depth - 1) * tokens + tail
    return config.depth * tokens * before + remaining * after + tail * norm(config, settings)


def norm(config: GemmaConfig, settings: BlockSettings) -> float:
    """Return the bytes that a norm saves: its input, what it scales, one over the root, and its output."""
    return config.width * ((settings.c if settings.compiled else 2 * FP32) + settings.c) + FP32


def kv_bytes(config: GemmaConfig, settings: BlockSettings) -> float:
    """Return the bytes of a block's keys and values, per token."""
    return 2 * config.num_kv_heads * config.head_dim * settings.c


def saved_before_attention(
    config: GemmaConfig, settings: BlockSettings, *, copied: bool = False, read: bool = True
) -> float:
    """Return the bytes that a block saves, per token, up to its queries, keys and values.

    Queries are kept with the keys beside which they were rotated; keys and values are copies, which are counted
    elsewhere where they are `copied` behind others. Where they are not `read` by another stack, checkpointed blocks
    make them again.
    """
    d, n, k, h, c = config.width, config.num_heads, config.num_kv_heads, config.head_dim, settings.c
    own = 0 if copied else kv_bytes(config, settings)
    if settings.checkpointing == "none":
        return norm(config, settings) + (n + k) * h * c + own
    products = (n + 2 * k * (not settings.compiled)) * h * c if settings.checkpointing == "selective" else 0
    return d * c + products + own * read


def saved_after_attention(config: GemmaConfig, settings: BlockSettings) -> float:
    """Return the bytes that a block saves, per token, from the output of attention to its end."""
    d, n, h, m, c = config.width, config.num_heads, config.head_dim, config.mlp_dim, settings.c
    if settings.checkpointing == "blocks":
        return 0
    if settings.checkpointing == "selective" and settings.compiled:  # the compiler's budget leaves the layer's output
        return d * c
    attention = n * h * c + FP32 * n
    if settings.checkpointing == "selective":  # what products put out
        return attention + 2 * d * c + 2 * m * c
    gates = 2 * d * c if config.cond_width else 0  # the branches that adaptive norms gate
    return attention + norm(config, settings) + gates + (3 if settings.compiled else 4) * m * c


def flow_block_bytes(model: PiConfig, settings: BlockSettings, *, seen: float) -> float:
    """Return the bytes that one noise draw of a row saves: the expert's blocks, with copies of all keys and values."""
    config, c = model.action_expert, settings.c
    assert config is not None
    d, tokens = config.width, model.action_horizon + (model.state_input == "token")
    cross, whole = model.expert_reads == "output", settings.checkpointing == "none"
    per_token = saved_before_attention(config, settings, copied=not cross, read=False) + saved_after_attention(
        config, settings
    )
    groups, heads = config.num_heads // config.num_kv_heads, config.num_heads * config.head_dim * c
    grouped = not cross and 1 < groups <= (seen + tokens) / tokens
    copies = (seen + tokens) * kv_bytes(config, settings) if whole and not cross else 0
    if grouped and whole:  # queries by groups, without the keys, and what attention puts out by tokens too
        per_token += heads - config.num_kv_heads * config.head_dim * c
    if cross and whole:  # a norm, queries, as they come and by draws, and their mean of values, a branch
        per_token += norm(config, settings) + 3 * heads + d * c
    norms = (3 if cross else 2) * config.depth + 1
    modulation = norms * 4 * d * FP32 if config.cond_width else 0
    ends = tokens * (norm(config, settings) + 2 * model.action_dim * FP32)
    ends += 0 if config.cond_width else tokens * 4 * d * c  # actions and time, mixed
    attention = tokens * ((1 + groups * grouped) * (seen + tokens) * c + 2 * config.head_dim * FP32)
    return config.depth * (tokens * per_token + copies) + modulation + ends + attention


def frozen_prefill_bytes(model: PiConfig, work: Workload, *, settings: BlockSettings) -> float:
    """Return the most bytes of one row at once while a backbone without gradients reads it, in its last whole block."""
    config, c = model.vlm, settings.c
    seen = sum((side // model.vision.patch_size) ** 2 for side in work.pictures) + work.text
    heads = 2 * config.num_heads + 3 * config.num_kv_heads  # with keys rotated and not, and values, in two wholes
    block = heads * config.head_dim * c + (3 if settings.compiled else 4) * config.mlp_dim * c + 3 * config.width * c
    mask = seen * c + 2 * config.head_dim * FP32
    return seen * (block + mask + (config.depth - 1) * kv_bytes(config, settings))


def recomputed_block_bytes(
    model: PiConfig, work: Workload, *, losses: Losses, settings: BlockSettings, adapted: bool = False
) -> float:
    """Return the bytes that the largest block recomputes in its backward pass, beside what is saved of it.

    With it live the gradients of its MLP: of both halves and their product, or of what is activated; and where it is
    `adapted`, what adapters add to both halves and to their product, and the gradients of that.
    """
    if settings.checkpointing == "none":
        return 0.0
    whole = BlockSettings(c=settings.c, compiled=settings.compiled)
    patches = sum((side // model.vision.patch_size) ** 2 for side in work.pictures)
    seen, sizes = patches + work.text, [0.0]

    def missing(of: Callable[[BlockSettings], float]) -> float:
        return of(whole) - of(settings)

    if losses.backbone:
        block = missing(lambda k: vision_block_bytes(model.vision, k))
        sizes.append(patches * (block + 2 * model.vision.mlp_dim * settings.c))
        block = missing(lambda k: saved_before_attention(model.vlm, k) + saved_after_attention(model.vlm, k))
        sizes.append(seen * (block + (8 if adapted else 3) * model.vlm.mlp_dim * settings.c))
    if losses.flow and (expert := model.action_expert) is not None:
        sizes.append(work.draws * missing(lambda k: flow_block_bytes(model, k, seen=seen)) / expert.depth)
    return max(sizes)
