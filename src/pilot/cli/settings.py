"""Settings by name: `--set optim.peak_lr=3e-4` changes a field of a frozen, nested dataclass, `--show` prints them all.

A class may say under which name an old setting is to be found now (`OLD_NAMES`); old names are still read, with a line
that says the new one. A class may read itself from a word (`parse`): `init_from=checkpoints/nano`.
"""

import ast
import dataclasses
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from pilot.names import check_name

Config = TypeVar("Config")
MISSING = dataclasses.MISSING


def override(config: Config, assignments: Iterable[str]) -> Config:
    """Return a copy of a frozen (nested) dataclass with assignments like `"optim.peak_lr=3e-4"` applied.

    Raises:
        ValueError: an unknown field (the nearest is suggested), or a value of another type than the field's.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set takes FIELD=VALUE, got '{assignment}'")
        names = current_names(config, path.strip().split("."))
        config = replace_setting(config, names, text=text.strip())
    return config


def current_names(config: Any, path: list[str]) -> list[str]:
    """Return the path that a setting has now, with a warning if `path` is an old one."""
    name, *rest = path
    new = getattr(config, "OLD_NAMES", {}).get(name)
    is_current = name in named_members(config) and (rest or not is_group(getattr(config, name)))
    if new is None or is_current:
        return path
    names = [*new.split("."), *rest]
    warnings.warn(f"the setting {'.'.join(path)} is now {'.'.join(names)}", stacklevel=3)
    return names


def replace_setting(config: Any, path: list[str], *, text: str) -> Any:
    """Return a copy of a group with the setting at `path`, a field or a field of a field, read from `text`."""
    name, *rest = path
    members = named_members(config)
    check_name("setting", name, members)
    old = members[name]
    if rest and is_free_form(config, name):
        new: Any = {**old, ".".join(rest): text}
    elif rest:
        new = replace_setting(group_to_change(config, name, old), rest, text=text)
    elif (group := optional_group(config, name)) is not None:
        new = parse_group(group, text, name=name)
    elif is_group(old):
        raise ValueError(f"setting '{name}' is a group: set {name}.FIELD=VALUE")
    elif words := literal_values(config, name):
        new = check_name(f"value of '{name}'", text, words)
    else:
        new = parse_value(text, old, name=name, optional=may_be_none(config, name))
    if isinstance(config, tuple):
        return tuple(new if other == name else member for other, member in members.items())
    return config | {name: new} if isinstance(config, dict) else dataclasses.replace(config, **{name: new})


def group_to_change(config: Any, name: str, old: Any) -> Any:
    """Return the group whose field is to be set: `old`, or where that is None, the group with its defaults.

    Raises:
        ValueError: there is no group, or it cannot be made from defaults alone.
    """
    if is_group(old):
        return old
    kind = optional_group(config, name)
    if kind is None:
        raise ValueError(f"setting '{name}' is a single value, without fields")
    if required_fields(kind):
        raise ValueError(f"setting '{name}' is none; first set {name}=VALUE, then its fields")
    return kind()


def parse_group(group: type, text: str, *, name: str) -> Any:
    """Read a group that may be None: `none`, `true` for its defaults, or a word that the group can read itself."""
    if text.lower() == "none":
        return None
    if hasattr(group, "parse"):
        value = group.parse(text)
        if str(value) != value.path:
            warnings.warn(f"{name}={text} is now {name}={value.path} {name}.kind={value.kind}", stacklevel=4)
        return value
    if text.lower() == "true" and not required_fields(group):
        return group()
    raise ValueError(f"setting '{name}' is a group: set {name}=none, {name}=true or {name}.FIELD=VALUE")


def literal_values(group: Any, name: str) -> list[str]:
    """Return the words that a setting may be, if its type lists them ("none" may be one of them)."""
    if not dataclasses.is_dataclass(group):
        return []
    hint = get_type_hints(type(group))[name]
    return [word for word in get_args(hint) if isinstance(word, str)] if get_origin(hint) is Literal else []


def is_free_form(group: Any, name: str) -> bool:
    """Return whether a setting maps names of one's own to words: `data.sources.mine.cameras.top=cam_high`."""
    return dataclasses.is_dataclass(group) and get_type_hints(type(group))[name] == Mapping[str, str]


def optional_group(group: Any, name: str) -> type | None:
    """Return the type of a group that may also be None, such as `lora`; None for any other setting."""
    choices = get_args(get_type_hints(type(group))[name]) if dataclasses.is_dataclass(group) else ()
    kinds = [kind for kind in choices if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
    return kinds[0] if kinds and type(None) in choices else None


def may_be_none(group: Any, name: str) -> bool:
    """Return whether a setting may be none by its type."""
    return dataclasses.is_dataclass(group) and type(None) in get_args(get_type_hints(type(group))[name])


def required_fields(kind: type) -> list[str]:
    """Return the names of the fields of a dataclass that have no default."""
    return [f.name for f in dataclasses.fields(kind) if f.default is MISSING and f.default_factory is MISSING]


def is_group(value: Any) -> bool:
    """Return whether a setting has settings of its own: a dataclass, a dict, or several dataclasses in a row."""
    row = isinstance(value, tuple) and bool(value) and all(dataclasses.is_dataclass(item) for item in value)
    return dataclasses.is_dataclass(value) or isinstance(value, dict) or row


def named_members(group: Any) -> dict[str, Any]:
    """Return the settings of a group; each of several in a row has its label."""
    if isinstance(group, tuple):
        return {item.label: item for item in group}
    if isinstance(group, dict):
        return dict(group)
    return {f.name: getattr(group, f.name) for f in dataclasses.fields(group)}


def parse_value(text: str, old: Any, *, name: str, optional: bool) -> Any:
    """Return the value that `text` stands for, of the type of `old`; one that is `optional` may become None.

    Raises:
        ValueError: it is of another type.
    """
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
    if old is None or (value is None and optional) or type(value) is type(old):
        return value
    raise ValueError(f"setting '{name}' must be of type {type(old).__name__}, such as {old!r}; got '{text}'")


def show(config: Any) -> str:
    """Return all settings as lines `PATH = VALUE`, as `--set` takes them; * marks those that are not the default."""
    rows = list(list_settings(config, defaults_of(config)))
    width = max(len(path) for path, _, _ in rows)
    lines = []
    for path, value, default in rows:
        is_changed = default is not MISSING and value != default
        beside = f"   (default: {format_value(default)})" if is_changed else ""
        lines.append(f"{'*' if is_changed else ' '} {path:<{width}} = {format_value(value)}{beside}")
    return "\n".join(lines)


def list_settings(group: Any, defaults: Mapping[str, Any], *, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield path, value and default (`MISSING` where there is none) of every setting in a group, from top to bottom."""
    for name, value in named_members(group).items():
        default = defaults.get(name, MISSING)
        if not (is_group(value) and value):
            yield f"{prefix}{name}", value, default
            continue
        members = named_members(value)
        if default is None:  # a group that the run has and others have not: all of it is new
            inner: Mapping[str, Any] = dict.fromkeys(members)
        else:
            inner = named_members(default) if dataclasses.is_dataclass(default) else defaults_of(value)
        yield from list_settings(value, inner, prefix=f"{prefix}{name}.")


def defaults_of(group: Any) -> dict[str, Any]:
    """Return the defaults of a dataclass's fields; settings that go by names of one's own have none."""
    if not dataclasses.is_dataclass(group):
        return {}
    fields = dataclasses.fields(group)
    values = {f.name: f.default for f in fields if f.default is not MISSING}
    return values | {f.name: f.default_factory() for f in fields if f.default_factory is not MISSING}


def format_value(value: Any) -> str:
    """Return a value as `--set` reads it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple) and value and all(isinstance(item, str) for item in value):
        return ",".join(value)
    return str(value)
