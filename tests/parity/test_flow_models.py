"""π0 and π0.5 compute what the reference recorded: every output of every case, gradients and training included."""

import os
from collections.abc import Callable

import pytest
import torch
from parity.cases import Case, Weights, cases, load_case
from parity.trace import IMPLIED, Trace, trace

from pilot.convert.keymap import export_arrays
from pilot.models.pi import Pi
from pilot.train.config import OptimConfig
from pilot.train.optim import Optimizer

TOLERANCE = {
    "loss": 2e-4, "v_t": 1e-4, "sample_v_t": 1e-4, "sample_actions": 5e-5, "suffix_hidden": 1e-4,
    "time_emb": 2e-4, "adarms_cond": 1e-4, "suffix_embs": 1e-4, "suffix_tokens": 1e-4,
}  # fmt: skip
"""Largest difference in fp32; 2e-5 for the rest. The reference's PyTorch computes the time's sines in fp64."""

JAX_TOLERANCE = 5e-5
"""Of those that are larger; JAX computes the time's sines as pilot does."""

BF16 = {"loss": 0.03, "sample_actions_10": 0.02}
"""Largest difference in bf16, as a share of the largest value; the reference's own bf16 is up to half of that off."""

GRADIENT, CURVE = 2e-5, 5e-5

FILES = [pytest.param(path, id=path.name.removesuffix(".safetensors")) for path in cases("pi0", "pi05")]


@pytest.fixture(scope="module", params=FILES)
def case(request) -> Case:
    return load_case(request.param)


@pytest.fixture(scope="module")
def model(case) -> Pi:
    return case.model()


@pytest.fixture(scope="module")
def traced(case, model) -> Trace:
    return trace(case, model)


@pytest.mark.skipif("PILOT_GOLDEN" in os.environ, reason="another folder need not have all")
def test_there_are_cases_of_all_kinds():
    found = [load_case(path) for path in cases("pi0", "pi05")]
    kinds = {(case.meta["model"], case.framework) for case in found}
    assert kinds == {(model, framework) for model in ("pi0", "pi05") for framework in ("torch", "jax")}
    assert all(not mask.all() for case in found for mask in list(case.observation().image_masks.values())[-1:])


def test_every_recorded_output(case, traced):
    names = {name for name in case.below("outputs/") if not name.startswith(("bf16", "train/"))}
    differences = {}
    for name in sorted(names - IMPLIED - {"prefix_mask", "prefix_pad_masks"}):
        got, expected = traced.values[name], traced.recorded(name, case.output(name))
        assert got.shape == expected.shape, (name, got.shape, expected.shape)
        if not got.is_floating_point():
            assert torch.equal(got, expected.to(got.dtype)), name
            continue
        difference = (got - expected).abs().max().item()
        if not difference <= tolerance(name, case):
            differences[name] = difference
    assert not differences
    assert len(names) >= 15


def tolerance(name: str, case: Case) -> float:
    kind = "sample_actions" if name.startswith("sample_actions") else "loss" if name.startswith("loss") else name
    limit = TOLERANCE.get(kind, 2e-5)
    return min(limit, JAX_TOLERANCE) if case.framework == "jax" else limit


def test_masked_tokens_are_where_the_reference_has_them(case, traced, model):
    kinds = model.prefill(case.observation()).kinds
    assert torch.equal((kinds != 0).sum(1), traced.valid[:, : traced.prefix].sum(1))


def mean_loss(case: Case, model: Pi) -> torch.Tensor:
    arrays = case.arrays
    losses = model.loss(
        case.observation(), arrays["inputs/actions"], noise=arrays["inputs/noise"], time=arrays["inputs/time"]
    )
    return losses["flow"].mean()


def test_gradients(case, model):
    if case.below("grads/") or case.framework == "jax":  # the trimmed copies have those of JAX; they are the same
        assert_gradients(case, model, mean_loss(case, model))


def assert_gradients(case: Case, model: Pi, loss: torch.Tensor) -> None:
    """Every recorded gradient is ours, under its own name, and where none is recorded there is none."""
    recorded = case.below("grads/")
    grads = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    named = zip(model.named_parameters(), grads, strict=True)
    ours = {name: torch.zeros_like(p) if grad is None else grad for (name, p), grad in named}
    table = case.table()
    aliases = {theirs: alias for alias, theirs in table.aliases.items()}
    compared = 0
    for name, grad in export_arrays(table, ours, dtype=torch.float32):
        expected = recorded.get(name, recorded.get(aliases.get(name, "")))
        if expected is None:
            assert not grad.any(), name
            continue
        compared += 1
        torch.testing.assert_close(grad, expected, atol=GRADIENT, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
    assert compared == len(recorded) > 0


def test_training_curve(case):
    curve = train(case, mean_loss)
    for name, limit in (("loss", CURVE), ("grad_norm", 10 * CURVE), ("lr", 1e-9)):
        torch.testing.assert_close(curve[name], case.output(f"train/{name}"), atol=limit, rtol=1e-5)


def train(case: Case, loss_of: Callable[[Case, Pi], torch.Tensor]) -> dict[str, torch.Tensor]:
    """Loss, gradient norm and learning rate of the recorded steps, all on the one batch of the case."""
    said = case.meta["optimizer"]
    config = OptimConfig(
        peak_lr=said["peak_lr"],
        final_lr=said["decay_lr"],
        warmup_steps=said["warmup_steps"],
        betas=(said["b1"], said["b2"]),
        eps=said["eps"],
        weight_decay=said["wd"],
        clip_norm=said["clip"],
    )
    model = case.model().train()
    optimizer = Optimizer(model, config, steps=said["decay_steps"])
    curve: dict[str, list[float]] = {"loss": [], "grad_norm": [], "lr": []}
    for step in range(len(case.output("train/loss"))):
        loss = loss_of(case, model)
        loss.backward()
        lr, norm = optimizer.step(step)
        for name, value in (("loss", loss.item()), ("grad_norm", norm), ("lr", lr)):
            curve[name].append(value)
    return {name: torch.tensor(values) for name, values in curve.items()}


@pytest.mark.parametrize("params", ["fp32", "bf16"])
def test_bf16(case, params):
    """bf16 arithmetic over fp32 weights, as in training, and all in bf16, as the reference acts."""
    recorded = case.below("outputs/bf16_params/" if params == "bf16" else "outputs/bf16/")
    if not recorded:
        assert case.framework == "torch" and params == "bf16"
        return
    model = case.model(torch.bfloat16 if params == "bf16" else torch.float32)
    with torch.autocast("cpu", torch.bfloat16, enabled=params == "fp32"):
        values = trace(case, model).values
    for name, expected in recorded.items():
        assert (values[name].float() - expected).abs().max() <= BF16[name] * expected.abs().max(), name


def test_what_is_masked_is_never_seen(case, model):
    observation = case.observation().map(lambda x: x.clone())  # in memory of its own, aligned as the other
    noise = case.arrays["inputs/noise"]
    leaked = observation.map(lambda x: x.clone())
    for name, mask in leaked.image_masks.items():
        leaked.images[name][~mask] = 0.5
    leaked.tokens[leaked.token_kinds == 0] = 7
    both = [model.sample_actions(o, noise=noise, num_steps=2) for o in (observation, leaked)]
    assert torch.equal(*both)


def test_a_case_can_carry_its_own_weights(case, model):
    arrays = dict(export_arrays(case.table(), model.state_dict(), dtype=torch.float32))
    whole = Case(path=case.path, meta=case.meta, arrays={f"weights/{name}": x for name, x in arrays.items()})
    assert isinstance(Weights(arrays, "here").read(next(iter(arrays))), torch.Tensor)
    again = whole.model().state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())
