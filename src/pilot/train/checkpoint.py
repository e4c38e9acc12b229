"""Training state on disk: atomic, resumable to the bit, the last one always whole.

    OUT/checkpoints/000500/state.pt    weights, optimizer, moving average, step
    OUT/policy/                        the moving average as a policy folder (`models/bundle.py`)

A checkpoint is written under another name and renamed, and the one before is removed only then.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from pilot.models.bundle import replace_folder

STATE = "state.pt"


def save_state(out: Path, step: int, state: dict[str, Any], *, keep: int = 2) -> Path:
    """Save the state after `step` steps and keep the last `keep`.

    Raises:
        OSError: the disk is full or read-only; earlier checkpoints are untouched.
    """
    folder = out / "checkpoints" / f"{step:06d}"
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True, exist_ok=True)
    try:
        torch.save(state, temporary / STATE)
    except (OSError, RuntimeError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        last = last_checkpoint(out)
        raise OSError(
            f"cannot write {folder}: {error}; is the disk full? The last good checkpoint is {last}"
        ) from error
    replace_folder(temporary, folder)
    for old in checkpoints(out)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def checkpoints(out: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    return sorted(folder for folder in (out / "checkpoints").glob("[0-9]*") if (folder / STATE).is_file())


def last_checkpoint(out: Path) -> Path | None:
    return found[-1] if (found := checkpoints(out)) else None


def load_state(folder: Path) -> dict[str, Any]:
    """Read a checkpoint (tensors and plain values only, nothing is executed).

    Raises:
        ValueError: the file is damaged.
    """
    try:
        return torch.load(folder / STATE, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(
            f"{folder / STATE} is damaged ({error}); remove {folder} to go on from the one before"
        ) from error
