"""One step: a loss is what it is whatever comes together, and the loop is the plain one written out."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.debugging import aot_eager_decomp_partition

from pilot.data.layout import Batch
from pilot.data.loading.loader import Loader
from pilot.models.pi import Pi
from pilot.train.config import Source, TrainConfig
from pilot.train.distributed import Ranks, connect
from pilot.train.learner import Learner
from pilot.train.loop import train
from pilot.train.metrics import read_metrics
from pilot.train.optim import learning_rate
from pilot.train.setup import Setup, prepare
from train.toy import changed, config

pytestmark = [
    pytest.mark.usefixtures("no_shape_checks"),
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled", "ignore:constant dims"),
]
CLOSE = {"rtol": 1e-4, "atol": 1e-6}
RECORDED = {
    "text": [
        8.4300, 8.1526, 7.6393, 6.9415, 6.4033, 5.9593, 5.5376, 5.2534, 4.9625, 4.7502,
        4.5655, 4.4153, 4.2912, 4.1899, 4.1014, 4.0335, 3.9941, 3.9640, 3.9332, 3.9182,
    ],
    "fast": [
        7.5880, 7.3486, 7.7309, 7.8283, 7.4537, 7.5236, 7.2723, 6.7471, 7.1346, 6.6157,
        6.5440, 6.7932, 5.9289, 5.7696, 5.8876, 5.8791, 5.5639, 6.1310, 6.0004, 6.1911,
    ],
    "flow": [
        1.9108, 1.4332, 1.5984, 1.2737, 1.6250, 1.5671, 1.5849, 1.5501, 1.2274, 1.3811,
        1.4276, 1.6192, 1.6316, 1.1338, 1.3034, 1.5346, 1.5354, 1.2677, 1.5349, 1.6066,
    ],
}  # fmt: skip


def mixed(data: Path, **changes: object) -> TrainConfig:
    sources = Source(path=str(data / "toy"), weight=0.5), Source(path=str(data / "web"), kind="web", weight=0.5)
    return config(data, batch_size=8, data={"sources": sources, "frame_cache": False}, **changes)


@pytest.fixture(scope="module")
def setup(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return prepare(mixed(data), tmp_path_factory.mktemp("run"), resume=True, progress=False)


def loader(setup: Setup, passes: int | None) -> Loader:
    own = setup.loader
    return Loader(own.mixture, own.pipelines, batch_size=own.batch_size, passes=passes)


def fresh(config: TrainConfig, setup: Setup, *, ranks: Ranks | None = None) -> Learner:
    model = Pi(setup.bundle.model.config)
    model.load_state_dict(setup.bundle.model.state_dict())
    return Learner(model, config, ranks=ranks)


def gradients(learner: Learner, batch: list[Batch]) -> tuple[Tensor, dict[str, Tensor]]:
    """The objective, and the gradient of every weight that has one."""
    _, loss = learner.compute_gradients(batch)
    return loss, {name: p.grad for name, p in learner.model.named_parameters() if p.grad is not None}


def assert_same(a: tuple[Tensor, dict[str, Tensor]], b: tuple[Tensor, dict[str, Tensor]]) -> None:
    torch.testing.assert_close(a[0], b[0], **CLOSE)
    assert a[1].keys() == b[1].keys()
    for name, gradient in a[1].items():
        torch.testing.assert_close(gradient, b[1][name], **CLOSE, msg=lambda text, name=name: f"{name}: {text}")


def test_twenty_steps_are_those_of_before(data, tmp_path):
    """Recorded from the loop that trained the first shipped weights: a change that is none leaves them as they are."""
    before = config(data / "toy", steps=20, checkpoints={"save_every": 20}, objective={"noise_per": "step"})
    train(before, out=tmp_path, progress=False)
    for name, losses in RECORDED.items():
        assert [r[f"loss/{name}"] for r in read_metrics(tmp_path)] == pytest.approx(losses, rel=5e-3), name


def test_the_loop_is_the_plain_one_to_the_bit(data, tmp_path):
    settings = config(data / "toy", steps=6, checkpoints={"save_every": 6}, objective={"noise_per": "step"})
    setup = prepare(settings, tmp_path, resume=True, progress=False)
    learner = fresh(settings, setup)
    model = fresh(settings, setup).model
    tables = [
        p for name, p in model.named_parameters() if p.ndim != 2 or name == "embedding.weight" or "position" in name
    ]
    matrices = [p for p in model.parameters() if all(p is not q for q in tables)]
    groups = [
        {"params": tables, "weight_decay": 0.0},
        {"params": matrices, "weight_decay": settings.optim.weight_decay},
    ]
    adam = torch.optim.AdamW(groups, betas=settings.optim.betas, eps=settings.optim.eps, fused=True)
    for step in range(6):
        batch = setup.loader.batch(step)
        learner.train_step(batch)
        (part,) = batch
        draws = model.draw(4, torch.Generator().manual_seed(step))
        terms = model.loss_terms(part, draws, losses=frozenset({"text", "fast", "flow"}))
        means = {name: total.sum() * (1 / count.sum()) for name, (total, count) in terms.items()}
        (means["text"] + means["fast"] + (10 / terms["flow"][1].sum()) * terms["flow"][0].sum()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in adam.param_groups:
            group["lr"] = learning_rate(settings.optim, step, 6)
        adam.step()
        adam.zero_grad()
    mine = dict(learner.model.named_parameters())
    assert all(torch.equal(mine[name], p) for name, p in model.named_parameters())


def test_parts_and_padding_change_neither_losses_nor_gradients(data, setup):
    settings = mixed(data, objective={"flow_draws": 2})
    whole = gradients(fresh(changed(settings, parallel={"accumulate": 2}), setup), loader(setup, 1).batch(0))
    for passes in (2, 4):
        assert_same(
            gradients(fresh(changed(settings, parallel={"accumulate": 2}), setup), loader(setup, passes).batch(0)),
            whole,
        )
    assert len(setup.loader.batch(0)) > 1
    assert_same(gradients(fresh(settings, setup), setup.loader.batch(0)), whole)
    longer = [padded(part) for part in loader(setup, 1).batch(0)]
    assert_same(gradients(fresh(changed(settings, parallel={"accumulate": 2}), setup), longer), whole)


def padded(part: Batch) -> Batch:
    """The same rows with five more tokens of padding behind each."""
    seen = part.observation
    words = {name: nn.functional.pad(getattr(seen, name), (0, 5)) for name in ("tokens", "token_kinds", "token_loss")}
    return replace(part, observation=replace(seen, **words))


def test_compiled_blocks_see_one_length_of_text(data, tmp_path):
    compiled = prepare(mixed(data, compute={"compile": True}), tmp_path, resume=True, progress=False).loader
    assert {part.observation.tokens.shape for step in range(3) for part in compiled.batch(step)} == {(8, 80)}


def test_counts_are_known_before_anything_is_computed(data, setup):
    learner = fresh(mixed(data, objective={"flow_draws": 3}), setup)
    for part, draws in zip(batch := setup.loader.batch(1), learner.draw(batch), strict=True):
        terms = learner.model.loss_terms(part, draws, losses=learner.config.objective.losses)
        counts = learner.model.loss_counts(part, draws, losses=learner.config.objective.losses)
        assert terms.keys() == counts.keys() == {"text", "fast", "flow"}
        assert all(torch.equal(counts[name], count) for name, (_, count) in terms.items())


def test_many_draws_of_one_reading_are_as_many_readings(data, setup):
    """K noise draws share a pass of the backbone: losses and gradients are the mean over K passes with one each."""
    settings = mixed(data, objective={"flow_draws": 3}, parallel={"accumulate": 2})
    batch = loader(setup, 1).batch(0)
    together = fresh(settings, setup)
    draws = together.draw(batch)[0]
    at_once = gradients(together, batch)
    singly = fresh(changed(settings, objective={"flow_draws": 1}), setup)
    losses = []
    for k in range(3):
        own = {name: values[:, k : k + 1] for name, values in draws.items()}
        singly.draw = lambda _, own=own: [own]
        losses.append(gradients(singly, batch)[0])  # gradients add up
    mean = {name: p.grad / 3 for name, p in singly.model.named_parameters() if p.grad is not None}
    assert_same(at_once, (torch.stack(losses).mean(), mean))


@pytest.mark.parametrize("checkpointing", ["blocks", "selective"])
def test_computing_blocks_again_changes_nothing(data, setup, checkpointing):
    plain, again = (fresh(mixed(data, compute={"checkpointing": kind}), setup) for kind in ("none", checkpointing))
    assert_same(gradients(again, setup.loader.batch(0)), gradients(plain, setup.loader.batch(0)))


def test_ranks_in_step_run_every_part_whatever_their_rows(data, setup):
    """Rows of the web alone run the wrist camera's tower and the action expert too, and learn nothing from it."""
    model = fresh(mixed(data), setup).model
    rows = [row for row in loader(setup, 1).rows(0) if row.source == "web"]
    (part,) = loader(setup, 1).make_batches(rows)
    assert list(part.observation.images) == ["room", "wrist"] and not part.observation.image_masks["wrist"].any()
    draws = model.draw(len(rows), torch.Generator().manual_seed(0))
    ran: list[str] = []
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    terms = model.loss_terms(part, draws, losses=frozenset({"text", "fast", "flow"}), run_all_modules=True)
    assert {"vision", "vlm.blocks.1", "action_expert.blocks.1"} <= set(ran) and ran.count("vision") == 2
    assert not terms["flow"][0].any() and not terms["flow"][1].any()
    terms["flow"][0].sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.action_expert.parameters())


@pytest.mark.parametrize("passes", [1, 2])
def test_bf16_computes_in_bf16_and_keeps_fp32(data, setup, passes):
    full = gradients(fresh(mixed(data, parallel={"accumulate": 2}), setup), loader(setup, 2).batch(0))
    settings = mixed(data, parallel={"accumulate": passes}, compute={"precision": "bf16"})
    with connect(settings) as ranks:
        learner = fresh(settings, setup, ranks=ranks)
        seen = []
        learner.model.vlm.blocks[0].qkv.register_forward_hook(lambda _, x, y: seen.append((x[0].dtype, y.dtype)))
        assert ranks.mesh is None, "one process shares nothing, and needs no FSDP"
        before = {name: tensor.clone() for name, tensor in learner.tensors().items()}
        _, loss = learner.compute_gradients(loader(setup, passes).batch(0))
        assert set(seen) == {(torch.bfloat16, torch.bfloat16)}
        found = learner.masters.gradients()
        assert found.keys() == full[1].keys()
        for name, gradient in full[1].items():
            assert found[name].dtype == (torch.float32 if passes > 1 else torch.bfloat16)
            assert (found[name].float() - gradient).norm() <= 0.05 * gradient.norm() + 1e-6, name
        assert loss.item() == pytest.approx(full[0].item(), rel=2e-2) and loss.item() != full[0].item()
        learner.update()
        after = learner.tensors()
        assert {t.dtype for t in after.values()} == {torch.float32}
        copies = dict(learner.model.named_parameters())
        for name, copy in copies.items():
            if full[1][name].any():
                assert not torch.equal(before[f"model/{name}"], after[f"model/{name}"]), name
            assert torch.equal(copy, after[f"model/{name}"].bfloat16()) and copy.grad is None


def test_compiled_blocks_share_graphs_and_learn_the_same(data, setup, monkeypatch):
    """A stack of any depth is compiled once (and its last layer, which says the words), whatever may be kept of it."""
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        graphs.append(graph)
        return aot_eager_decomp_partition(graph, inputs)  # all of the compiler but its kernels

    def compiled(function: object, *, dynamic: bool) -> object:
        return own(function, backend=backend, dynamic=dynamic)

    own, budget = torch.compile, torch._functorch.config.activation_memory_budget
    monkeypatch.setattr(torch, "compile", compiled)
    settings = mixed(data, parallel={"accumulate": 2})
    torch._dynamo.reset()
    try:
        learner = fresh(changed(settings, compute={"compile": True, "checkpointing": "selective"}), setup)
        own_loader = loader(setup, 1)
        batch = own_loader.make_batches([row for row in own_loader.rows(0) if row.source == "toy"])
        assert_same(gradients(learner, batch), gradients(fresh(settings, setup), batch))
        assert len(graphs) == 5, "one of the vision tower, two of the backbone, two of the action expert"
    finally:
        torch._dynamo.reset()
        torch._functorch.config.activation_memory_budget = budget
