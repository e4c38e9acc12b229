"""The bodies that robots of `pilot/robots` have in our worlds: one file each, with a `BODY`; the folder is the list."""

import importlib
import pkgutil
from typing import Any

from pilot.names import check_name

_NOT_BODIES = ("base",)


def body_names() -> list[str]:
    """Return the names of all bodies, without importing any physics."""
    return sorted(info.name for info in pkgutil.iter_modules(__path__) if info.name not in _NOT_BODIES)


def load_body(name: str) -> Any:
    """Return the `Body` of that name; `arm_ee` is the body of `arm`, moved by its hand.

    Raises:
        ValueError: there is none; the nearest is suggested.
    """
    own = name.removesuffix("_ee")
    check_name("body", own, body_names())
    return importlib.import_module(f"{__name__}.{own}").BODY
