"""A checkpoint seen under other names: trees that differ in names only are one format to the tables of `keymap`."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from pilot.convert.keymap import TensorSource


class Renamed:
    """`source` with the names that `rename` gives its arrays; None leaves one aside.

    Of the arrays named in `rows`, only that many first rows are seen (tables that were padded to a round size).

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
                    f"{source.where}: {key} and {self._old[name]} are both {name}; the file is no checkpoint"
                )
            self._old[name] = key

    @property
    def where(self) -> str:
        return self._source.where

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
