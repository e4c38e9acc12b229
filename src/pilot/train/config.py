"""What a training run is: one frozen value. `configs/` holds the functions that return them."""

from dataclasses import dataclass, field
from typing import Literal

from pilot.models.pi import PiConfig


@dataclass(frozen=True, kw_only=True)
class Source:
    """One source of rows: a LeRobot data set (`robot`) or web rows (`web`).

    `weight` is the share of rows drawn from it relative to the others; None counts its rows to the power 0.43. Of web
    rows, `question` takes only those that ask exactly this.
    """

    path: str
    kind: Literal["robot", "web"] = "robot"
    weight: float | None = None
    question: str | None = None


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with warm-up and cosine decay. `muon` uses Muon for the hidden matrices and AdamW for everything else."""

    name: Literal["adamw", "muon"] = "adamw"
    peak_lr: float = 1e-3
    final_lr: float = 1e-5
    warmup_steps: int = 100
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    muon_lr: float = 2e-2


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A run.

    Its loss is `text_weight`·text + `fast_weight`·fast + `alpha`·flow, and `point_weight`·point for models with a
    `point_layer`; `alpha` = 0 leaves the flow out (stage 1). With no text and no flow either, the vision tower learns
    alone, to name what it sees.

    `freeze` names parts of the model that stay as they are (`vision`, `vlm`, `embedding`, …). `box_jitter` shifts the
    boxes of robot rows by that much of a picture (one standard deviation), as the high level's own boxes are shifted.

    `init_from` starts from the weights, statistics and tokenizers of a checkpoint; otherwise they are made from the
    sources. `flow_draws` is the number of noise draws per row and step, `threads` how many parts of a batch are worked
    on at once.
    """

    name: str
    model: PiConfig
    sources: tuple[Source, ...]
    robot: str
    steps: int
    batch_size: int
    optim: OptimConfig = field(default_factory=OptimConfig)
    alpha: float = 10.0
    text_weight: float = 1.0
    fast_weight: float = 1.0
    point_weight: float = 1.0
    name_weight: float = 0.5
    freeze: tuple[str, ...] = ()
    box_jitter: float = 0.0
    flow_draws: int = 1
    time_s: float = 0.999
    ema_decay: float = 0.999
    seed: int = 0
    init_from: str | None = None
    loc_stride: int = 1
    fast_scale: float = 10.0
    frame_cache: bool = True
    threads: int = 2
    log_every: int = 20
    save_every: int = 500
