"""How many samples per second the nano model learns, forward, backward and optimizer, on the cores of this machine.

    python bench/training.py [--threads 2] [--steps 20]

Rows are as the homes give them (16 prompt tokens, 10 of subtask, 12 of FAST); losses are text, FAST and flow together.
Sizes: `nano` as it is shipped, and `nano-1m`, a variant of about a million parameters with patches of 16 pixels.
Target: `nano-1m` at least 250 samples/s on 2 cores.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch

from pilot.data.layout import Kind, Observation
from pilot.models.pi import Pi, PiConfig, pi05
from pilot.nn.gemma import GemmaConfig
from pilot.nn.siglip import SiglipConfig
from pilot.train.config import OptimConfig
from pilot.train.optim import Optimizer

ROW = [Kind.PREFIX] * 16 + [Kind.TEXT] * 10 + [Kind.FAST] * 12


def nano_1m() -> PiConfig:
    """About a million parameters, and few tokens: one per 16 × 16 pixels."""
    nano = pi05("nano")
    expert = GemmaConfig(width=64, depth=3, mlp_dim=192, num_heads=4, head_dim=32, cond_width=64)
    return replace(
        nano,
        vision=SiglipConfig(image_size=64, patch_size=16, width=96, depth=2, mlp_dim=256, num_heads=3),
        vlm=GemmaConfig(width=96, depth=3, mlp_dim=256, num_heads=4, head_dim=32),
        action_expert=expert,
    )


def observation(config: PiConfig, batch: int) -> Observation:
    kinds = torch.tensor([int(kind) for kind in ROW]).expand(batch, -1)
    sizes = {"room": config.image_size(wrist=False), "wrist": config.image_size(wrist=True)}
    return Observation(
        images={camera: torch.rand(batch, size, size, 3) * 2 - 1 for camera, size in sizes.items()},
        image_masks={camera: torch.ones(batch, dtype=torch.bool) for camera in sizes},
        state=torch.zeros(batch, config.action_dim),
        tokens=torch.randint(4, 1800, kinds.shape),
        token_kinds=kinds,
        token_loss=kinds >= Kind.TEXT,
    )


def measure(config: PiConfig, *, batch: int, steps: int, threads: int) -> tuple[float, float]:
    """Samples per second of the wall and per second of processor time."""
    model = Pi(config).initialize(torch.Generator().manual_seed(0))
    optimizer = Optimizer(model, OptimConfig(), steps=1000)
    seen = observation(config, batch // threads)
    actions = torch.randn(batch // threads, config.action_horizon, config.action_dim)
    mask = torch.ones_like(actions, dtype=torch.bool)

    def part(_: int) -> tuple[torch.Tensor | None, ...]:
        noise, time_ = torch.randn(len(actions), 1, *actions.shape[1:]), torch.rand(len(actions), 1)
        terms = model.loss_terms(seen, actions, mask, noise=noise, time=time_)
        loss = torch.stack([total.sum() / count.sum() for total, count in terms.values()]).sum()
        return torch.autograd.grad(loss, optimizer.parameters, allow_unused=True)

    pool = ThreadPoolExecutor(threads)  # as `train/loop.py` does it: a part of the batch on each core

    def step(number: int) -> None:
        for p, *parts in zip(optimizer.parameters, *pool.map(part, range(threads)), strict=True):
            known = [g for g in parts if g is not None]
            p.grad = torch.stack(known).sum(0) if known else None
        optimizer.step(number)

    for number in range(3):
        step(number)
    wall, processor = time.perf_counter(), time.process_time()
    for number in range(steps):
        step(number)
    samples = steps * (batch // threads) * threads
    return samples / (time.perf_counter() - wall), samples / (time.process_time() - processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for name, config in (("nano", pi05("nano")), ("nano-1m", nano_1m())):
        count = sum(p.numel() for p in Pi(config).parameters()) / 1e6
        wall, processor = measure(config, batch=args.batch, steps=args.steps, threads=args.threads)
        print(
            f"{name:8} {count:.2f} M parameters, {args.threads} threads: {wall:6.0f} samples/s, "
            f"{processor:6.0f} per second of processor time"
        )


if __name__ == "__main__":
    main()
