"""Bytes of training on one GPU by what they are for, from the config alone.

Weights, gradients, optimizer and moving average are counted on a model on the meta device. What autograd keeps of a
forward pass (`kept`) is counted operation by operation, as the model is written: a linear layer keeps its input, a norm
its input and what it scales (both in fp32), attention its queries, keys, values, output and one number per query and
head, a gated MLP both halves, the activated one and their product. `bench/memory.py` measures a step on a CPU
(`bench/live_bytes.py`) beside it.

In the formulas: `d` width, `m` width of the MLP, `n` heads, `k` key-value heads, `h` head dim, `c` bytes of a number in
compute.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from pilot.models.pi import Pi, PiConfig
from pilot.models.registry import require_pi
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
    """How a step is spread over GPUs and passes: each of `gpus` takes `rows` rows `accumulate` times.

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
        """Over how many GPUs weights are spread: all, those of a node (hsdp), or none."""
        return {"fsdp": self.gpus, "hsdp": min(self.gpus, self.inside)}.get(self.parallel, 1)

    @property
    def keeping(self) -> "Keeping":
        c = BF16 if self.precision == "bf16" else FP32
        return Keeping(c=c, checkpointing=self.checkpointing, compiled=self.compiled)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one GPU.

    Not all of it is there at once: `gradients` come as `activations` go, unless they stay from pass to pass, the
    `logits` are gone before a block is made `again`, and before any of it is what is held while a backbone that does
    not learn is `reading`.
    """

    weights: float
    gradients: float
    optimizer: float
    average: float
    copies: float
    activations: float
    logits: float
    again: float
    reading: float
    workspace: float
    gradients_stay: bool = False

    @property
    def passing(self) -> float:
        """The most that a forward and backward pass hold beside gradients."""
        return max(self.activations + max(self.logits, self.again), self.reading)

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
    """The parts of the model that get gradients: without them an optimizer remembers nothing either."""
    expert = [name for name, _ in model.named_children() if name in GROUPS["expert"]]
    backbone = [name for name, _ in model.named_children() if name not in expert]
    if not (losses.backbone or losses.flow):
        return ["vision", "embedding"]
    return backbone * losses.backbone + expert * losses.flow


def memory(config: TrainConfig, counts: Counts, *, work: Workload, layout: Layout) -> Memory:
    """Of a step of the run."""
    losses, keeping, rows, model = Losses.of(config), layout.keeping, layout.rows, require_pi(config.model)
    parts = kept(model, work, losses=losses, keeping=keeping)
    logits = parts.pop("logits", 0.0)
    logits += work.spoken * model.vocab_size * (FP32 + keeping.c) if losses.text else 0.0  # their gradient
    activations, again = rows * sum(parts.values()), rows * one_block(model, work, losses=losses, keeping=keeping)
    reading = 0.0 if losses.backbone or not losses.flow else rows * read_only(model, work, keeping=keeping)
    return Memory(
        weights=(FP32 * counts.everything - (FP32 - keeping.c) * counts.halved) / layout.shards,
        gradients=FP32 * counts.reached / layout.shards,
        optimizer=FP32 * (2 * counts.reached - counts.muon) / layout.shards,
        average=FP32 * counts.learning / layout.shards,
        copies=copies(counts, layout),
        activations=activations,
        logits=rows * logits,
        again=again,
        reading=reading,
        workspace=CONTEXT + FRAGMENTS * max(activations + max(rows * logits, again), reading),
        gradients_stay=layout.accumulate > 1,
    )


def copies(counts: Counts, layout: Layout) -> float:
    """Weights as they are computed with, where they are cast or gathered (`train/distributed.py`).

    That is what stands outside of blocks, two blocks (one ahead), and the gradients of one before they are spread.
    """
    c = layout.keeping.c
    if layout.parallel == "none" and c == FP32:
        return 0.0
    return c * (counts.outside + 2 * counts.largest) + FP32 * counts.largest


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """What is kept of each block.

    `c`: bytes of a number in compute. `blocks`: what entered the block, and keys and values, which the expert reads;
    the rest of one block at a time. `selective`: also what matrix products and attention put out. `compiled` blocks
    make norms and activation functions again in fused kernels, and keep what enters a matrix product and attention.
    """

    c: int = FP32
    checkpointing: Checkpointing = "none"
    compiled: bool = False


def kept(model: PiConfig, work: Workload, *, losses: Losses, keeping: Keeping) -> dict[str, float]:
    """Bytes kept of one row until its backward pass, by part of the model."""
    patches = sum((side // model.vision.patch_size) ** 2 for side in work.pictures)
    seen, c = patches + work.text, keeping.c
    parts: dict[str, float] = {}
    if losses.backbone or not losses.flow:  # with neither words nor flow the vision tower learns alone
        parts["vision"] = sum(tower(model.vision, side, keeping) for side in work.pictures)
    if losses.backbone:
        read = model.expert_reads == "layers"
        tail = (work.text if work.spoken else 0) if read else seen
        parts["vlm"] = stack(model.vlm, keeping, tokens=seen, tail=tail, read=read)
        parts["vlm"] += seen * (seen * c + 2 * model.vlm.head_dim * FP32) + work.text * 8  # mask, angles, token ids
        if model.text_encoder is not None:
            parts["vlm"] += stack(model.text_encoder, keeping, tokens=work.text, tail=work.text, read=False)
            parts["vlm"] += work.text * model.text_encoder.width * c
    elif losses.flow:  # no way back, but a cache for the expert
        parts["vlm"] = seen * model.vlm.depth * cached(model.vlm, keeping)
    if losses.text:
        parts["logits"] = work.spoken * (model.vlm.width * c + model.vocab_size * FP32)
    if losses.flow and work.draws:
        parts["action_expert"] = work.draws * flow_block(model, keeping, seen=seen)
        if model.expert_reads == "output" and (expert := model.action_expert) is not None:
            parts["memory"] = seen * expert.depth * cached(expert, keeping)
    return parts


def tower(config: SiglipConfig, side: int, keeping: Keeping) -> float:
    """Of one picture's way through the vision tower."""
    tokens, c = (side // config.patch_size) ** 2, keeping.c
    total = 3.0 * side**2 * c
    for i, channels in enumerate(config.stem):  # what a convolution puts out, and that activated
        total += 2 * channels * (side >> i) ** 2 * c
    ends = config.width * (c + c) + 2 * FP32  # the final norm and the layer behind it
    return total + tokens * (ends + config.depth * vision_block(config, keeping))


def vision_block(config: SiglipConfig, keeping: Keeping) -> float:
    """Of a block of the vision tower, per patch."""
    d, m, c = config.width, config.mlp_dim, keeping.c
    if keeping.checkpointing == "blocks":
        return d * c
    attention = 4 * d * c + FP32 * config.num_heads  # q, k, v and the mean of the values
    if keeping.checkpointing == "selective":  # and what comes in and what the other products put out
        return attention + 3 * d * c + m * c
    norms = 2 * (2 * d * c + 2 * FP32)
    return attention + norms + (1 if keeping.compiled else 2) * m * c


def stack(config: GemmaConfig, keeping: Keeping, *, tokens: float, tail: float, read: bool = True) -> float:
    """Of a stack that starts from `tokens` tokens, in whose last block `tail` of them go on, and of its final norm.

    `read`: the expert reads its cache.
    """
    before, after = before_attention(config, keeping, read=read), after_attention(config, keeping)
    going_on = (config.depth - 1) * tokens + tail
    return config.depth * tokens * before + going_on * after + tail * norm(config, keeping)


def norm(config: GemmaConfig, keeping: Keeping) -> float:
    """Its input and what it scales in fp32, one over the root, and what it puts out for the layer behind it."""
    return config.width * ((keeping.c if keeping.compiled else 2 * FP32) + keeping.c) + FP32


def cached(config: GemmaConfig, keeping: Keeping) -> float:
    """Of a block's keys and values per token."""
    return 2 * config.num_kv_heads * config.head_dim * keeping.c


def before_attention(config: GemmaConfig, keeping: Keeping, *, copied: bool = False, read: bool = True) -> float:
    """Of a block per token up to its queries, keys and values.

    Queries are kept with the keys beside which they were rotated; keys and values are copies, which are counted
    elsewhere where they are `copied` behind others. Where they are not `read` by another stack, checkpointed blocks
    make them again.
    """
    d, n, k, h, c = config.width, config.num_heads, config.num_kv_heads, config.head_dim, keeping.c
    own = 0 if copied else cached(config, keeping)
    if keeping.checkpointing == "none":
        return norm(config, keeping) + (n + k) * h * c + own
    products = (n + 2 * k) * h * c if keeping.checkpointing == "selective" else 0
    return d * c + products + own * read


def after_attention(config: GemmaConfig, keeping: Keeping) -> float:
    """Of a block per token, from what attention puts out to the end."""
    d, n, h, m, c = config.width, config.num_heads, config.head_dim, config.mlp_dim, keeping.c
    if keeping.checkpointing == "blocks":
        return 0
    attention = n * h * c + FP32 * n
    if keeping.checkpointing == "selective":  # what products put out
        return attention + 2 * d * c + 2 * m * c
    gates = 2 * d * c if config.cond_width else 0  # the branches that adaptive norms gate
    return attention + norm(config, keeping) + gates + (3 if keeping.compiled else 4) * m * c


def flow_block(model: PiConfig, keeping: Keeping, *, seen: float) -> float:
    """Of one noise draw of a row: the expert's blocks, and in each a copy of all keys and values that it reads."""
    config, c = model.action_expert, keeping.c
    assert config is not None
    d, tokens = config.width, model.action_horizon + (model.state_input == "token")
    cross, whole = model.expert_reads == "output", keeping.checkpointing == "none"
    per_token = before_attention(config, keeping, copied=not cross, read=False) + after_attention(config, keeping)
    groups, heads = config.num_heads // config.num_kv_heads, config.num_heads * config.head_dim * c
    grouped = not cross and 1 < groups <= (seen + tokens) / tokens
    copies = (seen + tokens) * cached(config, keeping) if whole and not cross else 0
    if grouped and whole:  # queries by groups, without the keys, and what attention puts out by tokens too
        per_token += heads - config.num_kv_heads * config.head_dim * c
    if cross and whole:  # a norm, queries, as they come and by draws, and their mean of values, a branch
        per_token += norm(config, keeping) + 3 * heads + d * c
    norms = (3 if cross else 2) * config.depth + 1
    modulation = norms * 4 * d * FP32 if config.cond_width else 0
    ends = tokens * (norm(config, keeping) + 2 * model.action_dim * FP32)
    ends += 0 if config.cond_width else tokens * 4 * d * c  # actions and time, mixed
    attention = tokens * ((1 + groups * grouped) * (seen + tokens) * c + 2 * config.head_dim * FP32)
    return config.depth * (tokens * per_token + copies) + modulation + ends + attention


def read_only(model: PiConfig, work: Workload, *, keeping: Keeping) -> float:
    """The most bytes of one row at once while a backbone without a way back reads it: in the last block with an MLP."""
    config, c = model.vlm, keeping.c
    seen = sum((side // model.vision.patch_size) ** 2 for side in work.pictures) + work.text
    heads = 2 * config.num_heads + 3 * config.num_kv_heads  # with keys rotated and not, and values, in two wholes
    block = heads * config.head_dim * c + 4 * config.mlp_dim * c + 3 * config.width * c
    mask = seen * c + 2 * config.head_dim * FP32
    return seen * (block + mask + (config.depth - 1) * cached(config, keeping))


def one_block(model: PiConfig, work: Workload, *, losses: Losses, keeping: Keeping) -> float:
    """What the largest block makes again at once in its backward pass, beside what is kept of it.

    With it live the gradients of its MLP: of both halves and their product, or of what is activated.
    """
    if keeping.checkpointing == "none":
        return 0.0
    whole = Keeping(c=keeping.c, compiled=keeping.compiled)
    patches = sum((side // model.vision.patch_size) ** 2 for side in work.pictures)
    seen, sizes = patches + work.text, [0.0]

    def missing(of: Callable[[Keeping], float]) -> float:
        return of(whole) - of(keeping)

    if losses.backbone:
        block = missing(lambda k: vision_block(model.vision, k))
        sizes.append(patches * (block + 2 * model.vision.mlp_dim * keeping.c))
        block = missing(lambda k: before_attention(model.vlm, k) + after_attention(model.vlm, k))
        sizes.append(seen * (block + 3 * model.vlm.mlp_dim * keeping.c))
    if losses.flow and (expert := model.action_expert) is not None:
        sizes.append(work.draws * missing(lambda k: flow_block(model, k, seen=seen)) / expert.depth)
    return max(sizes)
