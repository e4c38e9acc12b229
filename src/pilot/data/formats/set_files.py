"""Whether a LeRobot set is what it says of itself: `meta/info.json` makes sense, and files are as they were written."""

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.lerobot_layout import EpisodeFiles
from pilot.data.storage.files import read_json
from pilot.data.storage.manifest import Manifest, check_files, write_manifest

FETCH = "fetch the data set again"
PLACES = ("meta", "data", "videos", "images")


def read_info(path: Path) -> dict[str, Any]:
    """Read what the set at `path` says of itself.

    Raises:
        FileNotFoundError: it says nothing.
        ValueError: something in it is missing, or cannot be.
    """
    file = path / fmt.INFO
    info = read_json(file, remedy=FETCH)
    if not isinstance(info, dict):
        raise ValueError(f"{file} holds a {type(info).__name__}, not an object; {FETCH}")
    needed = ["fps", "features", "data_path"]
    if str(info.get("codebase_version")).startswith("v3"):
        needed.append("total_episodes")
    if missing := [name for name in needed if name not in info]:
        raise ValueError(f"{file} has no {', '.join(missing)}; {FETCH}")
    fps = info["fps"]
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not math.isfinite(fps) or fps <= 0:
        raise ValueError(f"{file} has fps {fps!r}; frames per second are a number above 0: correct it, or {FETCH}")
    features = info["features"]
    if not isinstance(features, dict) or not all(_is_feature(spec) for spec in features.values()):
        raise ValueError(f"{file} has features without a dtype or a shape; {FETCH}")
    for name in ("total_episodes", "total_frames"):
        count = info.get(name, 0)
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise ValueError(f"{file} has {name} {count!r}; {FETCH}")
    return info


def _is_feature(spec: Any) -> bool:
    if not isinstance(spec, Mapping) or not isinstance(spec.get("dtype"), str):
        return False
    shape = spec.get("shape")
    return isinstance(shape, list) and all(isinstance(size, int) and size > 0 for size in shape)


def check_totals(path: Path, info: Mapping[str, Any], episodes: Sequence[EpisodeFiles]) -> None:
    """Check that the episodes of a set add up to what its `meta/info.json` says.

    Raises:
        ValueError: they do not.
    """
    numbers = [episode.index for episode in episodes]
    if len(set(numbers)) < len(numbers):
        twice = next(number for number in numbers if numbers.count(number) > 1)
        raise ValueError(f"{path}/meta names episode {twice} twice; {FETCH}")
    found = {"total_episodes": len(episodes), "total_frames": sum(episode.length for episode in episodes)}
    for name, count in found.items():
        if name in info and info[name] != count:
            raise ValueError(
                f"{path / fmt.INFO} says {name} {info[name]}, and the list of episodes in meta/ has {count}; {FETCH}"
            )


def check_written(path: Path, *, skip_bad: bool = False) -> None:
    """Compare the files of a set with its manifest, if it has one (`storage/manifest.py`); `skip_bad` only warns.

    Raises:
        FileNotFoundError, ValueError: a file is missing, or is not as it was written.
    """
    try:
        check_files(path)
    except (ValueError, FileNotFoundError) as error:
        if not skip_bad:
            raise
        warnings.warn(str(error), stacklevel=2)


def seal_set(path: Path, *, origin: Mapping[str, Any] | None = None) -> Manifest:
    """Write the manifest of a set that is whole; without an `origin` the one that it has stays."""
    files = [file for place in PLACES for file in (path / place).rglob("*") if file.is_file()]
    # Not what is half written, nor caches of other tools.
    written = [file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    return write_manifest(path, kind="data set", files=written, origin=origin)
