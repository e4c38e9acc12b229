"""The contract of a model: at its debug size it learns one batch, samples chunks, and survives being saved.

A model file has one class that is a `models.base.Model`, a config class of the same name + `Config`, and constructors:
public functions with an argument `size` that return such a config.
"""

import inspect
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pilot.contracts import examples, require
from pilot.data.layout import Batch
from pilot.data.pipeline import Row, collate
from pilot.models.base import Model

ROWS = 3
STEPS, LEARNED = 25, 0.8  # so many steps on one batch bring each loss below this share of what it was
FULL_SIZE = (8e7, 4e9)  # weights


@dataclass(frozen=True)
class Constructor:
    """A model class and a function that makes its config, by size."""

    model_class: type[Model]
    make_config: Callable[..., Any]

    def debug_model(self) -> Model:
        """Return the model at its debug size with fresh weights, the same each time."""
        torch.manual_seed(0)
        with torch.no_grad():
            return self.model_class(self.make_config("debug")).initialize(torch.Generator().manual_seed(0))


def find_in(module: ModuleType) -> dict[str, Constructor]:
    """Return the constructors of a model file by name; empty if it defines no model.

    Constructors are defined in the file, or elsewhere (`pi_config.py` for `pi.py`) and named in its `__all__`.
    """
    own = [item for item in vars(module).values() if getattr(item, "__module__", None) == module.__name__]
    models = [c for c in own if inspect.isclass(c) and issubclass(c, Model) and not inspect.isabstract(c)]
    exported = [getattr(module, name) for name in getattr(module, "__all__", ())]
    functions = [f for f in [*own, *exported] if inspect.isfunction(f) and not f.__name__.startswith("_")]
    by_size = [f for f in functions if "size" in inspect.signature(f).parameters]
    return {f.__name__: Constructor(models[0], f) for f in by_size} if models else {}


def check_losses(constructor: Constructor) -> None:
    """Losses are finite, one value per row."""
    model = constructor.debug_model()
    values = losses(model, batch_for(model))
    require(bool(values), "it has no losses")
    for name, value in values.items():
        require(value.shape == (ROWS,), f"loss '{name}' of {ROWS} rows has the shape {tuple(value.shape)}")
        require(bool(value.isfinite().all()), f"loss '{name}' is {value.tolist()}")


def check_learning(constructor: Constructor) -> None:
    """The model learns one batch in a few steps."""
    model = constructor.debug_model()
    batch = batch_for(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    start = {name: value.mean().item() for name, value in losses(model, batch).items()}
    for _ in range(STEPS):
        optimizer.zero_grad()
        torch.stack([value.mean() for value in losses(model, batch).values()]).sum().backward()
        optimizer.step()
    end = {name: value.mean().item() for name, value in losses(model, batch).items()}
    for name in start.keys() - {"kl"}:  # which a chunk's style may grow by
        message = f"loss '{name}' goes from {start[name]:.4g} to {end[name]:.4g} in {STEPS} steps on one batch"
        require(end[name] < LEARNED * start[name], message)


def check_gradients(constructor: Constructor) -> None:
    """Every weight is reached by a loss."""
    model = constructor.debug_model()
    torch.stack([value.mean() for value in losses(model, batch_for(model)).values()]).sum().backward()
    dead = [name for name, weight in model.named_parameters() if weight.grad is None]
    require(not dead, f"no loss reaches {dead}")


def check_rows(constructor: Constructor) -> None:
    """The losses of a row do not depend on the rows beside it."""
    model = constructor.debug_model()
    with torch.no_grad():
        alone = [losses(model, collate([row]), first=i) for i, row in enumerate(rows_for(model))]
        for name, together in losses(model, batch_for(model)).items():
            apart = torch.cat([values[name] for values in alone])
            same = torch.allclose(apart, together, atol=1e-5)
            require(same, f"loss '{name}' is {together.tolist()} in a batch, and {apart.tolist()} row by row")


def check_sampling(constructor: Constructor) -> None:
    """Sampled chunks have the declared shape, and follow from the noise."""
    model = constructor.debug_model()
    if not model.samples_actions:
        return  # its actions are tokens
    batch = batch_for(model)
    noise = torch.randn(batch.actions.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        chunk, again = (model.sample_actions(batch.observation, noise=noise, num_steps=3) for _ in range(2))
    shape = (ROWS, model.config.action_horizon, model.config.action_dim)
    require(chunk.shape == shape, f"chunks have the shape {tuple(chunk.shape)}; it should be {shape}")
    require(bool(chunk.isfinite().all()), "chunks hold NaN or infinity")
    require(torch.equal(chunk, again), "the same noise gives different chunks")


def check_saving(constructor: Constructor) -> None:
    """The model has the same losses after saving and loading."""
    model = constructor.debug_model()
    batch = batch_for(model)
    with tempfile.TemporaryDirectory() as folder:
        save_file(model.state_dict(), Path(folder) / "model.safetensors")
        with torch.device("meta"):
            again = type(model)(model.config)
        again.load_state_dict(load_file(Path(folder) / "model.safetensors"), assign=True, strict=True)
    with torch.no_grad():
        before, after = losses(model, batch), losses(again, batch)
    different = [name for name in before if not torch.equal(before[name], after[name])]
    require(not different, f"losses {different} are others after saving and loading")


def check_full_size(constructor: Constructor) -> None:
    """The full size can be built, and is of the order of a robot policy: 80 million to 4 billion weights."""
    with torch.device("meta"):
        model = constructor.model_class(constructor.make_config())
    count = sum(weight.numel() for weight in model.parameters())
    require(FULL_SIZE[0] < count < FULL_SIZE[1], f"it has {count:,} weights")


def rows_for(model: Model) -> list[Row]:
    """Return some rows of random samples for a model."""
    robot, horizon = examples.ARM, model.config.action_horizon
    with_fast = hasattr(model.config, "fast_vocab_size")
    pipeline = examples.make_pipeline(robot, model.config, with_fast=with_fast)
    return [pipeline.encode(examples.make_sample(robot, horizon=horizon, seed=seed)) for seed in range(ROWS)]


def batch_for(model: Model) -> Batch:
    """Return `rows_for` as a batch."""
    return collate(rows_for(model))


def losses(model: Model, batch: Batch, *, first: int = 0) -> dict[str, torch.Tensor]:
    """Compute the mean of each loss per row [b]; row `i` draws from seed `first + i`, whatever its neighbours."""
    each = [model.draw(1, torch.Generator().manual_seed(first + i)) for i in range(len(batch.actions))]
    draws = {name: torch.cat([drawn[name] for drawn in each]) for name in each[0]}
    terms = model.loss_terms(batch, draws, losses=frozenset({"text", "fast", "flow"}))
    return {name: total / count.clamp(min=1) for name, (total, count) in terms.items()}


CHECKS = (
    check_losses,
    check_learning,
    check_gradients,
    check_rows,
    check_sampling,
    check_saving,
    check_full_size,
)
