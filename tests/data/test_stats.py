"""Quantiles are quantiles, merged or not; actions count as they are learned; odd dims are named."""

import numpy as np
import pytest
from data.recordings import ROBOT, episode, record

from pilot.data import lerobot_format as fmt
from pilot.data.lerobot import LeRobotDataset
from pilot.data.stats import RunningStats, compute_norm_stats, floored, load_norm_stats, save_norm_stats


def test_small_streams_are_exact():
    values = np.random.default_rng(0).normal(size=(1000, 3)) * [1, 100, 0.01] + [5, 0, -3]
    first, second = RunningStats(3), RunningStats(3)
    first.update(values[:300])
    second.update(values[300:700])
    second.update(values[700:])
    first.merge(second)
    stats = first.result()
    np.testing.assert_allclose(stats.mean, values.mean(0))
    np.testing.assert_allclose(stats.std, values.std(0))
    np.testing.assert_allclose(stats.q01, np.quantile(values, 0.01, axis=0))
    np.testing.assert_allclose(stats.q99, np.quantile(values, 0.99, axis=0))


def test_long_streams_stay_close_in_rank():
    rng = np.random.default_rng(1)
    values = np.stack([rng.lognormal(size=200_000), np.sort(rng.normal(size=200_000))], axis=1)
    parts = [RunningStats(2, buffer_rows=4096) for _ in range(3)]
    for start in range(0, len(values), 1000):
        parts[start // 1000 % 3].update(values[start : start + 1000])
    for part in parts[1:]:
        parts[0].merge(part)
    for q in (0.01, 0.5, 0.99):
        ranks = (values < parts[0].quantile(q)).mean(0)
        np.testing.assert_allclose(ranks, q, atol=1e-3)
    assert sum(len(rows) for level in parts[0]._levels for rows in level) < 6 * 4096


def test_actions_are_relative_to_the_chunks_start_and_unpadded(tmp_path):
    rng = np.random.default_rng(2)
    episodes = [episode(rng, 9, perturbed=(4,)), episode(rng, 6)]
    record(tmp_path, episodes)
    stats = compute_norm_stats([LeRobotDataset(tmp_path, 3)], ROBOT)
    relative = []
    for frames in episodes:
        blocked = np.flatnonzero(frames[fmt.PERTURBED])
        for start in range(len(frames[fmt.STATE])):
            for step in range(start, min(start + 3, len(frames[fmt.STATE]))):
                if not any(start <= b < step for b in blocked):
                    relative.append(frames[fmt.ACTION][step] - frames[fmt.STATE][start][:2])
    np.testing.assert_allclose(stats["actions"].q01, np.quantile(relative, 0.01, axis=0), rtol=1e-5)
    np.testing.assert_allclose(stats["actions"].std, np.std(relative, axis=0), rtol=1e-5)
    states = np.concatenate([e[fmt.STATE] for e in episodes])
    np.testing.assert_allclose(stats["state"].mean, states.mean(0), rtol=1e-5, atol=1e-6)


def test_constant_and_rare_dims_are_named_and_get_a_range():
    values = np.zeros((1000, 3))
    values[:, 0] = 7.0
    values[:3, 1] = 0.5
    values[:, 2] = np.arange(1000)
    running = RunningStats(3)
    running.update(values)
    with pytest.warns(UserWarning, match=r"constant dims: .'lift'") as warned:
        stats = floored(running, ["lift", "grip", "x"])
    assert any("rarely moving dims: ['grip']" in str(w.message) for w in warned)
    assert (stats.q01[0], stats.q99[0], stats.std[0]) == (6.5, 7.5, 1.0)
    assert (stats.q01[1], stats.q99[1]) == (0.0, 0.5)
    assert stats.q99[2] == pytest.approx(989.01)


def test_nan_is_refused():
    with pytest.raises(ValueError, match=r"NaN or infinity, in dims \[1\]"):
        RunningStats(2).update(np.array([[0.0, np.nan]]))


def test_save_and_load(tmp_path):
    running = RunningStats(2)
    running.update(np.random.default_rng(3).normal(size=(50, 2)))
    save_norm_stats(tmp_path, {"state": running.result()})
    loaded = load_norm_stats(tmp_path)["state"]
    np.testing.assert_array_equal(loaded.q99, running.result().q99)
    with pytest.raises(FileNotFoundError, match=r"pilot data stats"):
        load_norm_stats(tmp_path / "nowhere")
