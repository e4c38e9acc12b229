"""Settings by name: `--set optim.lr=3e-4` on a frozen, nested dataclass."""

import ast
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from pilot.names import check_name

Config = TypeVar("Config")


def override(config: Config, assignments: Iterable[str]) -> Config:
    """A copy of a frozen (nested) dataclass with `"optim.lr=3e-4"`-like assignments applied.

    Raises:
        ValueError: An unknown field (nearest suggested), or a value of another type than the field's.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set takes FIELD=VALUE, got '{assignment}'")
        config = replaced(config, path.strip().split("."), text=text.strip())
    return config


def replaced(config: Any, path: list[str], *, text: str) -> Any:
    name, *rest = path
    members = named_members(config)
    check_name("setting", name, members)
    old, optional = members[name], optional_group(config, name)
    if rest and gives_words(config, name):
        return dataclasses.replace(config, **{name: {**old, ".".join(rest): text}})
    if optional is not None and not rest and text.lower() in ("true", "none"):
        return dataclasses.replace(config, **{name: optional() if text.lower() == "true" else None})
    if optional is not None and rest and old is None:
        old = optional()
    if is_group(old) != bool(rest):
        what = f"a group: set {name}.FIELD=VALUE" if is_group(old) else "a single value, without fields"
        raise ValueError(f"setting '{name}' is {what}")
    if rest:
        new = replaced(old, rest, text=text)
    elif words := words_of(config, name):
        new = check_name(f"value of '{name}'", text, words)
    else:
        new = parsed(text, old, name=name)
    if isinstance(config, tuple):
        return tuple(new if other == name else member for other, member in members.items())
    return config | {name: new} if isinstance(config, dict) else dataclasses.replace(config, **{name: new})


def words_of(group: Any, name: str) -> list[str]:
    """The words that a setting is one of, where it is; "none" may be one of them."""
    if not dataclasses.is_dataclass(group):
        return []
    hint = get_type_hints(type(group))[name]
    return [word for word in get_args(hint) if isinstance(word, str)] if get_origin(hint) is Literal else []


def gives_words(group: Any, name: str) -> bool:
    """Whether a setting has words by names of one's own: `sources.mine.cameras.top=cam_high`."""
    return dataclasses.is_dataclass(group) and get_type_hints(type(group))[name] == Mapping[str, str]


def optional_group(group: Any, name: str) -> Callable[[], Any] | None:
    """What makes the group that a setting may be, where it may also be None: `lora=true` is one as it comes."""
    choices = get_args(get_type_hints(type(group))[name]) if dataclasses.is_dataclass(group) else ()
    kind = next((kind for kind in choices if isinstance(kind, type) and dataclasses.is_dataclass(kind)), None)
    if kind is None or type(None) not in choices:
        return None
    missing = dataclasses.MISSING
    return None if any(f.default is f.default_factory is missing for f in dataclasses.fields(kind)) else kind


def is_group(value: Any) -> bool:
    """Whether a setting has settings of its own: a dataclass, a dict, or several dataclasses in a row."""
    row = isinstance(value, tuple) and bool(value) and all(dataclasses.is_dataclass(item) for item in value)
    return dataclasses.is_dataclass(value) or isinstance(value, dict) or row


def named_members(group: Any) -> dict[str, Any]:
    """The settings of a group; those in a row go by the last part of their path (`sources.droid.path=…`)."""
    if isinstance(group, tuple):
        return {Path(item.path).name: item for item in group}
    return (
        dict(group) if isinstance(group, dict) else {f.name: getattr(group, f.name) for f in dataclasses.fields(group)}
    )


def parsed(text: str, old: Any, *, name: str) -> Any:
    """The value that `text` stands for, of the type that `old` has; anything may become, or cease to be, None."""
    try:
        value = ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(text.lower(), text))
    except (ValueError, SyntaxError):
        value = text
    if isinstance(old, str | Path) and value is not None:
        return type(old)(text)
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(old, tuple) and isinstance(value, list):
        return tuple(value)
    if isinstance(old, tuple) and isinstance(value, str) and all(isinstance(item, str) for item in old):
        return tuple(word.strip() for word in text.split(","))
    if old is None or value is None or type(value) is type(old):
        return value
    raise ValueError(f"setting '{name}' takes a {type(old).__name__} like {old!r}, got '{text}'")
