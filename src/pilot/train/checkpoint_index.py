"""The index of a torch.distributed checkpoint, which is a pickle, read without running what a stranger put into it.

Torch unpickles `.metadata` as it comes, and loads entries that are no tensors with pickle too. Here only the few
classes that an index is made of can be named, and all entries must be tensors, which torch reads without pickle.
"""

import pickle
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata

INDEX = ".metadata"
MAX_BYTES = 2**28  # of an index; one of a model with 10,000 tensors on 1,000 ranks has a tenth of that
_METADATA = "torch.distributed.checkpoint.metadata"
_CLASSES = {
    _METADATA: {
        "Metadata",
        "MetadataIndex",
        "TensorStorageMetadata",
        "BytesStorageMetadata",  # named below, and refused
        "ChunkStorageMetadata",
        "TensorProperties",
        "StorageMeta",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo", "StorageInfo"},
    "torch": {"Size"},
    "torch.serialization": {"_get_layout"},
    "collections": {"OrderedDict"},
    "pathlib": {"PosixPath", "PurePosixPath"},
}


class IndexReader(FileSystemReader):
    """Reads a checkpoint as `FileSystemReader`, but its index with `read_index`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder

    def read_metadata(self, *_: Any) -> Metadata:
        """Return the index."""
        metadata = read_index(self._folder)
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


def read_index(folder: Path) -> Metadata:
    """Return the index of a checkpoint.

    Raises:
        ValueError: it names what no index is made of, or lists something else than tensors.
        OSError: it cannot be read.
    """
    path = folder / INDEX
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, more than any index")
    with path.open("rb") as file:
        metadata = _IndexUnpickler(file).load()
    if not isinstance(metadata, Metadata):
        raise ValueError(f"{path} holds a {type(metadata).__name__}, no index of a checkpoint")
    for name, entry in metadata.state_dict_metadata.items():
        if not isinstance(entry, TensorStorageMetadata):
            raise ValueError(f"{path}: '{name}' is no tensor, and nothing else is read")
    for info in (metadata.storage_data or {}).values():
        file_name = str(info.relative_path)
        if Path(file_name).name != file_name:
            raise ValueError(f"{path} names the file '{file_name}', which is not beside it")
    return metadata


class _IndexUnpickler(pickle.Unpickler):
    """Knows the classes of an index, and torch's dtypes."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)

    def find_class(self, module: str, name: str) -> Any:
        """Return a class that an index may name; all others are a `ValueError`, before anything of them runs."""
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module == "pathlib._local":  # where Python 3.13 keeps it, and no other version
            module = "pathlib"
        if name in _CLASSES.get(module, ()):
            return super().find_class(module, name)
        raise ValueError(f"the index names {module}.{name}, which no index is made of; it may be an attack")
