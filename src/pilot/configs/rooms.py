"""One policy for three bodies in homes with rooms: π0.5's two stages on the paper's sources, at a size for CPUs.

Each source is an ordinary data set, written by one line of `runs/rooms.sh`. The paper's letters (2504.16054, §IV.C):
MM the mobile robot in many homes, ME robots that do not drive in many homes, CE the laboratory, HL subtasks with boxes
(in every set of demonstrations here), WD pictures with questions. VI, a supervisor who names each next step, is not in
it yet. Tasks are drawn by n^0.43 within the shares below; the paper gives MM 2.4 % of its pre-training, which has far
more of the rest.

Robots of one arm are controlled by the pose of their hand, and the state is a token of the flow block too: with joints
a small low level ignored its own state, and never gripped (`docs/log.md`, 2026-11-28).
"""

from dataclasses import replace

from pilot.configs.nano import ALL_BUT_VISION, NAMING
from pilot.models.pi_config import PiConfig, pi05
from pilot.nn.configs import GemmaConfig, SiglipConfig
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

DATA = "data/rooms"
PIXEL_GRID = 16  # boxes snap to every second pixel of a 128-pixel picture
START_SECONDS = 1.2  # a row this soon after its subtask has begun is from its start
ROBOTS = {"mm": "mobile_ee", "me_arm": "arm_ee", "ce_bimanual": "bimanual"}
SETS = {
    "mm": {"mm_skill": 0.35, "mm_move": 0.65},
    "me_arm": {"me_arm_move": 1.0},
    "ce_bimanual": {"ce_bimanual_bowls": 1.0},
}
PICTURES = {"wd_arm": 0.6, "wd": 0.16, "wd_more": 0.24}
"""The sets of demonstrations and of questions, with their parts; `runs/rooms.sh` collects them under these names."""


def model() -> PiConfig:
    """Return π0.5 with 50-step chunks, pictures of 128 pixels (64 of wrist cameras) and room for 18 dims.

    A chunk holds every fifth action, and the commands between lie on straight lines: a noise draw costs a fifth, and
    many draws are what hands lack (`docs/log.md`, 2026-11-29).
    """
    return pi05(
        "nano",
        vision=SiglipConfig(
            image_size=128, patch_size=16, width=96, depth=2, mlp_dim=256, num_heads=3, stem=(8, 24, 48, 96, 96)
        ),
        vlm=GemmaConfig(width=128, depth=4, mlp_dim=256, num_heads=4, head_dim=32),
        action_expert=GemmaConfig(width=96, depth=4, mlp_dim=256, num_heads=4, head_dim=32, cond_width=96),
        wrist_image_size=64,
        action_dim=18,
        action_horizon=10,
        action_stride=5,
        max_tokens=240,
        state_input="both",
        vocab_size=4608,
        fast_vocab_size=512,
    )


def web(share: float, *, listed: float) -> tuple[Source, ...]:
    """Return the sources of pictures with questions, shown as crops; together they have `share` of the rows.

    `listed` of these rows ask to list everything: many boxes in one answer, in closer crops.
    """
    sources = []
    for name, part in PICTURES.items():
        asked = Source(path=f"{DATA}/{name}", kind="web", weight=share * part * (1 - listed), zoom=0.5)
        lists = replace(
            asked, name=f"{name}_list", weight=share * part * listed, question="list everything", zoom=0.4
        )  # fmt: skip
        sources += [asked, lists]
    return tuple(source for source in sources if source.weight)


def mixture(*others: Source, starts: float = 0.0, **shares: float) -> DataConfig:
    """Return the manifest: each source of demonstrations has its share of the rows, spread over its sets.

    `starts` is the share of a robot's rows that are from the start of a subtask, which is one frame in six: there the
    hand is far from its goal, and its first movement decides where it ends.

    FAST rounds coarsely: its tokens teach the backbone, the flow acts. Each step of a chunk is learned at its own
    scale: a hand hardly moves in the first tenth of a second, and goes far in two.
    """
    sources = []
    for kind, share in shares.items():
        for name, part in SETS[kind].items():
            whole = Source(path=f"{DATA}/{name}", robot=ROBOTS[kind], weight=share * part * (1 - starts))
            start = replace(whole, name=f"{name}_starts", weight=share * part * starts, first_seconds=START_SECONDS)
            sources += [whole, start]
    drawn = (source for source in sources if source.weight)
    return DataConfig(
        sources=(*drawn, *others), group_by="label", loc_stride=PIXEL_GRID, text_model="rooms", fast_scale=5.0,
        scale_steps=True,
    )  # fmt: skip


def rooms_vision() -> TrainConfig:
    """The vision tower alone learns to name everything in crops of pictures, and to say where it is.

    Long: after 900 steps of 64 whole pictures it could not tell things apart. And naming alone makes the tower forget
    where things are (`docs/log.md`, 2026-11-28, night).
    """
    return TrainConfig(
        name="rooms_vision",
        model=model(),
        data=mixture(*web(0.98, listed=1.0), me_arm=0.02),  # statistics of its robot come from a source
        robot="arm_ee",
        steps=10_000,
        batch_size=32,
        seed=0,
        freeze=ALL_BUT_VISION,
        objective=replace(NAMING, place_weight=1.0),
        optim=OptimConfig(name="muon", peak_lr=2e-3, warmup_steps=50),
        ema=EmaConfig(decay=0.99),
        checkpoints=CheckpointConfig(save_every=1000),
    )


def rooms_stage1() -> TrainConfig:
    """Discrete pre-training: every target is a token. A web row costs a fifth of a robot's, so most are of the web."""
    return replace(
        rooms_vision(),
        name="rooms_stage1",
        data=mixture(*web(0.94, listed=0.4), mm=0.02, me_arm=0.03, ce_bimanual=0.01),
        steps=2400,
        batch_size=64,
        seed=1,
        init_from=InitFrom("outputs/rooms/vision/policy"),
        freeze=(),
        objective=ObjectiveConfig(alpha=0.0, place_weight=0.5, noise_per="step"),
        optim=OptimConfig(name="muon", peak_lr=2e-3, final_lr=1e-5, warmup_steps=40),
        checkpoints=CheckpointConfig(save_every=200),
    )


def rooms_stage2() -> TrainConfig:
    """Post-training on all bodies: flow and words together, and the flow's gradient reaches the backbone.

    Insulation came with a later paper (2505.23705), in which a frozen backbone failed too. Frozen, a small expert
    hardly listened to the box: one moved by 12 pixels moved the hand by a quarter to a half of the way, and by half to
    two thirds after 480 steps like this (`docs/log.md`, 2026-11-28, second night). The paper keeps FAST tokens here;
    they are left out for speed. Muon at half its usual rate: at the full one hands kept a floor of noise, and AdamW is
    slower.
    """
    run = rooms_stage1()
    return replace(
        run,
        name="rooms_stage2",
        model=replace(run.model, insulate=False),
        data=mixture(*web(0.12, listed=0.2), starts=0.4, mm=0.3, me_arm=0.48, ce_bimanual=0.1),
        steps=4600,
        batch_size=24,
        seed=2,
        init_from=InitFrom("outputs/rooms/stage1/policy"),
        objective=ObjectiveConfig(
            alpha=10.0, fast_weight=0.0, name_weight=0.25, place_weight=0.25, flow_draws=16, noise_per="step"
        ),
        optim=OptimConfig(name="muon", peak_lr=2e-3, muon_lr=1e-2, final_lr=1e-5, warmup_steps=60),
        ema=EmaConfig(decay=0.998),
        checkpoints=CheckpointConfig(save_every=300),
    )


def rooms_own_states() -> TrainConfig:
    """Stage 2 goes on, half of the arm's rows from states that the policy itself led to (DAgger, 1011.0686).

    In demonstrations the hand is over the thing whenever it is low, so a policy learns to go down where it is; its own
    episodes end beside the thing, and there the expert says where to go.
    """
    run = rooms_stage2()
    demonstrations = mixture(*web(0.12, listed=0.2), starts=0.4, mm=0.2, me_arm=0.24, ce_bimanual=0.06)
    own = Source(path=f"{DATA}/me_arm_own", robot=ROBOTS["me_arm"], weight=0.38)
    return replace(
        run,
        name="rooms_own_states",
        data=replace(demonstrations, sources=(*demonstrations.sources, own)),
        steps=1000,
        seed=3,
        init_from=InitFrom("outputs/rooms/stage2/policy"),
        optim=replace(run.optim, peak_lr=1e-3, muon_lr=5e-3, warmup_steps=30),
        ema=EmaConfig(decay=0.99),
        checkpoints=CheckpointConfig(save_every=200),
    )
