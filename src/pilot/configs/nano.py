"""π0.5's recipe at the size of a laptop, on the generated homes.

The released weights began as a vision-language model. `nano_vision` stands in for that: the vision tower learns to name
what it sees. Stage 1 teaches words: FAST tokens, subtasks with boxes and web rows, no flow (α = 0). Stage 2 adds the
action expert (α = 10, insulated), keeps the words and brings verbal instruction in; then the expert goes on alone.
Data: `runs/nano.sh` collects it.
"""

from dataclasses import replace
from typing import Literal

from pilot.models.pi import pi05
from pilot.train.config import OptimConfig, Source, TrainConfig

DATA = "data/nano"
PIXEL_GRID = 16  # boxes snap to the pixels of a 64-pixel picture
DEBUG_DATA = "data/debug"


def _mixture(**weights: float) -> tuple[Source, ...]:
    """Sources of `DATA` by folder, with their shares of the rows drawn."""
    kinds: dict[str, Literal["robot", "web"]] = {"web": "web"}
    return tuple(Source(path=f"{DATA}/{name}", kind=kinds.get(name, "robot"), weight=w) for name, w in weights.items())


def nano_vision() -> TrainConfig:
    """The vision tower alone names everything in pictures, region by region."""
    robot = _mixture(l1_single=0.05, l2_single=0.10, l2_multi=0.05)
    return TrainConfig(
        name="nano_vision",
        model=pi05("nano"),
        sources=(*robot, Source(path=f"{DATA}/web", kind="web", weight=0.80, question="list everything")),
        robot="homes",
        steps=900,
        batch_size=96,
        optim=OptimConfig(name="adamw", peak_lr=2e-3, final_lr=1e-4, warmup_steps=60),
        alpha=0.0,
        text_weight=0.0,
        fast_weight=0.0,
        name_weight=1.0,
        freeze=("vlm", "action_expert", "action_in", "action_out", "time_mlp_in", "time_mlp_out"),
        ema_decay=0.99,
        loc_stride=PIXEL_GRID,
        threads=2,
        noise_per="step",
        save_every=300,
        seed=4,
    )


def nano_stage1() -> TrainConfig:
    """Discrete pre-training: everything is said in tokens."""
    return TrainConfig(
        name="nano_stage1",
        model=pi05("nano"),
        sources=_mixture(l1_single=0.12, l2_single=0.28, l2_multi=0.28, web=0.32),
        robot="homes",
        steps=1000,
        batch_size=64,
        optim=OptimConfig(name="muon", peak_lr=1.5e-3, final_lr=5e-4, warmup_steps=60),
        alpha=0.0,
        loc_stride=PIXEL_GRID,
        threads=2,
        noise_per="step",
        init_from="outputs/nano/vision/policy",
        save_every=200,
    )


def nano_stage2() -> TrainConfig:
    """Flow post-training: the expert starts fresh, the words go on, verbal instruction comes in."""
    return replace(
        nano_stage1(),
        name="nano_stage2",
        sources=_mixture(l1_single=0.12, l2_single=0.26, l2_multi=0.26, l2_verbal=0.06, web=0.30),
        steps=2600,
        optim=OptimConfig(name="muon", peak_lr=1.2e-3, final_lr=2e-5, warmup_steps=60),
        alpha=10.0,
        flow_draws=1,
        init_from="outputs/nano/stage1/policy",
        seed=1,
    )


def nano_expert() -> TrainConfig:
    """The action expert goes on alone: insulated, it shares nothing with the words, and many noise draws are cheap.

    Boxes are shifted by about a pixel, as those that the high level says are, so that the expert looks for itself too.
    """
    return replace(
        nano_stage2(),
        name="nano_expert",
        sources=_mixture(l1_single=0.18, l2_single=0.40, l2_multi=0.34, l2_verbal=0.08),
        steps=1600,
        alpha=1.0,
        text_weight=0.0,
        fast_weight=0.0,
        freeze=("vision", "vlm", "embedding"),
        box_jitter=0.015,
        flow_draws=6,
        optim=OptimConfig(name="muon", peak_lr=1.5e-3, final_lr=1e-5, warmup_steps=40),
        ema_decay=0.995,
        init_from="outputs/nano/stage2/policy",
        seed=3,
    )


def nano_finetune() -> TrainConfig:
    """A few minutes on something new, beside what is known, or it would be forgotten; who collects them fills in
    `sources`, by the last names of their paths."""
    return replace(
        nano_stage2(),
        name="nano_finetune",
        sources=(
            Source(path="data/finetune/new", weight=0.6),
            Source(path="data/finetune/known", weight=0.28),
            Source(path="data/finetune/web", kind="web", weight=0.12),
        ),
        steps=300,
        batch_size=48,
        optim=OptimConfig(peak_lr=6e-4, final_lr=2e-5, warmup_steps=20),
        init_from="checkpoints/nano",
        save_every=100,
        seed=2,
    )


def debug() -> TrainConfig:
    """The whole loop in seconds, on a handful of demonstrations."""
    return TrainConfig(
        name="debug",
        model=pi05("debug", max_tokens=80),
        sources=(Source(path=f"{DEBUG_DATA}/single"),),
        robot="homes",
        steps=20,
        batch_size=4,
        loc_stride=64,
        threads=1,
        noise_per="step",
        log_every=5,
        save_every=10,
    )
