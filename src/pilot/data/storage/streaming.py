"""Sets that lie elsewhere, read file by file: a file comes when it is first opened, or a little before.

Files stay in pilot's cache, for this run and for others. Where the cache has a limit (`$PILOT_CACHE_GB`, or
`data.cache_gb` of a run), the files that were opened least recently are removed: never one that some process has open,
and never what describes the set (`meta/`, JSON). A file gets its name when it is whole.
"""

import fcntl
import hashlib
import os
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from pilot.data.storage.files import find_cache, read_json, write_json
from pilot.data.storage.folder import DatasetFolder, Opened
from pilot.data.storage.remote import MAX_DOWNLOADS, RemoteFolder, matches_any, open_remote
from pilot.names import shorten

FOLDER, LOCKS = "streamed", "locks"
STAYS = (".json", ".jsonl")
GB = 1e9


class StreamedFolder(DatasetFolder):
    """The files at the address `url`, as far as they are here.

    Raises as `pilot.data.storage.remote.fetch` does.
    """

    is_local = False

    def __init__(self, url: str | Path, *, limit_gb: float | None = None) -> None:
        self.place: RemoteFolder = open_remote(url)
        self.root = find_cache() / FOLDER
        self.sizes, version = self._listing()
        super().__init__(self.root / f"{_name_of(self.place.url)}-{version}")
        self.path.mkdir(parents=True, exist_ok=True)
        own = os.environ.get("PILOT_CACHE_GB")
        self.limit = GB * (limit_gb if limit_gb is not None else float(own) if own else float("inf"))
        self._held: dict[Path, int] = {}
        self._forget_threads()

    def _listing(self) -> tuple[Mapping[str, int | None], str]:
        """Return the sizes of all files and a name for this state of the folder; offline, those of the last time."""
        record = self.root / f".{_name_of(self.place.url)}.json"
        try:
            sizes = self.place.files()
        except ConnectionError as error:
            if not record.exists():
                raise
            warnings.warn(f"{error}; taking it for what it was when it was read last", stacklevel=4)
            known = read_json(record, remedy=f"remove {record}")
            return known["sizes"], known["version"]
        if unsafe := [name for name in sizes if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute()]:
            raise ValueError(f"{self.place.url} has names that lead out of it: {shorten(unsafe)}")
        write_json(record, {"sizes": sizes, "version": self.place.version()})
        return sizes, self.place.version()

    def fetch(self, *patterns: str) -> None:
        """Fetch the files that match now; those of `meta/` and JSON never make room for others."""
        for name in self.sizes:
            if matches_any(name, patterns):
                self._bring(self.path / name)

    def has(self, file: Path) -> bool:
        return self._name(file) in self.sizes or file.exists()

    def stamp(self, file: Path) -> list[str | int]:
        return [self.path.name]  # it names the version of all files

    def files(self, *places: Path) -> list[Path]:
        under = [PurePosixPath(self._name(place)) for place in places]
        return [self.path / name for name in self.sizes if any(PurePosixPath(name).is_relative_to(u) for u in under)]

    def stamps(self, files: Iterable[Path]) -> list[list[str | int]]:
        return [[self.path.name, 0]]  # it names the version of all of them

    def open_cached(self, file: Path, opener: Callable[[], Opened]) -> Opened:
        if file in self._open:
            return super().open_cached(file, opener)
        self._hold(file)
        try:
            return super().open_cached(file, opener)
        except BaseException:
            os.close(self._held.pop(file))
            raise

    @contextmanager
    def hold_file(self, file: Path) -> Iterator[Path]:
        if file in self._open:
            yield file
            return
        self._hold(file)
        try:
            yield file
        finally:
            os.close(self._held.pop(file))

    @contextmanager
    def columns(self, file: Path) -> Iterator[Any]:
        """Yield what to read columns from: of a file that is not here, only the parts that are read are fetched, where
        the store can do that."""
        if file.exists() or (part := self.place.open_file(self._name(file))) is None:
            with self.hold_file(file) as here:
                yield here
        else:
            with part as open_file:
                yield open_file

    def prefetch(self, files: Iterable[Path]) -> None:
        """Fetch the files in threads, as far as there is room beside what is open."""
        wanted = [file for file in files if not file.exists()]
        with self._asking:
            for file in wanted:
                if file not in self._asked:
                    self._asked.add(file)
                    self._coming.append(file)
            while len(self._threads) < min(MAX_DOWNLOADS, len(self._coming)):
                self._threads.append(threading.Thread(target=self._bring_ahead, name="streaming", daemon=True))
                self._threads[-1].start()

    def __getstate__(self) -> dict[str, Any]:
        own = ("_asking", "_coming", "_asked", "_threads")
        state = {name: value for name, value in super().__getstate__().items() if name not in own}
        return state | {"_held": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forget_threads()

    def __del__(self) -> None:
        for lock in self.__dict__.get("_held", {}).values():
            os.close(lock)

    def _forget_threads(self) -> None:
        self._asking = threading.Lock()
        self._coming: deque[Path] = deque()
        self._asked: set[Path] = set()
        self._threads: list[threading.Thread] = []

    def _name(self, file: Path) -> str:
        return file.relative_to(self.path).as_posix()

    def _close_oldest(self) -> None:
        file, opened = self._open.popitem(last=False)
        opened.close()
        os.close(self._held.pop(file))

    def _hold(self, file: Path) -> None:
        """Fetch the file and lock it, so that no process removes it."""
        while True:
            self._bring(file)
            with suppress(FileNotFoundError):  # another process made room just now
                lock = os.open(file, os.O_RDONLY)
                fcntl.flock(lock, fcntl.LOCK_SH)
                if os.fstat(lock).st_nlink:
                    os.utime(file)
                    self._held[file] = lock
                    return
                os.close(lock)

    def _bring(self, file: Path, *, may_close: bool = True) -> None:
        """Fetch the file, unless it is here."""
        name = self._name(file)
        if file.exists():
            return
        if name not in self.sizes:
            there = shorten(self.sizes)
            raise FileNotFoundError(f"{file} is missing: {self.place.url} has no '{name}', it has {there}")
        with self._alone(name):
            if file.exists():
                return
            if _stays(name):
                self.place.copy(name, self.path, self.sizes[name])
            elif self._room_for(file, self.sizes[name] or 0, may_close=may_close):
                self.place.copy(name, self.path, self.sizes[name])
                self._room_for(file, 0, may_close=may_close)  # where the size was not known before

    @contextmanager
    def _alone(self, name: str) -> Iterator[TextIO]:
        """Let one process at a time into the block; others wait and find the file there."""
        lock = self.root / LOCKS / f"{self.path.name}-{_slug(name)}"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _room_for(self, file: Path, size: int, *, may_close: bool) -> bool:
        """Make room in the cache for `size` more bytes of `file`; return whether there is enough."""
        if self.limit == float("inf"):
            return True
        files = sorted(_files_here(self.root))
        over = sum(each for _, each, _ in files) + size - self.limit
        for _, each, other in files:
            if over > 0 and other != file and _remove_if_closed(other):
                over -= each
        while over > 0 and may_close and self._open:
            oldest = next(iter(self._open))
            each = oldest.stat().st_size
            self._close_oldest()
            over -= each if _remove_if_closed(oldest) else 0
        if over > 0 and may_close:
            warnings.warn(
                f"the files of {self.place.url} that are open at once need {over / GB:.2g} GB more than the cache may "
                "hold; raise cache_gb or $PILOT_CACHE_GB",
                stacklevel=2,
            )
        return over <= 0 or may_close

    def _bring_ahead(self) -> None:
        while True:
            with self._asking:
                if not self._coming:
                    self._threads.remove(threading.current_thread())
                    return
                file = self._coming.popleft()
            with suppress(OSError):  # what fails is said when the file is opened
                self._bring(file, may_close=False)
            with self._asking:
                self._asked.discard(file)


def _files_here(root: Path) -> Iterator[tuple[int, int, Path]]:
    """Yield (when it was opened last, size, file) of the files that may be removed."""
    for folder, inside, names in os.walk(root):
        inside[:] = [name for name in inside if not _stays(f"{name}/") and name != LOCKS]
        for file in (Path(folder, name) for name in names if not _stays(name)):
            with suppress(FileNotFoundError):
                stat = file.stat()
                yield stat.st_mtime_ns, stat.st_size, file


def _stays(name: str) -> bool:
    """Return whether a file is never removed: one that describes the set, or was made of it here."""
    return name.startswith((".", "meta/", "frames/")) or name.endswith(STAYS)


def _remove_if_closed(file: Path) -> bool:
    """Remove a file unless a process has it open; return whether it is gone."""
    try:
        lock = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.unlink(missing_ok=True)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(lock)


def _name_of(url: str) -> str:
    """Return a name for what lies at an address, which no other address has."""
    return f"{_slug(url)}-{hashlib.sha256(url.encode()).hexdigest()[:16]}"


def _slug(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in text).strip("-")[-80:]
