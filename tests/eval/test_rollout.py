"""An episode and its record: what the policy is shown, how often it looks, what is written down, and the film."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from eval.checkpoints import save_random_policy
from eval.toy_sim import ToyEnv, ToySuite
from pilot.eval.episode import GREY, EpisodeSetup, Timekeeping
from pilot.eval.records import EpisodeRecord
from pilot.eval.rollout import ExpertPolicy, film, roll_out, run_batched, run_episode
from pilot.eval.runner import Runner
from pilot.eval.settings import Settings
from pilot.infer.policy import load_policy
from pilot.infer.rtc import Rtc
from pilot.sims.homes import SUITES, HomesEnv
from pilot.tokenizers.text import split_box


@pytest.fixture(scope="module")
def env():
    env = HomesEnv(level=1, split="test")
    yield env
    env.close()


class Watcher:
    """Stays where it is and remembers what it was shown."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        self.seen.append(observation)
        stay = np.append(observation["state"][:3], 0.0).astype(np.float32)
        return {"actions": np.tile(stay, (8, 1)), "subtask": f"wait {len(self.seen)}", "box": None, "timing": {}}


def run(env, session=None, **changes):
    settings = {"suite": "homes-l1", "scene": 3, "episode": 0, "seed": 0, "replan_steps": 4} | changes
    return run_episode(env, lambda env: session or ExpertPolicy(SUITES[0], env, seed=0), EpisodeSetup(**settings))


def test_the_expert_puts_the_right_thing_away(env):
    record, actions = run(env, replan_steps=1)
    assert record.success and record.placed == record.targets == 1
    assert record.right_object_first and not record.wrong_object and record.first_grasped in record.prompt
    assert len(actions) == record.steps < env.max_steps
    assert [words for _, words in record.subtasks][:2] == [
        f"pick up the {record.first_grasped}",
        f"put it in the {record.prompt.split()[-1]}",
    ]
    steps = [step for step, _ in record.subtasks]
    assert steps == sorted(steps) and steps[0] == 0


def test_a_record_comes_back_from_json_as_it_was(env):
    record, _ = run(env, replan_steps=1)
    row = json.loads(json.dumps(record.to_json()))
    assert EpisodeRecord.from_json(row) == record and row["home"] == 3
    older = {name: value for name, value in row.items() if name not in ("replan_steps", "num_steps")}
    assert EpisodeRecord.from_json(older) == replace(record, replan_steps=None)


def test_it_looks_once_per_replan_steps_and_stops_at_the_limit(env):
    session = Watcher()
    record, actions = run(env, session)
    assert not record.success and record.steps == len(actions) == env.max_steps
    assert len(session.seen) == env.max_steps / 4
    assert record.first_grasped is None and not record.right_object_first and not record.wrong_object
    assert [step for step, _ in record.subtasks] == list(range(0, env.max_steps, 4))


def test_blank_images_leave_one_grey_and_the_rest_as_it_was(env):
    plain, blank = Watcher(), Watcher()
    run(env, plain)
    run(env, blank, control="blank_images")
    assert all((picture == GREY).all() for shown in blank.seen for picture in shown["images"].values())
    first, blanked = plain.seen[0], blank.seen[0]
    assert first["images"]["room"].std() > 0 and first["images"]["room"].shape == blanked["images"]["room"].shape
    np.testing.assert_array_equal(first["state"], blanked["state"])
    assert first["prompt"] == blanked["prompt"]


def test_another_prompt_is_shown_but_success_is_judged_by_the_episodes_own(env):
    session = Watcher()
    record, _ = run(env, session, control="shuffled_prompts", prompt="put the blue book in the bin")
    assert {shown["prompt"] for shown in session.seen} == {record.asked} == {"put the blue book in the bin"}
    own, _ = run(env, Watcher())
    assert record.prompt == own.prompt != record.asked


def test_the_oracle_tells_the_true_subtask_and_its_box(env):
    session = Watcher()
    record, _ = run(env, session, control="oracle")
    box, words = split_box(session.seen[0]["subtask"])
    assert words.startswith("pick up the ") and words.removeprefix("pick up the ") in record.prompt
    assert box is not None and all(0 <= edge <= 1 for edge in box)
    assert record.subtasks[0] == (0, "wait 1")


def test_a_film_shows_every_step_of_the_same_episode_with_what_was_said(env):
    record, actions = run(env, replan_steps=1)
    env.close()
    large = HomesEnv(level=1, split="test", image_size=96)
    shown = film(large, record, actions=actions)
    large.close()
    assert len(shown.frames) == len(shown.captions) == record.steps + 1
    assert all(frame.shape == (96, 96, 3) and frame.dtype == np.uint8 for frame in shown.frames)
    assert shown.captions[0] == record.subtasks[0][1] and shown.captions[-1] == record.subtasks[-1][1]
    put = record.subtasks[1][0]
    assert shown.captions[put - 1] == record.subtasks[0][1] and shown.captions[put] == record.subtasks[1][1]
    assert (shown.frames[0] != shown.frames[-1]).any()


def test_a_film_of_a_long_episode_leaves_steps_out_and_takes_as_long(env, monkeypatch):
    record, actions = run(env, replan_steps=1)
    whole = film(env, record, actions=actions)
    monkeypatch.setattr("pilot.eval.rollout.MOST_FRAMES", math.ceil((record.steps + 1) / 3))
    shown = film(env, record, actions=actions)
    assert len(shown.frames) == len(shown.captions) == math.ceil(record.steps / 3) + 1
    assert shown.fps == pytest.approx(whole.fps / 3)
    assert shown.captions == [*whole.captions[:-1:3], whole.captions[-1]]
    assert np.array_equal(shown.frames[1], whole.frames[3]) and np.array_equal(shown.frames[-1], whole.frames[-1])


def test_episodes_in_step_are_the_episodes_alone(env):
    """Five homes on two slots: each record is that of the home alone, and slots are filled again as they fall free."""
    alone = {home: run(env, replan_steps=1, scene=home)[0] for home in range(5)}
    free = [HomesEnv(level=1, split="test") for _ in range(2)]
    everything, used, asked = list(free), {}, []

    def rollouts():
        for home in alone:
            used[home] = free.pop()
            setup = EpisodeSetup(suite="homes-l1", scene=home, episode=0, seed=0, replan_steps=1)
            yield home, roll_out(used[home], setup), ExpertPolicy(SUITES[0], used[home], seed=0)

    def infer_many(sessions, observations):
        asked.append(len(sessions))
        return [session.infer(observation) for session, observation in zip(sessions, observations, strict=True)]

    together = {}
    for home, record, _ in run_batched(rollouts(), infer_many, batch_size=2):
        together[home] = record
        free.append(used.pop(home))
    for each in everything:
        each.close()
    assert together == alone
    assert max(asked) == 2 and sum(asked) == sum(record.steps for record in alone.values())


class Plans:
    """Answers with a chunk of numbers that say when it was asked and which action of the chunk it is: 100·look + i."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        self.seen.append(observation)
        chunk = 100.0 * len(self.seen) + np.arange(6, dtype=np.float32)[:, None]
        return {"actions": chunk, "subtask": None, "box": None, "timing": {"total": 0.25}}


def act(
    timekeeping: Timekeeping, *, replan_steps: int = 4, joins_chunks: bool = False
) -> tuple[EpisodeRecord, list[float], Plans]:
    plans, env = Plans(), Backwards()
    setup = EpisodeSetup(
        suite="toy", scene=0, episode=0, seed=0, replan_steps=replan_steps, joins_chunks=joins_chunks,
        timekeeping=timekeeping,
    )  # fmt: skip
    record, actions = run_episode(env, lambda env: plans, setup)
    return record, actions[:, 0].tolist(), plans


class Backwards(ToyEnv):
    """A point that never gets anywhere, at 10 control steps a second, for 12 steps."""

    def __init__(self) -> None:
        super().__init__(ToySuite(name="toy", title=""), 8)

    def advance(self, action: np.ndarray) -> dict[str, Any]:
        return super().advance(np.zeros(1))


def test_in_lock_step_the_world_waits():
    record, actions, plans = act(Timekeeping())
    assert actions == [100, 101, 102, 103, 200, 201, 202, 203, 300, 301, 302, 303]
    assert record.held == 0 and record.latencies_ms == (250.0,) * 3 == (record.infer_ms,) * 3 and len(plans.seen) == 3
    same, as_before, _ = act(Timekeeping(clock=True, latency_ms=0, executor="open-loop"))
    assert as_before == actions and same.held == 0


def test_on_the_clock_a_robot_stands_still_until_its_answer_comes():
    """200 ms are two control steps: the last command is repeated, and nothing of the new chunk is skipped."""
    record, actions, _ = act(Timekeeping(clock=True, latency_ms=200, executor="open-loop"))
    assert actions == [100, 101, 102, 103, 103, 103, 200, 201, 202, 203, 203, 203]
    assert record.held == 4
    record, begun, _ = act(Timekeeping(clock=True, latency_ms=101, executor="open-loop"))
    assert begun == actions, "a control step that has begun is lost"
    measured, actions, _ = act(Timekeeping(clock=True, executor="open-loop"))
    assert actions[4:7] == [103] * 3 and measured.held == 3 + 1, "250 ms, as the policy says"


def test_on_the_clock_the_old_chunk_goes_on_and_the_late_part_of_the_new_one_is_skipped():
    record, actions, plans = act(Timekeeping(clock=True, latency_ms=200, executor="rtc"), joins_chunks=True)
    assert actions[:8] == [100, 101, 102, 103, 104, 105, 202, 203] and record.held == 0
    assert "previous" not in plans.seen[0]
    previous = plans.seen[1]["previous"]
    assert previous["actions"][:, 0].tolist() == [104, 105] and previous["delay"] == 2
    _, alone, plans = act(Timekeeping(clock=True, latency_ms=200, executor="rtc"))
    assert alone == actions and not any("previous" in shown for shown in plans.seen)


def test_an_ensemble_averages_what_all_chunks_say_of_a_moment():
    _, actions, plans = act(Timekeeping(executor="ensemble"), replan_steps=1)
    assert len(plans.seen) == 12 and actions[0] == 100
    weights = np.exp(-0.01 * np.arange(2))
    assert actions[1] == pytest.approx(weights @ [101, 200] / weights.sum(), rel=1e-5)


def test_latency_without_a_clock_is_refused():
    with pytest.raises(ValueError, match="latency_ms is 0 or more, and only with the clock"):
        Timekeeping(latency_ms=100)
    with pytest.raises(ValueError, match="got -1 with clock=True"):
        Timekeeping(clock=True, latency_ms=-1)


def test_a_policy_of_two_moments_is_shown_what_was_seen_one_control_step_before_its_look():
    for replan_steps, looks in ((3, (0, 3, 6, 9)), (1, tuple(range(12)))):
        watcher, env = Plans(), Counts()
        setup = EpisodeSetup(suite="toy", scene=0, episode=0, seed=0, replan_steps=replan_steps, moments=2,
                             control="blank_images")  # fmt: skip
        run_episode(env, lambda env, watcher=watcher: watcher, setup)
        assert [shown["state"][0] for shown in watcher.seen] == list(looks)
        assert "past" not in watcher.seen[0]
        assert [shown["past"]["state"][0] for shown in watcher.seen[1:]] == [look - 1 for look in looks[1:]]
        assert all((shown["past"]["images"]["room"] == GREY).all() for shown in watcher.seen[1:])


class Counts(Backwards):
    """A point whose state is the number of control steps so far."""

    def observe(self) -> dict[str, Any]:
        return super().observe() | {"state": np.float32([self.steps])}


def test_the_way_to_join_chunks_is_chosen_for_an_evaluation_and_the_callers_policy_stays(tmp_path):
    policy = load_policy(save_random_policy(tmp_path / "policy"))
    before = policy.rtc
    timekeeping = Timekeeping(clock=True, latency_ms=100, executor="rtc", joining="prefix")
    runner = Runner(policy, Settings(timekeeping=timekeeping))
    assert runner.policy.rtc == Rtc(mode="prefix") and runner.joins_chunks
    assert policy.rtc == before == Rtc(mode="guided")
    with pytest.raises(ValueError, match="joining is how rtc continues a chunk, so it has no meaning for 'ensemble'"):
        Timekeeping(executor="ensemble", joining="prefix")
