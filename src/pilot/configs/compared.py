"""Ten recipes on the same demonstrations of the homes, each with as many rows: what the family is compared with.

`runs/baselines.sh` trains and evaluates them, each in about 40 minutes on two cores or less. Every model sees `ROWS`
rows of the same sets in batches of 64, acts as its paper does (denoising steps, actions between two looks, pictures,
ACT's ensemble), and is of a like size. The family's models start from the vision tower that `nano_vision` taught to
name things, as the released ones start from a vision-language model. `compared_pi0_scratch` starts from nothing, as the
baselines do, which have encoders of their own, and binned tokens, whose vocabulary is not that of the vision run.

Rows of words, where a recipe learns from them, are among the `ROWS`: π0.5 has as many demonstrations less.
"""

from dataclasses import replace

from pilot.configs.baselines import ACTIONS, HOMES, baseline_run, binned_tokens
from pilot.configs.nano import DATA, PIXEL_GRID
from pilot.models.baselines.configs import act, diffusion_policy, octo
from pilot.models.pi_config import pi0, pi0_fast, pi0_small, pi05
from pilot.models.registry import ModelConfig
from pilot.train.config import DataConfig, InitFrom, ObjectiveConfig, Source, TrainConfig

ROWS = 160_000
BATCH_SIZE = 64
WORDS = 0.3  # share of the rows that are questions about pictures, where a recipe has them
VISION = InitFrom("outputs/nano/vision/policy", kind="weights")
TOKENS = ObjectiveConfig(alpha=0.0, text_weight=0.0, fast_weight=1.0)


def _compared(
    name: str,
    model: ModelConfig,
    *,
    objective: ObjectiveConfig = ACTIONS,
    teaches: tuple[str, ...] = ("flow",),
    words: bool = False,
    init_from: InitFrom | None = None,
    action_tokenizer: str = "fast",
) -> TrainConfig:
    """Return a run on the homes' demonstrations; all of them differ by these arguments alone."""
    share = 1 - WORDS if words else 1.0
    sources = tuple(Source(path=f"{DATA}/{folder}", weight=share * w, teaches=teaches) for folder, w in HOMES.items())
    if words:
        sources += (Source(path=f"{DATA}/web", kind="web", weight=WORDS),)
    return replace(
        baseline_run(name, model),
        data=DataConfig(sources=sources, loc_stride=PIXEL_GRID, action_tokenizer=action_tokenizer),
        steps=ROWS // BATCH_SIZE,
        batch_size=BATCH_SIZE,
        init_from=init_from,
        objective=objective,
    )


def compared_act() -> TrainConfig:
    """ACT with its temporal ensemble: it looks at every step and averages what all chunks say of it."""
    run = _compared("compared_act", act("nano", ensemble=True))
    return replace(run, objective=replace(run.objective, loss_weights={"kl": 10.0}))


def compared_diffusion_policy() -> TrainConfig:
    """Diffusion Policy: it sees two moments; 10 steps of DDIM, 8 of 16 actions between two looks."""
    model = diffusion_policy("nano", num_steps=10, replan_steps=8, observation_steps=2)
    return _compared("compared_diffusion_policy", model)


def compared_octo() -> TrainConfig:
    """Octo's form: all 20 noise levels, 4 actions between two looks, several noise draws for each time it looks."""
    run = _compared("compared_octo", octo("nano", replan_steps=4))
    return replace(run, objective=replace(run.objective, flow_draws=4, loss_weights={"noise": 7.0}))


def compared_bins() -> TrainConfig:
    """Binned tokens, as RT-2 and OpenVLA: one action at a time, no state, beside questions about pictures."""
    model = binned_tokens("nano", max_tokens=80)
    objective = ObjectiveConfig(alpha=0.0, text_weight=1.0, fast_weight=1.0)
    return _compared(
        "compared_bins", model, objective=objective, teaches=("fast",), words=True, action_tokenizer="bins"
    )  # fmt: skip


def compared_pi0_scratch() -> TrainConfig:
    """π0 from nothing."""
    return _compared("compared_pi0_scratch", pi0("nano"))


def compared_pi0() -> TrainConfig:
    """π0 after the vision tower has learned to name things."""
    return _compared("compared_pi0", pi0("nano"), init_from=replace(VISION, fresh=("expert",)))


def compared_pi0_small() -> TrainConfig:
    """π0-small, the paper's baseline without a vision-language model, from nothing."""
    return _compared("compared_pi0_small", pi0_small("nano"))


def compared_pi0_fast() -> TrainConfig:
    """π0-FAST: chunks as FAST tokens, written one after the other."""
    return _compared(
        "compared_pi0_fast", pi0_fast("nano"), objective=TOKENS, teaches=("fast",), init_from=VISION
    )  # fmt: skip


def compared_pi0_fast_flow() -> TrainConfig:
    """FAST tokens and a flow learned at once, insulated (2505.23705), without subtasks and web rows; the flow acts."""
    objective = ObjectiveConfig(alpha=1.0, text_weight=0.0, fast_weight=1.0)
    model = pi05("nano", point_layer=None)
    return _compared(
        "compared_pi0_fast_flow", model, objective=objective, teaches=("fast", "flow"), init_from=VISION
    )  # fmt: skip


def compared_pi05() -> TrainConfig:
    """π0.5 in a single stage: subtasks with boxes, web rows, FAST tokens and an insulated flow."""
    objective = ObjectiveConfig(alpha=10.0, noise_per="step")
    return _compared(
        "compared_pi05", pi05("nano"), objective=objective, teaches=("text", "fast", "flow"), words=True,
        init_from=VISION,
    )  # fmt: skip
