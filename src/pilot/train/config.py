"""A training run as one frozen value, in groups: what it learns from, what it learns, how and where it is computed.

`configs/` holds the functions that return them; `pilot train NAME --show` prints one, `--set GROUP.FIELD=VALUE` changes
it. A run that goes on from its last checkpoint must have the settings that it began with, but for the groups and fields
marked `may_change`: they change how a step is computed or watched, not what is learned.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pilot.data.mixture import POWER
from pilot.models.registry import ModelConfig
from pilot.nn.configs import LoraConfig

MAY_CHANGE: dict[str, Any] = {"may_change": True}
"""Metadata of what may differ from the run in the folder when that run is resumed (`train/resume.py`)."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One source of rows: demonstrations of a robot, or web rows, in any format of `data/formats/open_dataset.py`."""

    # A folder, an address (hf://…, gs://…), or whatever else `data/formats/open_dataset.py` opens.
    path: str
    # "robot": episodes of demonstrations; "web": pictures with questions and answers.
    kind: Literal["robot", "web"] = "robot"
    # Share of the rows relative to other sources; None: by its number of rows, to the power `data.mixture_power`.
    weight: float | None = None
    # Web rows: take only those whose question begins with this, such as "detect".
    question: str | None = None
    # Web rows: show crops down to this share of a picture's sides, with boxes that follow; 1 shows all of it.
    zoom: float = 1.0
    # Demonstrations: only rows from this many seconds after a subtask began, or a disturbance ended; None: all rows.
    first_seconds: float | None = None
    # Demonstrations: used in place of the set's own tasks.
    prompt: str | None = None
    # The robot that recorded it; None: the robot of the run.
    robot: str | None = None
    # The robot's names for cameras that the set calls otherwise: {"top": "cam_high"}.
    cameras: Mapping[str, str] = field(default_factory=dict)
    # A file of yours whose `DATASETS` says what the features of an RLDS set mean; None: `pilot.datasets` says it.
    layouts: str | None = None
    # The losses that its rows carry: "text" (subtasks), "fast" and "flow" (actions).
    teaches: tuple[str, ...] = ("text", "fast", "flow")
    # What logs call it; None: the name of its folder.
    name: str | None = None

    @property
    def label(self) -> str:
        """The name of this source in logs, losses and settings."""
        return self.name or Path(self.path).name


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The data that a run learns from, and how its rows are drawn and changed."""

    # Sets of demonstrations, and of web rows. Losses are logged by their names.
    sources: tuple[Source, ...] = ()
    # A task of n rows is drawn in proportion to n to this power; 1 draws every row alike.
    mixture_power: float = POWER
    # What counts as a task: its instruction, or the label "group" of its episodes, as runs before this setting did.
    group_by: Literal["task", "label"] = "task"
    # "windows" takes rows from a few windows of neighbouring rows at a time: for video read without `frame_cache`.
    draws: Literal["rows", "windows"] = "rows"
    # Give each rank files of its own; a multiple of the ranks. Batches depend on it, not on the number of ranks.
    streams: int = 1
    # What shares statistics: sources of one robot, none of them (the policy has those of the first), or all of them.
    stats_per: Literal["robot", "dataset", "mixture"] = "robot"
    # Let flow learn each step of a chunk at its own scale: where actions are relative to the state, the first steps
    # move little, and are learned more exactly so. Robots that the start knows without it get one, which the flow has
    # to learn anew. FAST tokens stay as they are.
    scale_steps: bool = False
    # A text model that ships ("nano", "rooms") or a file; None: that of what the run starts from, or else "nano".
    text_model: str | None = None
    # A kind to fit to the sources (fast, vq, bins), or the folder or address of a fitted one.
    action_tokenizer: str = "fast"
    # Coefficients are multiplied by this before rounding, in a FAST tokenizer that is fitted here.
    fast_scale: float = 10.0
    # Boxes in text snap to every n-th <loc> token.
    loc_stride: int = 1
    # Shift boxes of robot rows by this share of the picture (one standard deviation), like the high level's own boxes.
    box_jitter: float = 0.0
    # Shift the state in half of the robot rows, with actions that lead back (`data/state_shift.py`). This is the
    # standard deviation of the shift in the dims whose actions are relative to the state, in their units (m, rad).
    state_shift: float = 0.0
    # Crop, turn and recolour pictures (`data/augment.py`).
    augment: bool = False
    # Share of each source's episodes (of web sources, of rows) that is never trained on.
    held_out: float = 0.0
    # Keep decoded pictures on disk beside the set, so that each is decoded once.
    frame_cache: bool = True
    # Leave out, and list, episodes and pictures that cannot be read, instead of stopping.
    skip_bad: bool = field(default=False, metadata=MAY_CHANGE)
    # Gigabytes of remote files to keep on this machine; None: all that are read.
    cache_gb: float | None = field(default=None, metadata=MAY_CHANGE)
    # Processes that read ahead; 0: a thread of this process.
    workers: int = field(default=0, metadata=MAY_CHANGE)


WEIGHTS = {
    "text": "text_weight",
    "fast": "fast_weight",
    "flow": "alpha",
    "point": "point_weight",
    "name": "name_weight",
    "place": "place_weight",
}
"""The losses of the π0 family, and the field of `ObjectiveConfig` that weighs each."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """The loss: a weighted sum, in which each term is a mean over its own tokens or elements in the whole batch."""

    # Weight of flow matching; 0 leaves the flow out, as in stage 1 of π0.5.
    alpha: float = 10.0
    # Weights of the cross-entropy of text (subtasks, answers) and of FAST tokens.
    text_weight: float = 1.0
    fast_weight: float = 1.0
    # Weight of attending to the named place, for models with a `point_layer`.
    point_weight: float = 1.0
    # Weight of naming what is seen, region by region; with no text and no flow the vision tower learns it alone.
    name_weight: float = 0.5
    # Weight of saying where such a region is; naming alone makes a vision tower forget that.
    place_weight: float = 0.0
    # Weights of losses that other models have, by name; 1 where nothing is given.
    loss_weights: Mapping[str, float] = field(default_factory=dict)
    # Noise draws per row and step.
    flow_draws: int = 1
    # s of π0: flow times are drawn from 1 − s (almost data) to 1 (noise).
    time_s: float = 0.999
    # "row": noise follows from (seed, step, row), on any number of ranks; "step": one stream, for one process.
    noise_per: Literal["row", "step"] = "row"

    @property
    def losses(self) -> frozenset[str]:
        """The losses of the π0 family that have a part in this objective."""
        seen = {"name", "place"} if self.place_weight > 0 else {"name"}
        words = {"text", "fast", "point"} | seen if self.text_weight > 0 or self.fast_weight > 0 else set()
        return frozenset(words | ({"flow"} if self.alpha > 0 else set()) or seen)

    @property
    def trains_vision_alone(self) -> bool:
        """Whether the vision tower learns by itself, from what is seen and where, with neither text nor flow."""
        return self.losses <= {"name", "place"}

    def weight_of(self, loss: str) -> float:
        """Return the weight of the loss of this name."""
        family = {name: getattr(self, field) for name, field in WEIGHTS.items()}
        return (family | dict(self.loss_weights)).get(loss, 1.0)


@dataclass(frozen=True)
class InitFrom:
    """Weights that a run starts from.

    Kinds: "checkpoint" takes a policy's weights, robots, statistics and tokenizers, and adds robots that are new to it;
    "weights" takes the weights and tokenizers of a checkpoint of any robot; "paligemma" takes PaliGemma's vision tower,
    language model and text tokenizer; "torchvision" takes a ResNet-18 for a model that has one (ACT). What a kind does
    not bring is made from the sources.
    """

    # A folder, a file (torchvision), or an address: hf://…, gs://….
    path: str
    kind: Literal["checkpoint", "weights", "paligemma", "torchvision"] = "checkpoint"
    # Parts of the action expert that start from random weights all the same; "expert": all of it.
    fresh: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.path if self.kind == "checkpoint" else f"{self.kind}:{self.path}"

    @classmethod
    def parse(cls, text: str) -> "InitFrom":
        """Read `PATH`, or `KIND:PATH` as it was written before kinds had a field of their own."""
        kind, colon, path = text.partition(":")
        match kind if colon else "":
            case "weights" | "paligemma" | "torchvision" as known:
                return cls(path, kind=known)
        return cls(text)


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW, or Muon for the hidden matrices and AdamW for the rest, with warm-up and cosine decay."""

    name: Literal["adamw", "muon"] = "adamw"
    peak_lr: float = 1e-3
    # Where the cosine ends; equal to `peak_lr` for a constant rate.
    final_lr: float = 1e-5
    warmup_steps: int = 100
    # The step at which `final_lr` is reached; None: the run's last.
    decay_steps: int | None = None
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 1e-2
    # Gradients are scaled down to this norm.
    clip_norm: float = 1.0
    # Peak rate of the matrices that Muon moves.
    muon_lr: float = 2e-2


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """The moving average of the weights, which becomes the policy."""

    # Share of the average that stays at each step; 0: no average.
    decay: float = 0.999
    # Forget faster at first (`train/ema.py`).
    warmup: bool = True


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """The sharing of a batch between processes, passes and threads."""

    # How ranks share the model: each a copy (ddp), pieces (fsdp), or pieces within a machine (hsdp).
    strategy: Literal["none", "ddp", "fsdp", "hsdp"] = "none"
    # Ranks to a copy of the model under hsdp; None: those of a machine.
    shards: int | None = None
    # Passes, one after the other, in which each rank takes its rows of a batch.
    accumulate: int = 1
    # Parts of a batch that are worked on at once, by one process on a CPU.
    threads: int = 2


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """The device that a step runs on, and what it trades for memory or speed."""

    # auto, cpu, cuda, cuda:N or mps.
    device: str = "auto"
    # Of the blocks; weights, optimizer and sums are fp32. "auto": bf16 on a GPU, fp32 on a CPU and where a model with a
    # `point_layer` learns words.
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    # Recompute blocks in the backward pass instead of saving activations; "selective": all but products and attention.
    checkpointing: Literal["none", "blocks", "selective"] = "none"
    # Compile each block, for text that is padded to `model.max_tokens`.
    compile: bool = False
    # Replay steps of one shape as one CUDA graph, where the host is slower than the GPU: one process, bf16, AdamW.
    cuda_graph: bool = False


@dataclass(frozen=True, kw_only=True)
class LoggingConfig:
    """The metrics that are logged, and what stops a run that has gone wrong."""

    # Steps between two lines of metrics.
    log_every: int = 20
    # Where metrics go besides `metrics.jsonl`: tensorboard, wandb, trackio.
    log_to: tuple[str, ...] = ("tensorboard",)
    # Stop, and save the batch, at a loss or gradient norm of this many times its running median; 0: only at NaN.
    loss_spike: float = 10.0
    grad_spike: float = 100.0


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Validation and evaluation of the moving average while the run goes on."""

    # Steps between two validations on the rows that `data.held_out` keeps back; 0: never.
    validate_every: int = 0
    # Rows of each source in a validation.
    validate_rows: int = 64
    # A suite of simulated tasks, such as homes-l1.
    suite: str | None = None
    # Steps between two evaluations in that suite; 0: never.
    every: int = 0
    # Episodes in each evaluation.
    episodes: int = 20


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """The checkpoints that are written, and those of them that stay."""

    # Steps between two checkpoints.
    save_every: int = 500
    # How many of the last ones stay.
    keep: int = 2
    # Those of steps that this divides stay too.
    keep_every: int | None = None


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole training run."""

    # The function in `configs/` that returns it, and its folder in `outputs/`.
    name: str
    model: ModelConfig
    # The robot of sources that name none. The policy acts for it, and for the robots of all other sources.
    robot: str
    steps: int
    # Rows of all ranks together in one step.
    batch_size: int
    # Data order, noise, and the weights that start from nothing follow from it.
    seed: int = 0
    # None: random weights.
    init_from: InitFrom | None = None
    # Parts of the model that do not learn (vision, vlm, embedding, …), or groups of them (`train/freezing.py`).
    freeze: tuple[str, ...] = ()
    # Learn through adapters only (`nn/lora.py`): written into `adapters/`, and merged into the run's policy.
    lora: LoraConfig | None = None
    data: DataConfig = field(default_factory=DataConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig, metadata=MAY_CHANGE)
    compute: ComputeConfig = field(default_factory=ComputeConfig, metadata=MAY_CHANGE)
    logging: LoggingConfig = field(default_factory=LoggingConfig, metadata=MAY_CHANGE)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig, metadata=MAY_CHANGE)
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig, metadata=MAY_CHANGE)

    @property
    def looks_into_blocks(self) -> bool:
        """Whether a loss uses parts of a block from outside (`models/pointing.py`), which takes it whole, in fp32."""
        words = bool(self.objective.losses & {"text", "fast", "point"})
        return words and getattr(self.model, "point_layer", None) is not None

    def computes_in_bf16(self, device: str) -> bool:
        """Return whether blocks compute in bf16; `auto` does on "cuda", unless a loss looks into blocks."""
        if self.compute.precision == "auto":
            return device == "cuda" and not self.looks_into_blocks
        return self.compute.precision == "bf16"

    # Before there were groups, all settings stood side by side. Commands and run folders of that time are still read.
    OLD_NAMES: ClassVar[Mapping[str, str]] = {
        **{name: f"data.{name}" for name in (
            "sources", "mixture_power", "draws", "streams", "stats_per", "action_tokenizer", "fast_scale",
            "loc_stride", "box_jitter", "held_out", "frame_cache", "skip_bad", "cache_gb",
        )},
        "augments": "data.augment",
        "loader_workers": "data.workers",
        **{name: f"objective.{name}" for name in (
            "alpha", "text_weight", "fast_weight", "point_weight", "name_weight", "loss_weights", "flow_draws",
            "time_s", "noise_per",
        )},
        "fresh": "init_from.fresh",
        "ema_decay": "ema.decay",
        "ema_warmup": "ema.warmup",
        "parallel": "parallel.strategy",
        **{name: f"parallel.{name}" for name in ("shards", "accumulate", "threads")},
        **{name: f"compute.{name}" for name in ("device", "precision", "checkpointing", "compile")},
        **{name: f"logging.{name}" for name in ("log_every", "log_to", "loss_spike", "grad_spike")},
        **{name: f"evaluation.{name}" for name in ("validate_every", "validate_rows")},
        "eval_suite": "evaluation.suite",
        "eval_every": "evaluation.every",
        "eval_episodes": "evaluation.episodes",
        **{name: f"checkpoints.{name}" for name in ("save_every", "keep", "keep_every")},
    }  # fmt: skip
