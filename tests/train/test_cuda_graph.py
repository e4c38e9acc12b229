"""Steps that are replayed from tensors that stay where they are: the same steps, whatever the batches hold."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pilot.data.layout import Batch
from pilot.data.loading.loader import Loader
from pilot.models.pi import Pi
from pilot.train import cuda_graph
from pilot.train.config import TrainConfig
from pilot.train.cuda_graph import StepGraphs, StepInputs
from pilot.train.learner import Learner
from pilot.train.setup import Setup, prepare
from train.toy import config

STEPS = 6
pytestmark = [pytest.mark.usefixtures("no_shape_checks"), pytest.mark.filterwarnings("ignore:constant dims")]


def toy(data: Path, **changes: Any) -> TrainConfig:
    return config(data / "toy", steps=STEPS, parallel={"accumulate": 1, "threads": 1}, **changes)


@pytest.fixture(scope="module")
def setup(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return prepare(toy(data), tmp_path_factory.mktemp("run"), resume=True, progress=False)


@pytest.fixture
def batches(setup: Setup) -> list[list[Batch]]:
    own = setup.loader
    loader = Loader(own.mixture, own.pipelines, batch_size=own.batch_size, passes=1, length=80)
    return [[part.with_indices() for part in loader.batch(step)] for step in range(STEPS)]


def fresh(settings: TrainConfig, setup: Setup) -> Learner:
    model = Pi(setup.bundle.model.config)
    model.load_state_dict(setup.bundle.model.state_dict())
    return Learner(model, settings)


class PlainUpdate:
    """The update of a learner in fp32 with the words of `FusedAdamW`: its rates come from a tensor."""

    def __init__(self, learner: Learner) -> None:
        self.learner, self.device, self.names = learner, torch.device("cpu"), ["weight"]
        self.masters = SimpleNamespace(clear_gradients=lambda: None)

    def rates(self, step: int) -> tuple[float, float]:
        return 1e-3 / (1 + step), self.learner.ema.next_decay()

    def gradients(self) -> list[Tensor]:
        return [p.grad for p in self.learner.optimizer.parameters if p.grad is not None]

    def addresses(self, gradients: list[Tensor]) -> Tensor:
        return torch.full((8, 1), len(gradients))

    def launch(self, table: Tensor, rates: Tensor, *, bf16: bool) -> Tensor:
        assert table.shape == (8, 1) and not bf16
        (adam,) = self.learner.optimizer.parts
        norm = nn.utils.clip_grad_norm_(self.learner.optimizer.parameters, 1.0)
        for group in adam.param_groups:
            group["lr"] = rates[0].item()
        adam.step()
        adam.zero_grad()
        for name in self.learner.ema.learned:
            self.learner.ema.weights[name].lerp_(self.learner.ema._current[name].detach(), 1 - rates[1])
        return norm


class Tape:
    """Stands in for a GPU's graph: a capture changes nothing, a replay does the work on the tensors of the capture."""

    def __init__(self, learner: Learner) -> None:
        self.learner, self.captured, self.replays = learner, 0, 0

    def __call__(self, work: Callable[[], Any]) -> Callable[[], Any]:
        self.captured += 1
        before = {name: tensor.clone() for name, tensor in self.learner.tensors().items()}
        work()
        for name, tensor in self.learner.tensors().items():
            tensor.copy_(before[name])

        def replay() -> Any:
            self.replays += 1
            return work()

        return replay


def steps(learner: Learner, batches: list[list[Batch]]) -> tuple[list[tuple[float, float, float]], Tape]:
    """Loss, learning rate and norm of each step."""
    tape = Tape(learner)
    graphs = StepGraphs(learner._gradients_in_turn, PlainUpdate(learner), capture=tape)
    found = []
    for step, batch in enumerate(batches):
        draws = learner.draw(batch)
        scales = learner.loss_scales(batch, draws)
        _, loss, lr, norm = graphs.step(batch, draws, scales, step=step)
        learner.step += 1
        found.append((loss.item(), lr, norm.item()))
    return found, tape


def test_replayed_steps_are_the_steps_themselves(data, setup, batches, monkeypatch):
    replayed = fresh(toy(data), setup)
    found, tape = steps(replayed, batches)
    assert tape.captured == 1 and tape.replays >= 2, "the first steps are warm-up, and may say more than any before"
    monkeypatch.setattr(cuda_graph, "WARM_UP", STEPS)
    plain = fresh(toy(data), setup)
    same, unused = steps(plain, batches)
    assert found == same and not unused.captured
    assert len({loss for loss, *_ in found}) == len({lr for _, lr, _ in found}) == STEPS, "steps differ"
    for (name, mine), (_, other) in zip(replayed.tensors().items(), plain.tensors().items(), strict=True):
        assert torch.equal(mine, other), name


def test_padded_targets_change_no_loss(data, setup, batches):
    """What the graphs pad: positions that are no targets, so that batches that say more or less have one shape."""
    learner, (part,) = fresh(toy(data), setup), batches[0]
    padded = part.observation.pad_targets(100)
    assert len(padded.target_positions()[0]) == 100 > len(part.observation.target_positions()[0])
    draws = learner.draw([part])[0]
    losses = learner.config.objective.losses
    own = learner.model.loss_terms(part, draws, losses=losses)
    other = learner.model.loss_terms(replace(part, observation=padded), draws, losses=losses)
    for name, (total, count) in own.items():
        torch.testing.assert_close(other[name][0], total, rtol=1e-5, atol=1e-6)
        assert torch.equal(other[name][1], count)


def test_shapes_beyond_the_first_few_run_uncaptured_and_are_told(data, setup, batches, monkeypatch):
    monkeypatch.setattr(cuda_graph, "WARM_UP", 1)  # in which the optimizer makes what it remembers
    monkeypatch.setattr(cuda_graph, "MAX_GRAPHS", 1)
    several, other = [batches[0]] * 3, [half(batches[0][0])]
    with pytest.warns(UserWarning, match="more than 1 shapes .* run without a CUDA graph"):
        found, tape = steps(fresh(toy(data), setup), [*several, other, other])
    assert tape.captured == 1 and tape.replays == 2 and all(norm > 0 for *_, norm in found)


def half(part: Batch) -> Batch:
    """The first rows of a batch."""
    rows = len(part.actions) // 2
    seen = replace(part.observation, indices={}).map(lambda t: t[:rows])
    return Batch(
        observation=seen, actions=part.actions[:rows], action_mask=part.action_mask[:rows],
        sources=part.sources[:rows], row_ids=part.row_ids[:rows],
    ).with_indices()  # fmt: skip


def test_inputs_of_two_shapes_are_told_apart(batches):
    def inputs(part: Batch, **scales: Tensor) -> StepInputs:
        return StepInputs(batch=[part], draws=[], scales=scales, rates=torch.zeros(2))

    (part,), one = batches[0], torch.ones(())
    same = inputs(part, flow=one).shapes()
    assert inputs(part.map(torch.zeros_like), flow=one * 2).shapes() == same
    assert inputs(part, text=one).shapes() != same != inputs(half(part), flow=one).shapes()
    kept = [t.data_ptr() for t in inputs(part, flow=one).tensors()]
    assert kept[0] == part.observation.images["room"].data_ptr() and len(kept) == len(set(kept))


def test_a_run_that_cannot_be_captured_is_refused(data, setup):
    with pytest.raises(ValueError, match="one process that trains in bf16 with AdamW on an NVIDIA GPU; set compute"):
        fresh(toy(data, compute={"cuda_graph": True}), setup)
