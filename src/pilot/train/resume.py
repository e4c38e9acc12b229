"""Whose run a folder holds: the config beside its checkpoints, and what of it may be changed when the run goes on.

Which settings may change stands beside them in `train/config.py` (`MAY_CHANGE`).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

from pilot.data.storage.files import read_json, write_json
from pilot.models.registry import config_from_dict, model_kind
from pilot.train import checkpoint
from pilot.train.config import InitFrom, Source, TrainConfig

FILE = "config.json"


def claim(out: Path, config: TrainConfig, *, resume: bool, write: bool) -> Path | None:
    """Write the config into a fresh folder, or check that a used one holds the same run; return its last checkpoint.

    Raises:
        ValueError: the folder holds a run that is not to be resumed, or a run with other settings.
    """
    last = checkpoint.last_checkpoint(out)
    if (out / FILE).exists() and last is not None:
        if not resume:
            raise ValueError(f"{out} holds a run at {last.name}; resume it, or choose another folder")
        stored = read_config(out, like=config)
        changed = list(differences(config, stored))
        if changed == ["steps"] and config.steps > stored["steps"]:
            check_longer(out, config, steps=stored["steps"])
        elif changed:
            raise ValueError(
                f"{out} holds a run with other {', '.join(changed)}; choose another folder or the same config"
            )
    if write:
        write_json(out / FILE, as_json(config))
    return last


def check_longer(out: Path, config: TrainConfig, *, steps: int) -> None:
    """Check that a run of so many `steps` may be made longer: its learning rate must not depend on where it ends.

    Raises:
        ValueError: it does; the message says how to train on all the same.
    """
    optim = config.optim
    if optim.decay_steps is None and optim.final_lr != optim.peak_lr:
        raise ValueError(
            f"{out} holds a run of {steps} steps, over which its learning rate falls to {optim.final_lr:g}: another "
            f"length is another schedule. Start a new run from its policy (--out elsewhere --set init_from={out}); a "
            f"run with optim.decay_steps, or with final_lr = peak_lr, can be made longer"
        )


def as_json(config: Any) -> Any:
    """Return a (nested) dataclass as JSON gives it back: tuples are lists."""
    # Compared with a file, where a tuple is a list; both go through JSON so that they can be equal.
    return json.loads(json.dumps(asdict(config)))


def read_config(out: Path, *, like: TrainConfig) -> dict[str, Any]:
    """Read the config of the run in `out`, of whatever age; fields younger than it have the defaults of `like`'s types.

    Raises:
        FileNotFoundError: no run there.
    """
    values = read_json(out / FILE, remedy="choose another folder")
    # A config from before settings had groups.
    if "data" not in values:
        values = group_settings(values)
    # A run of before a setting was there did what is its default now.
    younger = {field.name: field.default for field in fields(like.model) if field.default is not MISSING}
    values["model"] = as_json(config_from_dict(younger | values["model"], kind=model_kind(like.model)))
    values["data"]["sources"] = [as_json(Source(path="")) | source for source in values["data"]["sources"]]
    # Runs before this setting grouped rows by label, and resumed they must draw the same rows.
    values["data"].setdefault("group_by", "label")
    return with_defaults(values, like)


def group_settings(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Sort the settings of a config from before there were groups into them."""
    values: dict[str, Any] = {}
    init_from = flat.get("init_from")
    if init_from is not None:
        values["init_from"] = as_json(InitFrom.parse(init_from))
    for name, value in flat.items():
        group, dot, field = TrainConfig.OLD_NAMES.get(name, name).partition(".")
        if group == "init_from":
            if dot and init_from is not None:
                values[group][field] = value
        elif dot:
            values.setdefault(group, {})[field] = value
        else:
            values[group] = value
    return values


def with_defaults(values: Mapping[str, Any], like: Any) -> dict[str, Any]:
    """Add the defaults of fields that a stored config does not have yet, in each of its groups."""
    known = {f.name: f.default for f in fields(like) if f.default is not MISSING}
    known |= {f.name: f.default_factory() for f in fields(like) if f.default_factory is not MISSING}
    defaults = {name: as_json(value) if is_dataclass(value) else value for name, value in known.items()}
    result = json.loads(json.dumps(defaults)) | dict(values)
    for f in fields(like):
        group = getattr(like, f.name)
        if is_dataclass(group) and f.name != "model" and isinstance(result.get(f.name), Mapping):
            result[f.name] = with_defaults(result[f.name], group)
    return result


def differences(config: Any, stored: Mapping[str, Any], *, group: str = "") -> Iterator[str]:
    """Yield the settings that must be those of the run in the folder and are not, as `--set` names them."""
    for f in fields(config):
        mine, theirs = getattr(config, f.name), stored.get(f.name)
        if f.metadata.get("may_change"):
            continue
        if is_dataclass(mine) and isinstance(theirs, Mapping) and f.name != "model":
            yield from differences(mine, theirs, group=f"{group}{f.name}.")
        elif (as_json(mine) if is_dataclass(mine) else json.loads(json.dumps(mine, default=asdict))) != theirs:
            yield f"{group}{f.name}"
