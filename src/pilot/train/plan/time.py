"""How long a step takes, from what it computes, moves and sends.

Matrix products run at a share of the GPU's peak; everything else moves bytes through its memory; gradients and sharded
weights go over the links, behind the backward pass where that is long enough. The shares are assumptions, said with
every plan: what well-shaped products reach in practice, and what is left of bandwidths.
"""

from pilot.train.plan.gpus import GPUS_PER_NODE, NETWORK, Gpu
from pilot.train.plan.memory import BF16, FP32, Activations, Counts, Layout

# Share of the peak that matrix products reach. On an H100 the kernels of three runs of π0.5 took what is forecast
# within 10 % (`tests/train/plan/test_time.py`). In fp32 they run without (or on slower) tensor cores.
PRODUCTS = {"bf16": 0.62, "fp32": 0.10}
BANDWIDTH = 0.8  # share of bandwidths that is reached
# How often what is kept goes through memory: written, read, read again in backward; its gradient written and read.
# Without a backward pass: written and read.
TRAFFIC, ONE_WAY = 5, 2
ADAPTED = 2  # how many times more goes through memory where adapters add to the outputs of frozen matrices
KERNEL = 4e-5  # seconds of the host for a kernel, with all that Python and autograd do before its launch
KERNELS = {False: 75, True: 59}  # of a block forward and backward, as written and compiled
# Share of a forward pass's products that selective checkpointing recomputes: as written, and by a compiler's budget,
# which does not keep the widest of them.
SELECTIVE_AGAIN = {False: 0.05, True: 0.5}


def step_time(counts: Counts, layout: Layout, gpu: Gpu) -> dict[str, float]:
    """Return the seconds that a step of the run takes, by what takes them, and their "total".

    "sending" is what the backward pass does not hide, and "waiting" is for the host to launch kernels.
    """
    rows, memory_speed = layout.rows * layout.accumulate, BANDWIDTH * gpu.bandwidth
    again = {"none": 0.0, "selective": SELECTIVE_AGAIN[layout.compiled], "blocks": 1.0}[layout.checkpointing]
    blocks = sum(ops for part, ops in counts.both_ways.items() if part != "head")
    operations = rows * (sum(counts.flops.values()) + again * blocks)
    products = operations / (gpu.peak_flops * PRODUCTS[layout.precision])
    traffic = (ADAPTED if counts.halved else 1) * rows * bytes_moved(counts, layout) / memory_speed
    launching = layout.accumulate * counts.blocks * KERNELS[layout.compiled] * KERNEL
    sending = communication_seconds(counts, layout, gpu)
    seconds = {
        "products": products,
        "traffic": traffic,
        "waiting": max(0.0, launching - products - traffic),
        "optimizer": optimizer_bytes(counts, layout) / memory_speed,
        "sending": max(0.1 * sending, sending - (products + traffic) * 2 / 3),
    }
    return seconds | {"total": sum(seconds.values())}


def bytes_moved(counts: Counts, layout: Layout) -> float:
    """Return the bytes of a row that go through memory beside products."""
    sizes = Activations(counts, layout, "none").by_part(run_all=True)
    sizes["logits"] = counts.work.spoken * (counts.config.vlm.width * layout.c + counts.config.vocab_size * FP32)
    both_ways = TRAFFIC + (ONE_WAY if layout.checkpointing != "none" else 0)  # what is recomputed is moved again
    return sum((ONE_WAY if part in counts.one_way else both_ways) * size for part, size in sizes.items())


def optimizer_bytes(counts: Counts, layout: Layout) -> float:
    """Return the bytes that the optimizer, the moving average and the copies in bf16 read and write."""
    learning = counts.kept_learning()
    if layout.has_masters and not counts.muon:  # one pass over all of it, and one for the norm (`fused_adamw.py`)
        gradient = BF16 if layout.accumulate == 1 else FP32
        return learning * (8 * FP32 + 2 * gradient + BF16)
    norm_and_clip, adam, average = 3 * FP32, 7 * FP32, 3 * FP32
    cast = (FP32 + BF16) * layout.accumulate if layout.precision == "bf16" else 0
    return (learning * (norm_and_clip + adam + average) + counts.everything * cast) / layout.shards


def communication_seconds(counts: Counts, layout: Layout, gpu: Gpu) -> float:
    """Return the seconds of gathering and reducing in a step, if nothing ran beside it."""
    shards, gradients, copies = layout.shards, FP32 * counts.learning, layout.gpus // layout.shards
    across = BANDWIDTH * (NETWORK if layout.gpus > GPUS_PER_NODE else gpu.link)
    inside = BANDWIDTH * (NETWORK if shards > GPUS_PER_NODE else gpu.link)
    reducing = 2 * gradients / shards * (copies - 1) / copies / across  # between copies of the weights
    if layout.parallel == "ddp":
        return layout.accumulate * reducing
    passes = 2 * layout.c * counts.everything + gradients  # weights gathered forward and backward, gradients scattered
    return layout.accumulate * passes * (shards - 1) / shards / inside + reducing
