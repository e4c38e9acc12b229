"""Several bodies in one run: each row by its own robot's statistics and masks, shares as weighed, resumed exactly."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data.bodies import record_robot

from pilot.data.stats import load_norm_stats
from pilot.infer.policy import load_policy
from pilot.models.bundle import load_bundle, save_bundle
from pilot.models.pi import pi05
from pilot.robots import load_robot
from pilot.train import checkpoint
from pilot.train.config import (
    CheckpointConfig,
    DataConfig,
    InitFrom,
    LoggingConfig,
    ParallelConfig,
    Source,
    TrainConfig,
)
from pilot.train.distributed import Ranks
from pilot.train.embodiments import other_chunks
from pilot.train.loop import train
from pilot.train.metrics import read_metrics
from pilot.train.setup import prepare
from train.toy import changed, read_all

pytestmark = [
    pytest.mark.usefixtures("no_shape_checks"),
    pytest.mark.filterwarnings("ignore:state dim", "ignore:constant dims"),
]
UR5, PUSHT = load_robot("ur5"), load_robot("pusht")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bodies")
    record_robot(path / "arm", UR5, seed=0)
    record_robot(path / "arm2", UR5, seed=1, scale=10.0)
    record_robot(path / "disc", PUSHT, seed=2, scale=100.0)
    return path


def config(folder: Path, **changes) -> TrainConfig:
    sources = (
        Source(path=str(folder / "arm"), weight=0.5),
        Source(path=str(folder / "disc"), robot="pusht", weight=0.25),
        Source(path=str(folder / "arm2"), weight=0.25),
    )
    base = TrainConfig(
        name="bodies", model=pi05("debug", max_tokens=120), data=DataConfig(sources=sources, frame_cache=False),
        robot="ur5", steps=4, batch_size=8, parallel=ParallelConfig(threads=1), logging=LoggingConfig(log_every=1),
        checkpoints=CheckpointConfig(save_every=2),
    )  # fmt: skip
    return changed(base, **changes)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Path:
    """A run of two robots and two steps, with its policy."""
    folder = tmp_path_factory.mktemp("trained")
    train(config(data, steps=2), out=folder, progress=False)
    return folder


def test_rows_of_every_body_share_batches_masked_and_normalised_by_their_own(data, tmp_path):
    loader = prepare(config(data), tmp_path, resume=True, progress=False).loader
    rows = [row for step in range(8) for row in loader.rows(step)]
    dims = {"arm": 7, "arm2": 7, "disc": 2}
    for row in rows:
        assert row.action_mask[0].tolist() == [True] * dims[row.source] + [False] * (8 - dims[row.source])
        assert not row.actions[:, dims[row.source] :].any() and not row.state[dims[row.source] :].any()
        assert list(row.images) == (["base_0_rgb"] if row.source == "disc" else ["base_0_rgb", "left_wrist_0_rgb"])
    spread = {name: np.concatenate([r.state for r in rows if r.source == name]).std() for name in dims}
    assert 0.1 < spread["disc"] < 1, "a disc's pixels are scaled by its own statistics, not by an arm's"
    parts = loader.make_batches([row for row in rows[:24] if row.source != "disc"])
    assert any(len(set(part.sources)) == 2 for part in parts)


def test_the_shares_drawn_are_logged_and_as_weighed(data, tmp_path):
    train(config(data, steps=10), out=tmp_path, progress=False)
    last = read_metrics(tmp_path)[-1]
    for name, weight in {"arm": 0.5, "disc": 0.25, "arm2": 0.25}.items():
        assert last[f"share/{name}"] == pytest.approx(weight, abs=0.03)
        assert last[f"loss/flow/{name}"] > 0


def test_a_resumed_run_is_the_same_with_processes_that_read_ahead(data, tmp_path):
    train(config(data), out=tmp_path / "straight", progress=False)
    train(config(data), out=tmp_path / "broken", until=2, progress=False)
    train(config(data, data={"workers": 1}), out=tmp_path / "broken", progress=False)
    folders = [checkpoint.last_checkpoint(tmp_path / name) for name in ("straight", "broken")]
    one, other = (read_all(folder) for folder in folders)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    first, second = (checkpoint.read_values(folder)["drawn"] for folder in folders)
    assert first == second and sum(first.values()) == 4 * 8


def test_other_data_is_refused_on_resume(data, tmp_path):
    train(config(data), out=tmp_path, until=2, progress=False)
    folder = checkpoint.last_checkpoint(tmp_path)
    values = json.loads((folder / checkpoint.STATE).read_text())
    values["mixture"]["shares"][0][2] += 0.1
    (folder / checkpoint.STATE).write_text(json.dumps(values))
    with pytest.raises(ValueError, match="resume with the same data"):
        train(config(data), out=tmp_path, progress=False)


@pytest.mark.parametrize(("per", "more"), [("robot", set()), ("dataset", {"arm2"}), ("mixture", set())])
def test_who_shares_statistics_is_a_choice(data, tmp_path, per, more):
    setup = prepare(config(data, data={"stats_per": per}), tmp_path, resume=True, progress=False)
    assert {file.stem for file in (tmp_path / "norm_stats").iterdir()} == {"ur5", "pusht"} | more
    deviation = {name: pipeline.norm_stats["state"].std.mean() for name, pipeline in setup.loader.pipelines.items()}
    expected = {
        "robot": {"arm": 7.2, "arm2": 7.2, "disc": 100},
        "dataset": {"arm": 1, "arm2": 10, "disc": 100},
        "mixture": {"arm": 22, "arm2": 22, "disc": 58},  # two of an arm's seven dims are a disc's too
    }[per]
    assert deviation == pytest.approx(expected, rel=0.25)
    robots = setup.bundle.robots
    assert robots["ur5"].norm_stats is setup.loader.pipelines["arm"].norm_stats
    assert robots["pusht"].norm_stats is setup.loader.pipelines["disc"].norm_stats
    if per == "mixture":
        stats = load_norm_stats(tmp_path / "norm_stats/pusht.json")
        np.testing.assert_allclose(stats["state"].q99, robots["ur5"].norm_stats["state"].q99[:2])


@pytest.mark.parametrize("per", ["robot", "dataset"])
def test_each_step_gets_its_own_scale_and_keeps_it(data, tmp_path, per):
    run = config(data, data={"scale_steps": True, "stats_per": per})
    setup = prepare(run, tmp_path / "run", resume=True, progress=False)
    for name, pipeline in setup.loader.pipelines.items():
        stats = pipeline.norm_stats["actions"]
        assert stats.step_mean.shape == (run.model.action_horizon, pipeline.robot.action_dim), name
        assert stats.step_std.min() >= 0.02
    again = prepare(run, tmp_path / "run", resume=True, progress=False)
    for name, robot in setup.bundle.robots.items():
        kept = again.bundle.robots[name].norm_stats["actions"]
        np.testing.assert_array_equal(robot.norm_stats["actions"].step_std, kept.step_std)
    plain = prepare(config(data), tmp_path / "plain", resume=True, progress=False)
    assert all(robot.norm_stats["actions"].step_std is None for robot in plain.bundle.robots.values())


def test_robots_of_a_checkpoint_get_a_scale_of_steps_when_asked(data, tmp_path):
    policy = train(config(data), out=tmp_path / "first", progress=False)
    later = replace(config(data, data={"scale_steps": True}), init_from=InitFrom(str(policy)))
    setup = prepare(later, tmp_path / "later", resume=True, progress=False)
    for name, robot in load_bundle(policy).robots.items():
        before, after = robot.norm_stats["actions"], setup.bundle.robots[name].norm_stats["actions"]
        assert before.step_std is None and after.step_std is not None
        np.testing.assert_allclose(after.q99, before.q99)


def test_statistics_of_a_set_and_of_a_robot_of_the_same_name_are_kept_apart(data, tmp_path):
    record_robot(tmp_path / "pusht", UR5, seed=6, scale=30.0)
    sources = (*config(data).data.sources[:2], Source(path=str(tmp_path / "pusht"), weight=0.25))
    run = config(data, data={"sources": sources, "stats_per": "dataset"})
    setup = prepare(run, tmp_path / "run", resume=True, progress=False)
    for again in (
        setup,
        prepare(run, tmp_path / "run", resume=True, progress=False, ranks=Ranks(rank=1, world_size=2)),
    ):
        spread = {name: p.norm_stats["state"].std.mean() for name, p in again.loader.pipelines.items()}
        assert spread == pytest.approx({"arm": 1, "disc": 100, "pusht": 30}, rel=0.3)
        assert again.bundle.robots["pusht"].norm_stats["state"].std.mean() == pytest.approx(100, rel=0.3)


def test_a_source_teaches_what_it_is_asked_to(data, tmp_path):
    sources = (
        Source(path=str(data / "arm"), teaches=("flow",)),
        Source(path=str(data / "arm2"), teaches=("text", "fast")),
    )
    loader = prepare(config(data, data={"sources": sources}), tmp_path, resume=True, progress=False).loader
    for row in (row for step in range(3) for row in loader.rows(step)):
        if row.source == "arm":
            assert not any(row.token_loss) and row.action_mask.any()
        else:
            assert any(row.token_loss) and not row.action_mask.any()


def test_cameras_by_another_name_are_mapped_and_missing_ones_masked(data, tmp_path):
    record_robot(tmp_path / "named", UR5, seed=4, cameras=("top", "side"))
    named = Source(path=str(tmp_path / "named"), cameras={"top": "base_rgb"})
    with pytest.warns(UserWarning, match=r"no \['wrist_rgb'\] of robot 'ur5': masked"):
        loader = prepare(config(data, data={"sources": (named,)}), tmp_path / "run", resume=True, progress=False).loader
    assert list(loader.rows(0)[0].images) == ["base_0_rgb"]
    mixed = config(data, data={"sources": (named, Source(path=str(data / "arm")))})
    with pytest.warns(UserWarning, match="masked"):
        loader = prepare(mixed, tmp_path / "mixed", resume=True, progress=False).loader
    assert {tuple(row.images) for row in loader.rows(0)} == {("base_0_rgb",), ("base_0_rgb", "left_wrist_0_rgb")}


def test_the_policy_acts_for_every_robot_of_the_run(trained):
    policy = load_policy(trained / "policy", verify=True)
    assert policy.robots == ("ur5", "pusht")
    rng = np.random.default_rng(0)
    images = {camera: rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for camera in UR5.cameras}
    answer = policy.infer({"images": images, "state": np.zeros(7), "prompt": "push"}, robot="ur5")
    assert answer["actions"].shape == (6, 7)
    raw = images | {"joints": np.zeros(6), "gripper": np.zeros(1), "prompt": "push"}
    np.testing.assert_array_equal(policy.infer(raw, robot="ur5")["actions"], answer["actions"])
    disc = {"images": {"image": images["base_rgb"]}, "state": np.zeros(2), "prompt": "push"}
    there, far = (policy.infer(disc | {"state": np.full(2, at)}, robot="pusht")["actions"] for at in (0.0, 300.0))
    assert there.shape == (6, 2) and np.ptp(far) > 1, "in pixels, by the disc's own statistics"
    own = load_bundle(trained / "policy").robots
    for name, trained_robot in own.items():
        stats = load_norm_stats(trained / "norm_stats" / f"{name}.json")
        np.testing.assert_array_equal(trained_robot.norm_stats["actions"].q99, stats["actions"].q99)


def test_a_run_from_a_checkpoint_keeps_what_it_knows_of_robots_and_adds_new_ones(data, trained, tmp_path):
    """The arm's statistics are those of the checkpoint, though this run's arm moves ten times as far."""
    record_robot(tmp_path / "drill", replace(PUSHT, name="drill"), seed=5, scale=3.0)
    sources = (Source(path=str(data / "arm2")), Source(path=str(tmp_path / "drill"), robot=drill(tmp_path)))
    start = InitFrom(str(trained / "policy"))
    run = config(data, init_from=start, data={"sources": sources})
    bundle, before = prepare(run, tmp_path / "run", resume=True, progress=False).bundle, load_bundle(trained / "policy")
    assert list(bundle.robots) == ["ur5", "pusht", "drill"]
    for name in ("ur5", "pusht"):
        kept, old = (b.robots[name].norm_stats["actions"] for b in (bundle, before))
        np.testing.assert_array_equal(kept.q99, old.q99)
    assert bundle.robots["drill"].norm_stats["state"].std == pytest.approx([3, 3], rel=0.25)
    with pytest.raises(
        ValueError, match=r"no statistics of robot 'homes': .*known here: pusht, ur5\); .*pilot data stats"
    ):
        prepare(changed(run, robot="homes", data={"sources": config(data).data.sources[1:2]}), tmp_path / "no",
                resume=True, progress=False)  # fmt: skip


def drill(folder: Path) -> str:
    """A robot's file of the user's own."""
    file = folder / "drill.py"
    file.write_text(
        "from dataclasses import replace\n\nfrom pilot.robots.pusht import ROBOT\n\n"
        "ROBOT = replace(ROBOT, name='drill')\n"
    )
    return str(file)


def test_another_robot_under_a_known_name_is_refused(trained, data, tmp_path):
    bundle = load_bundle(trained / "policy")
    known = bundle.robots["pusht"]
    bundle.robots["ur5"] = replace(known, robot=replace(known.robot, name="ur5"))
    folder = save_bundle(bundle, tmp_path / "impostor")
    run = config(data, init_from=InitFrom(str(folder)))
    with pytest.raises(ValueError, match=r"robot 'ur5' has 7 state and 7 action dims, .* of that name with 2 and 2"):
        prepare(run, tmp_path / "run", resume=True, progress=False)


def test_a_run_of_before_policies_had_several_robots_is_resumed_with_all_of_them(data, tmp_path):
    """Its policy holds the run's own robot, and the statistics of the other lie beside it."""
    run = config(data)
    train(run, out=tmp_path, until=2, progress=False)
    bundle = load_bundle(tmp_path / "policy")
    want = bundle.robots["pusht"].norm_stats["state"].q01
    save_bundle(bundle.select_robot("ur5"), tmp_path / "policy")
    (tmp_path / "norm_stats" / "ur5.json").unlink()
    again = prepare(run, tmp_path, resume=True, progress=False).bundle
    assert list(again.robots) == ["ur5", "pusht"]
    np.testing.assert_array_equal(again.robots["pusht"].norm_stats["state"].q01, want)


def test_what_does_not_fit_a_body_is_said_before_the_first_step(data, tmp_path):
    record_robot(tmp_path / "odd", replace(PUSHT, cameras=("periscope",)), seed=3)
    slow = record_robot(tmp_path / "slow", replace(PUSHT, control_hz=3.0), seed=3)
    cases = {
        "has 2 state dims, robot 'ur5' declares 7": Source(path=str(data / "disc")),
        "say which is which in Source.cameras": Source(path=str(tmp_path / "odd"), robot="pusht"),
        "not \\['top'\\]; see Source.cameras": Source(path=str(data / "disc"), robot="pusht", cameras={"top": "image"}),
        "unknown robot 'push'; did you mean 'pusht'": Source(path=str(data / "disc"), robot="push"),
        "unknown loss 'flaw'; did you mean 'flow'": Source(path=str(data / "disc"), robot="pusht", teaches=("flaw",)),
    }
    for message, source in cases.items():
        with pytest.raises(ValueError, match=message):
            prepare(config(data, data={"sources": (source,)}), tmp_path / "wrong", resume=True, progress=False)
    unlike = config(data, robot="pusht", data={"sources": (Source(path=str(slow)),)})
    with pytest.warns(UserWarning, match="3 frames per second, robot 'pusht' is controlled at 10 Hz"):
        prepare(unlike, tmp_path / "run", resume=True, progress=False)


def test_action_tokens_are_fitted_to_every_body(data, tmp_path):
    """The disc's chunks take fewer tokens than with a tokenizer of the arm alone."""
    both = prepare(config(data), tmp_path / "both", resume=True, progress=False)
    one = changed(config(data), data={"sources": config(data).data.sources[:1]})
    alone = prepare(one, tmp_path / "one", resume=True, progress=False)
    sources = both.loader.mixture.sources
    robots = both.bundle.robots
    (discs,) = other_chunks(config(data), sources, robots=robots)
    assert discs.shape[1:] == (pi05("debug").action_horizon, PUSHT.action_dim)
    silent = changed(
        config(data), data={"sources": tuple(replace(s, teaches=("flow",)) for s in config(data).data.sources)}
    )
    assert other_chunks(silent, sources, robots=robots) == [], "whose rows say no actions"
    fitted, plain = (setup.bundle.action_tokenizer for setup in (both, alone))
    assert sum(map(len, fitted.encode_batch(discs))) < sum(map(len, plain.encode_batch(discs)))
