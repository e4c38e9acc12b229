"""Operations from the config are those that torch counts when it runs the model."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pilot.models.bundle import empty_model
from pilot.models.pi import Pi, pi0, pi0_fast, pi0_small, pi05
from pilot.nn.configs import LoraConfig
from pilot.train.config import DataConfig, ObjectiveConfig, Source, TrainConfig
from pilot.train.freezing import choose_learning
from pilot.train.plan.flops import forward, full_row, mean_flops, mean_row, per_row
from train.counted_rows import ROW, rows_of, run_of, work_of

pytestmark = pytest.mark.usefixtures("no_shape_checks")
ROWS = 1
MODELS = {
    "pi05": pi05("nano", point_layer=None),
    "pi05 not insulated": pi05("nano", point_layer=None, insulate=False),
    "pi0": pi0("nano", point_layer=None),
    "pi0_fast": pi0_fast("nano", point_layer=None),
    "pi0_small": pi0_small("nano"),
}
"""Pointing is a few products more, and of the small size alone."""
LOSSES = {"pi05": ["text flow", "flow", "text"], "pi0_fast": ["text"], "pi0_small": ["flow"]}
HAVE = [(name, losses) for name in MODELS for losses in LOSSES.get(name, ["text flow"])]


def parameter_counts(config: TrainConfig) -> tuple[float, float]:
    """Operations that torch counts per row: forward, and forward and backward."""
    model = choose_learning(Pi(config.model), freeze=config.freeze, lora=config.lora)
    batch = rows_of(config.model, ROWS)
    draws = model.draw(ROWS, torch.Generator().manual_seed(0), flow_draws=config.objective.flow_draws)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        terms = model.loss_terms(batch, draws, losses=config.objective.losses)
        ahead = counter.get_total_flops()
        torch.stack([total.sum() for total, _ in terms.values()]).sum().backward()
    return ahead / ROWS, counter.get_total_flops() / ROWS


def predicted(config: TrainConfig) -> tuple[float, float]:
    work, model = work_of(config), choose_learning(empty_model(config.model), freeze=config.freeze, lora=config.lora)
    ahead = sum(map(sum, forward(model, work).values()))
    return ahead, sum(per_row(model, config, work).values())


@pytest.mark.parametrize(("name", "losses"), HAVE)
def test_they_are_what_torch_counts(name, losses):
    config = run_of(MODELS[name], losses=losses)
    assert predicted(config) == pytest.approx(parameter_counts(config), rel=0.01)


@pytest.mark.parametrize("freeze", [("vision",), ("vision", "vlm", "embedding"), ("vlm",)])
def test_frozen_parts_cost_less(freeze):
    config = run_of(MODELS["pi05"], freeze=freeze)
    assert predicted(config) == pytest.approx(parameter_counts(config), rel=0.015)


def test_lora_saves_the_gradients_of_matrices():
    """The detours themselves are not counted: at the published sizes they are under 1 % of the matrices."""
    config = run_of(MODELS["pi05"])
    lora = replace(config, lora=LoraConfig())
    assert predicted(lora)[0] == predicted(config)[0]
    assert 0.6 < predicted(lora)[1] / predicted(config)[1] < 0.85


def test_a_batch_is_measured_as_it_is():
    config = run_of(MODELS["pi05"])
    batch = rows_of(config.model, 4)
    half = torch.tensor([True, True, False, False])
    masks = dict.fromkeys(batch.observation.image_masks, half)
    blind = replace(
        batch,
        observation=replace(batch.observation, image_masks=masks),
        action_mask=batch.action_mask & half[:, None, None],
    )
    assert mean_row(config, [batch]).text == len(ROW) and mean_row(config, [batch]).draws == 2
    work = mean_row(config, [batch, blind])
    assert (len(work.pictures), work.draws, work.spoken) == (2, 1.5, 22)
    model = empty_model(config.model)
    assert 0.6 < mean_flops(model, config, [blind]) / mean_flops(model, config, [batch]) < 1


def test_a_full_row_is_that_of_the_robot_that_sees_most():
    config = run_of(MODELS["pi05"])
    sources = (Source(path="arms", robot="aloha"), Source(path="discs", robot="pusht"))
    assert full_row(config).pictures == (64, 32)
    assert full_row(replace(config, data=DataConfig(sources=sources))).pictures == (64, 32, 32)


def test_a_full_row_of_the_published_shape():
    """3 pictures, 320 tokens of which 140 are said, 5 flow blocks: 25 samples/s are 39 % of an H200 by parameters and
    tokens alone (15.3 TFLOP); attention scores, logits and the adaptive norms make it 16.0."""
    config = TrainConfig(
        name="full",
        model=pi05("2b", max_tokens=320),
        robot="aloha",
        steps=1,
        batch_size=1,
        objective=ObjectiveConfig(flow_draws=5),
    )
    work = full_row(config)
    assert (work.pictures, work.text, work.spoken, work.draws) == ((224, 224, 224), 320, 141, 5)
    model = empty_model(config.model)
    total = sum(per_row(model, config, work).values())
    assert total == pytest.approx(16.0e12, rel=0.01)
    assert 25 * total / 989e12 == pytest.approx(0.39, rel=0.05)
