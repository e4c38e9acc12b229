"""Orbax checkpoint folders, read and written without JAX.

An orbax folder is a tree of names in `_METADATA` and, for every leaf, a zarr array named by its path in one OCDBT
key-value store (`manifest.ocdbt`). `tensorstore`, the library beneath orbax, does both. The trees here are openpi's:
everything below `params`, and in its training checkpoints one more level, `value`, below every leaf.
"""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pilot.convert.tensor_files import to_torch, torch_dtype
from pilot.data.storage.files import explain_disk_errors, read_json, replace_folder, write_json

ROOT, LEAF = "params", "value"
DICT_KEY = 2
"""Orbax's code for "this part of a path is a key of a dict"."""


def tensorstore() -> Any:
    """Return the tensorstore library, which is an extra of pilot.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    try:
        import tensorstore
    except ImportError as error:
        raise ImportError(
            "orbax folders need tensorstore; install it with: pip install 'pilot[jax-checkpoints]'"
        ) from error
    return tensorstore


def find_params(path: str | Path) -> Path:
    """Return the orbax folder that `path` is, or that it holds as `params`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is of a kind that openpi does not write.
    """
    path = Path(path)
    for folder in (path / ROOT, path):
        if (folder / "_METADATA").is_file():
            if not (folder / "manifest.ocdbt").is_file():
                raise ValueError(f"{folder} has no manifest.ocdbt: it is incomplete, or not OCDBT as openpi writes it")
            return folder
    raise FileNotFoundError(f"{path} is no orbax folder: neither it nor its '{ROOT}' has a _METADATA")


class OrbaxSource:
    """An orbax folder as `keymap.TensorSource`; names are paths below `params`, joined by "/"."""

    def __init__(self, path: str | Path) -> None:
        """Read the tree and the header of every array.

        Raises:
            FileNotFoundError: there is no orbax folder.
            ValueError: it is damaged, or no tree of openpi's.
        """
        folder = find_params(path)
        self.location = str(folder)
        metadata = read_json(folder / "_METADATA", remedy="fetch the checkpoint again")
        if metadata.get("use_zarr3"):
            raise ValueError(f"{folder} is written in zarr 3; openpi's checkpoints are zarr 2")
        paths = [tuple(part["key"] for part in leaf["key_metadata"]) for leaf in metadata["tree_metadata"].values()]
        self._arrays = {name: _open(folder, ".".join(whole)) for whole, name in _names(paths).items()}

    def keys(self) -> list[str]:
        return list(self._arrays)

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self._arrays[key].shape)

    def dtype(self, key: str) -> torch.dtype:
        return torch_dtype(self._arrays[key].dtype.numpy_dtype)

    def read(self, key: str) -> Tensor:
        """Read one array.

        Raises:
            ValueError: its bytes are damaged or missing.
        """
        try:
            array = self._arrays[key].read().result()
        except ValueError as error:
            raise ValueError(f"{self.location}: {key} cannot be read ({error}); fetch the checkpoint again") from error
        return to_torch(np.ascontiguousarray(array))


def _names(paths: list[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """Return pilot's name of each leaf: without `params` in front and, if all leaves have it, `value` behind."""
    inner = [path[1:] if path[0] == ROOT else path for path in paths]
    if all(path[-1] == LEAF for path in inner):
        inner = [path[:-1] for path in inner]
    return {whole: "/".join(path) for whole, path in zip(paths, inner, strict=True)}


def _spec(folder: Path, name: str) -> dict[str, Any]:
    store = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder.resolve()}/"}, "path": f"{name}/"}
    return {"driver": "zarr", "kvstore": store}


def _open(folder: Path, name: str) -> Any:
    try:
        return tensorstore().open(_spec(folder, name), open=True, read=True).result()
    except ValueError as error:
        raise ValueError(f"{folder} has no readable array {name} ({error}); fetch the checkpoint again") from error


def write_orbax(folder: str | Path, arrays: Iterable[tuple[str, Tensor]]) -> Path:
    """Write arrays as they come, one in memory at a time, in the tree of openpi's released checkpoints (no `value`).

    The folder appears whole or not at all, in place of an older one.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with explain_disk_errors(folder):
            shapes = {name: _write(temporary, f"{ROOT}/{name}", array) for name, array in arrays}
            _write_metadata(temporary, shapes)
        replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _write(folder: Path, name: str, array: Tensor) -> tuple[int, ...]:
    values = to_numpy(array)
    chunks = {"chunks": list(values.shape), "compressor": {"id": "zstd", "level": 1}, "dimension_separator": "."}
    spec = {**_spec(folder, name.replace("/", ".")), "metadata": chunks}
    store = tensorstore().open(spec, create=True, dtype=values.dtype, shape=values.shape).result()
    store.write(values).result()
    return values.shape


def to_numpy(array: Tensor) -> np.ndarray:
    """Return a tensor as a numpy array; bfloat16 is a type of `ml_dtypes`, which comes with tensorstore."""
    if array.dtype == torch.bfloat16:
        return array.contiguous().view(torch.int16).numpy().view(tensorstore().bfloat16.numpy_dtype)
    return array.contiguous().numpy()


def _write_metadata(folder: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Write the tree of names, and the file that marks a finished checkpoint."""
    tree = {}
    for name, shape in shapes.items():
        path = (ROOT, *name.split("/"))
        value = {"value_type": "jax.Array", "skip_deserialize": False, "write_shape": list(shape)}
        keys = [{"key": part, "key_type": DICT_KEY} for part in path]
        tree[str(path)] = {"key_metadata": keys, "value_metadata": value}
    write_json(
        folder / "_METADATA",
        {
            "tree_metadata": tree,
            "use_zarr3": False,
            "store_array_data_equal_to_fill_value": True,
            "custom_metadata": None,
        },
    )
    handler = "orbax.checkpoint._src.handlers.pytree_checkpoint_handler.PyTreeCheckpointHandler"
    times = {"init_timestamp_nsecs": 0, "commit_timestamp_nsecs": 0}
    marks = {"item_handlers": handler, "metrics": {}, "performance_metrics": {}, **times, "custom_metadata": {}}
    (folder / "_CHECKPOINT_METADATA").write_text(json.dumps(marks))
