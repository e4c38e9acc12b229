"""What is in a folder that pilot wrote, and what it was made from: `manifest.json`, written last.

    {"format": 1, "kind": "checkpoint", "files": {"config.json": {"bytes": 1880, "sha256": "…"}, …},
     "origin": {"pilot": "0.1.0", "commit": "…", "config": {…}, "parents": [{"role": "data", …}]}, "digest": "…"}

Checkpoints and data sets have one. A reader checks it, so that a file which was damaged, cut short, or changed by hand
is named, and does not act differently in silence. `digest` is that of the manifest itself and with it of every file; it
is the name by which a policy knows its data, and an evaluation its policy. There are no dates, paths of this machine or
names in it: the same command gives the same bytes.

Folders from before there were manifests, and those of other projects, have none and are read as before.
"""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

from pilot.data.storage.files import write_json
from pilot.version import __version__

MANIFEST = "manifest.json"
SET_ASIDE = "manifest.before.json"  # while files are being changed
FORMAT = 1
READ_AT_ONCE = 256 * 2**20
"""Bytes of a folder that are read and compared when it is opened, smallest files first; of the others only the sizes
are. Reading all costs a second for 1.3 GB."""
BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The files of a folder by name, as (bytes, sha256), and where they come from."""

    kind: str
    files: Mapping[str, tuple[int, str]]
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The sha256 of all that the manifest says."""
        return _digest(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as it is stored, without its digest."""
        files = {name: {"bytes": size, "sha256": digest} for name, (size, digest) in sorted(self.files.items())}
        return {"format": FORMAT, "kind": self.kind, "files": files, "origin": dict(self.origin)}


def write_manifest(
    folder: Path, *, kind: str, files: Iterable[Path], origin: Mapping[str, Any] | None = None
) -> Manifest:
    """Describe `files` (places under `folder`) in its manifest.

    Without an `origin`, that of the manifest that was set aside (`set_manifest_aside`) or is there stays.
    """
    if origin is None:
        known = read_manifest(folder, name=SET_ASIDE) or read_manifest(folder)
        origin = made_by() if known is None else known.origin
    described = {file.relative_to(folder).as_posix(): (file.stat().st_size, sha256(file)) for file in files}
    manifest = Manifest(kind=kind, files=described, origin=origin)
    write_json(folder / MANIFEST, manifest.to_json() | {"digest": manifest.digest})
    (folder / SET_ASIDE).unlink(missing_ok=True)
    return manifest


def refresh_file(folder: Path, file: Path) -> None:
    """Bring what the manifest of a folder, if it has one, says of one file up to date: the change was meant."""
    manifest = read_manifest(folder)
    if manifest is not None:
        name = file.relative_to(folder).as_posix()
        files = {**manifest.files, name: (file.stat().st_size, sha256(file))}
        changed = Manifest(kind=manifest.kind, files=files, origin=manifest.origin)
        write_json(folder / MANIFEST, changed.to_json() | {"digest": changed.digest})


def set_manifest_aside(folder: Path) -> None:
    """Announce that files of a folder will change: until `write_manifest` it is like one from before manifests."""
    if (folder / MANIFEST).exists():
        os.replace(folder / MANIFEST, folder / SET_ASIDE)


def read_manifest(folder: Path, *, name: str = MANIFEST) -> Manifest | None:
    """Read the manifest of a folder; None where there is none.

    Raises:
        ValueError: it is damaged.
    """
    file = folder / name
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text())
        digest = content.pop("digest")
        if content["format"] != FORMAT:
            raise ValueError(f"it has format {content['format']}, this pilot reads {FORMAT}")
        if digest != _digest(content):
            raise ValueError("its digest is of other content")
        files = {checked_name(name): (known["bytes"], known["sha256"]) for name, known in content["files"].items()}
        return Manifest(kind=content["kind"], files=files, origin=content["origin"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"{file} is damaged ({reason}); fetch the folder again, or, if its other files are good: "
            f"pilot verify {folder} --accept"
        ) from error


def check_files(folder: Path, *, everything: bool = False) -> Manifest | None:
    """Compare the files of a folder with its manifest, if it has one; return it.

    All sizes are compared, and the content of files up to `READ_AT_ONCE` together, or of `everything`.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: one is not as it was written. Both say what to do.
    """
    manifest, read = read_manifest(folder), 0
    if manifest is None:
        return None
    for name, (size, digest) in sorted(manifest.files.items(), key=lambda item: item[1][0]):
        file = folder / name
        if not file.is_file():
            raise FileNotFoundError(_describe_change(folder, name, "is missing, though the manifest names it"))
        if (there := file.stat().st_size) != size:
            raise ValueError(_describe_change(folder, name, f"has {there} bytes, and was written with {size}"))
        read += size
        if (everything or read <= READ_AT_ONCE) and sha256(file) != digest:
            raise ValueError(_describe_change(folder, name, "is not as it was written: its content has changed"))
    return manifest


def _describe_change(folder: Path, name: str, what: str) -> str:
    return (
        f"{folder / name} {what}; fetch or make the folder again, or, if the change is meant: "
        f"pilot verify {folder} --accept"
    )


def checked_name(name: str) -> str:
    """Return the name of a file in a manifest.

    Raises:
        ValueError: it leads out of the folder.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise ValueError(f"'{name}' is not a file in the folder")
    return name


def sha256(file: Path) -> str:
    """Return the sha256 of a file's content, as hex digits."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


# --- where a folder comes from ----------------------------------------------------------------------------------------


def made_by(about: Mapping[str, Any] | None = None, *, parents: Iterable[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Return the origin of a folder that this process makes: versions, commit, what it is made from, and more.

    `about` must be JSON.
    """
    known = {"pilot": __version__, "commit": source_commit(), "versions": versions()}
    return known | dict(about or {}) | {"parents": list(parents)}


def parent(path: str | Path, *, role: str, digest: str | None = None) -> dict[str, Any]:
    """Return how an origin names what something was made from: its role, its place as it was given, and its digest.

    Without a `digest` it is that of the manifest there, None where there is none.
    """
    known = None
    if digest is None and Path(path).is_dir():
        known = read_manifest(Path(path))
    return {"role": role, "path": str(path), "digest": known.digest if known is not None else digest}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that numbers depend on, where they are installed."""
    found = {"python": platform.python_version()}
    for name in ("torch", "numpy", "pyarrow", "av", "mujoco"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def source_commit() -> str | None:
    """Return the commit of pilot's source tree, with "-dirty" if it was changed; None without a checkout of it."""
    package = Path(__file__).parents[2]
    git = ["git", "-C", str(package)]
    try:
        # A checkout of something else may lie around an installed pilot.
        options: dict[str, Any] = {"capture_output": True, "text": True, "check": True}
        subprocess.run([*git, "ls-files", "--error-unmatch", "__init__.py"], **options)
        head = subprocess.run([*git, "rev-parse", "HEAD"], **options).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "--", "."], **options).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}-dirty" if changed else head
