"""Every model in `models/` learns one batch at its debug size, samples chunks, and survives being saved.

A model file has one class that is a `models.base.Model`, a config class of the same name + `Config`, and constructors:
public functions of a size that return such a config.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable

import numpy as np
import pytest
import torch
from contracts import examples
from safetensors.torch import load_file, save_file

import pilot.models
from pilot.data.layout import Batch
from pilot.data.pipeline import collate
from pilot.models.base import Model
from pilot.robots import load_robot


def constructors() -> dict[str, tuple[type, Callable]]:
    found = {}
    for info in pkgutil.walk_packages(pilot.models.__path__, "pilot.models."):
        module = importlib.import_module(info.name)
        own = [item for item in vars(module).values() if getattr(item, "__module__", None) == module.__name__]
        models = [c for c in own if inspect.isclass(c) and issubclass(c, Model) and not inspect.isabstract(c)]
        for function in filter(inspect.isfunction, own):
            if "size" in inspect.signature(function).parameters and not function.__name__.startswith("_"):
                found[function.__name__] = (models[0], function)
    return found


CONSTRUCTORS = constructors()


@pytest.fixture(params=CONSTRUCTORS)
def model(request) -> Model:
    model_class, constructor = CONSTRUCTORS[request.param]
    torch.manual_seed(0)
    with torch.no_grad():
        return model_class(constructor("debug")).initialize(torch.Generator().manual_seed(0))


@pytest.fixture
def batch(model) -> Batch:
    robot = load_robot("homes")
    pipeline = examples.pipeline(robot, model.config, says_actions=hasattr(model.config, "fast_vocab_size"))
    samples = [examples.sample(robot, horizon=model.config.action_horizon, seed=seed) for seed in range(3)]
    return collate([pipeline.encode(sample) for sample in samples])


def losses(model: Model, batch: Batch, *, first: int = 0) -> dict[str, torch.Tensor]:
    """Mean of each loss per row; row `i` draws from seed `first + i`, whatever its neighbours."""
    each = [model.draw(1, torch.Generator().manual_seed(first + i)) for i in range(len(batch.actions))]
    draws = {name: torch.cat([drawn[name] for drawn in each]) for name in each[0]}
    terms = model.loss_terms(batch, draws, losses=frozenset({"text", "fast", "flow"}))
    return {name: total / count.clamp(min=1) for name, (total, count) in terms.items()}


def test_there_are_models():
    assert {"pi0", "pi05", "pi0_fast", "pi0_small", "act", "diffusion_policy", "octo"} <= set(CONSTRUCTORS)


def test_losses_are_per_sample_and_finite(model, batch):
    values = losses(model, batch)
    assert values and all(value.shape == (3,) and value.isfinite().all() for value in values.values())


def test_it_learns_one_batch(model, batch, no_shape_checks):
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    start = {name: value.mean().item() for name, value in losses(model, batch).items()}
    for _ in range(25):
        optimizer.zero_grad()
        sum(value.mean() for value in losses(model, batch).values()).backward()
        optimizer.step()
    end = {name: value.mean().item() for name, value in losses(model, batch).items()}
    learned = start.keys() - {"kl"}  # which a chunk's style may grow by
    assert all(end[name] < 0.8 * start[name] for name in learned), (start, end)


def test_every_weight_learns(model, batch):
    sum(value.mean() for value in losses(model, batch).values()).backward()
    dead = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert not dead, f"no loss reaches {dead}"


@torch.no_grad()
def test_a_row_does_not_depend_on_its_neighbours(model, batch):
    alone = [losses(model, collate([row]), first=i) for i, row in enumerate(rows(model))]
    for name, together in losses(model, batch).items():
        assert torch.allclose(torch.cat([values[name] for values in alone]), together, atol=1e-5), name


def rows(model: Model) -> list:
    robot = load_robot("homes")
    pipeline = examples.pipeline(robot, model.config, says_actions=hasattr(model.config, "fast_vocab_size"))
    return [pipeline.encode(examples.sample(robot, horizon=model.config.action_horizon, seed=s)) for s in range(3)]


@torch.no_grad()
def test_sampled_chunks_have_the_declared_shape_and_follow_the_noise(model, batch):
    if getattr(model.config, "action_expert", model) is None:
        pytest.skip("acts by tokens, has no flow to sample")
    noise = torch.randn(batch.actions.shape, generator=torch.Generator().manual_seed(0))
    chunk = model.sample_actions(batch.observation, noise=noise, num_steps=3)
    assert chunk.shape == (3, model.config.action_horizon, model.config.action_dim) and chunk.isfinite().all()
    assert torch.equal(chunk, model.sample_actions(batch.observation, noise=noise, num_steps=3))


def test_saved_and_loaded_it_is_the_same(model, batch, tmp_path):
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    with torch.device("meta"):
        again = type(model)(model.config)
    again.load_state_dict(load_file(tmp_path / "model.safetensors"), assign=True, strict=True)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(losses(model, batch).values(), losses(again, batch).values()))


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_the_full_size_builds_without_memory(name):
    model_class, constructor = CONSTRUCTORS[name]
    with torch.device("meta"):
        model = model_class(constructor())
    count = sum(weight.numel() for weight in model.parameters())
    assert 8e7 < count < 4e9, f"{count:,}"


def test_examples_are_random_but_reproducible():
    robot = load_robot("homes")
    first, again = (examples.sample(robot, horizon=4, seed=3) for _ in range(2))
    assert np.array_equal(first.actions, again.actions)
