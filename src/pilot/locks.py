"""One writer per output folder: a lock that the system frees by itself when its holder dies, however it dies.

    with lock_folder(out):
        ...

Collecting, training, evaluating and converting hold the lock of their folder. A second process is refused, and told
who is at work there. The lock is `flock` on a file, so there is no stale lock to remove by hand.
"""

import json
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None

LOCK = ".lock"


class FolderInUseError(OSError):
    """Another process writes into the folder."""


@contextmanager
def lock_folder(folder: str | Path, *, name: str = LOCK) -> Iterator[None]:
    """Hold the lock of a folder, which is made if it does not exist, for the length of the block.

    `name` is the file in it that is locked. A lock is for one block, also within one process.

    Raises:
        FolderInUseError: someone else holds it; the message says who, and since when.
    """
    folder = Path(folder)
    was_there = folder.exists()
    file = take_lock(folder / name)
    try:
        yield
    finally:
        release_lock(file)
        if not was_there:
            with suppress(OSError):  # it holds something by now
                folder.rmdir()


@contextmanager
def lock_beside(path: str | Path) -> Iterator[None]:
    """Hold the lock of what will be put at `path` whole, by a file beside it.

    Raises:
        FolderInUseError: someone else writes there.
    """
    path = Path(path)
    with lock_folder(path.parent, name=f".{path.name}{LOCK}"):
        yield


def take_lock(path: Path) -> BinaryIO:
    """Lock the file at `path`, and write into it who holds it; give the answer to `release_lock`.

    Raises:
        FolderInUseError: someone else holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = open(path, "a+b")  # noqa: SIM115 (it stays open as long as the lock is held)
        try:
            _flock(file, path)
            if not _is_at(file, path):  # the holder before us removed it between our open and our lock
                file.close()
                continue
            file.truncate(0)
            file.write(json.dumps(describe_process()).encode() + b"\n")
            file.flush()
        except BaseException:
            file.close()
            raise
        return file


def release_lock(file: BinaryIO) -> None:
    """Release a lock, and remove its file."""
    # Removed while it is still locked: whoever opened it meanwhile sees that it is gone, and takes a new one.
    with suppress(OSError):
        if _is_at(file, Path(file.name)):
            os.unlink(file.name)
    file.close()


def describe_process() -> dict[str, Any]:
    """Return what a lock says about its holder: process, machine, command and start."""
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv else "",
        "start": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def is_running(pid: int) -> bool:
    """Return whether a process of this number is alive on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    with suppress(OSError, IndexError):  # on Linux; one that has ended keeps its number until its parent asks
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def _flock(file: BinaryIO, path: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FolderInUseError(_refusal(file, path)) from None
    except OSError as error:
        # Some network file systems have no locks. Work goes on there as it did before there were any.
        warnings.warn(f"{path.parent} cannot be locked ({error.strerror}); start one process there only", stacklevel=4)


def _refusal(file: BinaryIO, path: Path) -> str:
    try:
        file.seek(0)
        holder = json.loads(file.read())
        who = f"process {holder['pid']} on {holder['host']}, since {holder['start']}: {holder['command']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has just begun to write it
        who = "another process"
    folder = path.parent if path.name == LOCK else path.with_name(path.name[1:].removesuffix(LOCK))
    return f"{folder} is in use by {who}; wait for it, stop it, or choose another folder"


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        there, ours = os.stat(path), os.fstat(file.fileno())
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
