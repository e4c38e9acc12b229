"""Bytes from the config are those that autograd keeps when the model runs."""

import pytest
import torch

from live_bytes import LiveBytes
from pilot.models.bundle import empty_model
from pilot.models.pi import Pi, pi0, pi0_fast, pi0_small, pi05
from pilot.nn.configs import LoraConfig
from pilot.train.config import OptimConfig, TrainConfig
from pilot.train.distributed import Ranks, parallelize
from pilot.train.freezing import choose_learning
from pilot.train.optim import Optimizer
from pilot.train.plan.memory import BF16, FP32, Activations, Counts, Layout, memory
from train.counted_rows import rows_of, run_of, work_of
from train.toy import changed

pytestmark = pytest.mark.usefixtures("no_shape_checks")
ROWS = 8
TOLERANCE = 0.10
MODELS = {
    "pi05": pi05("nano"),
    "pi05 not insulated": pi05("nano", insulate=False),
    "pi0": pi0("nano"),
    "pi0_fast": pi0_fast("nano"),
    "pi0_small": pi0_small("nano"),
}
LOSSES = {"pi05": ["text flow", "text", "flow"], "pi0_fast": ["text"], "pi0_small": ["flow"]}
WAYS = ["none", "selective", "blocks"]
RUNS = [
    (name, losses, way)
    for name in MODELS
    for losses in LOSSES.get(name, ["text flow"])
    for way in (WAYS if name in ("pi05", "pi0_small") else ["none"])
]


def alone(config: TrainConfig, rows: int = ROWS, *, precision: str = "fp32", **compute: object) -> Layout:
    """One GPU that takes so many rows."""
    return Layout(changed(config, batch_size=rows, compute={"precision": precision, **compute}), gpus=1)


def memory_of(config: TrainConfig, model: Pi, *, layout: Layout) -> dict[str, float]:
    return memory(Counts(model, config, work_of(config)), layout)


def peak_of(config: TrainConfig) -> int:
    """The most bytes that live at once in a step of `ROWS` rows, beside weights."""
    model = parallelize(Pi(config.model), config, Ranks())
    batch = rows_of(config.model, ROWS)
    draws = model.draw(ROWS, torch.Generator().manual_seed(0), flow_draws=config.objective.flow_draws)
    with LiveBytes(model.parameters()) as live:
        terms = model.loss_terms(batch, draws, losses=config.objective.losses)
        torch.stack([total.sum() for total, _ in terms.values()]).sum().backward()
    return live.peak


@pytest.mark.parametrize(("name", "losses", "checkpointing"), RUNS)
def test_a_step_holds_what_is_told(name, losses, checkpointing):
    config = run_of(MODELS[name], losses=losses, compute={"checkpointing": checkpointing})
    predicted = memory_of(config, empty_model(config.model), layout=alone(config))
    assert predicted["passing"] == pytest.approx(peak_of(config), rel=TOLERANCE)


def test_what_nothing_holds_is_gone():
    with LiveBytes() as live:
        kept = torch.ones(1000)
        for _ in range(3):
            kept = kept + 1
    assert live.now == 4000 and live.peak == 8000


def test_weights_gradients_optimizer_and_average():
    config = run_of(MODELS["pi05"])
    model = Pi(config.model)
    predicted = memory_of(config, model, layout=alone(config))
    numbers = sum(p.numel() for p in model.parameters())
    assert predicted["weights"] == predicted["gradients"] == predicted["average"] == FP32 * numbers
    assert predicted["optimizer"] == FP32 * 2 * numbers and predicted["copies"] == 0


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_optimizer_remembers_what_is_told(name):
    config = run_of(MODELS["pi05"], optim=OptimConfig(name=name))
    model = Pi(config.model)
    optimizer = Optimizer(model, config.optim, steps=10)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step(0)
    states = [state for part in optimizer.parts for state in part.state.values()]
    remembered = sum(t.nbytes for state in states for t in state.values() if t.ndim)
    predicted = memory_of(config, model, layout=alone(config, 1))
    assert predicted["optimizer"] == pytest.approx(remembered)


def test_lora_learns_little():
    config = run_of(MODELS["pi05"], lora=LoraConfig())
    layout = alone(config, 1, precision="bf16")
    whole = memory_of(config, Pi(config.model), layout=layout)
    counts = Counts(choose_learning(Pi(config.model), lora=config.lora), config, work_of(config))
    adapted = memory(counts, layout)
    assert adapted["gradients"] < 0.5 * whole["gradients"]
    assert adapted["weights"] == FP32 * counts.learning < 0.5 * whole["weights"]
    assert adapted["copies"] == BF16 * counts.everything, "what is frozen is kept in bf16 alone"


def test_shards_share_what_is_kept_between_steps():
    config = run_of(MODELS["pi05"])
    model = Pi(config.model)
    one, eight, hybrid = (
        memory_of(
            config,
            model,
            layout=Layout(changed(config, batch_size=4 * gpus, parallel={"strategy": parallel}), gpus=gpus),
        )
        for gpus, parallel in ((1, "none"), (8, "fsdp"), (32, "hsdp"))
    )
    assert eight["weights"] == hybrid["weights"] == one["weights"] / 8
    assert eight["activations"] == one["activations"]


def test_flow_alone_insulated_keeps_no_backbone():
    config = run_of(MODELS["pi05"], losses="flow")
    with_words = run_of(MODELS["pi05"])
    counts = Counts(empty_model(config.model), config, work_of(config))
    parts = Activations(counts, alone(config), "none").by_part()
    assert "vision" not in parts and peak_of(config) < 0.3 * peak_of(with_words)


@pytest.mark.parametrize("compiled", [False, True])
def test_each_kind_of_checkpointing_saves_less_than_the_one_before(compiled):
    config = run_of(MODELS["pi05"])
    counts = Counts(empty_model(config.model), config, work_of(config))
    layout = alone(config, compile=compiled)
    none, selective, blocks = (Activations(counts, layout, kind).by_part() for kind in WAYS)
    assert none.keys() == selective.keys() == blocks.keys() == {"vision", "vlm", "action_expert"}
    assert all(none[part] > selective[part] > blocks[part] for part in none)
