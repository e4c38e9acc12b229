"""How annotations are checked under pytest: shapes by jaxtyping, the rest by beartype; an int may pass for a float."""

import typing
from collections.abc import Iterator
from typing import Any

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function: Any) -> Any:
    """`function`, checked at each call. Protocols count as what they say, decorated `runtime_checkable` or not."""
    for hint in getattr(function, "__annotations__", {}).values():
        for part in parts(hint):
            if getattr(part, "_is_protocol", False):
                typing.runtime_checkable(part)
    return checked(function)


def parts(hint: Any) -> Iterator[Any]:
    yield hint
    for inner in typing.get_args(hint):
        yield from parts(inner)
