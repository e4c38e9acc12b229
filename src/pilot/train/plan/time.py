"""How long a step takes, from what it computes, moves and sends.

Matrix products run at a share of the GPU's peak; everything else moves bytes through its memory; gradients and sharded
weights go over the links, behind the backward pass where that is long enough. The shares are assumptions, said with
every plan: what well-shaped products reach in practice, and what is left of bandwidths. A plan is a forecast for
choosing; `bench/training.py` and a run's own line say what is.
"""

from dataclasses import dataclass

from pilot.models.registry import require_pi
from pilot.train.config import TrainConfig
from pilot.train.plan.flops import FlopFactors, Losses, Workload, forward, per_row
from pilot.train.plan.gpus import GPUS_PER_NODE, NETWORK, Gpu
from pilot.train.plan.memory import BF16, FP32, BlockSettings, Counts, Layout, learning_numbers, saved_activations

PRODUCTS = 0.62
"""Share of the peak that matrix products reach in bf16.

On an H100 the kernels of three runs of π0.5 took what is forecast within 10 % (`tests/train/plan/test_time.py`).
"""
FP32_PRODUCTS = 0.10
"""The same in fp32, which runs without (or on slower) tensor cores."""
TRAFFIC = 5
"""How often what is kept goes through memory: written, read, read again in backward; its gradient written and read."""
ONE_WAY = 2
"""The same where there is no backward pass: written and read."""
BANDWIDTH = 0.8
"""Share of bandwidths that is reached."""
ADAPTED = 2
"""How many times more goes through memory where adapters add to the outputs of frozen matrices."""
KERNEL = 4e-5
"""Seconds of the host for a kernel, with all that Python and autograd do before its launch."""
KERNELS = {False: 75, True: 59}
"""Kernels of a block forward and backward, as written and compiled."""
SELECTIVE_AGAIN = {False: 0.05, True: 0.5}
"""Share of a forward pass's products that selective checkpointing recomputes: as written, and by a compiler's budget,
which does not keep the widest of them."""


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of one step. `sending` is what is not hidden behind the backward pass."""

    products: float
    traffic: float
    waiting: float
    optimizer: float
    sending: float

    @property
    def total(self) -> float:
        return self.products + self.traffic + self.waiting + self.optimizer + self.sending


def step_time(
    config: TrainConfig, counts: Counts, work: Workload, *, layout: Layout, gpu: Gpu, flop_factors: FlopFactors
) -> StepTime:
    """Return the seconds that a step of the run takes, by what takes them."""
    rows = layout.rows * layout.accumulate
    operations = rows * (
        sum(per_row(require_pi(config.model), work, flop_factors).values())
        + recomputed(config, work, layout=layout, flop_factors=flop_factors)
    )
    products = operations / (gpu.peak_flops * (PRODUCTS if layout.precision == "bf16" else FP32_PRODUCTS))
    moved = rows * bytes_moved(config, work, layout=layout, flop_factors=flop_factors)
    traffic = (ADAPTED if counts.halved else 1) * moved / (BANDWIDTH * gpu.bandwidth)
    launching = layout.accumulate * counts.blocks * KERNELS[layout.compiled] * KERNEL
    backward = (products + traffic) * 2 / 3
    sending = communication_seconds(counts, layout, gpu)
    return StepTime(
        products=products,
        traffic=traffic,
        waiting=max(0.0, launching - products - traffic),
        optimizer=optimizer_bytes(config, counts, layout) / (BANDWIDTH * gpu.bandwidth),
        sending=max(0.1 * sending, sending - backward),
    )


def bytes_moved(config: TrainConfig, work: Workload, *, layout: Layout, flop_factors: FlopFactors) -> float:
    """Return the bytes of a row that go through memory beside products; without a backward pass they are fewer."""
    losses, settings = Losses.of(config), layout.settings
    run = Losses(text=losses.text, flow=losses.flow, backbone=True)
    parts = saved_activations(
        require_pi(config.model),
        work,
        losses=run,
        settings=BlockSettings(c=settings.c, compiled=settings.compiled),
    )
    both_ways = TRAFFIC + (ONE_WAY if layout.checkpointing != "none" else 0)  # what is recomputed is moved again
    return sum((both_ways if flop_factors.get(part, 3) > 1 else ONE_WAY) * size for part, size in parts.items())


def recomputed(config: TrainConfig, work: Workload, *, layout: Layout, flop_factors: FlopFactors) -> float:
    """Return the operations of a row that are recomputed in the backward pass."""
    share = {"none": 0.0, "selective": SELECTIVE_AGAIN[layout.compiled], "blocks": 1.0}[layout.checkpointing]
    parts = forward(require_pi(config.model), work)
    return share * sum(ops.total for part, ops in parts.items() if part != "head" and flop_factors.get(part, 0) > 1)


def optimizer_bytes(config: TrainConfig, counts: Counts, layout: Layout) -> float:
    """Return the bytes that the optimizer, the moving average and the copies in bf16 read and write."""
    everything, learning = counts.everything, learning_numbers(counts, Losses.of(config), layout)
    if layout.has_masters and not counts.muon:  # one pass over all of it, and one for the norm (`fused_adamw.py`)
        gradient = BF16 if layout.accumulate == 1 else FP32
        return learning * (8 * FP32 + 2 * gradient + BF16)
    norm_and_clip, adam, average = 3 * FP32, 7 * FP32, 3 * FP32
    cast = (FP32 + BF16) * layout.accumulate if layout.precision == "bf16" else 0
    return (learning * (norm_and_clip + adam + average) + everything * cast) / layout.shards


def communication_seconds(counts: Counts, layout: Layout, gpu: Gpu) -> float:
    """Return the seconds of gathering and reducing in a step, if nothing ran beside it."""
    if layout.gpus == 1 or layout.parallel == "none":
        return 0.0
    everything, learning = counts.everything, counts.learning
    c, shards = layout.settings.c, layout.shards
    across = NETWORK if layout.gpus > GPUS_PER_NODE else gpu.link
    if layout.parallel == "ddp":
        return layout.accumulate * 2 * FP32 * learning * (layout.gpus - 1) / layout.gpus / (BANDWIDTH * across)
    inside = gpu.link if shards <= GPUS_PER_NODE else NETWORK
    passes = 2 * c * everything + FP32 * learning  # weights gathered forward and backward, gradients scattered
    seconds = layout.accumulate * passes * (shards - 1) / shards / (BANDWIDTH * inside)
    copies = layout.gpus // shards
    return seconds + 2 * FP32 * learning / shards * (copies - 1) / copies / (BANDWIDTH * across)
