"""The family's own recipes at their published size, from PaliGemma on: π0, π0-FAST, π0.5's two stages, insulation.

What the papers say is followed to the letter: stages, losses and their weights, which data comes in which stage, steps.
What they do not say is a choice, marked as such here and in `docs/recipe.md`: learning rate, batch, shares of the
mixture. Nor is their data public. The manifests name public sets in its place, by the paper's kinds of data, to be
replaced by one's own: `--set data.sources.droid.path=…`.
"""

from dataclasses import replace

from pilot.models.pi_config import PiConfig, pi0, pi0_fast, pi05
from pilot.train.config import (
    CheckpointConfig,
    DataConfig,
    InitFrom,
    LoggingConfig,
    ObjectiveConfig,
    OptimConfig,
    Source,
    TrainConfig,
)

PALIGEMMA = InitFrom("checkpoints/paligemma-3b-pt-224", kind="paligemma")
HORIZON = 50  # of π0, π0.5 and knowledge insulation, on every robot
FAST_HORIZON = 16  # π0-FAST's chunks are a second long: here one of DROID, of whose arm the policies are
MAX_TOKENS = 320  # 120 of them for the FAST tokens of 50 steps; not published
CLEAR_OF_PLACES = 1152  # FAST ids below the 1024 <loc> tokens, which end 128 below the top of PaliGemma's vocabulary
UNPUBLISHED = OptimConfig(
    peak_lr=5e-5, final_lr=5e-5, warmup_steps=1_000, weight_decay=1e-10, clip_norm=1.0
)  # of the long runs of openpi, on all of DROID
BATCH = 256  # likewise

MANY_HOMES = ("droid", "bridge_dataset")
"""ME: one arm that does not drive, in many places."""
LABS = ("fractal20220817_data", "berkeley_autolab_ur5", "aloha_static")
"""CE: other robots in laboratories, Open X-Embodiment among them."""
SUBTASKS = ("droid_subtasks",)
"""HL: demonstrations with the next subtask, and the box of what it is about, at each step (`pilot data annotate`)."""
WEB = ("capsfusion", "coco", "vqav2", "cambrian", "pixmo")
"""WD: captions, questions and boxes."""
VERBAL = ("droid_verbal",)
"""VI: a person names each next step (`pilot collect --verbal`; utterances of a LeRobot set)."""

ROBOTS = {
    "droid": "droid", "droid_subtasks": "droid", "droid_verbal": "droid", "bridge_dataset": "bridge",
    "fractal20220817_data": "google_robot", "berkeley_autolab_ur5": "ur5", "aloha_static": "aloha",
}  # fmt: skip


def robots(names: tuple[str, ...], *, teaches: tuple[str, ...], share: float | None = None) -> tuple[Source, ...]:
    """Demonstrations, which have `share` of the rows between them; without, each as many as its tasks are worth."""
    weight = share / len(names) if share is not None else None
    return tuple(Source(path=f"data/{n}", robot=ROBOTS[n], teaches=teaches, weight=weight) for n in names)


def web(*, share: float) -> tuple[Source, ...]:
    """Return the web sources, which share `share` of the rows equally."""
    return tuple(Source(path=f"data/web/{name}", kind="web", weight=share / len(WEB)) for name in WEB)


def from_paligemma(
    name: str, model: PiConfig, *, sources: tuple[Source, ...], steps: int, objective: ObjectiveConfig
) -> TrainConfig:
    """Return a run with the settings that all of these have in common."""
    return TrainConfig(
        name=name,
        model=model,
        data=DataConfig(
            sources=sources,
            action_tokenizer="hf://physical-intelligence/fast",
            augment=True,
            frame_cache=False,
            workers=8,
        ),
        robot="droid",
        steps=steps,
        batch_size=BATCH,
        init_from=PALIGEMMA,
        objective=objective,
        optim=UNPUBLISHED,
        logging=LoggingConfig(log_every=100),
        checkpoints=CheckpointConfig(save_every=5_000, keep_every=50_000),
    )


def pi0_pretrain() -> TrainConfig:
    """π0 (2410.24164, §V): flow matching alone, on every robot's demonstrations; a task of n rows weighs n^0.43."""
    model = pi0(action_horizon=HORIZON, prompt="pi0")
    sources = robots(MANY_HOMES + LABS, teaches=("flow",))
    objective = ObjectiveConfig(alpha=1.0, text_weight=0.0, fast_weight=0.0)
    return from_paligemma("pi0_pretrain", model, sources=sources, steps=700_000, objective=objective)


def pi0_fast_pretrain() -> TrainConfig:
    """π0-FAST (2501.09747, §VI): the backbone alone, actions as tokens. It learns five times as fast as π0."""
    model = pi0_fast(action_horizon=FAST_HORIZON, prompt="pi0_fast", max_tokens=250)
    sources = robots(MANY_HOMES + LABS, teaches=("fast",))
    objective = ObjectiveConfig(alpha=0.0, text_weight=0.0)
    return from_paligemma("pi0_fast_pretrain", model, sources=sources, steps=140_000, objective=objective)


def pi05_stage1() -> TrainConfig:
    """π0.5's pre-training (2504.16054, §IV.D): all that is learned are tokens, α = 0. There is no action expert yet."""
    sources = (
        *robots(MANY_HOMES, teaches=("fast",), share=0.30),
        *robots(LABS, teaches=("fast",), share=0.25),
        *robots(SUBTASKS, teaches=("text", "fast"), share=0.20),
        *web(share=0.25),
    )
    objective = ObjectiveConfig(alpha=0.0)
    return from_paligemma("pi05_stage1", discrete(), sources=sources, steps=280_000, objective=objective)


def pi05_stage2() -> TrainConfig:
    """π0.5's post-training: an action expert from nothing, α = 10, beside the tokens, on what resembles the task.

    Robots in laboratories are left out; verbal instruction comes in, with 11 % of the rows that have subtasks. Failed
    episodes and long ones have to be left out of the sets themselves (DROID's reader does so with failures).
    """
    every, subtasks = ("text", "fast", "flow"), 0.25
    sources = (
        *robots(MANY_HOMES, teaches=("fast", "flow"), share=0.45),
        *robots(SUBTASKS, teaches=every, share=0.89 * subtasks),
        *robots(VERBAL, teaches=every, share=0.11 * subtasks),
        *web(share=0.30),
    )
    model, objective = with_expert(insulate=False), ObjectiveConfig(alpha=10.0)
    run = from_paligemma("pi05_stage2", model, sources=sources, steps=80_000, objective=objective)
    return replace(run, init_from=InitFrom("outputs/pi05_stage1/policy", fresh=("expert",)))


def pi05_insulated() -> TrainConfig:
    """Knowledge insulation (2505.23705): both stages in one, α = 1, no gradient from the expert to the backbone."""
    sources = tuple(replace(source, teaches=(*source.teaches, "flow")) for source in pi05_stage1().data.sources)
    model, objective = with_expert(insulate=True), ObjectiveConfig(alpha=1.0)
    return from_paligemma("pi05_insulated", model, sources=sources, steps=280_000, objective=objective)


def with_expert(*, insulate: bool) -> PiConfig:
    """Return π0.5 at `2b` with its action expert, the backbone kept from the flow loss or not."""
    return pi05(action_horizon=HORIZON, max_tokens=MAX_TOKENS, fast_offset=CLEAR_OF_PLACES, insulate=insulate)


def discrete() -> PiConfig:
    """π0.5 before it has an action expert: it acts by FAST tokens."""
    return replace(with_expert(insulate=False), action_expert=None)
