"""Every kind of model by the name that its checkpoints carry, and the class of its config; `build.py` has the models.

Free of torch, so that a run and its settings are read at once.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pilot.data.storage.files import read_json
from pilot.models.baselines.configs import ActConfig, DiffusionPolicyConfig, OctoConfig
from pilot.models.pi_config import PiConfig

ModelConfig = PiConfig | ActConfig | DiffusionPolicyConfig | OctoConfig

MODEL_KINDS: dict[str, type[ModelConfig]] = {
    "pi": PiConfig,
    "act": ActConfig,
    "diffusion_policy": DiffusionPolicyConfig,
    "octo": OctoConfig,
}


def model_kind(config: ModelConfig) -> str:
    """Return the name of a config's kind of model."""
    return next(name for name, config_class in MODEL_KINDS.items() if type(config) is config_class)


def require_pi(config: ModelConfig) -> PiConfig:
    """Return the config as one of the π0 family, for what only its models can do.

    Raises:
        ValueError: it is of another kind.
    """
    if not isinstance(config, PiConfig):
        raise ValueError(f"this is for the π0 family, and the model is of kind '{model_kind(config)}'")
    return config


FORMAT = 4
"""Of a checkpoint's config.json, which holds every field that its format has: one that is gone is noticed."""
ADDED_IN = {"always_shown": 2, "integrate_padded_dims": 2, "rtc_max_delay": 2, "action_stride": 3, "replan_seconds": 4}
"""The formats that brought these fields. Their defaults are what models did before."""


def config_from_dict(values: Mapping[str, Any], *, kind: str = "pi", format: int = 1) -> ModelConfig:
    """Read a config from its `asdict` form, as a checkpoint of this `format` holds it.

    Raises:
        ValueError: an unknown kind, unknown fields, missing ones or unknown choices.
    """
    if kind not in MODEL_KINDS:
        raise ValueError(f"this version of pilot has no model of kind '{kind}'; known: {', '.join(MODEL_KINDS)}")
    config_class = MODEL_KINDS[kind]
    if unknown := set(values) - {field.name for field in fields(config_class)}:
        raise ValueError(
            f"the model config has unknown fields {sorted(unknown)}; it was written by another version of pilot"
        )
    if missing := _missing(config_class, values, optional={name for name, since in ADDED_IN.items() if since > format}):
        raise ValueError(f"the model config has no {', '.join(missing)}; fetch the checkpoint again")
    hints = get_type_hints(config_class)
    for name, hint in hints.items():
        if get_origin(hint) is Literal and name in values and values[name] not in get_args(hint):
            raise ValueError(f"the model config has {name} {values[name]!r}; known: {', '.join(get_args(hint))}")
    try:
        return config_class(**{name: _read(value, hints[name], name=name) for name, value in values.items()})
    except TypeError as error:
        raise ValueError(f"the model config is not one of this version of pilot: {error}") from error


def read_config(checkpoint: str | Path) -> ModelConfig:
    """Read the config of the model in a checkpoint's folder.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: its config is damaged, or of another version of pilot.
    """
    file = Path(checkpoint) / "config.json"
    return read_model_config(read_json(file, remedy="give the folder of a checkpoint"), where=file)


def read_model_config(config: Mapping[str, Any], *, where: Path) -> ModelConfig:
    """Return the model's config out of the config.json of a checkpoint, which lies at `where`.

    Raises:
        ValueError: it lacks a field, or is damaged in another way.
    """
    try:
        return config_from_dict(config["model"], kind=config.get("kind", "pi"), format=config.get("format", 1))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{where} is damaged ({error!r}); fetch the checkpoint again") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _missing(config_class: Any, values: Mapping[str, Any], *, optional: set[str]) -> list[str]:
    """Return the fields that a config, or one inside of it, lacks; with dots between."""
    found, hints = [], get_type_hints(config_class)
    for name in (field.name for field in fields(config_class) if field.name not in optional):
        if name not in values:
            found.append(name)
        elif (part := _config_in(hints[name])) is not None and isinstance(values[name], Mapping):
            found += [f"{name}.{inner}" for inner in _missing(part, values[name], optional=optional)]
    return found


def _config_in(hint: Any) -> Any:
    """Return the class of the config that a field holds, None for a field of another kind."""
    return next((kind for kind in (hint, *get_args(hint)) if isinstance(kind, type) and is_dataclass(kind)), None)


def _read(value: Any, hint: Any, *, name: str) -> Any:
    """Turn JSON's lists into tuples, and the dict of a nested config into that config.

    Raises:
        TypeError: a number that counts something is not whole, or below 0.
    """
    if isinstance(value, list | tuple):
        return tuple(value)
    part = _config_in(hint)
    if part is not None and isinstance(value, Mapping):
        hints = get_type_hints(part)
        return part(**{inner: _read(given, hints.get(inner), name=f"{name}.{inner}") for inner, given in value.items()})
    if int in (hint, *get_args(hint)) and value is not None and (type(value) is not int or value < 0):
        raise TypeError(f"{name} is a whole number of 0 or more, not {value!r}")
    return value
