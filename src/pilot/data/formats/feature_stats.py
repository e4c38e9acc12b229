"""The statistics LeRobot keeps beside a data set (`meta/stats.json`, `stats/...` per episode): min max mean std count
and quantiles of every numeric column and camera.

Those of numeric columns are exact, over all frames. Those of cameras come from each episode's first picture; their
quantiles over the set are averaged over episodes. Training never uses these: see `pilot.data.stats`.
"""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from pilot.data.formats.parquet import matrix

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


def describe(values: np.ndarray) -> dict[str, Any]:
    """Compute statistics over axis 0 of [n d], as lists of `d`; NaN entries ("nothing here") are left out."""
    finite = [column[np.isfinite(column)] for column in values.astype(np.float64).T]
    finite = [column if column.size else np.zeros(1) for column in finite]
    stats = {"min": np.min, "max": np.max, "mean": np.mean, "std": np.std}
    result: dict[str, Any] = {name: [float(f(column)) for column in finite] for name, f in stats.items()}
    at = np.stack([np.quantile(column, list(QUANTILES.values())) for column in finite], axis=1)
    return result | {name: row.tolist() for name, row in zip(QUANTILES, at, strict=True)} | {"count": [len(values)]}


def numeric(features: dict[str, Any]) -> list[str]:
    """Return the names of the features that are numbers."""
    return [name for name, spec in features.items() if spec["dtype"] not in ("image", "video", "language", "string")]


def dims(feature: dict[str, Any]) -> int:
    """Return how many numbers a row of a feature has."""
    return math.prod(feature["shape"])


def episode_stats(table: pa.Table, features: dict[str, Any]) -> dict[str, Any]:
    """Compute the columns `stats/<feature>/<stat>` of one episode."""
    described = {name: describe(matrix(table[name], optional=dims(features[name]))) for name in numeric(features)}
    for name in (n for n, spec in features.items() if spec["dtype"] == "image"):
        png = table[name][0]["bytes"].as_py()
        described[name] = describe_picture(np.asarray(Image.open(io.BytesIO(png)).convert("RGB")))
    return stats_columns(described)


def stats_columns(described: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Flatten statistics by feature and name into columns `stats/<feature>/<stat>`."""
    return {f"stats/{name}/{stat}": value for name, stats in described.items() for stat, value in stats.items()}


def describe_picture(picture: np.ndarray) -> dict[str, Any]:
    """Compute statistics per channel of uint8 [h w 3], in [0, 1]: lists of shape 3 × 1 × 1, as LeRobot stores them."""
    stats = describe(picture.reshape(-1, 3) / 255.0)
    return {name: value if name == "count" else [[[x]] for x in value] for name, value in stats.items()}


def set_stats(path: Path, features: dict[str, Any], total_episodes: int) -> dict[str, Any]:
    """Compute exact statistics of the numeric columns over the first `total_episodes`."""
    names = numeric(features)
    files = sorted(path.glob("data/*/*.parquet"))
    tables = [pq.read_table(file, columns=names) for file in files]
    table = pa.concat_tables(tables)
    table = table.filter(pc.field("episode_index") < total_episodes)
    return {name: describe(matrix(table[name], optional=dims(features[name]))) for name in names}


def merge_image_stats(path: Path, features: dict[str, Any], total_episodes: int) -> dict[str, Any]:
    """Merge the statistics of cameras per episode (each of one picture, so equally weighted) into those of the set."""
    merged: dict[str, Any] = {}
    for name in (n for n, spec in features.items() if spec["dtype"] in ("image", "video")):
        columns = ["episode_index", *(f"stats/{name}/{stat}" for stat in ("min", "max", "mean", "std", *QUANTILES))]
        tables = [pq.read_table(file, columns=columns) for file in sorted(path.glob("meta/episodes/*/*.parquet"))]
        rows = pa.concat_tables(tables)
        rows = rows.filter(pc.field("episode_index") < total_episodes)
        merged[name] = _merge(name, rows)
    return merged


def _merge(name: str, rows: pa.Table) -> dict[str, Any]:
    values = {c.rsplit("/", 1)[1]: np.array(rows[c].to_pylist()) for c in rows.column_names if c.startswith("stats/")}
    mean = values["mean"].mean(0)
    std = np.sqrt((values["std"] ** 2 + (values["mean"] - mean) ** 2).mean(0))
    result = {"min": values["min"].min(0), "max": values["max"].max(0), "mean": mean, "std": std}
    result |= {stat: values[stat].mean(0) for stat in QUANTILES}
    return {stat: value.tolist() for stat, value in result.items()} | {"count": [rows.num_rows]}
