"""The files of a data set, and the few of them that a process has open.

Sets on this machine are `DatasetFolder`s. Of sets that lie elsewhere, `storage/streaming.py` fetches a file when it is
asked for; a reader does not know the difference.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

OPEN_FILES = 64


@runtime_checkable
class Closable(Protocol):
    """An open file of any kind."""

    def close(self) -> None:
        """Release what the file holds."""
        ...


Opened = TypeVar("Opened", bound=Closable)


class DatasetFolder:
    """Files under `path`, by their place there. What is open is not for two threads at once: `lock` is for readers."""

    is_local = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: OrderedDict[Path, Any] = OrderedDict()
        self.lock = threading.RLock()

    def has(self, file: Path) -> bool:
        """Return whether a file is there."""
        return file.exists()

    def stamp(self, file: Path) -> list[str | int]:
        """Return what tells one state of a file from another: its size, and when it was changed.

        A set that is made again often has files of the same sizes.
        """
        stat = file.stat()
        return [stat.st_size, stat.st_mtime_ns]

    def files(self, *places: Path) -> list[Path]:
        """List all files at or under `places`."""
        under = (place.rglob("*") if place.is_dir() else [place] for place in places)
        return [file for found in under for file in found if file.is_file()]

    def stamps(self, files: Iterable[Path]) -> list[list[str | int]]:
        """Return what tells one state of these files from another: their places and stamps."""
        return [[str(file.relative_to(self.path)), *self.stamp(file)] for file in sorted(files)]

    def open_cached(self, file: Path, opener: Callable[[], Opened]) -> Opened:
        """Return what `opener` makes of `file`; it stays open until others are wanted more. Use it before the next
        call."""
        if file in self._open:
            self._open.move_to_end(file)
            return self._open[file]
        if len(self._open) >= OPEN_FILES:
            self._close_oldest()
        return self._open.setdefault(file, opener())

    @contextmanager
    def hold_file(self, file: Path) -> Iterator[Path]:
        """Yield `file`, which stays where it is within the block."""
        yield file

    @contextmanager
    def columns(self, file: Path) -> Iterator[Any]:
        """Yield what to read some columns of a parquet file from: a path, or an open file."""
        with self.hold_file(file) as here:
            yield here

    def prefetch(self, files: Iterable[Path]) -> None:
        """Announce which files will be opened next."""

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__ | {"_open": OrderedDict()}  # open files do not travel to worker processes
        return {name: value for name, value in state.items() if name != "lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self.lock = threading.RLock()

    def _close_oldest(self) -> None:
        self._open.popitem(last=False)[1].close()
