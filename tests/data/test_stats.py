"""Quantiles are quantiles, merged or not; actions count as they are learned; odd dims are named."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data.bodies import put_nan
from data.recordings import ROBOT, episode, record

from pilot.data import stats
from pilot.data.formats import columns
from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.columns import index_columns
from pilot.data.formats.lerobot import LeRobotDataset
from pilot.data.loading.parallel import map_in_processes
from pilot.data.stats import (
    NORMAL_RANGE,
    RARE_CLIP,
    Recipe,
    RobotStats,
    RunningStats,
    compute_file_stats,
    compute_norm_stats,
    load_norm_stats,
    loaded_columns,
    save_norm_stats,
    widen_flat_dims,
)
from pilot.types import Adapter, NormStats

pytestmark = pytest.mark.usefixtures("no_manifests")


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
        ranks = (values < parts[0].quantiles(q)[0]).mean(0)
        np.testing.assert_allclose(ranks, q, atol=1e-3)
    assert sum(columns.shape[1] for level in parts[0]._levels for columns in level) < 6 * 4096


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
        stats = widen_flat_dims(running, ["lift", "grip", "x"])
    assert any("rarely moving dims: ['grip']" in str(w.message) for w in warned)
    assert (stats.q01[0], stats.q99[0], stats.std[0]) == (6.5, 7.5, 1.0)
    assert (stats.q01[1], stats.q99[1]) == (0.0, 0.5)
    assert stats.q99[2] == pytest.approx(989.01)
    assert stats.std[1] == pytest.approx(0.5 / NORMAL_RANGE), "a rare move is not blown up by z-scores either"
    np.testing.assert_array_equal(stats.clip, [RARE_CLIP, RARE_CLIP, np.inf])


def test_ordinary_stats_clip_nothing():
    running = RunningStats(1)
    running.update(np.arange(100.0)[:, None])
    assert widen_flat_dims(running, ["x"]).clip is None


def test_nan_is_refused():
    with pytest.raises(ValueError, match=r"NaN or infinity, in dims \[1\]"):
        RunningStats(2).update(np.array([[0.0, np.nan]]))


def recorded(path: Path, lengths: Sequence[int] = (9, 6, 12), *, perturbed: tuple[int, ...] = (4,)) -> LeRobotDataset:
    rng = np.random.default_rng(5)
    record(path, [episode(rng, length, perturbed=perturbed) for length in lengths])
    return LeRobotDataset(path, 3)


def same(a: dict[str, NormStats], b: dict[str, NormStats]) -> bool:
    names = ("mean", "std", "q01", "q99")
    return all(np.array_equal(getattr(a[k], n), getattr(b[k], n)) for k in ("state", "actions") for n in names)


def test_files_and_memory_give_the_same(tmp_path):
    dataset = recorded(tmp_path)
    from_files = compute_file_stats([tmp_path], ROBOT, action_horizon=3).result()
    assert same(from_files, compute_norm_stats([dataset], ROBOT))


def test_parts_and_processes_do_not_change_the_result(tmp_path, monkeypatch):
    recorded(tmp_path)
    whole = compute_file_stats([tmp_path], ROBOT, action_horizon=3).result()
    monkeypatch.setattr(columns, "PART_ROWS", 8)
    assert len(index_columns(tmp_path).parts) > 1
    alone = compute_file_stats([tmp_path], ROBOT, action_horizon=3).result()
    together = compute_file_stats([tmp_path], ROBOT, action_horizon=3, parallel_map=map_in_processes(2)).result()
    assert same(alone, together)
    np.testing.assert_allclose(alone["actions"].q01, whole["actions"].q01, rtol=1e-6)
    np.testing.assert_allclose(alone["actions"].mean, whole["actions"].mean, rtol=1e-5, atol=1e-7)


def test_large_sets_take_some_steps_of_each_chunk(tmp_path, monkeypatch):
    """One of three steps per row, another one from row to row: the mean over many rows is that of all of them."""
    monkeypatch.setattr(stats, "MAX_CHUNK_ROWS", 400)
    dataset = recorded(tmp_path, [200, 200], perturbed=())
    some, total = compute_norm_stats([dataset], ROBOT), RobotStats(ROBOT)
    total.add(loaded_columns(dataset, 0), Recipe(robot=ROBOT, adapter=Adapter(), action_horizon=3, sampled_steps=3))
    assert total.actions.count == 2 * (200 + 199 + 198)
    every = total.result()
    np.testing.assert_allclose(some["actions"].mean, every["actions"].mean, atol=0.05)
    np.testing.assert_allclose(some["actions"].std, every["actions"].std, rtol=0.05)


def test_only_trainable_rows_start_chunks(tmp_path):
    dataset = recorded(tmp_path, [9, 6], perturbed=())
    dataset.trainable = np.arange(15) < 4
    idle = compute_norm_stats([dataset], ROBOT)
    np.testing.assert_allclose(idle["state"].mean, dataset.state[:4].mean(0), rtol=1e-5)


def test_an_adapter_comes_before_everything(tmp_path):
    dataset = recorded(tmp_path)
    doubled = Adapter(state=lambda x: 2 * x, actions=lambda x: 2 * x)
    plain, adapted = compute_norm_stats([dataset], ROBOT), compute_norm_stats([dataset], ROBOT, adapter=doubled)
    np.testing.assert_allclose(adapted["actions"].q99, 2 * plain["actions"].q99, rtol=1e-5)
    with pytest.raises(ValueError, match="load_adapter"):
        compute_norm_stats([dataset], replace(ROBOT, adapter="pi"))


def test_nan_names_file_episode_and_frame_or_is_skipped_and_listed(tmp_path):
    recorded(tmp_path)
    file = put_nan(tmp_path, column=fmt.STATE, row=11)
    with pytest.raises(ValueError, match=rf"{file}: NaN or infinity in episode 1, frame 2; .*--skip-bad"):
        compute_file_stats([tmp_path], ROBOT, action_horizon=3)
    found = compute_file_stats([tmp_path], ROBOT, action_horizon=3, skip_bad=True)
    assert found.skipped == [f"{file}: NaN or infinity in episode 1, frame 2"]
    assert found.state.count == 9 + 12


def test_a_truncated_file_is_named_or_skipped(tmp_path):
    recorded(tmp_path / "a"), recorded(tmp_path / "b")
    file = next((tmp_path / "b").glob("data/*/*.parquet"))
    file.write_bytes(file.read_bytes()[:-20])
    sets = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(ValueError, match=rf"{file} cannot be read .* truncated or damaged"):
        compute_file_stats(sets, ROBOT, action_horizon=3)
    with pytest.raises(ValueError, match="no episodes to read"):
        compute_file_stats(sets, ROBOT, action_horizon=3, skip_bad=True)


def test_rows_of_different_length_are_said_with_their_file(tmp_path):
    recorded(tmp_path)
    file = next(tmp_path.glob("data/*/*.parquet"))
    table = pq.read_table(file)
    ragged = pa.array([[0.0] * (2 + (i == 0)) for i in range(len(table))], pa.list_(pa.float32()))
    pq.write_table(table.set_column(table.schema.get_field_index(fmt.STATE), fmt.STATE, ragged), file)
    with pytest.raises(ValueError, match=rf"{file}: rows of '{fmt.STATE}' differ in length"):
        compute_file_stats([tmp_path], ROBOT, action_horizon=3)


def test_what_else_is_wrong_with_a_set_is_said(tmp_path):
    recorded(tmp_path / "set")
    wider = replace(ROBOT, state_names=("x", "y", "z", "hold"))
    with pytest.raises(ValueError, match="has 3 state dims, robot 'toy' declares 4"):
        compute_file_stats([tmp_path / "set"], wider, action_horizon=3)
    with pytest.raises(FileNotFoundError, match="is not a LeRobot data set"):
        compute_file_stats([tmp_path / "nothing"], ROBOT, action_horizon=3)
    info = json.loads((tmp_path / "set/meta/info.json").read_text())
    del info["features"][fmt.ACTION]
    (tmp_path / "set/meta/info.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match="no feature 'action'"):
        compute_file_stats([tmp_path / "set"], ROBOT, action_horizon=3)


def test_save_and_load(tmp_path):
    running = RunningStats(2)
    running.update(np.random.default_rng(3).normal(size=(50, 2)))
    result = replace(running.result(), clip=np.array([np.inf, 5.0]))
    save_norm_stats(tmp_path, {"state": result, "actions": running.result()})
    loaded = load_norm_stats(tmp_path)
    np.testing.assert_array_equal(loaded["state"].q99, result.q99)
    np.testing.assert_array_equal(loaded["state"].clip, result.clip)
    assert loaded["actions"].clip is None
    (tmp_path / "other.json").write_text('{"norm_stats": {"state": {"means": [0]}}}')
    with pytest.raises(ValueError, match="is not a norm stats file"):
        load_norm_stats(tmp_path / "other.json")
    with pytest.raises(FileNotFoundError, match=r"pilot data stats"):
        load_norm_stats(tmp_path / "nowhere")


SENSIBLE = NormStats(mean=np.zeros(2), std=np.ones(2), q01=np.full(2, -2.3), q99=np.full(2, 2.3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"std": np.array([1.0, -1.0])}, "'state' has a std below 0 in dim 1"),
        ({"q01": np.array([3.0, -2.3])}, "'state' has a q01 above its q99 in dim 0"),
        ({"q99": np.array([2.3, 1e6])}, "'state' has a q01 or q99 that its mean and std do not allow in dim 1"),
        ({"mean": np.array([np.nan, 0.0])}, "mean of 'state' is nan in dim 0"),
        ({"clip": np.array([5.0, 0.0])}, "'state' has a clip that is not above 0 in dim 1"),
    ],
)
def test_statistics_that_no_data_has_are_named(change, message):
    stats.check_sense("state", SENSIBLE)
    with pytest.raises(ValueError, match=message):
        stats.check_sense("state", replace(SENSIBLE, **change))
