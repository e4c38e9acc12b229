"""What the family is compared with, by the same command on the same data: ACT, Diffusion Policy, Octo, binned tokens.

`*_nano` learn the generated homes that `nano.py` learns, with models of a like size. The others have the published
dims, batch and learning rate, each on a public set of the kind that its paper used; nobody has run them here. What the
trainer has not, and a paper used, is said at each.

Binned tokens are π0-FAST without FAST and without chunks: one of 256 bins for each action dim, as words of the
language model, learned beside web rows (RT-2, arXiv 2307.15818) after a fixed question (OpenVLA, 2406.09246).
"""

from dataclasses import replace

from pilot.configs.nano import DATA, PIXEL_GRID
from pilot.models.baselines.configs import act, diffusion_policy, octo
from pilot.models.pi_config import Size, pi0_fast
from pilot.models.registry import ModelConfig
from pilot.train.config import (
    CheckpointConfig,
    DataConfig,
    EmaConfig,
    InitFrom,
    ObjectiveConfig,
    OptimConfig,
    Source,
    TrainConfig,
)

HOMES = {"l1_single": 0.20, "l2_single": 0.45, "l2_multi": 0.35}
ACTIONS = ObjectiveConfig(alpha=1.0, text_weight=0.0, fast_weight=0.0)
"""The objective of models without words: their action loss at weight 1."""
UNCLIPPED = 1e6  # the norm at which gradients are clipped, where a paper clips none


def baseline_run(name: str, model: ModelConfig, **weights: float) -> TrainConfig:
    """Return a run on the homes' demonstrations, for a model that learns actions alone."""
    sources = tuple(Source(path=f"{DATA}/{folder}", weight=w, teaches=("flow",)) for folder, w in HOMES.items())
    return TrainConfig(
        name=name,
        model=model,
        data=DataConfig(sources=sources, loc_stride=PIXEL_GRID),
        robot="homes",
        steps=6000,
        batch_size=64,
        objective=replace(ACTIONS, loss_weights=weights),
        optim=OptimConfig(peak_lr=1e-3, final_lr=1e-5, warmup_steps=100),
        checkpoints=CheckpointConfig(save_every=500),
    )


def act_nano() -> TrainConfig:
    """ACT, told the task in words."""
    return baseline_run("act_nano", act("nano"), kl=10.0)


def diffusion_policy_nano() -> TrainConfig:
    """Diffusion Policy, told the task in words."""
    return baseline_run("diffusion_policy_nano", diffusion_policy("nano"))


def octo_nano() -> TrainConfig:
    """A small transformer with Octo's head, and several noise draws for each time that it looks."""
    run = baseline_run("octo_nano", octo("nano"), noise=7.0)
    return replace(run, objective=replace(run.objective, flow_draws=4))


def openvla_nano() -> TrainConfig:
    """Binned tokens: one action at a time, no state, beside web rows."""
    robot = tuple(Source(path=f"{DATA}/{name}", weight=0.7 * w, teaches=("fast",)) for name, w in HOMES.items())
    run = baseline_run("openvla_nano", binned_tokens("nano", max_tokens=80))
    sources = (*robot, Source(path=f"{DATA}/web", kind="web", weight=0.3))
    return replace(
        run,
        data=replace(run.data, sources=sources, action_tokenizer="bins"),
        objective=ObjectiveConfig(alpha=0.0, text_weight=1.0, fast_weight=1.0),
    )


def binned_tokens(size: Size, **changes: object) -> ModelConfig:
    """Return a model of binned tokens. It learns from its tokens alone: pilot's pointing loss is not its papers'."""
    own = {"action_horizon": 1, "prompt": "openvla", "state_input": "none", "fast_vocab_size": 256, "point_layer": None}
    return pi0_fast(size, **own, **changes)


def act_aloha() -> TrainConfig:
    """ACT as its code trains it: 2000 passes over 40 episodes, from ImageNet's ResNet-18; no dropout, no clipping."""
    return TrainConfig(
        name="act_aloha",
        model=act(),
        data=DataConfig(sources=(Source(path="data/aloha_sim_transfer_cube", teaches=("flow",)),)),
        robot="aloha",
        steps=10_000,
        batch_size=8,
        init_from=InitFrom("checkpoints/resnet18-f37072fd.pth", kind="torchvision"),
        objective=replace(ACTIONS, loss_weights={"kl": 10.0}),
        optim=OptimConfig(
            peak_lr=1e-5, final_lr=1e-5, warmup_steps=0, betas=(0.9, 0.999), weight_decay=1e-4, clip_norm=UNCLIPPED
        ),
        ema=EmaConfig(decay=0.0),
    )


def diffusion_policy_pusht() -> TrainConfig:
    """Diffusion Policy on PushT: its average follows weights at a power of 0.75 of the step, ours by a fixed share."""
    return TrainConfig(
        name="diffusion_policy_pusht",
        model=diffusion_policy(),
        data=DataConfig(sources=(Source(path="data/pusht", teaches=("flow",)),), augment=True),
        robot="pusht",
        steps=200_000,
        batch_size=64,
        objective=ACTIONS,
        optim=OptimConfig(
            peak_lr=1e-4, final_lr=0.0, warmup_steps=500, betas=(0.95, 0.999), weight_decay=1e-6, clip_norm=UNCLIPPED
        ),
        ema=EmaConfig(decay=0.9999),
    )


def octo_bridge() -> TrainConfig:
    """Octo-Base's dims on BridgeData V2 alone; its learning rate falls by the root of the step, ours by a cosine."""
    return TrainConfig(
        name="octo_bridge",
        model=octo(),
        data=DataConfig(sources=(Source(path="data/bridge_dataset", teaches=("flow",)),), augment=True),
        robot="bridge",
        steps=300_000,
        batch_size=2048,
        objective=replace(ACTIONS, loss_weights={"noise": 7.0}),
        optim=OptimConfig(
            peak_lr=3e-4, final_lr=0.0, warmup_steps=2000, betas=(0.9, 0.999), weight_decay=0.1, clip_norm=1.0
        ),
    )


def openvla_bridge() -> TrainConfig:
    """OpenVLA's rows, batch and learning rate on BridgeData V2, with PaliGemma in place of its 7B model."""
    return TrainConfig(
        name="openvla_bridge",
        model=binned_tokens("2b", fast_offset=1152),
        data=DataConfig(sources=(Source(path="data/bridge_dataset", teaches=("fast",)),), action_tokenizer="bins"),
        robot="bridge",
        steps=100_000,
        batch_size=2048,
        init_from=InitFrom("checkpoints/paligemma-3b-pt-224", kind="paligemma"),
        objective=ObjectiveConfig(alpha=0.0, text_weight=0.0, fast_weight=1.0),
        optim=OptimConfig(peak_lr=2e-5, final_lr=2e-5, warmup_steps=0, weight_decay=0.0),
    )
