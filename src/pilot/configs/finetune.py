"""Fine-tuning released weights with openpi's settings, under openpi's names (its training/config.py).

Robots are those of `robots/`, so DROID is learned in joint velocities, as its released policies act; openpi's runs on
all of DROID learn positions. What else differs is in `docs/recipe.md`. Weights come first, once each, for instance

    pilot convert gs://openpi-assets/checkpoints/pi05_base checkpoints/pi05_base --dtype float32 --robot droid \\
        --stats gs://openpi-assets/checkpoints/pi05_base/assets/droid \\
        --tokenizer gs://big_vision/paligemma_tokenizer.model

`base(…)` takes weights and tokenizers from there; statistics are then those of the data, as openpi computes them.
"""

from dataclasses import replace

from pilot.models.pi_config import PiConfig, pi0, pi0_fast, pi05
from pilot.nn.configs import ATTENTION, MLP, LoraConfig
from pilot.train.config import (
    CheckpointConfig,
    ComputeConfig,
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

DEFAULT = OptimConfig(
    peak_lr=2.5e-5, final_lr=2.5e-6, warmup_steps=1_000, decay_steps=30_000, weight_decay=1e-10, clip_norm=1.0
)
CONSTANT = replace(DEFAULT, peak_lr=5e-5, final_lr=5e-5, decay_steps=1_000_000)

NO_AVERAGE = EmaConfig(decay=0.0, warmup=False)

THREE = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
THREE_OF_DROID = ("base_0_rgb", "base_1_rgb", "left_wrist_0_rgb")  # π0-FAST has the black picture in the middle there

OPENPI_LORA = LoraConfig(
    targets=ATTENTION + MLP, whole=("action_in", "action_out", "state_in", "time_mlp_in", "time_mlp_out")
)
"""Adapters in the two stacks alone: what stands around them, and the vision tower, learns whole."""


def base(path: str) -> InitFrom:
    """Return a start from the weights and tokenizers of a converted checkpoint."""
    return InitFrom(path, kind="weights")


def as_openpi(name: str, model: PiConfig, *, source: Source, robot: str, init_from: InitFrom) -> TrainConfig:
    """Return a run with openpi's defaults.

    These are 30 000 steps of 32 rows, every row drawn alike, and an average that forgets from the start.
    """
    writes_actions = model.action_expert is None
    return TrainConfig(
        name=name,
        model=model,
        data=DataConfig(
            sources=(replace(source, teaches=("fast",) if writes_actions else ("flow",)),),
            mixture_power=1.0,
            augment=True,
            frame_cache=False,
            workers=2,
        ),
        robot=robot,
        steps=30_000,
        batch_size=32,
        seed=42,
        init_from=init_from,
        objective=ObjectiveConfig(
            alpha=0.0 if writes_actions else 1.0, text_weight=0.0, fast_weight=1.0 if writes_actions else 0.0
        ),
        optim=DEFAULT,
        ema=EmaConfig(decay=0.99, warmup=False),
        logging=LoggingConfig(log_every=100),
        checkpoints=CheckpointConfig(save_every=1_000, keep=1, keep_every=5_000),
    )


# --- LIBERO ----------------------------------------------------------------------------------------------------------

LIBERO = Source(path="data/libero")  # physical-intelligence/libero


def pi0_libero() -> TrainConfig:
    """π0 on LIBERO, all weights."""
    model = pi0(prompt="pi0")
    return as_openpi("pi0_libero", model, source=LIBERO, robot="libero_delta", init_from=base("checkpoints/pi0_base"))


def pi0_libero_low_mem_finetune() -> TrainConfig:
    """`pi0_libero` with LoRA, and without an average."""
    return replace(pi0_libero(), name="pi0_libero_low_mem_finetune", lora=OPENPI_LORA, ema=NO_AVERAGE)


def pi0_fast_libero() -> TrainConfig:
    """π0-FAST on LIBERO, all weights."""
    model = pi0_fast(prompt="pi0_fast", action_horizon=10, max_tokens=180, always_shown=THREE)
    return as_openpi(
        "pi0_fast_libero", model, source=LIBERO, robot="libero_delta", init_from=base("checkpoints/pi0_fast_base")
    )


def pi0_fast_libero_low_mem_finetune() -> TrainConfig:
    """`pi0_fast_libero` with LoRA, and without an average."""
    return replace(pi0_fast_libero(), name="pi0_fast_libero_low_mem_finetune", lora=OPENPI_LORA, ema=NO_AVERAGE)


def pi05_libero() -> TrainConfig:
    """π0.5 on LIBERO. openpi leaves the state out here, and with it all of π0.5's prompt but the words."""
    model = pi05(insulate=False, action_horizon=10, state_input="none", prompt="pi0")
    run = as_openpi("pi05_libero", model, source=LIBERO, robot="libero", init_from=base("checkpoints/pi05_base"))
    slow = replace(CONSTANT, warmup_steps=10_000)
    return replace(run, batch_size=256, optim=slow, ema=EmaConfig(decay=0.999, warmup=False))


def pi05_libero_lora() -> TrainConfig:
    """`pi05_libero` for one GPU of 24 GB: pilot's, with adapters in the time MLP too and a frozen vision tower."""
    return replace(
        pi05_libero(),
        name="pi05_libero_lora",
        batch_size=32,
        freeze=("vision",),
        lora=LoraConfig(),
        optim=replace(DEFAULT, peak_lr=1e-4, final_lr=1e-5),
        ema=NO_AVERAGE,
        parallel=ParallelConfig(accumulate=8),
        compute=ComputeConfig(checkpointing="blocks"),
    )


# --- ALOHA -----------------------------------------------------------------------------------------------------------

PEN = Source(path="data/aloha_pen_uncap_diverse", prompt="uncap the pen")  # physical-intelligence/…


def pi0_aloha_pen_uncap() -> TrainConfig:
    """π0 on ALOHA, with the released weights' own statistics: convert with --robot aloha --stats …/assets/trossen."""
    model = pi0(prompt="pi0")
    trossen = InitFrom("checkpoints/pi0_base-trossen")
    return replace(as_openpi("pi0_aloha_pen_uncap", model, source=PEN, robot="aloha", init_from=trossen), steps=20_000)


def pi05_aloha_pen_uncap() -> TrainConfig:
    """π0.5 on ALOHA, with the released weights' own statistics (see `pi0_aloha_pen_uncap`)."""
    model = pi05(insulate=False, prompt="pi05")
    trossen = InitFrom("checkpoints/pi05_base-trossen")
    run = as_openpi("pi05_aloha_pen_uncap", model, source=PEN, robot="aloha", init_from=trossen)
    return replace(run, steps=20_000, batch_size=64)


# --- DROID -----------------------------------------------------------------------------------------------------------


def pi05_droid_finetune() -> TrainConfig:
    """π0.5-DROID on a small set of your own. Convert it with --robot droid --set action_horizon=16."""
    model = pi05(insulate=False, prompt="pi05", action_horizon=16)
    own = Source(path="data/my_droid_dataset")
    released = InitFrom("checkpoints/pi05_droid")
    return replace(as_openpi("pi05_droid_finetune", model, source=own, robot="droid", init_from=released), steps=20_000)


def pi05_full_droid_finetune() -> TrainConfig:
    """π0.5 on all of DROID."""
    model = pi05(insulate=False, prompt="pi05", action_horizon=16)
    start = InitFrom("checkpoints/pi05_base-droid")
    return of_all_droid("pi05_full_droid_finetune", model, init_from=start, keep_every=10_000)


def pi0_fast_full_droid_finetune() -> TrainConfig:
    """π0-FAST on all of DROID. openpi's comment on its own run: about two days on 8 H100."""
    model = pi0_fast(prompt="pi0_fast", action_horizon=16, max_tokens=180, always_shown=THREE_OF_DROID)
    return of_all_droid(
        "pi0_fast_full_droid_finetune", model, init_from=base("checkpoints/pi0_fast_base"), keep_every=20_000
    )


def of_all_droid(name: str, model: PiConfig, *, init_from: InitFrom, keep_every: int) -> TrainConfig:
    """Return a run on all of DROID, with openpi's settings for it."""
    run = as_openpi(name, model, source=Source(path="data/droid"), robot="droid", init_from=init_from)
    checkpoints = CheckpointConfig(save_every=5_000, keep=1, keep_every=keep_every)
    return replace(run, steps=100_000, batch_size=256, optim=CONSTANT, checkpoints=checkpoints)
