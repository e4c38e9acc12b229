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

from pilot.configs.nano import ALL_BUT_VISION, FLOW_ALONE, NAMING
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
BOX_JITTER = 0.008  # about a pixel: the boxes that the policy writes are that inexact
START_SECONDS = 1.2  # rows of the first so many seconds of a subtask, or after a disturbance, count as starts
ROBOTS = {
    "mm": "mobile_ee", "me_arm": "arm_ee", "me_pushed": "arm_ee", "ce_bimanual": "bimanual",
    "mm_mended": "mobile_ee", "me_mended": "arm_ee", "mm_grasp": "mobile_ee", "me_grasp": "arm_ee",
    "mm_place": "mobile_ee", "me_place": "arm_ee",
}  # fmt: skip
SETS = {
    "mm": {"mm_skill": 0.35, "mm_move": 0.65},
    "me_arm": {"me_arm_move": 1.0},
    "me_pushed": {"me_arm_pushed": 1.0},  # the same homes again; the shipped policy had more mishaps here
    "ce_bimanual": {"ce_bimanual_bowls": 1.0},
    "mm_mended": {"mm_mended": 1.0},  # other homes; after a miss the expert tries again where it is
    "me_mended": {"me_arm_mended": 1.0},
    "mm_grasp": {"mm_grasp": 1.0},  # short: the hand begins beside the thing, and picks it up
    "me_grasp": {"me_arm_grasp": 1.0},
    "mm_place": {"mm_place": 1.0},  # with the thing in hand, off the way to where it goes
    "me_place": {"me_arm_place": 1.0},
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
        replan_seconds=0.5,
        max_tokens=240,
        state_input="both",
        vocab_size=4608,
        fast_vocab_size=512,
    )


def web(*, asked: float = 0.0, detect: float = 0.0, listed: float = 0.0) -> tuple[Source, ...]:
    """Return the sources of pictures with questions, shown as crops, with their shares of the rows.

    `asked` are questions as they come, `detect` those for the box of one thing by name, `listed` those for all of them:
    many boxes in one answer, in closer crops.
    """
    kinds = (("", asked, None, 0.5), ("_detect", detect, "detect", 0.5), ("_list", listed, "list everything", 0.4))
    return tuple(
        Source(path=f"{DATA}/{name}", name=name + suffix, kind="web", weight=share * part, question=question, zoom=zoom)
        for name, part in PICTURES.items()
        for suffix, share, question, zoom in kinds
        if share
    )


def mixture(*others: Source, starts: float = 0.0, box_jitter: float = 0.0, **shares: float) -> DataConfig:
    """Return the manifest: each source of demonstrations has its share of the rows, spread over its sets.

    `starts` is the share of a robot's rows from where a subtask begins or a disturbance ends: there the hand is not
    where it should be. In most other frames it is, and they teach to stay.

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
        scale_steps=True, box_jitter=box_jitter,
    )  # fmt: skip


def rooms_vision() -> TrainConfig:
    """The vision tower alone learns to name everything in crops of pictures, and to say where it is.

    Long: after 900 steps of 64 whole pictures it could not tell things apart. And naming alone makes the tower forget
    where things are (`docs/log.md`, 2026-11-28, night).
    """
    return TrainConfig(
        name="rooms_vision",
        model=model(),
        data=mixture(*web(listed=0.98), me_arm=0.02),  # statistics of its robot come from a source
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


def rooms_base() -> TrainConfig:
    """Tower and backbone answer questions about pictures, most of them to find a thing by its name.

    Lists alone teach to say what is where, but not to look for what is asked for; and a tower that has to say places
    beside names gives them most of each token, in which names are then hard to look for (`docs/log.md`, 2026-11-29,
    fifth session).
    """
    return replace(
        rooms_vision(),
        name="rooms_base",
        data=mixture(*web(detect=0.66, asked=0.25, listed=0.09)),
        steps=1100,
        batch_size=64,
        seed=1,
        init_from=InitFrom("outputs/rooms/vision/policy"),
        freeze=(),
        objective=ObjectiveConfig(alpha=0.0, fast_weight=0.0, noise_per="step"),
        optim=OptimConfig(name="muon", peak_lr=1.5e-3, final_lr=2e-5, warmup_steps=40),
        checkpoints=CheckpointConfig(save_every=100),
    )


def rooms_words() -> TrainConfig:
    """Discrete pre-training on all bodies: subtasks with their boxes, and actions as FAST tokens.

    The tower learns on, because pictures of wrists are not among the questions.
    """
    return replace(
        rooms_base(),
        name="rooms_words",
        data=mixture(*web(detect=0.2, asked=0.1, listed=0.05), mm=0.2, me_arm=0.38, ce_bimanual=0.07),
        steps=1100,
        batch_size=32,
        seed=2,
        init_from=InitFrom("outputs/rooms/base/policy"),
        objective=ObjectiveConfig(alpha=0.0, noise_per="step"),
    )


def rooms_actions() -> TrainConfig:
    """Post-training: the action expert alone, in small batches, with boxes as inexact as those that the words give it.

    It needs many steps more than it needs many rows or noise draws. Muon at half its usual rate: at the full one hands
    kept a floor of noise, and AdamW is slower.
    """
    return replace(
        rooms_words(),
        name="rooms_actions",
        data=mixture(starts=0.3, box_jitter=BOX_JITTER, mm=0.36, me_arm=0.52, ce_bimanual=0.12),
        steps=7000,
        batch_size=16,
        seed=3,
        init_from=InitFrom("outputs/rooms/words/policy"),
        freeze=("vision", "vlm", "embedding"),
        objective=replace(FLOW_ALONE, flow_draws=8),
        optim=OptimConfig(name="muon", peak_lr=2e-3, muon_lr=1e-2, final_lr=1e-5, warmup_steps=60),
        ema=EmaConfig(decay=0.998),
        checkpoints=CheckpointConfig(save_every=500),
    )


def rooms_together() -> TrainConfig:
    """All of the model learns on, words and actions together; the gradient of the flow reaches backbone and tower too.

    Insulation keeps what a large pre-training has put there. Ours has not seen what hands need: behind it the expert
    came five centimetres from the thing, and never nearer (`docs/log.md`, 2026-11-30).
    """
    return replace(
        rooms_actions(),
        name="rooms_together",
        model=replace(model(), insulate=False),
        data=mixture(
            *web(detect=0.13, asked=0.04),
            starts=0.6, box_jitter=BOX_JITTER / 2, mm=0.37, me_arm=0.17, me_pushed=0.23, ce_bimanual=0.06,
        ),
        steps=3600,
        seed=4,
        init_from=InitFrom("outputs/rooms/actions/policy"),
        freeze=(),
        objective=ObjectiveConfig(alpha=10.0, fast_weight=0.0, name_weight=0.0, flow_draws=8, noise_per="step"),
        optim=OptimConfig(name="muon", peak_lr=2e-3, muon_lr=1.2e-2, final_lr=1e-5, warmup_steps=40),
        ema=EmaConfig(decay=0.995),
        checkpoints=CheckpointConfig(save_every=300),
    )  # fmt: skip


def rooms_drills() -> TrainConfig:
    """Hands learn to mend their misses: most of the robots' rows are drills, which begin where a policy errs.

    Whole demonstrations come straight from above, and carry things without a stop. Most of their frames teach to go on
    as it does, and none what to do beside the thing, or half-way (`docs/log.md`, 2026-11-30, fifth session).
    """
    return replace(
        rooms_together(),
        name="rooms_drills",
        data=mixture(
            *web(detect=0.25, asked=0.03),
            starts=0.6, box_jitter=BOX_JITTER / 2,
            mm_mended=0.12, mm_grasp=0.12, mm_place=0.12,
            me_mended=0.11, me_grasp=0.18, me_place=0.03, ce_bimanual=0.04,
        ),
        steps=7000,
        seed=8,
        init_from=InitFrom("outputs/rooms/together/policy"),
        objective=replace(rooms_together().objective, alpha=5.0, name_weight=0.2),
        optim=OptimConfig(name="muon", peak_lr=1e-3, muon_lr=6e-3, final_lr=1e-5, warmup_steps=40),
        ema=EmaConfig(decay=0.998),
        checkpoints=CheckpointConfig(save_every=500),
    )  # fmt: skip
