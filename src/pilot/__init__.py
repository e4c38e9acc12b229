"""pilot: the π0 family as one readable PyTorch library. Importing it is cheap; torch comes with what needs it."""

import importlib
from typing import TYPE_CHECKING, Any

from pilot.version import __version__

if TYPE_CHECKING:
    from pilot.infer.policy import Policy, load_policy

__all__ = ["Policy", "__version__", "load_policy"]

_HOMES = {"load_policy": "pilot.infer.policy", "Policy": "pilot.infer.policy"}


_NEEDS = {
    "torch": ("torch", "safetensors", "sentencepiece", "tokenizers", "jinja2", "markupsafe"),
    "data": ("pyarrow", "tqdm"),
    "client": ("websockets", "msgpack"),
    "serve": ("prometheus_client",),
    "sim": ("gymnasium", "mujoco"),
}


def __getattr__(name: str) -> Any:
    home = "pilot.convert" if name == "convert" else _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'pilot' has no attribute '{name}'")
    try:
        module = importlib.import_module(home)
    except ModuleNotFoundError as error:
        raise missing_extra(error) from error
    return module if name == "convert" else getattr(module, name)


def missing_extra(error: ModuleNotFoundError) -> ImportError:
    """Return an error that says which extra to install; the error itself where no extra has the missing module."""
    missing = (error.name or "").partition(".")[0]
    for extra, packages in _NEEDS.items():
        if missing in packages:
            return ImportError(f"this needs {missing}: pip install 'pilot[{extra}]'", name=missing)
    return error
