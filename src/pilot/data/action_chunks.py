"""Chunks of actions as a model learns them, relative and normalised: what action tokenizers are fitted to.

Axes: `n` chunks, `ah` action horizon, `ad` action dims.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from pilot.data.formats.episodes import EpisodeDataset
from pilot.data.transforms import NormKind, normalize, take_every, to_delta
from pilot.types import Adapter, NormStats, Robot, require_adapter

MAX_CHUNKS = 20_000
MIN_STEP_STD = 0.02  # of a normalised step: what moves less is not made larger than this
HOLD_OUT = 10  # every so many-th episode is held out


def whole_chunks(
    datasets: Sequence[EpisodeDataset],
    robot: Robot,
    *,
    stats: NormStats,
    norm: NormKind = "quantile",
    stride: int = 1,
    adapter: Adapter | None = None,
    part: Literal["all", "fitted", "held_out"] = "all",
    seed: int = 0,
) -> Float[np.ndarray, "n ah ad"]:
    """Collect at most `MAX_CHUNKS` chunks without padding, drawn from all sets alike, every `stride`-th step of each.

    They start at rows that training may draw.

    `stats` are those of the actions. `part`: the chunks of every tenth episode (`held_out`), of the others (`fitted`),
    or `all`.

    Raises:
        ValueError: no whole chunk, or statistics or an adapter that are not this robot's.
    """
    adapter, rng, chunks = require_adapter(robot, adapter), np.random.default_rng(seed), []
    for dataset in datasets:
        rows = rng.permutation(_rows(dataset, part))[: MAX_CHUNKS // len(datasets)]
        actions, is_pad = dataset.action_chunks(rows)
        whole = ~is_pad.any(1)
        state = adapter.state(dataset.state[rows][whole])
        chunks.append(to_delta(adapter.actions(take_every(actions[whole], stride)), state, robot.delta_mask))
    values = np.concatenate(chunks)
    if not len(values):
        raise ValueError(f"no episode has {datasets[0].action_horizon} usable actions in a row; shorten the horizon")
    return normalize(values, stats, norm)


def add_step_scale(stats: NormStats, chunks: Float[np.ndarray, "n ah ad"]) -> NormStats:
    """Return the statistics of actions with the mean and the spread of each step of normalised whole chunks.

    Where actions are relative to the state, the first steps move a tenth as far as the last ones. Beside noise of one
    size they would be learned a tenth as exactly. Large Behavior Models normalise each step for that (2507.05331).
    """
    return replace(stats, step_mean=chunks.mean(0), step_std=np.maximum(chunks.std(0), MIN_STEP_STD))


def _rows(dataset: EpisodeDataset, part: str) -> Int[np.ndarray, " n"]:
    rows = dataset.trainable_rows()  # what a run holds out for validation is not among them
    held_out = dataset.episode_of[rows] % HOLD_OUT == 0
    if part == "all" or held_out.all():  # one episode is both
        return rows
    return rows[held_out if part == "held_out" else ~held_out]
