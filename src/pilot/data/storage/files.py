"""Files that are whole or absent: written under a temporary name, then renamed; a full disk is said in plain words."""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pilot.data.storage.untrusted import parse_json
from pilot.names import shorten


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; rename it to `path` on success, remove it on any error.

    Raises `OSError` (ENOSPC) that names the folder and the remedy when the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with explain_disk_errors(path):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def share_file(path: Path) -> None:
    """Let others read a file as they read any new one: libraries that write through a temporary file forbid it."""
    os.umask(umask := os.umask(0))  # it can only be read by setting it
    path.chmod(0o666 & ~umask)


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
    """Return where to keep what was made from the data set at `path`: beside it, or under `$PILOT_CACHE` if that is
    read-only.

    `PILOT_CACHE` defaults to `~/.cache/pilot`.
    """
    if os.access(path, os.W_OK):
        return path / ".pilot"
    name = f"{path.name}-{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    return Path(os.environ.get("PILOT_CACHE", "~/.cache/pilot")).expanduser() / name
