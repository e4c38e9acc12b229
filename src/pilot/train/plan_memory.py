"""Bytes of training on one GPU by what they are for, from the config alone.

Weights, gradients, optimizer and moving average are counted on a model on the meta device. What autograd keeps of a
forward pass (`kept`) is counted operation by operation, as the model is written: a linear layer keeps its input, a norm
its input and what it scales (both in fp32), attention its queries, keys, values, output and one number per query and
head, a gated MLP both halves, the activated one and their product. `bench/memory.py` measures a step on a CPU
(`live_bytes.py`) beside it.

In the formulas: `d` width, `m` width of the MLP, `n` heads, `k` key-value heads, `h` head dim, `c` bytes of a number in
compute.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from pilot.models.kinds import of_family
from pilot.models.pi import Pi, PiConfig
from pilot.nn.gemma import GemmaConfig
from pilot.nn.lora import adapted
from pilot.nn.siglip import SiglipConfig
from pilot.train.config import TrainConfig
from pilot.train.flops import Losses, Workload
from pilot.train.gpus import GIB, GPUS_PER_NODE

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

    Not all of it is there at once: `gradients` come as `activations` go, unless they stay from pass to pass, and the
    `logits` are gone before a block is made `again`.
    """

    weights: float
    gradients: float
    optimizer: float
    average: float
    copies: float
    activations: float
    logits: float
    again: float
    workspace: float
    gradients_stay: bool = False

    @property
    def peak(self) -> float:
        passing = self.activations + max(self.logits, self.again)
        moving = passing + self.gradients if self.gradients_stay else max(passing, self.gradients)
        return self.weights + self.optimizer + self.average + self.copies + moving + self.workspace


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Numbers in a model (after `choose_learning`; the meta device is enough): all, those that learn, those beside
    adapters (kept in the dtype of compute: `halve_frozen`), matrices that Muon learns, those outside of blocks, the
    largest block, and how many blocks."""

    everything: int
    learning: int
    halved: int
    muon: int
    outside: int
    largest: int
    blocks: int

    @classmethod
    def of(cls, model: Pi, config: TrainConfig) -> "Counts":
        units = [sum(p.numel() for p in block.parameters()) for block in model.blocks()]
        everything = sum(p.numel() for p in model.parameters())
        linear = [m.weight for m in model.modules() if isinstance(m, nn.Linear) and m.weight.requires_grad]
        learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
        return cls(
            everything=everything,
            learning=learning,
            halved=everything - learning if adapted(model) else 0,
            muon=sum(p.numel() for p in linear) if config.optim.name == "muon" else 0,
            outside=everything - sum(units),
            largest=max(units),
            blocks=len(units),
        )


def memory(config: TrainConfig, counts: Counts, *, work: Workload, layout: Layout) -> Memory:
    """Of a step of the run."""
    losses, keeping, rows, model = Losses.of(config), layout.keeping, layout.rows, of_family(config.model)
    parts = kept(model, work, losses=losses, keeping=keeping)
    logits = parts.pop("logits", 0.0)
    logits += work.spoken * model.vocab_size * (FP32 + keeping.c) if losses.text else 0.0  # their gradient
    activations, again = rows * sum(parts.values()), rows * one_block(model, work, losses=losses, keeping=keeping)
    return Memory(
        weights=(FP32 * counts.everything - (FP32 - keeping.c) * counts.halved) / layout.shards,
        gradients=FP32 * counts.learning / layout.shards,
        optimizer=FP32 * (2 * counts.learning - counts.muon) / layout.shards,
        average=FP32 * counts.learning / layout.shards,
        copies=copies(counts, layout),
        activations=activations,
        logits=rows * logits,
        again=again,
        workspace=CONTEXT + FRAGMENTS * (activations + max(rows * logits, again)),
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
    """Of a block's keys and values per token: they are views of two wholes, rotated and not, with the queries."""
    return (2 * config.num_heads + 3 * config.num_kv_heads) * config.head_dim * keeping.c


def before_attention(config: GemmaConfig, keeping: Keeping, *, copied: bool = False, read: bool = True) -> float:
    """Of a block per token up to its queries, keys and values.

    Where keys and values are `copied` behind others, those of its own that are not rotated go. Where they are not
    `read` by another stack, checkpointed blocks make them again.
    """
    d, n, k, h, c = config.width, config.num_heads, config.num_kv_heads, config.head_dim, keeping.c
    if keeping.checkpointing == "none":
        return norm(config, keeping) + (cached(config, keeping) if not copied else (n + k) * h * c)
    if read and not copied:
        return d * c + cached(config, keeping)
    return d * c + ((n + 2 * k) * h * c if keeping.checkpointing == "selective" else 0)


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
    cross = model.expert_reads == "output"
    per_token = before_attention(config, keeping, copied=not cross, read=False) + after_attention(config, keeping)
    cache = 2 * config.num_kv_heads * config.head_dim * c * (seen if cross else seen + tokens)
    if cross and keeping.checkpointing == "none":  # a norm, queries and their mean of values, a branch
        per_token += norm(config, keeping) + 2 * config.num_heads * config.head_dim * c + d * c
    norms = (3 if cross else 2) * config.depth + 1
    modulation = norms * 4 * d * FP32 if config.cond_width else 0
    ends = tokens * (norm(config, keeping) + 2 * model.action_dim * FP32)
    ends += 0 if config.cond_width else tokens * 4 * d * c  # actions and time, mixed
    attention = tokens * ((seen + tokens) * c + 2 * config.head_dim * FP32)
    return config.depth * (tokens * per_token + cache) + modulation + ends + attention


def one_block(model: PiConfig, work: Workload, *, losses: Losses, keeping: Keeping) -> float:
    """What the largest block makes again at once in its backward pass, beside what is kept of it."""
    if keeping.checkpointing == "none":
        return 0.0
    whole = Keeping(c=keeping.c, compiled=keeping.compiled)
    patches = sum((side // model.vision.patch_size) ** 2 for side in work.pictures)
    seen, sizes = patches + work.text, [0.0]

    def missing(of: Callable[[Keeping], float]) -> float:
        return of(whole) - of(keeping)

    if losses.backbone:
        sizes.append(patches * missing(lambda k: vision_block(model.vision, k)))
        sizes.append(seen * missing(lambda k: before_attention(model.vlm, k) + after_attention(model.vlm, k)))
    if losses.flow and (expert := model.action_expert) is not None:
        sizes.append(work.draws * missing(lambda k: flow_block(model, k, seen=seen)) / expert.depth)
    return max(sizes)
