"""pilot: the π0 family as one readable PyTorch library. Importing it is cheap; torch comes with what needs it."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pilot.infer.policy import Policy, load_policy

__version__ = "0.1.0"
__all__ = ["Policy", "load_policy"]

_HOMES = {"load_policy": "pilot.infer.policy", "Policy": "pilot.infer.policy"}


def __getattr__(name: str) -> Any:
    if name == "convert":
        return importlib.import_module("pilot.convert")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'pilot' has no attribute '{name}'")
