"""What a run's policy is made from, for the manifest of its folder: config, data, weights that it started from."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pilot.data.loading.loader import RobotRows
from pilot.data.mixture import RowSource
from pilot.data.storage.manifest import made_by, parent
from pilot.data.storage.remote import fetch_checkpoint, is_remote
from pilot.train.config import TrainConfig
from pilot.train.resume import as_json


def origin_of(config: TrainConfig, sources: Mapping[str, RowSource]) -> dict[str, Any]:
    """Return the origin of what a run writes, as `data/storage/manifest.py` stores it.

    A data set is named by the digest of its manifest, or where it has none by the fingerprint of its rows.
    """
    parents = []
    if config.init_from is not None:
        start = config.init_from
        parents.append(parent(_with_digest(start.path), role=f"weights ({start.kind})") | {"path": start.path})
    for source in config.data.sources:
        named = parent(source.path, role="data")
        rows = sources.get(source.label)
        if named["digest"] is None and isinstance(rows, RobotRows):
            named |= {"fingerprint": rows.dataset.fingerprint()}
        parents.append(named)
    return made_by({"run": config.name, "config": as_json(config)}, parents=parents)


def _with_digest(path: str) -> Path:
    """Return the policy that the folder of a run stands for; the run has no digest."""
    with suppress(FileNotFoundError):  # when a run goes on, what it started from may be gone
        return Path(path) if is_remote(path) else fetch_checkpoint(path)
    return Path(path)
