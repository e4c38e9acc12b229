"""`pilot verify`: is a folder as it was written, by what, and from what; and are those things still the same?"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pilot.data.storage.files import list_names
from pilot.data.storage.manifest import MANIFEST, Manifest, check_files, read_manifest, write_manifest

POLICY = "policy"  # of a run's folder, which has no manifest of its own
CHECKPOINT_FILES = ("*.json", "*.safetensors", "text.model", "action_tokenizer/*", "fast/*", "robots/*/*")
SET_FILES = ("meta/**/*", "data/**/*", "videos/**/*", "images/**/*", "rows.jsonl", "images.zip")
EVALUATION_FILES = ("results.json", "results.md", "episodes*.jsonl")


def verify(path: str | Path) -> Iterator[str]:
    """Compare every file of a checkpoint, run, data set or evaluation with its manifest, and yield what to print.

    What it was made from is looked up where it was, and there again, back to the first data.

    Raises:
        FileNotFoundError: there is no manifest to verify it by.
        ValueError: a file is not as it was written, or what it was made from has changed since.
    """
    folder = find_manifest(Path(path))
    manifest = check_files(folder, everything=True)
    assert manifest is not None
    size = sum(size for size, _ in manifest.files.values())
    yield f"{folder}: {manifest.kind}, {len(manifest.files)} files, {_describe_size(size)}, all as they were written"
    yield f"  digest {manifest.digest}"
    yield from _describe_origin(manifest.origin, indent="  ")
    changed: list[str] = []
    yield from _follow(manifest, indent="  ", changed=changed, seen={folder.resolve()})
    if changed:
        raise ValueError(f"{folder} was made from something that has changed since: {', '.join(changed)}")


def find_manifest(path: Path) -> Path:
    """Return the folder whose manifest speaks for `path`; a run's is that of its policy.

    Raises:
        FileNotFoundError: there is none.
    """
    for folder in (path, path / POLICY):
        if (folder / MANIFEST).is_file():
            return folder
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give the folder of a checkpoint, a data set or an evaluation")
    raise FileNotFoundError(
        f"{path} has no {MANIFEST} (it holds {list_names(path)}): it was written before there were any, or by another "
        f"project. To take its files as they are for good: pilot verify {path} --accept"
    )


def accept(path: str | Path) -> Manifest:
    """Write the manifest of a folder anew from its files as they are; what it was made from stays.

    Raises:
        ValueError: it is no folder that has a manifest.
    """
    folder = Path(path)
    if not (folder / "config.json").is_file() and (folder / POLICY).is_dir():
        folder = folder / POLICY
    kinds = {
        "checkpoint": ("config.json", CHECKPOINT_FILES),
        "data set": ("meta/info.json", SET_FILES),
        "data set of web rows": ("rows.jsonl", SET_FILES),
        "evaluation": ("results.json", EVALUATION_FILES),
    }
    fitting = [(kind, patterns) for kind, (sign, patterns) in kinds.items() if (folder / sign).is_file()]
    if not fitting:
        raise ValueError(f"{folder} is neither a checkpoint, nor a data set, nor an evaluation: {list_names(folder)}")
    kind, patterns = fitting[0]
    files = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    files = {file for file in files if not file.name.startswith(("manifest", "."))}
    try:
        known = read_manifest(folder)
    except ValueError:
        known = None  # a damaged one is what may be accepted here
    origin: Mapping[str, Any] = known.origin if known else {"parents": []}
    return write_manifest(folder, kind=kind, files=sorted(files), origin={**origin, "accepted": True})


def _describe_origin(origin: Mapping[str, Any], *, indent: str) -> Iterator[str]:
    if "pilot" in origin:
        libraries = ", ".join(f"{name} {number}" for name, number in origin.get("versions", {}).items())
        yield f"{indent}made by pilot {origin['pilot']} at commit {origin.get('commit') or 'unknown'} ({libraries})"
    if origin.get("accepted"):
        yield f"{indent}accepted by hand as it was then, not as it was first written"
    for name in ("run", "step", "episodes", "seed"):
        if name in origin:
            yield f"{indent}{name} {origin[name]}"


def _follow(manifest: Manifest, *, indent: str, changed: list[str], seen: set[Path]) -> Iterator[str]:
    """Yield what a folder was made from, and what that was made from, as far as it lies here."""
    for made_from in manifest.origin.get("parents", ()):
        path, known = Path(made_from["path"]), made_from.get("digest")
        line = f"{indent}from {made_from['role']} {path}"
        folder = next((place for place in (path, path / POLICY) if (place / MANIFEST).is_file()), None)
        if folder is None:
            named = f"digest {known}" if known else f"fingerprint {made_from.get('fingerprint') or 'unknown'}"
            yield f"{line}: not here with a manifest ({named})"
            continue
        now = read_manifest(folder)
        assert now is not None
        if known is None:
            yield f"{line}: had no manifest then"
        elif now.digest != known:
            changed.append(str(path))
            yield f"{line}: HAS CHANGED since (digest {known} then, {now.digest} now)"
        else:
            yield f"{line}: unchanged (digest {known})"
        if folder.resolve() not in seen:
            seen.add(folder.resolve())
            yield from _follow(now, indent=indent + "  ", changed=changed, seen=seen)


def _describe_size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
