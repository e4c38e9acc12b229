"""From a checkpoint's arrays to a model: its config is given or read from the weights, its tensors are filled once."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import torch

from pilot.convert.keymap import KeyMap, TensorSource, check_arrays, load_tensors
from pilot.models.bundle import empty_model
from pilot.models.pi import Pi, PiConfig

ReadConfig = Callable[[TensorSource, PiConfig | None], PiConfig]
"""A format's function from weights to config; what weights do not tell comes from the second argument."""


def load_pi(key_map: KeyMap, source: TensorSource, config: PiConfig, *, dtype: torch.dtype = torch.float32) -> Pi:
    """Return a model with the weights of `source`. Memory is taken once, and no weight is ever random.

    Raises:
        ValueError: see `keymap.load_tensors`.
    """
    model = empty_model(config).to(dtype)
    weights = model.to_empty(device="cpu").state_dict()
    names = {entry.name for entry in key_map.entries}
    assert names == weights.keys(), names ^ weights.keys()
    load_tensors(key_map, source, weights)
    return model.eval()


def resolve_config(
    source: TensorSource, config: PiConfig | None, *, read_config: ReadConfig, key_map: Callable[[PiConfig], KeyMap]
) -> PiConfig:
    """Return `config` if the weights agree with it, or without one the config that is read from the weights.

    Raises:
        ValueError: the weights do not tell it, or contradict `config`; everything that differs is named.
    """
    if config is None:
        return read_config(source, None)
    try:
        check_arrays(key_map(config), source)
    except ValueError as error:
        raise ValueError(f"{describe_contradictions(source, config, read_config)}{error}") from None
    return config


def describe_contradictions(source: TensorSource, config: PiConfig, read_config: ReadConfig) -> str:
    """Return one line per field of `config` that differs in the weights; '' if the weights are incomplete."""
    try:
        in_weights = dict(flatten_dict(asdict(read_config(source, config))))
    except ValueError:
        return ""
    given = dict(flatten_dict(asdict(config)))
    differ = [name for name in in_weights.keys() | given.keys() if in_weights.get(name) != given.get(name)]
    return "".join(
        f"{name} is {in_weights.get(name)} in the weights and {given.get(name)} in the config\n"
        for name in sorted(differ)
    )


def flatten_dict(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield a nested dict's values under dotted names."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flatten_dict(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def require_shape(source: TensorSource, key: str) -> tuple[int, ...]:
    """Return the shape of an array that tells something about the model.

    Raises:
        ValueError: there is no such array.
    """
    if key not in source.keys():  # noqa: SIM118 (a source is not a dict)
        raise ValueError(f"{source.location} has no {key}: it is incomplete, or of another format than `source` says")
    return source.shape(key)


def count_layers(source: TensorSource, pattern: str) -> int:
    """Return how many arrays there are whose names are `pattern` with 0, 1, … in place of its `*`."""
    keys, depth = set(source.keys()), 0
    while pattern.replace("*", str(depth)) in keys:
        depth += 1
    return depth
