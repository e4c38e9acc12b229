"""Checkpoints of other projects, in and out: openpi's JAX and PyTorch, LeRobot's, PaliGemma's base weights."""

from importlib import import_module
from pathlib import Path
from typing import Literal

import torch

from pilot.data.storage.remote import CHECKPOINT_FILES, fetch
from pilot.models.bundle import load_bundle
from pilot.models.pi import Pi, PiConfig
from pilot.names import suggest_names

Source = Literal["openpi-torch", "openpi-jax", "lerobot", "pilot"]
READERS = {"openpi-torch": "openpi_torch", "openpi-jax": "openpi_jax", "lerobot": "lerobot"}


def load_model(
    path: str | Path, source: Source, *, config: PiConfig | None = None, dtype: torch.dtype | None = None
) -> Pi:
    """The model in a checkpoint that lies on this machine or elsewhere (`hf://…`, `gs://…`: `data/storage/remote.py`).

    Every array is used exactly once, or named in the error. `config` says what weights do not tell (the action horizon,
    `insulate`; for openpi's PyTorch the heads of a small vision tower) and must agree with what they do. Without it,
    that is as in the published models, and `insulate` is False for openpi's: they are not trained with it. Weights are
    converted to `dtype`, by default to float32; those of pilot stay as they are.

    Raises:
        FileNotFoundError: no checkpoint there, or a part of it is missing.
        ValueError: arrays missing, left over or of another shape; a damaged file; a config that contradicts weights.
    """
    if source == "pilot":
        return _own(fetch(path, only=CHECKPOINT_FILES), config, dtype)
    if source not in READERS:
        raise ValueError(
            f"no checkpoint source '{source}'; {suggest_names(source, [*READERS, 'pilot'], listed='there are')}"
        )
    reader = import_module(f"{__name__}.{READERS[source]}")  # each knows a format that the others need not
    return reader.load(fetch(path, only=CHECKPOINT_FILES), config, dtype=dtype or torch.float32)


def _own(folder: Path, config: PiConfig | None, dtype: torch.dtype | None) -> Pi:
    model = load_bundle(folder).pi
    if config not in (None, model.config):
        raise ValueError(f"the config contradicts that of {folder}, which is {model.config}")
    return model.to(dtype or model.dtype)
