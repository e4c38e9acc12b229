"""Rows to count operations and bytes of: every picture, words of each kind, a whole chunk."""

import torch

from pilot.data.layout import Batch, Kind, Observation
from pilot.models.pi import PiConfig
from pilot.train.config import ObjectiveConfig, TrainConfig
from pilot.train.plan.flops import Losses, Workload
from train.toy import changed

ROW = [Kind.PREFIX] * 16 + [Kind.TEXT] * 10 + [Kind.FAST] * 12
SPOKEN = 22


def rows_of(model: PiConfig, rows: int) -> Batch:
    kinds = torch.tensor([int(kind) for kind in ROW]).expand(rows, -1).contiguous()
    sides = dict(zip(("room", "wrist"), sides_of(model), strict=True))
    observation = Observation(
        images={camera: torch.rand(rows, side, side, 3) * 2 - 1 for camera, side in sides.items()},
        image_masks={camera: torch.ones(rows, dtype=torch.bool) for camera in sides},
        state=torch.zeros(rows, model.action_dim),
        tokens=torch.randint(4, 200, kinds.shape),
        token_kinds=kinds,
        token_loss=kinds >= Kind.TEXT,
    )
    actions = torch.randn(rows, model.action_horizon, model.action_dim)
    mask = torch.ones_like(actions, dtype=torch.bool)
    return Batch(observation=observation, actions=actions, action_mask=mask, sources=("toy",) * rows)


def sides_of(model: PiConfig) -> tuple[int, int]:
    return model.image_size(wrist=False), model.image_size(wrist=True)


def run_of(model: PiConfig, *, losses: str = "text flow", **changes: object) -> TrainConfig:
    """A run with these losses and two flow blocks per row."""
    flow, text = float("flow" in losses), float("text" in losses)
    objective = ObjectiveConfig(alpha=flow, text_weight=text, fast_weight=text, flow_draws=2)
    run = TrainConfig(name="toy", model=model, robot="homes", steps=10, batch_size=8, objective=objective)
    return changed(run, **changes)


def work_of(config: TrainConfig) -> Workload:
    losses = Losses.of(config)
    return Workload(
        pictures=sides_of(config.model),
        text=len(ROW),
        spoken=SPOKEN if losses.text else 0,
        draws=config.objective.flow_draws if losses.flow else 0,
    )
