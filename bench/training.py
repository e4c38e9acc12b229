"""How many samples per second a model learns by the trainer's own step, and what the step costs beside the model.

    python bench/training.py [--threads 2] [--steps 20] [--sizes nano nano-1m] [--batches 16 32 64] [--plot FILE.svg]
    python bench/training.py --device cuda --sizes 2b --batches 1 2 4 8 16 --plot 2b.svg
    torchrun --nproc-per-node 8 bench/training.py --device cuda --sizes 2b --batches 64 --parallel fsdp

Rows are as the homes give them (16 prompt tokens, 10 of subtask, 12 of FAST); for `2b` as on a cluster: three cameras,
200 prompt tokens, 20 of subtask, 120 of FAST. Losses are text, FAST and flow together. A row of the table is one batch
size: samples per second of the wall and (on a CPU) of processor time, the most memory held until then, and the share of
a step that is neither forward, backward nor optimizer (measured in a run of its own, of one thread, on a CPU).

Targets: `nano-1m` at least 250 samples/s on 2 cores; overhead under 5 %; `2b` on an H200 at least 25 samples/s.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pilot.data.layout import Batch, Kind, Observation
from pilot.eval.report.charts import line_chart
from pilot.memory import ALL, keep_freed_memory
from pilot.models.pi import Pi, PiConfig, pi05
from pilot.nn.configs import GemmaConfig, SiglipConfig
from pilot.train.config import ComputeConfig, ParallelConfig, TrainConfig
from pilot.train.distributed import Ranks, connect
from pilot.train.learner import Learner, uses_threads

HOMES = [Kind.PREFIX] * 16 + [Kind.TEXT] * 10 + [Kind.FAST] * 12
CLUSTER = [Kind.PREFIX] * 200 + [Kind.TEXT] * 20 + [Kind.FAST] * 120


def nano_1m() -> PiConfig:
    """About a million parameters, and few tokens: one per 16 × 16 pixels."""
    nano = pi05("nano")
    expert = GemmaConfig(width=64, depth=3, mlp_dim=192, num_heads=4, head_dim=32, cond_width=64)
    return replace(
        nano,
        vision=SiglipConfig(image_size=64, patch_size=16, width=96, depth=2, mlp_dim=256, num_heads=3),
        vlm=GemmaConfig(width=96, depth=3, mlp_dim=256, num_heads=4, head_dim=32),
        action_expert=expert,
        point_layer=None,
    )


SIZES: dict[str, Callable[[], PiConfig]] = {
    "debug": lambda: pi05("debug"),
    "nano": lambda: pi05("nano"),
    "nano-1m": nano_1m,
    "2b": lambda: pi05("2b"),
}


def part(config: PiConfig, row_ids: range, *, cluster: bool) -> Batch:
    """Rows of a batch, all of them whole."""
    rows, words = len(row_ids), CLUSTER if cluster else HOMES
    kinds = torch.tensor([int(kind) for kind in words]).expand(rows, -1).contiguous()
    cameras = {"room": False, "wrist": True} | ({"right_wrist": True} if cluster else {})
    sizes = {camera: config.image_size(wrist=wrist) for camera, wrist in cameras.items()}
    actions = torch.randn(rows, config.action_horizon, config.action_dim)
    observation = Observation(
        images={camera: torch.rand(rows, size, size, 3) * 2 - 1 for camera, size in sizes.items()},
        image_masks={camera: torch.ones(rows, dtype=torch.bool) for camera in sizes},
        state=torch.zeros(rows, config.action_dim),
        tokens=torch.randint(4, min(1800, config.vocab_size), kinds.shape),
        token_kinds=kinds,
        token_loss=kinds >= Kind.TEXT,
    )
    return Batch(
        observation=observation,
        actions=actions,
        action_mask=torch.ones_like(actions, dtype=torch.bool),
        sources=("homes",) * rows,
        row_ids=tuple(row_ids),
    )


def settings(config: PiConfig, args: argparse.Namespace, *, batch: int, threads: int) -> TrainConfig:
    return TrainConfig(
        name="bench", model=config, robot="homes", steps=1000, batch_size=batch,
        parallel=ParallelConfig(strategy=args.parallel, accumulate=args.accumulate, threads=threads),
        compute=ComputeConfig(
            device=args.device, precision=args.precision, checkpointing=args.checkpointing, compile=args.compile
        ),
    )  # fmt: skip


def batch_of(run: TrainConfig, ranks: Ranks, *, cluster: bool) -> list[Batch]:
    """This rank's rows in as many parts as it takes them in."""
    rows = run.batch_size // ranks.world_size
    parts = run.parallel.threads if uses_threads(run, ranks) else run.parallel.accumulate
    edges = [rows * i // parts for i in range(parts + 1)]
    assert isinstance(run.model, PiConfig)
    return [part(run.model, range(a, b), cluster=cluster) for a, b in pairwise(edges)]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One row of the table. `samples` per second of the wall, `cpu_samples` of processor time, memory in GB."""

    samples: float
    cpu_samples: float
    memory: float
    overhead: float | None = None


def measure(learner: Learner, batch: list[Batch], *, steps: int, ranks: Ranks) -> Measured:
    """Samples per second of all ranks."""
    for _ in range(3):
        learner.train_step(batch)
    wait(ranks)
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(steps):
        learner.train_step(batch)
    wait(ranks)
    samples = steps * learner.config.batch_size
    memory = (
        torch.cuda.max_memory_allocated() / 1e9
        if ranks.device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    )
    return Measured(
        samples=samples / (time.perf_counter() - wall),
        cpu_samples=samples / (time.process_time() - processor),
        memory=memory,
    )


def wait(ranks: Ranks) -> None:
    if ranks.device.type == "cuda":
        torch.cuda.synchronize()


class Clock:
    """Adds up the processor time of this thread within functions that it has taken the place of."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, owner: Any, name: str) -> None:
        own = getattr(owner, name)

        def timed(*args: Any, **options: Any) -> Any:
            start = time.thread_time()
            try:
                return own(*args, **options)
            finally:
                self.seconds += time.thread_time() - start

        setattr(owner, name, timed)


def overhead(run: TrainConfig, *, steps: int, cluster: bool) -> float:
    """The share of a step outside of forward, backward and optimizer: draws, counts, sums, the moving average."""
    run = replace(run, parallel=replace(run.parallel, threads=1, accumulate=2))  # in turn, in this thread
    assert isinstance(run.model, PiConfig)
    learner = Learner(Pi(run.model).initialize(torch.Generator().manual_seed(0)), run)
    batch = batch_of(run, Ranks(), cluster=cluster)
    clock = Clock()
    clock.around(learner.model, "loss_terms")
    clock.around(torch.Tensor, "backward")
    clock.around(learner.optimizer, "step")
    for _ in range(2):
        learner.train_step(batch)
    clock.seconds, start = 0.0, time.thread_time()
    for _ in range(steps):
        learner.train_step(batch)
    return 1 - clock.seconds / (time.thread_time() - start)


def table(size: str, rows: dict[int, Measured]) -> str:
    lines = [
        f"| {size}: batch | samples/s | per second of processor time | memory, GB | overhead |",
        "|---|---|---|---|---|",
    ]
    for batch, found in rows.items():
        beside = "" if found.overhead is None else f"{found.overhead:.1%}"
        lines.append(f"| {batch} | {found.samples:.1f} | {found.cpu_samples:.1f} | {found.memory:.2f} | {beside} |")
    return "\n".join(lines)


def plot(file: Path, results: dict[str, dict[int, Measured]]) -> None:
    """Samples per second against batch size."""
    curves = {
        size: (np.array(list(rows), float), np.array([found.samples for found in rows.values()]))
        for size, rows in results.items()
    }
    file.write_text(line_chart(curves, x_label="batch size", y_label="samples/s"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["nano", "nano-1m"])
    parser.add_argument("--batches", "--batch", type=int, nargs="+", default=[64], help="rows of all ranks together")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--parallel", choices=("none", "ddp", "fsdp", "hsdp"), default="none")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--checkpointing", choices=("none", "blocks", "selective"), default="none")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    torch.manual_seed(0)
    results: dict[str, dict[int, Measured]] = {}
    for size in args.sizes:
        config, cluster = SIZES[size](), size == "2b"
        for batch in args.batches:
            run = settings(config, args, batch=batch, threads=args.threads)
            with connect(run) as ranks:
                if ranks.device.type == "cpu":  # as the trainer does
                    torch.set_num_threads(1)
                    keep_freed_memory(ALL)
                learner = Learner(Pi(config).initialize(torch.Generator().manual_seed(0)), run, ranks=ranks)
                found = measure(learner, batch_of(run, ranks, cluster=cluster), steps=args.steps, ranks=ranks)
                learner.close()
                if uses_threads(run, ranks):
                    found = replace(found, overhead=overhead(run, steps=args.steps, cluster=cluster))
                results.setdefault(size, {})[batch] = found
                main_rank = ranks.is_main
        if main_rank:
            parameters = sum(p.numel() for p in learner.model.parameters()) / 1e6
            print(f"{size}: {parameters:.2f} M parameters, {args.threads} threads\n{table(size, results[size])}\n")
    if args.plot and main_rank:
        plot(args.plot, results)


if __name__ == "__main__":
    main()
