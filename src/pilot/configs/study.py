"""The size `study`: a condition of the papers' experiments in twenty minutes on two cores, on the homes' table-top.

Released weights already know many things by name and sight. Learning that from nothing takes longer than a condition
may take, so one base stands in for such weights: a vision tower that names what it sees, and a backbone that answers
questions about pictures. All conditions and seeds start from it. After it the tower is frozen, which saves the backward
pass through its convolutions. A first stage then trains the words, a second one the action expert alone, in small
batches, because it needs many steps more than it needs many rows or noise draws. `pilot study` collects `data/study`
and makes the chains; its letters for the sources are π0.5's (2504.16054, §IV.C).
"""

from dataclasses import replace
from typing import Literal

from pilot.configs import rooms
from pilot.configs.nano import ALL_BUT_VISION, FLOW_ALONE, NAMING, PIXEL_GRID
from pilot.models.baselines.configs import act
from pilot.models.pi_config import SIZES, PiConfig, pi05
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

DATA = "data/study"
# As text and as a token of the flow: so hands need fewer steps (`docs/log.md`, 2026-11-29).
STATE_INPUT: Literal["both"] = "both"
WORDS_STEPS, WORDS_ROWS = 650, 64
ACTIONS_STEPS, ACTIONS_ROWS, NOISE_DRAWS = 2600, 16, 8
JOINT_ROWS = 32
LOSSES, WITHOUT_SUBTASK = ("text", "fast", "flow"), ("fast", "flow")
BOX_JITTER = 0.015  # about a pixel: the boxes that the policy writes are that inexact


def mixture(
    *, box_jitter: float = 0.0, web: float = 0.0, detect: float = 0.0, listed: float = 0.0, **robot: float
) -> DataConfig:
    """Return the sets of `DATA` by folder, with their shares of the rows.

    `web` are questions as they come; `detect` and `listed` those for the boxes of things by name, or of everything.
    """
    demonstrations = (
        Source(path=f"{DATA}/{name}", weight=share, teaches=WITHOUT_SUBTASK if name == "silent" else LOSSES)
        for name, share in robot.items()
    )
    asked = (("web", web, None), ("detect", detect, "detect"), ("list", listed, "list everything"))
    questions = (
        Source(path=f"{DATA}/web", name=name, kind="web", weight=share, question=question)
        for name, share, question in asked
        if share
    )
    return DataConfig(sources=(*demonstrations, *questions), loc_stride=PIXEL_GRID, box_jitter=box_jitter)


def study_vision() -> TrainConfig:
    """The vision tower learns to name what it sees, and to say where it is."""
    return TrainConfig(
        name="study_vision",
        model=pi05("nano", state_input=STATE_INPUT),
        data=mixture(listed=0.85, lab=0.15),  # the laboratory, for its robot's statistics
        robot="homes",
        steps=800,
        batch_size=96,
        freeze=ALL_BUT_VISION,
        objective=replace(NAMING, place_weight=1.0),
        optim=OptimConfig(name="muon", peak_lr=2e-3, final_lr=1e-4, warmup_steps=40),
        ema=EmaConfig(decay=0.99),
        checkpoints=CheckpointConfig(save_every=200),
    )


def study_base() -> TrainConfig:
    """Tower and backbone answer questions, most of them to detect a thing: the stand-in for released weights.

    A box behind a name has to be looked for; those of lists follow one another, and nine in ten boxes were of lists
    when questions were drawn as they came. The tower learns on, because what it has learned alone is hard to look for.
    Without either, words did not look for what an instruction names (`docs/log.md`).
    """
    return replace(
        study_vision(),
        name="study_base",
        data=mixture(detect=0.7, web=0.28, lab=0.02),
        steps=700,
        batch_size=64,
        seed=5,
        init_from=InitFrom("outputs/study/vision/policy"),
        freeze=(),
        objective=ObjectiveConfig(alpha=0.0, fast_weight=0.1, noise_per="step"),
        optim=OptimConfig(name="muon", peak_lr=1.5e-3, final_lr=2e-5, warmup_steps=40),
    )


def study_words() -> TrainConfig:
    """Words: every target is a token. Sources: the lab (CE), homes (ME), tasks (MM), web (WD), a supervisor (VI).

    Some rows say no subtask, so that acting on the prompt alone is something that the low level has learned.
    """
    return replace(
        study_base(),
        name="study_words",
        freeze=("vision",),
        objective=ObjectiveConfig(alpha=0.0, name_weight=0.0, noise_per="step"),
        data=mixture(lab=0.12, homes=0.25, tasks=0.24, silent=0.07, verbal=0.06, web=0.13, detect=0.13),
        steps=WORDS_STEPS,
        batch_size=WORDS_ROWS,
        seed=1,
        init_from=InitFrom("outputs/study/base/policy"),
        checkpoints=CheckpointConfig(save_every=150),
    )


def study_actions() -> TrainConfig:
    """Actions: only the action expert learns, with boxes as inexact as those that the high level gives it."""
    return replace(
        study_words(),
        name="study_actions",
        data=mixture(box_jitter=BOX_JITTER, lab=0.17, homes=0.35, tasks=0.33, silent=0.07, verbal=0.08),
        steps=ACTIONS_STEPS,
        batch_size=ACTIONS_ROWS,
        seed=2,
        init_from=InitFrom("outputs/study/words/policy"),
        freeze=("vision", "vlm", "embedding"),
        objective=replace(FLOW_ALONE, flow_draws=NOISE_DRAWS),
        ema=EmaConfig(decay=0.995),
        checkpoints=CheckpointConfig(save_every=300),
    )


def study_joint() -> TrainConfig:
    """One stage in place of two, on as many rows: words and actions together (knowledge insulation, 2505.23705)."""
    rows = WORDS_STEPS * WORDS_ROWS + ACTIONS_STEPS * ACTIONS_ROWS
    return replace(
        study_words(),
        name="study_joint",
        steps=rows // JOINT_ROWS,
        batch_size=JOINT_ROWS,
        objective=ObjectiveConfig(alpha=1.0, name_weight=0.0, flow_draws=NOISE_DRAWS, noise_per="step"),
    )


def study_concat() -> TrainConfig:
    """One stage, with the flow time beside each action (π0) in place of adaptive norms."""
    return replace(study_joint(), name="study_concat", model=_with_time_beside_actions())


def study_concat_vision() -> TrainConfig:
    """The vision tower of a model without adaptive norms."""
    return replace(study_vision(), name="study_concat_vision", model=_with_time_beside_actions())


def study_concat_base() -> TrainConfig:
    """The base of a model without adaptive norms."""
    return replace(study_base(), name="study_concat_base", model=_with_time_beside_actions())


def study_home_words() -> TrainConfig:
    """Words of demonstrations from some homes, beside web rows; the set is the study's: `data.sources.homes_104`."""
    return replace(
        study_words(), name="study_home_words", data=mixture(homes_104=0.7, web=0.15, detect=0.15), steps=300, seed=3
    )


def study_home() -> TrainConfig:
    """Actions of demonstrations from some homes."""
    data = mixture(box_jitter=BOX_JITTER, homes_104=1.0)
    return replace(study_actions(), name="study_home", data=data, init_from=InitFrom("outputs/study/home_words/policy"))


def study_finetune() -> TrainConfig:
    """A few minutes of demonstrations of something new; the set is the study's: `data.sources.new_20`."""
    return replace(
        study_joint(),
        name="study_finetune",
        data=mixture(new_20=0.8, web=0.1, detect=0.1),
        steps=600,
        batch_size=ACTIONS_ROWS,
        init_from=InitFrom("outputs/study/actions/policy"),
        optim=OptimConfig(name="muon", peak_lr=8e-4, final_lr=2e-5, warmup_steps=20),
    )


def study_act() -> TrainConfig:
    """ACT, a regressed chunk, on the same rows."""
    robot = tuple(
        Source(path=f"{DATA}/{name}", weight=weight, teaches=("flow",))
        for name, weight in {"lab": 0.2, "homes": 0.4, "tasks": 0.4}.items()
    )
    return replace(
        study_joint(),
        name="study_act",
        model=act("nano"),
        data=DataConfig(sources=robot, loc_stride=PIXEL_GRID),
        init_from=None,
        freeze=(),
        objective=ObjectiveConfig(alpha=1.0, text_weight=0.0, fast_weight=0.0, loss_weights={"kl": 10.0}),
        optim=OptimConfig(peak_lr=1e-3, final_lr=1e-5, warmup_steps=40),
    )


def study_bodies() -> TrainConfig:
    """Words and actions of three bodies in rooms, in one stage from nothing."""
    sources = tuple(
        Source(path=f"{DATA}/body_{body}", robot=robot, weight=1 / 3)
        for body, robot in {"arm": "arm_ee", "bimanual": "bimanual", "mobile": "mobile_ee"}.items()
    )
    return TrainConfig(
        name="study_bodies",
        model=rooms.model(),
        data=DataConfig(sources=sources, loc_stride=rooms.PIXEL_GRID, text_model="rooms", scale_steps=True),
        robot="arm_ee",
        steps=1000,
        batch_size=32,
        objective=ObjectiveConfig(alpha=1.0, name_weight=0.0, flow_draws=4, noise_per="step"),
        optim=OptimConfig(name="muon", peak_lr=1.5e-3, final_lr=2e-5, warmup_steps=40),
        ema=EmaConfig(decay=0.99),
        checkpoints=CheckpointConfig(save_every=200),
    )


def _with_time_beside_actions() -> PiConfig:
    return pi05("nano", action_expert=SIZES["nano"][2], time_conditioning="concat", state_input=STATE_INPUT)
