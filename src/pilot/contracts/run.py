"""The contract of a run: its model can be built, its settings fit together, and its losses are taught."""

import dataclasses
import inspect
import json
from collections.abc import Callable
from types import ModuleType

import torch

from pilot.contracts import require
from pilot.models.build import build_model
from pilot.train.config import TrainConfig
from pilot.train.early_checks import check_settings

Run = Callable[[], TrainConfig]


def find_in(module: ModuleType) -> dict[str, Run]:
    """Return the runs of a module: functions without arguments that are declared to return a `TrainConfig`, by name."""
    own = [f for f in vars(module).values() if inspect.isfunction(f) and f.__module__ == module.__name__]
    return {f.__name__: f for f in own if _is_run(f)}


def _is_run(function: Run) -> bool:
    signature = inspect.signature(function)
    returns_config = signature.return_annotation in (TrainConfig, "TrainConfig")
    return returns_config and not signature.parameters and not function.__name__.startswith("_")


def check_name(run: Run) -> None:
    """The run is called like its function, and gives the same config each time."""
    require(run().name == run.__name__, f"its name is '{run().name}', its function is '{run.__name__}'")
    require(run() == run(), "two calls give different configs")


def check_model(run: Run) -> None:
    """The run's model can be built."""
    with torch.device("meta"):
        model = build_model(run().model)
    count = sum(weight.numel() for weight in model.parameters())
    require(count > 1000, f"its model has {count} weights")


def check_together(run: Run) -> None:
    """Its settings fit together and its robots into the model, as `pilot train` asks before it opens any data."""
    check_settings(run())


def check_schedule(run: Run) -> None:
    """The learning rate warms up within the run and does not end above its peak."""
    config = run()
    warm = config.optim.warmup_steps < config.steps or config.steps < 100
    require(warm, f"it warms up for {config.optim.warmup_steps} of its {config.steps} steps")
    fits = config.optim.final_lr <= config.optim.peak_lr
    require(fits, f"final_lr {config.optim.final_lr} is above peak_lr {config.optim.peak_lr}")


def check_weights(run: Run) -> None:
    """The weights of its sources add up to 1, where they have weights."""
    weights = [source.weight for source in run().data.sources if source.weight is not None]
    require(not weights or abs(sum(weights) - 1) < 1e-6, f"the weights of its sources add up to {sum(weights)}")


def check_losses(run: Run) -> None:
    """Every loss that the run asks for is taught by a source, and every source teaches one of these."""
    config = run()
    needs_expert = config.objective.alpha > 0 and getattr(config.model, "action_expert", True) is None
    require(not needs_expert, "alpha is above 0, and the model has no action expert")
    robots = [source for source in config.data.sources if source.kind == "robot"]
    taught = {loss for source in robots for loss in source.teaches}
    taught |= {"text" for source in config.data.sources if source.kind == "web"}
    asked = {name for name in ("text", "fast", "flow") if config.objective.weight_of(name) > 0}
    require(asked <= taught or config.objective.trains_vision_alone, f"no source teaches {sorted(asked - taught)}")
    idle = [source.path for source in robots if asked and not set(source.teaches) & asked]
    require(not idle, f"sources {idle} teach nothing that the run asks for, which is {sorted(asked)}")


def check_json(run: Run) -> None:
    """The config can be written as JSON, as a run does beside its checkpoints."""
    config = run()
    require(json.loads(json.dumps(dataclasses.asdict(config)))["steps"] == config.steps, "JSON changes its config")


CHECKS = (check_name, check_model, check_together, check_schedule, check_weights, check_losses, check_json)
