"""What a training step holds in memory, predicted by `pilot plan` and measured, kind by kind.

    python bench/memory.py                              nano on a CPU, in seconds
    python bench/memory.py --size 2b --rows 8           on a GPU, of everything that torch has allocated at once

Measured on a CPU are the bytes of weights, gradients, optimizer and moving average, and the most bytes of other tensors
that live at once in a forward and backward pass (`live_bytes.py`). Target: predicted within 10 % of measured.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from itertools import product
from typing import cast

import torch
from torch import Tensor

from live_bytes import LiveBytes
from pilot.data.layout import Batch, Kind, Observation
from pilot.models.bundle import empty_model
from pilot.models.pi import Pi, PiConfig, pi0, pi0_fast, pi05
from pilot.train.config import ComputeConfig, ObjectiveConfig, TrainConfig
from pilot.train.distributed import connect, local_shard, parallelize
from pilot.train.ema import Ema
from pilot.train.optim import Optimizer
from pilot.train.plan.flops import Workload
from pilot.train.plan.memory import Counts, Layout, memory

ROW = [Kind.PREFIX] * 16 + [Kind.TEXT] * 10 + [Kind.FAST] * 12
FAMILY = {"pi05": pi05, "pi0": pi0, "pi0_fast": pi0_fast}


def rows_of(config: PiConfig, rows: int, *, pictures: dict[str, int], row: list[Kind], device: str) -> Batch:
    """Rows with every picture, the tokens of `row`, and a whole chunk."""
    kinds = torch.tensor([int(kind) for kind in row]).expand(rows, -1).contiguous()
    observation = Observation(
        images={camera: torch.rand(rows, side, side, 3) * 2 - 1 for camera, side in pictures.items()},
        image_masks={camera: torch.ones(rows, dtype=torch.bool) for camera in pictures},
        state=torch.zeros(rows, config.action_dim),
        tokens=torch.randint(4, 200, kinds.shape),
        token_kinds=kinds,
        token_loss=kinds >= Kind.TEXT,
    )
    actions = torch.randn(rows, config.action_horizon, config.action_dim)
    mask = torch.ones_like(actions, dtype=torch.bool)
    batch = Batch(observation=observation, actions=actions, action_mask=mask, sources=("bench",) * rows)
    return batch.map(lambda tensor: tensor.to(device))


def bytes_of(tensors: Iterable[Tensor | None]) -> float:
    return sum(local_shard(t).untyped_storage().nbytes() for t in tensors if t is not None)


def measured(config: TrainConfig, batch: Batch) -> dict[str, float]:
    """Bytes of a step of the trainer's own parts: model, losses, optimizer, moving average."""
    with connect(config) as ranks:
        assert isinstance(config.model, PiConfig)
        model = parallelize(Pi(config.model), config, ranks)
        optimizer, average = Optimizer(model, config.optim, steps=10), Ema(model, decay=0.99)
        draws = model.draw(len(batch.actions), torch.Generator().manual_seed(0), flow_draws=config.objective.flow_draws)
        draws = {name: tensor.to(ranks.device) for name, tensor in draws.items()}
        on_cpu = ranks.device.type == "cpu"
        with LiveBytes(model.parameters()) if on_cpu else nullcontext() as live:
            terms = model.loss_terms(batch, draws, losses=config.objective.losses)
            torch.stack([(total / count.clamp(min=1)).sum() for total, count in terms.values()]).sum().backward()
            gradients = bytes_of(p.grad for p in model.parameters())
        optimizer.step(0)
        moments = [t for t in optimizer.state().values() if t.ndim]
        found = {"weights": bytes_of(model.parameters()), "gradients": gradients, "optimizer": bytes_of(moments)}
        found["average"] = bytes_of(average.weights[name] for name in average.learned)
        peak = {"activations": live.peak} if live else {"at once": torch.cuda.max_memory_allocated(ranks.device)}
        return found | peak


def predicted(config: TrainConfig, work: Workload, *, rows: int, device: str) -> dict[str, float]:
    precision = "bf16" if device == "cuda" else "fp32"
    own = replace(config, batch_size=rows, compute=replace(config.compute, precision=precision))
    model = cast(Pi, empty_model(config.model))
    predicted = memory(Counts(model, config, work), Layout(own, gpus=1))
    found = {name: predicted[name] for name in ("weights", "gradients", "optimizer", "average")}
    passing = max(predicted["passing"], predicted["gradients"])
    return found | {"activations": passing, "at once": predicted["peak"] - predicted["workspace"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["debug", "nano", "2b"], default="nano")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--draws", type=int, default=2)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.size == "2b" and device == "cpu":
        raise SystemExit("2b wants a GPU with 100 GB; run it where there is one")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for (name, make), checkpointing in product(FAMILY.items(), ("none", "selective", "blocks")):
        model = replace(make(args.size), point_layer=None)
        row = ROW if args.size != "2b" else [Kind.PREFIX] * 180 + [Kind.TEXT] * 20 + [Kind.FAST] * 120
        small = model.image_size(wrist=True)
        pictures = {"base": model.vision.image_size, "left": small, "right": small}
        config = TrainConfig(
            name=name, model=model, robot="aloha", steps=1, batch_size=args.rows,
            objective=ObjectiveConfig(flow_draws=args.draws), compute=ComputeConfig(checkpointing=checkpointing),
        )  # fmt: skip
        spoken = sum(kind >= Kind.TEXT for kind in row)
        work = Workload(pictures=tuple(pictures.values()), text=len(row), spoken=spoken, draws=args.draws)
        batch = rows_of(model, args.rows, pictures=pictures, row=row, device=device)
        ours, theirs = predicted(config, work, rows=args.rows, device=device), measured(config, batch)
        print(f"{name} {args.size}, {args.rows} rows, checkpointing {checkpointing}, {device}")
        for kind, bytes_ in theirs.items():
            print(f"  {kind:18} predicted {ours[kind] / 1e6:10.2f} MB   measured {bytes_ / 1e6:10.2f} MB   "
                  f"{ours[kind] / bytes_ - 1:+.1%}")  # fmt: skip


if __name__ == "__main__":
    main()
