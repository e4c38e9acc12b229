"""π0.5's recipe at the size of a laptop, on the generated homes.

The released weights began as a vision-language model. `nano_vision` stands in for that: the vision tower learns to name
what it sees. Stage 1 teaches words: FAST tokens, subtasks with boxes and web rows, no flow (α = 0). Stage 2 adds the
action expert (α = 10, insulated), keeps the words and brings verbal instruction in; then the expert goes on alone.
Data: `runs/nano.sh` collects it.
"""

from dataclasses import replace
from typing import Literal

from pilot.models.pi_config import pi05
from pilot.train.config import (
    CheckpointConfig,
    DataConfig,
    EmaConfig,
    InitFrom,
    LoggingConfig,
    ObjectiveConfig,
    OptimConfig,
    ParallelConfig,
    Source,
    TrainConfig,
)

DATA = "data/nano"
PIXEL_GRID = 16  # boxes snap to the pixels of a 64-pixel picture
DEBUG_DATA = "data/debug"
# What a vision tower learns by when it learns alone: all else rests, and naming regions is the only loss.
ALL_BUT_VISION = ("vlm", "action_expert", "action_in", "action_out", "time_mlp_in", "time_mlp_out")
NAMING = ObjectiveConfig(alpha=0.0, text_weight=0.0, fast_weight=0.0, name_weight=1.0, noise_per="step")
FLOW_ALONE = ObjectiveConfig(alpha=1.0, text_weight=0.0, fast_weight=0.0, noise_per="step")


def _sources(**weights: float) -> tuple[Source, ...]:
    """Return the sets of `DATA` by folder, with their shares of the rows."""
    kinds: dict[str, Literal["robot", "web"]] = {"web": "web"}
    return tuple(Source(path=f"{DATA}/{name}", kind=kinds.get(name, "robot"), weight=w) for name, w in weights.items())


def _mixture(**weights: float) -> DataConfig:
    return DataConfig(sources=_sources(**weights), loc_stride=PIXEL_GRID)


def nano_vision() -> TrainConfig:
    """The vision tower alone names everything in pictures, region by region."""
    robot = _sources(l1_single=0.05, l2_single=0.10, l2_multi=0.05)
    return TrainConfig(
        name="nano_vision",
        model=pi05("nano"),
        data=DataConfig(
            sources=(*robot, Source(path=f"{DATA}/web", kind="web", weight=0.80, question="list everything")),
            loc_stride=PIXEL_GRID,
        ),
        robot="homes",
        steps=900,
        batch_size=96,
        seed=4,
        freeze=ALL_BUT_VISION,
        objective=NAMING,
        optim=OptimConfig(name="adamw", peak_lr=2e-3, final_lr=1e-4, warmup_steps=60),
        ema=EmaConfig(decay=0.99),
        checkpoints=CheckpointConfig(save_every=300),
    )


def nano_stage1() -> TrainConfig:
    """Discrete pre-training: every target is a token."""
    return TrainConfig(
        name="nano_stage1",
        model=pi05("nano"),
        data=_mixture(l1_single=0.12, l2_single=0.28, l2_multi=0.28, web=0.32),
        robot="homes",
        steps=1000,
        batch_size=64,
        init_from=InitFrom("outputs/nano/vision/policy"),
        objective=ObjectiveConfig(alpha=0.0, noise_per="step"),
        optim=OptimConfig(name="muon", peak_lr=1.5e-3, final_lr=5e-4, warmup_steps=60),
        checkpoints=CheckpointConfig(save_every=200),
    )


def nano_stage2() -> TrainConfig:
    """Flow post-training: the expert starts fresh, the words go on, verbal instruction comes in."""
    return replace(
        nano_stage1(),
        name="nano_stage2",
        data=_mixture(l1_single=0.12, l2_single=0.26, l2_multi=0.26, l2_verbal=0.06, web=0.30),
        steps=2600,
        seed=1,
        init_from=InitFrom("outputs/nano/stage1/policy"),
        objective=ObjectiveConfig(alpha=10.0, noise_per="step"),
        optim=OptimConfig(name="muon", peak_lr=1.2e-3, final_lr=2e-5, warmup_steps=60),
    )


def nano_expert() -> TrainConfig:
    """The action expert goes on alone: insulated, it shares nothing with the words, and many noise draws are cheap.

    Boxes are shifted by about a pixel, as those that the high level says are, so that the expert looks for itself too.
    """
    return replace(
        nano_stage2(),
        name="nano_expert",
        data=replace(_mixture(l1_single=0.18, l2_single=0.40, l2_multi=0.34, l2_verbal=0.08), box_jitter=0.015),
        steps=1600,
        seed=3,
        init_from=InitFrom("outputs/nano/stage2/policy"),
        freeze=("vision", "vlm", "embedding"),
        objective=replace(FLOW_ALONE, flow_draws=6),
        optim=OptimConfig(name="muon", peak_lr=1.5e-3, final_lr=1e-5, warmup_steps=40),
        ema=EmaConfig(decay=0.995),
    )


def nano_own_states() -> TrainConfig:
    """Words and actions go on, half of the rows from states that the policy itself led to (DAgger, 1011.0686).

    There the high level's mistakes are, "done" with things left to do above all; the expert's words say what is right.
    Not part of the shipped policy: half-way through it stopped too soon no more, but grasped worse (`docs/log.md`).
    """
    return replace(
        nano_stage2(),
        name="nano_own_states",
        data=_mixture(l1_single=0.05, l2_single=0.13, l2_multi=0.20, l2_multi_own=0.50, web=0.12),
        steps=400,
        batch_size=32,
        seed=6,
        init_from=InitFrom("outputs/nano/expert/policy"),
        freeze=("vision",),
        objective=ObjectiveConfig(alpha=10.0, name_weight=0.0, flow_draws=2, noise_per="step"),
        optim=OptimConfig(peak_lr=5e-4, final_lr=1e-5, warmup_steps=20),
        ema=EmaConfig(decay=0.98),
        checkpoints=CheckpointConfig(save_every=100),
    )


def nano_finetune() -> TrainConfig:
    """Fine-tuning for a few minutes on something new, beside known data so that nothing is forgotten.

    The paths of the sources are yours: `--set data.sources.new.path=…`, `known`, `web`.
    """
    return replace(
        nano_stage2(),
        name="nano_finetune",
        data=DataConfig(
            sources=(
                Source(path="data/finetune/new", weight=0.6),
                Source(path="data/finetune/known", weight=0.28),
                Source(path="data/finetune/web", kind="web", weight=0.12),
            ),
            loc_stride=PIXEL_GRID,
        ),
        steps=300,
        batch_size=48,
        seed=2,
        init_from=InitFrom("checkpoints/nano"),
        optim=OptimConfig(peak_lr=6e-4, final_lr=2e-5, warmup_steps=20),
        checkpoints=CheckpointConfig(save_every=100),
    )


def debug() -> TrainConfig:
    """The whole loop in seconds, on a handful of demonstrations."""
    return TrainConfig(
        name="debug",
        model=pi05("debug", max_tokens=80),
        data=DataConfig(sources=(Source(path=f"{DEBUG_DATA}/single"),), loc_stride=64),
        robot="homes",
        steps=20,
        batch_size=4,
        objective=ObjectiveConfig(noise_per="step"),
        parallel=ParallelConfig(threads=1),
        logging=LoggingConfig(log_every=5),
        checkpoints=CheckpointConfig(save_every=10),
    )
