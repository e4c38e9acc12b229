"""Collected sets: what is recorded is what the expert would do, recoveries are marked, a second run goes on."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.lerobot import LeRobotDataset
from pilot.data.formats.web import WebRows
from pilot.data.loading.parallel import serial_map
from pilot.eval.suites import load_suite
from pilot.locks import FolderInUseError
from pilot.sims import collect as collecting
from pilot.sims.base import Disturbance
from pilot.sims.collect import collect, collect_web, dropped_reasons
from pilot.sims.demonstrate import BROKEN, OUT_OF_TIME, Demonstration, Dropped, demonstrate
from pilot.sims.homes import HomesSuite
from pilot.sims.homes.disturbances import HomesDisturbance, Noise
from sims.foreign import DotEnv, DotSuite

NO_NOISE = Noise(bursts=0.0, missed_grasps=0.0, odd_starts=0.0, wrong_objects=0.0, jitter=0.0)
SUITE = HomesSuite(name="homes", title="one move", split="train")
WEB = replace(SUITE, level=2, task="multi")
SMALL = {"suite": SUITE, "episodes_per_scene": 2, "workers": 1, "progress": False}


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    return collect(tmp_path_factory.mktemp("homes") / "set", scenes=2, **SMALL)


def same(first: LeRobotDataset, second: LeRobotDataset) -> None:
    for name in ("state", "actions", "boxes", "perturbed", "subtask_index"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    for i in (0, len(first) // 2, len(first) - 1):
        np.testing.assert_array_equal(first.picture(i, "room"), second.picture(i, "room"))


def test_a_demonstration_reads_back(collected):
    env = SUITE.make_env()
    recorded = demonstrate(SUITE, env, scene=0, episode=0, seed=0)
    env.close()
    dataset = LeRobotDataset(collected, 8)
    length = len(recorded.states)
    assert dataset.episodes[0].stop == length
    np.testing.assert_array_equal(dataset.state[:length], recorded.states)
    np.testing.assert_array_equal(dataset.actions[:length], recorded.actions)
    np.testing.assert_array_equal(dataset.boxes[:length], recorded.boxes)
    np.testing.assert_array_equal(dataset.perturbed[:length], recorded.perturbed)
    for step in (0, length - 1):
        for camera in ("room", "wrist"):
            np.testing.assert_array_equal(dataset.picture(step, camera), recorded.images[camera][step])
    starts = dict(recorded.subtasks)
    assert [dataset.row(i)["subtask"] for i in starts] == list(starts.values())
    assert dataset.row(0)["task"] == recorded.prompt
    assert dataset.row(length - 1)["subtask"] == "done" and dataset.row(length - 1)["box"] is None
    assert dataset.episodes[3].labels == {"group": "single", "level": 1, "home": 1, "episode": 1}


def test_two_workers_record_the_same(collected, tmp_path):
    other = collect(tmp_path / "set", scenes=2, **(SMALL | {"workers": 2}))
    same(LeRobotDataset(other, 8), LeRobotDataset(collected, 8))


def test_goes_on_after_an_interruption(collected, tmp_path, monkeypatch):
    out, finished = tmp_path / "set", iter([False, True])
    job = collecting._demonstrate_scene

    def interrupted(settings, policy, scene):
        if next(finished):
            raise KeyboardInterrupt
        return job(settings, policy, scene)

    with monkeypatch.context() as patch:
        patch.setattr(collecting, "_demonstrate_scene", interrupted)
        with pytest.raises(KeyboardInterrupt):
            collect(out, scenes=2, **SMALL)
    with pytest.raises(ValueError, match=r"unfinished recording"):
        LeRobotDataset(out, 8)
    # An interruption between writing an episode and counting its home: that episode is recorded again.
    shutil.copy(out / "recording/000001.parquet", out / "recording/000002.parquet")
    same(LeRobotDataset(collect(out, scenes=2, **SMALL), 8), LeRobotDataset(collected, 8))


def test_more_homes_append_and_a_repeat_does_nothing(collected, tmp_path):
    out = collect(tmp_path / "set", scenes=1, **SMALL)
    collect(out, scenes=2, **SMALL)
    same(LeRobotDataset(out, 8), LeRobotDataset(collected, 8))
    before = sorted((p, p.stat().st_mtime_ns) for p in out.rglob("*"))
    collect(out, scenes=2, **SMALL)
    assert sorted((p, p.stat().st_mtime_ns) for p in out.rglob("*")) == before


def test_a_second_collector_of_the_same_folder_is_refused(tmp_path):
    def collect_again(*_args, **_options):
        with pytest.raises(FolderInUseError, match=f"^{tmp_path} is in use by process {os.getpid()}"):
            collect(tmp_path, scenes=1, **SMALL)
        raise KeyboardInterrupt  # the first one is stopped here

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(collecting, "LeRobotWriter", collect_again)
        collect(tmp_path, scenes=1, **SMALL)


def test_other_settings_are_refused(collected):
    with pytest.raises(ValueError, match=r"was collected with seed=0, now 1"):
        collect(collected, scenes=2, seed=1, **SMALL)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"task": "mult"}, "no task 'mult'"),
        ({"level": 3}, "levels 1 and 2, got 3"),
        ({"split": "tset"}, "did you mean 'test'"),
        ({"kinds": ("cupp",)}, "cupp"),
    ],
)
def test_what_cannot_be_collected_is_said_before_a_folder_is_made(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        collect(tmp_path / "set", scenes=1, **(SMALL | {"suite": replace(SUITE, **wrong)}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tasks": ("nosuch",)}, "unknown task 'nosuch'"),
        ({"novel": ("kinds",), "split": "train"}, "novel kinds are for the test split only"),
    ],
)
def test_what_cannot_be_collected_in_rooms_is_said_before_a_folder_is_made(tmp_path, wrong, message):
    suite = replace(load_suite("rooms-move"), **wrong)
    with pytest.raises(ValueError, match=message):
        collect(tmp_path / "set", scenes=1, **(SMALL | {"suite": suite}))
    with pytest.raises(ValueError, match=message):
        collect_web(tmp_path / "web", suite, rows=4, scenes=1, workers=1, progress=False)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_else_in_it_is_refused(collected, tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match=r"holds model.safetensors, not what this command collects"):
        collect(tmp_path, scenes=1, **SMALL)
    with pytest.raises(ValueError, match=r"holds collect.json, data, manifest.json, meta, not what this command"):
        collect_web(collected, WEB, rows=4, scenes=1, workers=1, progress=False)
    web = collect_web(tmp_path / "web", WEB, rows=4, scenes=1, workers=1, progress=False)
    with pytest.raises(ValueError, match=r"web-style rows"):
        collect(web, scenes=1, **SMALL)


def test_verbal_episodes_say_every_step(tmp_path):
    suite = replace(SUITE, level=2, task="multi")
    out = collect(tmp_path, suite, scenes=1, episodes_per_scene=2, workers=1, verbal=True, progress=False)
    dataset = LeRobotDataset(out, 8)
    assert dataset.episodes[0].labels["group"] == "verbal"
    for i in range(len(dataset)):
        row = dataset.row(i)
        if row["subtask"] != "done":
            assert row["utterance"].split()[-1] == row["subtask"].split()[-1], (row["utterance"], row["subtask"])


def test_the_policy_drives_first_and_the_expert_is_recorded(tmp_path):
    seen = []

    def drive(observation):
        seen.append(observation["images"]["room"].shape)
        return np.append(observation["state"][:3] + [0.03, 0, 0.01], 0.0)

    out = collect(tmp_path, scenes=1, policy=drive, **(SMALL | {"suite": replace(SUITE, noise=NO_NOISE)}))
    dataset = LeRobotDataset(out, 8)
    for episode in dataset.episodes:
        driven = np.flatnonzero(dataset.perturbed[episode.start : episode.stop])
        assert 4 <= len(driven) <= 24 and driven[-1] == len(driven) - 1
    assert len(seen) == dataset.perturbed.sum() and seen[0] == (64, 64, 3)
    moved = dataset.actions[:3, :3] - dataset.state[:3, :3]
    assert not np.allclose(moved, [0.03, 0, 0.01], atol=5e-3)


def test_a_policy_may_drive_longer_and_that_is_a_setting_of_the_set(tmp_path):
    def stay(observation):
        return np.append(observation["state"][:3], 0.0)

    same = SMALL | {"suite": replace(SUITE, noise=NO_NOISE), "policy": stay}
    dataset = LeRobotDataset(collect(tmp_path / "set", scenes=2, **(same | {"driven_steps": 45})), 8)
    driven = [int(dataset.perturbed[episode.start : episode.stop].sum()) for episode in dataset.episodes]
    assert 24 < max(driven) <= 45, driven
    with pytest.raises(ValueError, match="driven_steps=45, now 30"):
        collect(tmp_path / "set", scenes=3, **(same | {"driven_steps": 30}))
    with pytest.raises(ValueError, match="at least 4 steps, got driven_steps=3"):
        collect(tmp_path / "other", scenes=1, **(same | {"driven_steps": 3}))


def test_a_policy_may_have_several_turns_and_the_expert_takes_over_from_each(tmp_path):
    class Stays:
        """Stays where it is, and looks at every third observation."""

        resets, calls = 0, 0

        def reset(self):
            self.resets, self.calls = self.resets + 1, 0

        @property
        def looks(self):
            return self.calls % 3 == 0

        def __call__(self, observation):
            self.calls += 1
            return np.append(observation["state"][:3], 0.0)

    policy, suite = Stays(), replace(WEB, noise=NO_NOISE)  # several moves: long episodes
    env = suite.make_env()
    record = demonstrate(
        suite, env, scene=0, episode=0, seed=3, policy=policy, driven_steps=8, takeovers=3, picture_every=5
    )
    env.close()
    assert isinstance(record, Demonstration)
    turns = np.flatnonzero(np.diff([False, *record.perturbed, False])).reshape(-1, 2)
    assert len(turns) == policy.resets == 3 and turns[0, 0] == 0
    hz = SUITE.robot.control_hz
    assert all(4 <= stop - start <= 8 for start, stop in turns)
    assert all(0.5 * hz <= start - stop <= 3 * hz for start, stop in zip(turns[1:, 0], turns[:-1, 1], strict=True))
    looked = {step for start, stop in turns for step in range(start, stop, 3)}
    assert np.flatnonzero(record.fresh).tolist() == sorted(looked | set(range(0, len(record.fresh), 5)))

    same = SMALL | {"suite": suite, "policy": Stays(), "takeovers": 2, "driven_steps": 8, "episodes_per_scene": 1}
    collect(tmp_path / "set", scenes=1, **same)
    with pytest.raises(ValueError, match="takeovers=2, now 3"):
        collect(tmp_path / "set", scenes=2, **(same | {"takeovers": 3}))


def test_without_noise_the_expert_is_executed():
    rng, action = np.random.default_rng(0), np.array([0.1, 0.1, 0.2, 0.0], np.float32)
    executed, perturbed = HomesDisturbance(rng, NO_NOISE).apply(np.zeros(5, np.float32), action)
    np.testing.assert_array_equal(executed, action)
    assert not perturbed


def test_disturbances_are_marked_and_end():
    rng = np.random.default_rng(0)
    noise = Noise(bursts=1.0, burst_rate=0.1, missed_grasps=1.0)
    state, above = np.array([0.1, 0.1, 0.2, 0, 0], np.float32), np.array([0.1, 0.1, 0.15, 0], np.float32)
    marks = []
    disturbance = HomesDisturbance(rng, noise)
    for _ in range(200):
        executed, perturbed = disturbance.apply(state, above)
        marks.append(perturbed)
        assert perturbed or np.abs(executed - above).max() < 0.05
    assert marks[0] and 0.1 < np.mean(marks) < 0.5


def test_web_rows_are_true(tmp_path):
    out = collect_web(tmp_path / "web", WEB, rows=60, scenes=2, workers=1, progress=False)
    rows = WebRows(out)
    assert 60 <= len(rows) <= 120
    for picture in {image for image, _, _ in rows.rows}:
        asked = {q: a for image, q, a in rows.rows if image == picture}
        listed = asked["list everything"]
        for question, answer in asked.items():
            if question.startswith("detect ") and question.split()[1] not in ("dishes", "toys"):
                assert answer in listed
            if question.startswith("what is at "):
                assert f"{question.removeprefix('what is at ')} {answer}" in listed
    assert collect_web(tmp_path / "web", WEB, rows=60, scenes=2, workers=1, progress=False) == out
    with pytest.raises(ValueError, match=r"was collected with rows=60, now 61"):
        collect_web(tmp_path / "web", WEB, rows=61, scenes=2, progress=False)


def test_progress_is_readable(collected):
    done = json.loads((collected / "collect.json").read_text())
    assert (done["homes"], done["episodes"], done["dropped"]) == (2, 4, 0)
    assert fmt.RECORDING not in {p.name for p in collected.iterdir()}


def test_episodes_that_fail_are_left_out_and_counted_by_reason(tmp_path, monkeypatch):
    answers = [Dropped(OUT_OF_TIME), demonstrate, Dropped(BROKEN), Dropped(OUT_OF_TIME)]

    def some_fail(*args, **options):
        answer = answers.pop(0)
        return answer if isinstance(answer, Dropped) else answer(*args, **options)

    monkeypatch.setattr(collecting, "demonstrate", some_fail)
    out = collect(tmp_path / "set", scenes=2, **SMALL)
    assert dropped_reasons(out) == {OUT_OF_TIME: 2, BROKEN: 1}
    assert json.loads((out / "collect.json").read_text())["dropped"] == 3
    assert len(LeRobotDataset(out, 8).episodes) == 1


def test_any_parallel_map_records_the_same(collected, tmp_path):
    again = collect(tmp_path / "set", scenes=2, **SMALL | {"workers": serial_map})
    same(LeRobotDataset(collected, 8), LeRobotDataset(again, 8))


def test_pictures_at_a_rate_of_their_own_are_held_in_between_and_rows_drawn_where_they_are_new(tmp_path):
    every = collect(tmp_path / "every", scenes=1, **SMALL)
    third = collect(tmp_path / "third", scenes=1, picture_every=3, **SMALL)
    full, thinned = LeRobotDataset(every, 4), LeRobotDataset(third, 4)
    np.testing.assert_array_equal(full.state, thinned.state)
    frames = np.array([full.row(row)["frame_index"] for row in range(len(full))])
    np.testing.assert_array_equal(thinned.trainable_rows(), np.flatnonzero(frames % 3 == 0))
    for row, frame in enumerate(frames.tolist()):
        np.testing.assert_array_equal(thinned.picture(row, "room"), full.picture(row - frame % 3, "room"))
    assert (full.picture(3, "room") != full.picture(1, "room")).any()


def test_a_simulator_without_states_of_their_own_cannot_hold_pictures(tmp_path):
    with pytest.raises(ValueError, match="picture_every=1"):
        collect(tmp_path / "set", DotSuite(name="dots", title=""), scenes=1, episodes_per_scene=1, picture_every=2)


def test_pictures_have_the_size_asked_for(tmp_path):
    path = collect(tmp_path / "set", scenes=1, image_size=40, **SMALL)
    assert LeRobotDataset(path, 4).picture(0, "wrist").shape == (40, 40, 3)


def test_a_supervisor_says_it_otherwise_when_something_slipped(monkeypatch):
    """An expert that goes back to its first subtask is corrected; one that goes on is asked."""
    pick, put = "pick up the cup", "put it in the sink"
    words = iter([pick, pick, put, pick, put, "pick up the ball", put])
    placed = iter([0, 0, 0, 0, 1, 1, 1])

    class Slipping:
        """Says a subtask more at every look, and moves nothing."""

        def __init__(self):
            self.subtask = "pick up the cup", None

        def act(self):
            self.subtask = next(words, "done"), None
            return np.array([0, 0, 0.2, 0], np.float32)

    monkeypatch.setattr(HomesSuite, "expert", lambda *_, **__: Slipping())
    monkeypatch.setattr(HomesSuite, "disturb", lambda *_: Disturbance())
    env = SUITE.make_env()
    monkeypatch.setattr(env, "advance", lambda action: {"success": True, "placed": next(placed, 2)})
    recorded = demonstrate(SUITE, env, scene=0, episode=0, seed=0, verbal=True)
    env.close()
    assert [step for step, _ in recorded.events] == [0, 2, 3, 4, 5, 6]
    said = [text.startswith("no, ") for _, text in recorded.events]
    assert said == [False, False, True, True, False, False]


def test_an_environment_is_kept_from_scene_to_scene_and_then_closed(tmp_path, monkeypatch):
    log = []

    class LoggedEnv(DotEnv):
        def __init__(self):
            super().__init__()
            log.append("made")

        def close(self):
            log.append("closed")

    monkeypatch.setattr(DotSuite, "make_env", lambda suite, image_size=64: LoggedEnv())
    dots = DotSuite(name="dots", title="")
    collect(tmp_path / "both", dots, scenes=3, episodes_per_scene=1, workers=1, progress=False)
    assert log == ["made", "closed"] * 2  # the first to see that it can be made
    collect(tmp_path / "last", dots, scenes=1, first_scene=2, episodes_per_scene=1, workers=1, progress=False)
    both, last = (LeRobotDataset(tmp_path / name, 1) for name in ("both", "last"))
    np.testing.assert_array_equal(both.actions[-len(last) :], last.actions)
