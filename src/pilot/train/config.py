"""What a training run is: one frozen value. `configs/` holds the functions that return them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pilot.data.mixture import POWER
from pilot.models.registry import ModelConfig
from pilot.nn.lora import LoraConfig


@dataclass(frozen=True, kw_only=True)
class Source:
    """One source of rows: demonstrations (`robot`) or web rows (`web`), in any format of `data/formats/open.py`.

    `weight` is the share of rows drawn from it relative to the others; None counts its rows to the power
    `TrainConfig.mixture_power`. `prompt` stands in place of a set's own tasks. Of web rows, `question` takes only those
    that ask exactly this.

    `robot` is the body that recorded it, by default the run's. `cameras` gives the robot's names for cameras that the
    set calls otherwise (`{"top": "cam_high"}`). `teaches` names the losses that its rows carry: "text" (subtasks),
    "fast" and "flow" (actions).
    """

    path: str
    kind: Literal["robot", "web"] = "robot"
    weight: float | None = None
    question: str | None = None
    prompt: str | None = None
    robot: str | None = None
    cameras: Mapping[str, str] = field(default_factory=dict)
    teaches: tuple[str, ...] = ("text", "fast", "flow")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with warm-up and cosine decay. `muon` uses Muon for the hidden matrices and AdamW for everything else.

    The cosine reaches `final_lr` at step `decay_steps`, by default the run's last; `final_lr` = `peak_lr` is constant.
    """

    name: Literal["adamw", "muon"] = "adamw"
    peak_lr: float = 1e-3
    final_lr: float = 1e-5
    warmup_steps: int = 100
    decay_steps: int | None = None
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
    alone, to name what it sees. Losses of other models weigh 1, or what `loss_weights` says by name.

    A model with `rtc_max_delay` learns trained real-time chunking: in every row 0 to that many actions, evenly drawn,
    are given clean and have no loss.

    `freeze` names parts of the model that stay as they are (`vision`, `vlm`, `embedding`, …), or groups of them
    (`vision`, `language`, `expert`: `train/freezing.py`). With `lora` the backbone and the expert learn through
    adapters only (`nn/lora.py`); the run writes them into `adapters/`, and its policy has them merged.

    `box_jitter` shifts the boxes of robot rows by that much of a picture (one standard deviation), as the high level's
    own boxes are shifted. With `ema_warmup` the moving average forgets faster at first (`train/ema.py`).

    `action_tokenizer` is a kind to fit to the sources (`fast`, `vq` or `bins`), or the folder of one to read, made by
    `pilot data tokenizer` or published. `fast_scale` is that of a `fast` to fit.

    `mixture_power`: a task of n rows is drawn in proportion to n to this power; 1 draws every row alike.

    `draws="windows"` takes rows from a few windows of neighbouring rows at a time: for sets of video that are read
    without `frame_cache`. `streams`, a multiple of the ranks, gives each rank files of its own; batches depend on it
    but not on the ranks (`data/loading/shuffle.py`). Sources that lie elsewhere are read file by file, of which
    `cache_gb` gigabytes stay here (`data/storage/streaming.py`; None: all).

    `stats_per` says what shares statistics: sources of one `robot`, none (`dataset`; the policy carries those of the
    first), or the whole `mixture`. `augments` crops, turns and recolours pictures (`data/augment.py`). `loader_workers`
    processes read ahead; 0 is a thread.

    `skip_bad` leaves out, and lists, episodes and pictures that cannot be read, instead of stopping.

    `init_from` starts from the weights, statistics and tokenizers of a checkpoint (a folder, `hf://…`, `gs://…`); with
    "paligemma:" in front of the path, from PaliGemma's weights and text model; with "weights:", from the weights and
    tokenizers of a checkpoint of any robot. The rest is made from the sources. Parts of the expert in `fresh`, or all
    of it (`expert`), start from nothing all the same.
    `flow_draws` is the number of noise draws per row and step, `threads` how many parts of a batch are worked on at
    once.

    `held_out` is the share of each source's episodes (of web rows, of rows) that is never trained on. Every
    `validate_every` steps the moving average is tried on `validate_rows` rows of each: losses, and how far sampled
    chunks are from the recorded ones (`train/validation.py`). Every `eval_every` steps it runs `eval_episodes` episodes
    of `eval_suite`. 0 is never.

    A loss or gradient norm that is not a number, or above `loss_spike` or `grad_spike` times its running median, stops
    the run and saves the batch (`train/anomalies.py`); a factor of 0 looks for NaN alone. `log_to` names where metrics
    go besides `metrics.jsonl`: `tensorboard`, `wandb`, `trackio`.

    `batch_size` rows are those of all ranks together, which take them in `accumulate` passes; how ranks share the model
    says `parallel` (`train/distributed.py`), with `shards` ranks to a copy under `hsdp` (by default those of a
    machine). Weights, optimizer and sums are fp32; `precision` is that of the blocks: `auto` is bf16 on a GPU and fp32
    on a CPU. `checkpointing` computes blocks a second time in the backward pass instead of keeping what they hold, all
    of it or (`selective`) all but products and attention. `compile` compiles each block, for text that is
    padded to `max_tokens`.

    `noise_per="row"`: noise and flow times of a row follow from (seed, step, row), on however many ranks. `"step"`: all
    of a step's come from one stream over the parts of its batch, which needs one process.

    Of the checkpoints, one after every `save_every` steps, the last `keep` stay, and those of steps that `keep_every`
    divides.
    """

    name: str
    model: ModelConfig
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
    loss_weights: Mapping[str, float] = field(default_factory=dict)
    freeze: tuple[str, ...] = ()
    lora: LoraConfig | None = None
    box_jitter: float = 0.0
    flow_draws: int = 1
    time_s: float = 0.999
    ema_decay: float = 0.999
    ema_warmup: bool = True
    seed: int = 0
    init_from: str | None = None
    fresh: tuple[str, ...] = ()
    loc_stride: int = 1
    action_tokenizer: str = "fast"
    fast_scale: float = 10.0
    frame_cache: bool = True
    skip_bad: bool = False
    mixture_power: float = POWER
    draws: Literal["rows", "windows"] = "rows"
    streams: int = 1
    cache_gb: float | None = None
    stats_per: Literal["robot", "dataset", "mixture"] = "robot"
    augments: bool = False
    loader_workers: int = 0
    threads: int = 2
    held_out: float = 0.0
    validate_every: int = 0
    validate_rows: int = 64
    eval_suite: str | None = None
    eval_every: int = 0
    eval_episodes: int = 20
    loss_spike: float = 10.0
    grad_spike: float = 100.0
    log_to: tuple[str, ...] = ("tensorboard",)
    log_every: int = 20
    save_every: int = 500
    keep: int = 2
    keep_every: int | None = None
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    parallel: Literal["none", "ddp", "fsdp", "hsdp"] = "none"
    shards: int | None = None
    accumulate: int = 1
    checkpointing: Literal["none", "blocks", "selective"] = "none"
    compile: bool = False
    noise_per: Literal["row", "step"] = "row"

    @property
    def losses(self) -> frozenset[str]:
        """What a model is asked to learn: those losses of the family that the objective has."""
        words = {"text", "fast", "point", "name"} if self.text_weight > 0 or self.fast_weight > 0 else set()
        return frozenset(words | ({"flow"} if self.alpha > 0 else set()) or {"name"})

    def weight_of(self, loss: str) -> float:
        """Weight of a loss in the objective, their weighted sum.

        Each is a mean over its own tokens or elements in the whole batch.
        """
        family = {
            "text": self.text_weight,
            "fast": self.fast_weight,
            "flow": self.alpha,
            "point": self.point_weight,
            "name": self.name_weight,
        }
        return (family | dict(self.loss_weights)).get(loss, 1.0)
