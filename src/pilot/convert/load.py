"""From a checkpoint's arrays to a model: its config told or read off the weights, its tensors filled once."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import torch

from pilot.convert.keymap import Table, TensorSource, check, load
from pilot.models.bundle import empty_model
from pilot.models.pi import Pi, PiConfig

ReadConfig = Callable[[TensorSource, PiConfig | None], PiConfig]
"""A format's function from weights to config; what weights do not tell comes from the second argument."""


def load_pi(table: Table, source: TensorSource, config: PiConfig, *, dtype: torch.dtype = torch.float32) -> Pi:
    """The model with the weights of `source`; memory is taken once, and nothing is ever random.

    Raises:
        ValueError: see `keymap.load`.
    """
    model = empty_model(config).to(dtype)
    weights = model.to_empty(device="cpu").state_dict()
    names = {slot.name for slot in table.slots}
    assert names == weights.keys(), names ^ weights.keys()
    load(table, source, weights)
    return model.eval()


def settle(
    source: TensorSource, config: PiConfig | None, *, read_config: ReadConfig, table: Callable[[PiConfig], Table]
) -> PiConfig:
    """`config`, found to fit the weights, or the one that is read off them.

    Raises:
        ValueError: the weights do not tell it, or they and `config` contradict each other; all that differs is named.
    """
    if config is None:
        return read_config(source, None)
    try:
        check(table(config), source)
    except ValueError as error:
        raise ValueError(f"{contradictions(source, config, read_config)}{error}") from None
    return config


def contradictions(source: TensorSource, config: PiConfig, read_config: ReadConfig) -> str:
    """The fields of `config` that the weights say otherwise, as a sentence; nothing if the weights are incomplete."""
    try:
        found = dict(flatten(asdict(read_config(source, config))))
    except ValueError:
        return ""
    given = dict(flatten(asdict(config)))
    differ = [name for name in found.keys() | given.keys() if found.get(name) != given.get(name)]
    said = [
        f"{name} is {found.get(name)} in the weights and {given.get(name)} in the config" for name in sorted(differ)
    ]
    return "".join(f"{line}\n" for line in said)


def flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A nested dict's values under dotted names."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def shape_of(source: TensorSource, key: str) -> tuple[int, ...]:
    """The shape of an array that tells something of the model.

    Raises:
        ValueError: there is no such array.
    """
    if key not in source.keys():  # noqa: SIM118 (a source is not a dict)
        raise ValueError(f"{source.where} has no {key}: it is incomplete, or of another format than `source` says")
    return source.shape(key)


def count_layers(source: TensorSource, pattern: str) -> int:
    """How many arrays there are whose names are `pattern` with 0, 1, … in place of its `*`."""
    keys, depth = set(source.keys()), 0
    while pattern.replace("*", str(depth)) in keys:
        depth += 1
    return depth
