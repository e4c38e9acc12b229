"""Weights of other projects, in and out: openpi's JAX and PyTorch, LeRobot's, PaliGemma's base weights.

released folder ── folders.py ──▶ which kind is it, and what is missing from it?
     │
     ▼ openpi_jax.py, openpi_torch.py, lerobot_weights.py, paligemma.py: one key map per format
keymap.py ──▶ every array is used exactly once, or named in an error
     │
     ▼ model_loading.py: a `Pi` with these weights; folders.py adds robot, statistics and tokenizers: a `Bundle`
models/bundle.py ──▶ a checkpoint folder of pilot          (and back out: `folders.save_checkpoint`)
"""

from pathlib import Path
from typing import Literal

import torch

from pilot.convert import lerobot_weights, openpi_jax, openpi_torch
from pilot.data.storage.remote import fetch_checkpoint
from pilot.models.bundle import load_bundle
from pilot.models.pi import Pi, PiConfig
from pilot.names import suggest_names

CheckpointSource = Literal["openpi-torch", "openpi-jax", "lerobot", "pilot"]
READERS = {"openpi-torch": openpi_torch.load, "openpi-jax": openpi_jax.load, "lerobot": lerobot_weights.load}


def load_model(
    path: str | Path, source: CheckpointSource, *, config: PiConfig | None = None, dtype: torch.dtype | None = None
) -> Pi:
    """Return the model in a checkpoint, which may be remote (`hf://…`, `gs://…`: `data/storage/remote.py`).

    Every array is used exactly once, or named in the error. `config` supplies what weights do not tell: the action
    horizon, `insulate` and, for openpi's PyTorch, the number of heads of a small vision tower. It must agree with what
    they do tell. By default these are as in the published models; `insulate` is False for openpi's, which are not
    trained with it. Weights are converted to `dtype`, by default float32; those of pilot keep their own.

    Raises:
        FileNotFoundError: there is no checkpoint, or a part of it is missing.
        ValueError: arrays are missing, left over or of another shape; a file is damaged; `config` contradicts the
            weights.
    """
    if source == "pilot":
        return _load_own(fetch_checkpoint(path), config, dtype)
    if source not in READERS:
        raise ValueError(
            f"no checkpoint source '{source}'; {suggest_names(source, [*READERS, 'pilot'], listed='there are')}"
        )
    return READERS[source](fetch_checkpoint(path), config, dtype=dtype or torch.float32)


def _load_own(folder: Path, config: PiConfig | None, dtype: torch.dtype | None) -> Pi:
    model = load_bundle(folder).pi
    if config not in (None, model.config):
        raise ValueError(f"the config contradicts that of {folder}, which is {model.config}")
    return model.to(dtype or model.dtype)
