"""What a training step keeps in memory, predicted by `pilot plan` and measured, kind by kind.

    python bench/memory.py                              nano on a CPU, in seconds
    python bench/memory.py --size 2b --rows 8           on a GPU, of everything that torch has allocated at once

Measured are the bytes of weights, gradients, optimizer and moving average after a step, and of what autograd
keeps between forward and backward. Target: predicted within 10 % of measured.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from pilot.data.layout import Batch, Kind, Observation
from pilot.models.bundle import empty_model
from pilot.models.pi import Pi, PiConfig, pi0, pi0_fast, pi05
from pilot.train.config import TrainConfig
from pilot.train.flops import Workload
from pilot.train.plan_memory import Counts, Kept, Layout, memory

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


def bytes_of(tensors: Iterable[Tensor | None]) -> int:
    return sum(t.untyped_storage().nbytes() for t in tensors if t is not None)


def measured(config: TrainConfig, batch: Batch, *, bf16: bool = False) -> dict[str, float]:
    """Bytes of a step: AdamW, a moving average, and everything that the model keeps."""
    device = batch.actions.device
    model = Pi(config.model).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    average = [p.detach().clone() for p in model.parameters()]
    draws = model.draw(len(batch.actions), torch.Generator().manual_seed(0), flow_draws=config.flow_draws)
    draws = {name: tensor.to(device) for name, tensor in draws.items()}
    with Kept(model) as kept, torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        terms = model.loss_terms(batch, draws, losses=config.losses)
    torch.stack([(total / count.clamp(min=1)).sum() for total, count in terms.values()]).sum().backward()
    gradients = bytes_of(p.grad for p in model.parameters())
    optimizer.step()
    moments = [t for state in optimizer.state.values() for t in state.values() if t.ndim]
    found = {"weights": bytes_of(model.parameters()), "gradients": gradients, "optimizer": bytes_of(moments)}
    found |= {"average": bytes_of(average), "kept for backward": kept.bytes}
    if device.type == "cuda":
        found["at once"] = torch.cuda.max_memory_allocated(device)
    return found


def predicted(config: TrainConfig, work: Workload, *, rows: int, bf16: bool = False) -> dict[str, float]:
    layout = Layout(gpus=1, parallel="none", rows=rows, precision="bf16" if bf16 else "fp32")
    told = memory(config, Counts.of(empty_model(config.model), config), work, layout)
    kept = told.activations + told.logits
    kept -= rows * work.spoken * config.model.vocab_size * (4 + layout.keeping.c)  # the gradient of logits comes later
    found = {name: getattr(told, name) for name in ("weights", "gradients", "optimizer", "average")}
    return found | {"kept for backward": kept, "at once": told.peak - told.workspace}


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
    for name, make in FAMILY.items():
        model = replace(make(args.size), point_layer=None)
        row = ROW if args.size != "2b" else [Kind.PREFIX] * 180 + [Kind.TEXT] * 20 + [Kind.FAST] * 120
        small = model.image_size(wrist=True)
        pictures = {"base": model.vision.image_size, "left": small, "right": small}
        config = TrainConfig(
            name=name, model=model, sources=(), robot="aloha", steps=1, batch_size=args.rows, flow_draws=args.draws
        )
        spoken = sum(kind >= Kind.TEXT for kind in row)
        work = Workload(pictures=tuple(pictures.values()), text=len(row), spoken=spoken, draws=args.draws)
        batch = rows_of(model, args.rows, pictures=pictures, row=row, device=device)
        ours = predicted(config, work, rows=args.rows, bf16=device == "cuda")
        theirs = measured(config, batch, bf16=device == "cuda")
        print(f"{name} {args.size}, {args.rows} rows, {device}")
        for kind, bytes_ in theirs.items():
            print(f"  {kind:18} predicted {ours[kind] / 1e6:10.2f} MB   measured {bytes_ / 1e6:10.2f} MB   "
                  f"{ours[kind] / bytes_ - 1:+.1%}")  # fmt: skip


if __name__ == "__main__":
    main()
