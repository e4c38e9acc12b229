"""A checkpoint under other names, so that one key map reads formats that differ in names only."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from pilot.convert.keymap import TensorSource


class RenamedSource:
    """A `TensorSource` whose arrays have the names that `rename` returns; None leaves an array out.

    `rows` says how many first rows to read of some arrays: embeddings may be padded to a round size.

    Raises:
        ValueError: two arrays get one name.
    """

    def __init__(
        self, source: TensorSource, rename: Callable[[str], str | None], *, rows: Mapping[str, int] | None = None
    ) -> None:
        self._source, self._rows = source, rows or {}
        self._old: dict[str, str] = {}
        for key in source.keys():  # noqa: SIM118 (a source is not a dict)
            if (name := rename(key)) is None:
                continue
            if name in self._old:
                raise ValueError(
                    f"{source.location}: {key} and {self._old[name]} are both {name}; this is not a checkpoint"
                )
            self._old[name] = key

    @property
    def location(self) -> str:
        return self._source.location

    def keys(self) -> list[str]:
        return list(self._old)

    def shape(self, key: str) -> tuple[int, ...]:
        shape = self._source.shape(self._old[key])
        return (min(shape[0], self._rows[key]), *shape[1:]) if key in self._rows else shape

    def dtype(self, key: str) -> torch.dtype:
        return self._source.dtype(self._old[key])

    def read(self, key: str) -> Tensor:
        array = self._source.read(self._old[key])
        return array[: self._rows[key]] if key in self._rows else array
