"""Files and folders that are whole or absent, also after a power cut; a full disk is said in plain words.

What is new is written under a temporary name, brought to the disk (`fsync`), and then renamed. A process that dies on
the way leaves something named `.NAME.PID.tmp` or `.NAME.PID.old`; the next one that writes there sweeps it away.
"""

import ctypes
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pilot.data.storage.untrusted import parse_json
from pilot.locks import is_running, lock_folder
from pilot.names import shorten

LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)\.(?P<kind>tmp|old)")
EXCHANGE = 2  # RENAME_EXCHANGE of Linux's renameat2: two names change places, at once
HERE = -100  # AT_FDCWD: paths are from the working directory


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; rename it to `path` on success, remove it on any error.

    When the block has ended the file is on the disk, under its name.

    Raises `OSError` (ENOSPC) that names the folder and the remedy when the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with explain_disk_errors(path):
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def share_file(path: Path) -> None:
    """Let others read a file as they read any new one: libraries that write through a temporary file forbid it."""
    os.umask(umask := os.umask(0))  # it can only be read by setting it
    path.chmod(0o666 & ~umask)


def sync(path: Path) -> None:
    """Bring a file to the disk, or the names in a folder; what was written before then survives a power cut."""
    if path.is_dir() and os.name != "posix":  # only there can a folder be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_folder(new: Path, path: Path) -> None:
    """Give the folder `new` the name `path`; at any moment a whole folder has it, the old one or the new one.

    Where the system cannot exchange two names there is a moment without one. `recover_folder` mends what a process
    leaves that dies in that moment.
    """
    recover_folder(path)
    for folder, _, names in os.walk(new):
        for name in names:
            sync(Path(folder) / name)
        sync(Path(folder))
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists() and _exchange(new, path):
        new.rename(old)
    else:
        if path.exists():
            path.rename(old)
        new.rename(path)
    sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(path: Path) -> None:
    """Give a folder its name back if the process that was to replace it died with the old one out of the way."""
    if path.exists() or not path.parent.is_dir():
        return
    for kept in sorted(path.parent.glob(f".{path.name}.*.old")):
        if (left := LEFTOVER.fullmatch(kept.name)) and not is_running(int(left["pid"])):
            kept.rename(path)
            return


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names; return whether the system and the file system can."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    return rename(HERE, os.fsencode(one), HERE, os.fsencode(other), EXCHANGE) == 0


def sweep_leftovers(folder: Path) -> None:
    """Remove what dead processes left under a folder: files half written, folders that were to be replaced."""
    for here, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            left = LEFTOVER.fullmatch(name)
            if left is None or is_running(int(left["pid"])):
                continue
            place = Path(here) / name
            if left["kind"] == "old" and place.is_dir():
                recover_folder(place.with_name(left["name"]))
            with suppress(OSError):
                shutil.rmtree(place) if place.is_dir() else place.unlink()
        folders[:] = [name for name in folders if not LEFTOVER.fullmatch(name)]


@contextmanager
def output_folder(folder: str | Path) -> Iterator[None]:
    """Hold a folder to write into: locked against others, and swept of what dead processes left in it.

    Raises:
        FolderInUseError: another process writes into it.
    """
    with lock_folder(folder):
        sweep_leftovers(Path(folder))
        yield


@contextmanager
def explain_disk_errors(path: Path) -> Iterator[None]:
    """Turn "no space left" into a message that names the file and says that finished work is kept."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            error.errno,
            f"the disk is full while writing {path}; free some space and run the same command again: "
            "what was finished is kept",
        ) from error


def write_json(path: Path, content: Any) -> None:
    """Write indented, strict JSON atomically (NaN is refused)."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, *, remedy: str) -> Any:
    """Read JSON; a `FileNotFoundError` or `ValueError` names the file and gives the `remedy`."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; {remedy}")
    try:
        text = path.read_text()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); {remedy}") from error
    return parse_json(text, where=path, remedy=remedy)


def list_names(path: Path) -> str:
    """Return for a message what lies in a folder, or the name of a file."""
    return shorten(child.name for child in path.iterdir()) if path.is_dir() else path.name


def cache_folder(path: Path) -> Path:
    """Return where to keep what was made from the data set at `path`: beside it, or in pilot's cache if that place is
    read-only."""
    if os.access(path, os.W_OK):
        return path / ".pilot"
    name = f"{path.name}-{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    return find_cache() / name


def find_cache() -> Path:
    """Return the folder of pilot's cache: `$PILOT_CACHE`, or `pilot` in the user's own cache (`~/.cache`)."""
    if own := os.environ.get("PILOT_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pilot"
