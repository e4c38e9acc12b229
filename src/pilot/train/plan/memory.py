"""Bytes of training on one GPU by what they are for, from the config alone.

Weights, gradients, optimizer and moving average are counted on a model on the meta device. What autograd saves in a
forward pass (`Activations`) is counted operation by operation, as the model is written: a linear layer saves its input,
a norm its input and what it scales (both in fp32), attention its queries, keys, values, output and one number per query
and head, a gated MLP both halves, the activated one and their product. `bench/memory.py` measures a step beside it.
"""

from collections.abc import Iterable

from torch import Tensor, nn

from pilot.models.pi import Pi
from pilot.nn.configs import GemmaConfig
from pilot.nn.cross_entropy import AT_ONCE
from pilot.nn.lora import adapted_layers
from pilot.train.config import TrainConfig
from pilot.train.freezing import GROUPS
from pilot.train.plan.flops import Losses, Workload, count_tokens, forward, per_row
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
        parallel, compute = config.parallel, config.compute
        self.gpus, self.accumulate = gpus, parallel.accumulate
        if config.batch_size % (gpus * self.accumulate):
            raise ValueError(
                f"a batch of {config.batch_size} rows does not split over {gpus} GPUs of {self.accumulate} passes "
                "each; --set batch_size=… to a multiple"
            )
        self.rows = config.batch_size // gpus // self.accumulate
        # One GPU shares with none; several work as DDP where the config names no parallelism.
        self.parallel = "none" if gpus == 1 else "ddp" if parallel.strategy == "none" else parallel.strategy
        # GPUs that share one copy of the weights: all, those of a node, or each for itself.
        self.shards = {"fsdp": gpus, "hsdp": min(gpus, parallel.shards or GPUS_PER_NODE)}.get(self.parallel, 1)
        self.checkpointing, self.compiled = compute.checkpointing, compute.compile
        self.precision = "bf16" if config.computes_in_bf16("cuda") else "fp32"
        self.c = BF16 if self.precision == "bf16" else FP32  # bytes of a number in compute
        # A run of one process has fp32 weights beside bf16 copies (`train/master_weights.py`).
        self.has_masters = gpus == 1 and self.precision == "bf16"


class Counts:
    """The numbers that all layouts of a run share, from its model after `choose_learning` (on the meta device, say)."""

    def __init__(self, model: Pi, config: TrainConfig, work: Workload) -> None:
        self.model, self.config, self.work, self.losses = model, model.config, work, Losses.of(config)
        self.tokens, self.flops = count_tokens(model.config, work), per_row(model, config, work)
        # Operations of the forward pass of parts that have a backward pass too, and the parts that have none.
        ahead = {part: sum(operations) for part, operations in forward(model, work).items()}
        self.both_ways = {part: count for part, count in ahead.items() if self.flops.get(part, 0) > count}
        self.one_way = ahead.keys() - self.both_ways.keys()
        # Parameters: all, those that learn, and those of them that a loss reaches; an optimizer keeps only these.
        gets_gradients = {"vision": self.losses.vision, "embedding": self.losses.vision}
        gets_gradients |= dict.fromkeys(GROUPS["expert"], self.losses.flow)
        learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
        reached = [
            p for name, p in learning.items() if gets_gradients.get(name.partition(".")[0], self.losses.backbone)
        ]
        self.everything, self.learning, self.reached = map(
            count_numbers, (model.parameters(), learning.values(), reached)
        )
        # Those beside adapters, which are kept in the dtype of compute; and those that Muon moves.
        self.halved = self.everything - self.learning if adapted_layers(model) else 0
        linear = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Linear)}
        self.muon = count_numbers(p for p in reached if id(p) in linear) if config.optim.name == "muon" else 0
        # Those outside of blocks, those of the largest block, and the number of blocks.
        blocks = [count_numbers(block.parameters()) for block in model.blocks()]
        self.outside, self.largest, self.blocks = self.everything - sum(blocks), max(blocks), len(blocks)

    def kept_learning(self) -> int:
        """Count the numbers that learn; a backbone that no loss reaches is frozen (`freezing.py`)."""
        freezes = not self.halved and self.losses.flow and not self.losses.backbone
        return min(self.learning, self.reached) if freezes else self.learning


def count_numbers(parameters: Iterable[Tensor]) -> int:
    """Return how many numbers the tensors hold."""
    return sum(p.numel() for p in parameters)


def memory(counts: Counts, layout: Layout) -> dict[str, float]:
    """Return the bytes that a step of the run takes on one GPU, by `KINDS`; and at most, without and with all else.

    "passing" is the most that a forward and backward pass hold beside gradients: the logits are gone before a block is
    recomputed, and the prefill of a backbone that does not learn is gone before any of the others comes. "peak" is the
    most of all kinds. Gradients come as activations go, unless they stay from pass to pass.
    """
    config, rows, activations = counts.config, layout.rows, Activations(counts, layout, layout.checkpointing)
    spoken, at_once = rows * counts.work.spoken, rows * counts.work.spoken * config.vocab_size
    # Hidden states, logits and their gradients; many are made in turn (`cross_entropy.py`).
    fp32 = spoken if at_once > AT_ONCE else at_once
    kinds = kept_between_steps(counts, layout) | {
        "activations": rows * sum(activations.by_part().values()),
        "logits": spoken * config.vlm.width * layout.c + 2 * FP32 * fp32 + min(at_once, AT_ONCE) * layout.c,
        "recomputed": rows * activations.recomputed(),
        "prefill": rows * activations.frozen_prefill(),
    }
    passing = max(kinds["activations"] + max(kinds["logits"], kinds["recomputed"]), kinds["prefill"])
    moving = passing + kinds["gradients"] if layout.accumulate > 1 else max(passing, kinds["gradients"])
    kinds["workspace"] = CONTEXT + FRAGMENTS * passing
    kept = sum(kinds[kind] for kind in ("weights", "optimizer", "average", "copies", "workspace"))
    return kinds | {"passing": passing, "peak": kept + moving}


def kept_between_steps(counts: Counts, layout: Layout) -> dict[str, float]:
    """Return the bytes of weights, gradients, optimizer, average and copies on one GPU.

    Copies are weights cast or gathered for computing (`train/distributed.py`): what stands outside of blocks, two
    blocks (one ahead), and the gradients of one before they are spread.
    """
    c, shards, masters, learning = layout.c, layout.shards, layout.has_masters, counts.kept_learning()
    gathered = c * (counts.outside + 2 * counts.largest) + FP32 * counts.largest
    in_place = layout.parallel == "none" and c == FP32
    return {
        "weights": FP32 * learning if masters else (FP32 * counts.everything - (FP32 - c) * counts.halved) / shards,
        "gradients": (BF16 if masters and layout.accumulate == 1 else FP32) * counts.reached / shards,
        "optimizer": FP32 * (2 * (learning if masters else counts.reached) - counts.muon) / shards,
        "average": FP32 * learning / shards,
        "copies": BF16 * counts.everything if masters else 0.0 if in_place else gathered,
    }


class Activations:
    """The bytes of one row that are saved for its backward pass, beside logits.

    `c` is the bytes of a number in compute, and others are bytes per token: `x` of what goes from block to block, `mlp`
    of one half of the MLP, `q` of all queries, `kv` of all keys and values.

    The way in which blocks are computed decides what each saves. "blocks": what entered the block, and keys and values
    where the expert reads them. "selective": also what matrix products and attention put out; the compiler's budget
    leaves out the widest. "compiled" blocks make norms and activation functions again in fused kernels, and keep what
    enters a matrix product and attention.
    """

    def __init__(self, counts: Counts, layout: Layout, checkpointing: str) -> None:
        self.counts, self.layout, self.model, self.c = counts, layout, counts.config, layout.c
        names = {"none": "compiled", "selective": "compiled selective"} if layout.compiled else {"none": "as written"}
        self.way = names.get(checkpointing, checkpointing)

    def by_part(self, *, run_all: bool = False) -> dict[str, float]:
        """Return the bytes by part of the model; with `run_all` as if a backbone without gradients saved any."""
        model, c, losses, work, parts = self.model, self.c, self.counts.losses, self.counts.work, {}
        patches, prefix, last, _ = self.counts.tokens
        if losses.vision or run_all:
            block, ends = self.vision_block(), 2 * model.vision.width * c + 2 * FP32
            stem = ((i, 2 * channels) for i, channels in enumerate(model.vision.stem))  # each halves the resolution
            pixels = sum(n * (side >> i) ** 2 for i, n in [(0, 3), *stem] for side in work.pictures)
            parts["vision"] = pixels * c + patches * (ends + model.vision.depth * block)
        if losses.backbone or run_all:
            beside = prefix * (prefix * c + 2 * model.vlm.head_dim * FP32) + work.text * 8  # mask, angles, token ids
            parts["vlm"] = beside + self.stack(model.vlm, prefix, last, read=model.expert_reads == "layers")
            if (text := model.text_encoder) is not None:
                parts["vlm"] += self.stack(text, work.text, work.text, read=False) + work.text * text.width * c
        elif losses.flow:  # no way back, but a cache for the expert
            parts["vlm"] = prefix * model.vlm.depth * self.kv(model.vlm)
        if losses.flow and work.draws and (expert := model.action_expert) is not None:
            parts["action_expert"] = work.draws * self.flow_block(expert)
            if model.expert_reads == "output":
                parts["memory"] = prefix * expert.depth * self.kv(expert)
        return parts

    def kv(self, config: GemmaConfig) -> float:
        """Return the bytes of a block's keys and values, per token."""
        return 2 * config.num_kv_heads * config.head_dim * self.c

    def norm(self, config: GemmaConfig) -> float:
        """Return the bytes per token that a norm saves: its input, what it scales, one over the root, its output."""
        return config.width * ((self.c if self.layout.compiled else 2 * FP32) + self.c) + FP32

    def vision_block(self) -> float:
        """Return the bytes that a block of the vision tower saves, per patch."""
        x, mlp = self.model.vision.width * self.c, self.model.vision.mlp_dim * self.c
        attention = 4 * x + FP32 * self.model.vision.num_heads  # q, k, v and the mean of the values
        norms = 2 * (2 * x + 2 * FP32)
        return {
            "as written": attention + norms + 2 * mlp,
            "compiled": attention + norms + mlp,
            "selective": attention + 3 * x + mlp,
            "compiled selective": 5 * x + mlp,
            "blocks": x,
        }[self.way]

    def block(self, config: GemmaConfig, *, read: bool, copied: bool = False) -> tuple[float, float]:
        """Return the bytes that a block saves per token: before attention, and from its output on.

        Queries are kept with the keys beside which they were rotated; keys and values are copies, which are counted
        elsewhere where they are `copied` behind others. Checkpointed blocks make them again if no other stack `read`s
        them.
        """
        x, mlp, q = (n * self.c for n in (config.width, config.mlp_dim, config.num_heads * config.head_dim))
        kv, norm = self.kv(config), self.norm(config)
        own = 0 if copied else kv
        out = q + FP32 * config.num_heads  # of attention, with one number per query and head
        gates = 2 * x if config.cond_width else 0  # the branches that adaptive norms gate
        return {
            "as written":         (norm + q + kv / 2 + own,    out + norm + gates + 4 * mlp),
            "compiled":           (norm + q + kv / 2 + own,    out + norm + gates + 3 * mlp),
            "selective":          (x + q + kv + own * read,    out + 2 * x + 2 * mlp),
            "compiled selective": (x + q + own * read,         x),
            "blocks":             (x + own * read,             0.0),
        }[self.way]  # fmt: skip

    def stack(self, config: GemmaConfig, tokens: float, last: float, *, read: bool) -> float:
        """Return the bytes of a stack and its final norm for `tokens` tokens, of which `last` leave the last block."""
        before, after = self.block(config, read=read)
        return config.depth * tokens * (before + after) + (last - tokens) * after + last * self.norm(config)

    def flow_block(self, expert: GemmaConfig) -> float:
        """Return the bytes of one noise draw of a row: the expert's blocks, with copies of all keys and values."""
        c, tokens, cross = self.c, self.counts.tokens.chunk, self.model.expert_reads == "output"
        x, heads = expert.width * c, expert.num_heads * expert.head_dim * c
        kv, norm = self.kv(expert), self.norm(expert)
        keys, groups = self.counts.tokens.prefix + tokens, expert.num_heads // expert.num_kv_heads
        grouped = not cross and 1 < groups <= keys / tokens
        block = tokens * sum(self.block(expert, read=False, copied=not cross))
        if self.way in ("as written", "compiled"):
            # Cross-attention: a norm, queries, as they come and by draws, and their mean of values, a branch.
            block += tokens * (norm + 3 * heads + x) if cross else keys * kv
            if grouped:  # queries by groups, without the keys, and what attention puts out by tokens too
                block += tokens * (heads - kv / 2)
        # What adaptive norms scale, shift and gate by; or actions and time, mixed.
        norms = (3 if cross else 2) * expert.depth + 1
        time = norms * 4 * expert.width * FP32 if expert.cond_width else tokens * 4 * x
        ends = tokens * (norm + 2 * self.model.action_dim * FP32)
        mask_and_angles = tokens * ((1 + groups * grouped) * keys * c + 2 * expert.head_dim * FP32)
        return expert.depth * block + ends + time + mask_and_angles

    def frozen_prefill(self) -> float:
        """Return the most bytes at once while a backbone without gradients reads a row, in its last whole block."""
        vlm, prefix, losses = self.model.vlm, self.counts.tokens.prefix, self.counts.losses
        if losses.backbone or not losses.flow:
            return 0.0
        heads = 2 * vlm.num_heads + 3 * vlm.num_kv_heads  # with keys rotated and not, and values, in two wholes
        block = heads * vlm.head_dim + (3 if self.layout.compiled else 4) * vlm.mlp_dim + 3 * vlm.width
        mask_and_angles = prefix * self.c + 2 * vlm.head_dim * FP32
        return prefix * (block * self.c + mask_and_angles + (vlm.depth - 1) * self.kv(vlm))

    def recomputed(self) -> float:
        """Return the bytes that the largest block recomputes in its backward pass, beside what is saved of it.

        With it live the gradients of its MLP: of both halves and their product, or of what is activated; and where it
        has adapters, what they add to both halves and to their product, and the gradients of that.
        """
        counts, model, whole = self.counts, self.model, Activations(self.counts, self.layout, "none")
        if self.way == whole.way:
            return 0.0
        vision = whole.vision_block() - self.vision_block() + 2 * model.vision.mlp_dim * self.c
        vlm = sum(whole.block(model.vlm, read=True)) - sum(self.block(model.vlm, read=True))
        vlm += (8 if counts.halved else 3) * model.vlm.mlp_dim * self.c
        flow = 0.0
        if (expert := model.action_expert) is not None:
            flow = counts.work.draws * (whole.flow_block(expert) - self.flow_block(expert)) / expert.depth
        backbone = max(counts.tokens.patches * vision, counts.tokens.prefix * vlm)
        return max(counts.losses.backbone * backbone, counts.losses.flow * flow)
