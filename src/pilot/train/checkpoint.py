"""Checkpoints of a run: complete or absent, and enough to continue the run to the bit, on any number of ranks.

    OUT/checkpoints/000500/    weights, optimizer and moving average, by torch.distributed.checkpoint; every rank
                               writes what it holds, and any number of ranks can read it
        state.json             the step and other plain values, and the size and checksum of every file
    OUT/policy/                the moving average as a policy folder (`models/bundle.py`)

A checkpoint is copied aside, then written by a thread while training goes on. It gets its name when every rank has
written its part; only then do older ones go. Its index is a pickle, which is read without running anything in it
(`train/checkpoint_index.py`).
"""

import json
import shutil
import warnings
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from pilot.data.storage.files import replace_folder, write_json
from pilot.data.storage.manifest import sha256
from pilot.names import shorten
from pilot.train.checkpoint_index import IndexReader, read_index
from pilot.train.distributed import Ranks

STATE = "state.json"
SUMMED = 256 * 2**20  # bytes of a file up to which its checksum is kept
OLD_STATE = "state.pt"  # of checkpoints in the format before this one

warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)  # one process may save


class Checkpoints:
    """The checkpoints of a run in folder `out`: the last `keep` are kept, and those of steps that `every` divides."""

    def __init__(self, out: Path, *, ranks: Ranks, keep: int = 2, every: int | None = None) -> None:
        if keep < 1:
            raise ValueError(f"a run keeps at least its last checkpoint, got keep={keep}")
        self.out, self.ranks, self.keep, self.every = out, ranks, keep, every
        self._writing: tuple[int, Future[None]] | None = None
        if ranks.is_main:
            for left in (out / "checkpoints").glob(".*.tmp"):  # of a process that died while it saved
                shutil.rmtree(left, ignore_errors=True)

    def save(self, step: int, tensors: Mapping[str, Tensor], *, values: Mapping[str, Any]) -> None:
        """Start to save the state after `step` steps, once the save before has ended; `tensors` may change afterwards.

        Raises:
            OSError: that save failed, on whatever rank: the disk is full or read-only. Earlier checkpoints are intact.
        """
        self.finish()
        temporary = self._temporary(step)
        if self.ranks.is_main:
            shutil.rmtree(temporary, ignore_errors=True)
        # A barrier: no rank may write before the main one has cleared the folder.
        self.ranks.gather(None)
        try:
            written = dcp.async_save(dict(tensors), checkpoint_id=temporary, process_group=self.ranks.files)
        except (OSError, RuntimeError) as error:
            raise self._save_error(step, describe_error(error)) from error
        self._writing = step, self._name_when_written(step, {"step": step, **values}, cast(Future, written))

    def finish(self) -> None:
        """Wait until the save in progress has ended, if there is one.

        Raises:
            OSError: it failed.
        """
        if self._writing is None:
            return
        (step, named), self._writing = self._writing, None
        failed = named.exception()
        if reasons := [reason for reason in self.ranks.gather(failed and describe_error(failed)) if reason is not None]:
            raise self._save_error(step, reasons[0])

    def settle(self) -> None:
        """Wait for this rank's part of a save in progress, when a run ends with an error; never raise."""
        if self._writing is not None:
            self._writing[1].exception()

    def _name_when_written(self, step: int, values: dict[str, Any], written: Future[Any]) -> Future[None]:
        """Return a future of the moment when every rank has written its part and the checkpoint has its name."""
        named: Future[None] = Future()

        def name(written: Future[Any]) -> None:
            try:
                written.result()
                if self.ranks.is_main:
                    self._name(step, values)
            except BaseException as error:  # of whatever kind: DCP wraps what happened on other ranks
                named.set_exception(error)
            else:
                named.set_result(None)

        written.add_done_callback(name)
        return named

    def _name(self, step: int, values: dict[str, Any]) -> None:
        temporary, folder = self._temporary(step), self.out / "checkpoints" / f"{step:06d}"
        # Truncated copies are the usual damage, and sizes find them without reading gigabytes; what is small, the index
        # among it, is compared as a whole.
        sizes = {file.name: file.stat().st_size for file in sorted(temporary.iterdir())}
        sums = {name: sha256(temporary / name) for name, size in sizes.items() if size <= SUMMED}
        write_json(temporary / STATE, values | {"files": sizes, "sha256": sums})
        # A rename is all or nothing, so a folder with this name is complete.
        replace_folder(temporary, folder)
        for old in checkpoints(self.out)[: -self.keep]:
            if self.every is None or int(old.name) % self.every:
                shutil.rmtree(old, ignore_errors=True)

    def _temporary(self, step: int) -> Path:
        return self.out / "checkpoints" / f".{step:06d}.tmp"

    def _save_error(self, step: int, reason: str) -> OSError:
        if self.ranks.is_main:
            shutil.rmtree(self._temporary(step), ignore_errors=True)
        return OSError(
            f"cannot write the checkpoint of step {step}: {reason}; is the disk full? "
            f"The last good checkpoint is {last_checkpoint(self.out)}"
        )


def checkpoints(out: Path) -> list[Path]:
    """Return the folders of complete checkpoints, oldest first."""
    # The state file is written last: without it a folder is the rest of a run that was killed.
    complete = [folder for folder in (out / "checkpoints").glob("[0-9]*") if (folder / STATE).is_file()]
    return sorted(complete, key=lambda folder: int(folder.name))


def last_checkpoint(out: Path) -> Path | None:
    """Return the folder of the newest complete checkpoint.

    Raises:
        ValueError: there are only some that this version cannot read.
    """
    if complete := checkpoints(out):
        return complete[-1]
    if old := sorted((out / "checkpoints").glob(f"[0-9]*/{OLD_STATE}")):
        raise ValueError(
            f"{old[-1].parent} was written by an older pilot; start a new run from its weights with "
            f"init_from={out / 'policy'}"
        )
    return None


def read_values(folder: Path) -> dict[str, Any]:
    """Read the plain values of a checkpoint, after a check that its files are complete.

    Raises:
        ValueError: the checkpoint is damaged.
    """
    try:
        values = json.loads((folder / STATE).read_text())
        sizes = {name: (folder / name).stat().st_size for name in values["files"]}
    except (OSError, ValueError, KeyError) as error:
        raise _damage_error(folder, describe_error(error)) from error
    if wrong := [name for name, size in values["files"].items() if sizes[name] != size]:
        raise _damage_error(folder, f"{wrong[0]} has {sizes[wrong[0]]} bytes of {values['files'][wrong[0]]}")
    # Before anything in them is believed: the index is a pickle.
    for name, digest in values.get("sha256", {}).items():
        if sha256(folder / name) != digest:
            raise _damage_error(folder, f"{name} is not as it was written")
    return values


def names_in(folder: Path) -> set[str]:
    """Return the names of the tensors in a checkpoint."""
    return set(shapes_in(folder))


def read_tensors(folder: Path, into: Mapping[str, Tensor], *, ranks: Ranks | None = None) -> None:
    """Copy the tensors of a checkpoint into those of the same names, which may be sharded over ranks in any way.

    Raises:
        ValueError: the checkpoint lacks one of them or has it in another shape, or is damaged.
    """
    if missing := sorted(set(into) - names_in(folder)):
        raise ValueError(
            f"{folder} has no {shorten(missing)}: what learned there is not what learns in this run; start a new run "
            f"from its policy (--out elsewhere --set init_from={folder.parents[1]})"
        )
    group = ranks.files if ranks is not None else None
    try:
        dcp.load(dict(into), storage_reader=IndexReader(folder), process_group=group)
    except (Exception, CheckpointException) as error:  # of whatever kind: a damaged file may raise anything
        raise _damage_error(folder, describe_error(error)) from error


def shapes_in(folder: Path) -> dict[str, TensorStorageMetadata]:
    """Return size and dtype of the tensors in a checkpoint, by name.

    Raises:
        ValueError: the checkpoint is damaged.
    """
    try:
        entries = read_index(folder).state_dict_metadata
        return {name: entry for name, entry in entries.items() if isinstance(entry, TensorStorageMetadata)}
    except Exception as error:  # of whatever kind: it is a pickle
        raise _damage_error(folder, describe_error(error)) from error


def _damage_error(folder: Path, reason: str) -> ValueError:
    before = [other for other in checkpoints(folder.parents[1]) if int(other.name) < int(folder.name)]
    good = f"remove {folder} to go on from {before[-1]}" if before else f"remove {folder.parents[1]} to start anew"
    return ValueError(f"the checkpoint {folder} is damaged ({reason}); {good}")


def describe_error(error: BaseException) -> str:
    """Describe an error in one line; of several that were collected from the ranks, the first."""
    if isinstance(error, CheckpointException) and error.failures:
        rank, (cause, _) = next(iter(error.failures.items()))
        return f"rank {rank}: {describe_error(cause)}"
    return f"{type(error).__name__}: {error}".partition("\n")[0]
