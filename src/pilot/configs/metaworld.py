"""A small π0.5 on a benchmark of others: the ten tasks of MetaWorld's MT10, from its own scripts' demonstrations.

`runs/metaworld.sh` collects them and says how the policy does from positions that it has not seen. MetaWorld's scripts
say no subtasks, so the prompt, a task's name, is all the words there are.
"""

from dataclasses import replace

from pilot.configs.nano import FLOW_ALONE
from pilot.configs.rooms import PIXEL_GRID, model
from pilot.train.config import (
    CheckpointConfig,
    DataConfig,
    EmaConfig,
    InitFrom,
    OptimConfig,
    Source,
    TrainConfig,
)


def metaworld_mt10() -> TrainConfig:
    """Ten tasks of MetaWorld, fine-tuned from the small policy of homes.

    All of it learns, as behind insulation a backbone this small keeps from the hand what it has not been taught
    (`docs/log.md`, 2026-11-30). Actions are steps here, where the start has places, so what reads and writes them is
    drawn anew, and none can be left out: a chunk is an eighth of a second.
    """
    return TrainConfig(
        name="metaworld_mt10",
        model=replace(model(), insulate=False, action_stride=1, replan_seconds=None),
        data=DataConfig(
            sources=(Source(path="data/metaworld/mt10", teaches=("flow",)),),
            loc_stride=PIXEL_GRID,
            text_model="rooms",
            fast_scale=5.0,
        ),
        robot="metaworld",
        steps=2800,
        batch_size=16,
        init_from=InitFrom("checkpoints/homes", fresh=("action_in", "action_out")),
        objective=replace(FLOW_ALONE, flow_draws=8),
        optim=OptimConfig(name="muon", peak_lr=1.5e-3, muon_lr=1e-2, final_lr=1e-5, warmup_steps=60),
        ema=EmaConfig(decay=0.995),
        checkpoints=CheckpointConfig(save_every=400),
    )
