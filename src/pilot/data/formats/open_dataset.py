"""From a path to a reader, by what lies there: the one place that tells formats apart.

| what lies at the path | reader |
|---|---|
| `meta/info.json`, or an open recording | `LeRobotDataset` (v2.0 to v3.0) |
| `features.json`, here or in a version folder | `RldsDataset`, with the layout of its entry in `pilot.datasets` |
| `rows.jsonl` | `WebRows` (pilot's own) |
| `.tar` files | `WebDatasetRows` (WebDataset) |
| a `.json` file of images and annotations | `CocoRows` |
| another `.json` or `.jsonl` file | `LlavaRows` (LLaVA, VQA) |
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats import rlds, web
from pilot.data.formats.coco import CocoRows
from pilot.data.formats.episodes import EpisodeDataset
from pilot.data.formats.image_text import ImageTextRows
from pilot.data.formats.lerobot import LeRobotDataset
from pilot.data.formats.llava import LlavaRows
from pilot.data.formats.rlds import RldsDataset, RldsLayout
from pilot.data.formats.web import WebRows
from pilot.data.formats.webdataset import WebDatasetRows
from pilot.data.loading.parallel import ParallelMap, serial_map
from pilot.data.storage.files import list_names, read_json
from pilot.data.storage.remote import fetch, is_remote

if TYPE_CHECKING:
    from pilot.data.storage.streaming import StreamedFolder

HEAD_BYTES = 1 << 16
COLUMN_FILES = ("meta/**", "data/**", "**.json", "**tfrecord**")
"""Where state and actions lie; not the mp4."""
DESCRIPTIONS = ("meta/**", *(f"{at}{name}" for at in ("", "*/") for name in (rlds.FEATURES, rlds.INFO)))
"""What a set of demonstrations says of itself, and is read as a whole before anything else."""


def open_episodes(
    path: str | Path,
    action_horizon: int,
    *,
    layouts: Callable[[str], RldsLayout],
    cameras: Sequence[str] | None = None,
    skip_bad: bool = False,
    parallel_map: ParallelMap = serial_map,
    cache_gb: float | None = None,
) -> EpisodeDataset:
    """Open the demonstrations at `path`. `layouts` gives the layout of an RLDS set by its name in `dataset_info.json`,
    `parallel_map` does its first reading. Files at an address (`hf://…`, `gs://…`) are fetched as they are read, see
    `pilot.data.storage.streaming`.

    Raises:
        FileNotFoundError: nothing there that a reader knows.
        ValueError: what the reader finds wrong, see there.
    """
    folder = _elsewhere(path, cache_gb)
    path = folder.path if folder else Path(path)
    if folder:
        folder.fetch(*DESCRIPTIONS)
    check_episodes(path)
    if _is_rlds(path):
        name = read_json(rlds.version_folder(path) / rlds.INFO, remedy=rlds.FETCH)["name"]
        options = {"layout": layouts(name), "progress": True, "parallel_map": parallel_map}
        return RldsDataset(path, action_horizon, cameras=cameras, skip_bad=skip_bad, folder=folder, **options)
    return LeRobotDataset(path, action_horizon, cameras=cameras, skip_bad=skip_bad, folder=folder)


def open_image_text(
    path: str | Path,
    *,
    loc_stride: int = 1,
    zoom: float = 1.0,
    source: str = "web",
    question: str | None = None,
    camera: str = "room",
    skip_bad: bool = False,
    cache_gb: float | None = None,
) -> ImageTextRows:
    """Open the web rows at `path`; for the options see `ImageTextRows`, and `WebRows` for `question`.

    Tars at an address are fetched as they are read, other formats as a whole.

    Raises:
        FileNotFoundError: nothing there that a reader knows.
        ValueError: what the reader finds wrong, see there.
    """
    options: dict[str, Any] = {
        "camera": camera, "loc_stride": loc_stride, "zoom": zoom, "source": source, "skip_bad": skip_bad,
    }  # fmt: skip
    if (folder := _elsewhere(path, cache_gb)) and any(name.endswith(".tar") for name in folder.sizes):
        return WebDatasetRows(folder.path, folder=folder, **options)
    path = fetch(path)
    if _has_web_rows(path):
        return WebRows(path, question=question, **options)
    if question is not None:
        raise ValueError(f"'question' chooses among rows of {web.ROWS}; {path} holds others")
    return _reader(path)(path, **options)


def _elsewhere(path: str | Path, cache_gb: float | None) -> "StreamedFolder | None":
    """Return the folder at an address; None for a path on this machine."""
    if not is_remote(path):
        return None
    from pilot.data.storage.streaming import StreamedFolder  # locks of files, which not every system has

    return StreamedFolder(path, limit_gb=cache_gb)


def is_image_text(path: str | Path) -> bool:
    """Return whether pictures with text lie at a local path, not demonstrations."""
    path = Path(path)
    return path.is_file() or _has_web_rows(path) or bool(list(path.glob("*.tar")))


def check_episodes(path: Path) -> None:
    """Raise `FileNotFoundError` if there are no demonstrations at a local path that a reader knows."""
    if not (_is_rlds(path) or (path / "meta").exists() or (path / fmt.RECORDING).exists()):
        raise unknown_error(path, f"{fmt.INFO} (LeRobot) or {rlds.FEATURES} (RLDS)")


def check_image_text(path: Path) -> None:
    """Raise `FileNotFoundError` if there are no pictures with text at a local path that a reader knows."""
    if not _has_web_rows(path):
        _reader(path)


def _is_rlds(path: Path) -> bool:
    return (path / rlds.FEATURES).exists() or bool(list(path.glob(f"*/{rlds.FEATURES}")))


def _has_web_rows(path: Path) -> bool:
    return (path / web.ROWS).exists() or (path / web.PACKED).exists()


def _reader(path: Path) -> type[ImageTextRows]:
    if path.suffix == ".tar" or (path.is_dir() and list(path.glob("*.tar"))):
        return WebDatasetRows
    if path.suffix == ".jsonl":
        return LlavaRows
    if path.suffix == ".json" and path.exists():
        with path.open("rb") as file:
            return LlavaRows if file.read(HEAD_BYTES).lstrip().startswith(b"[") else CocoRows
    raise unknown_error(path, f"{web.ROWS}, .tar files, or a .json or .jsonl file")


def unknown_error(path: Path, wanted: str) -> FileNotFoundError:
    """Make the error for a path where no reader finds its files."""
    if not path.exists():
        where = "give the folder of a data set (a run's: --set data.sources.NAME.path=FOLDER), or its address (hf://, gs://)"
        return FileNotFoundError(f"{path} does not exist; {where}")
    return FileNotFoundError(f"{path} holds no {wanted}; it has {list_names(path)}")
