"""An episode and its record: what the policy is shown, how often it looks, what is written down, and the film."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pilot.eval.rollout import (
    GREY,
    EpisodeRecord,
    EpisodeSetup,
    ExpertPolicy,
    film,
    roll_out,
    run_batched,
    run_episode,
)
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
    for home, record in run_batched(rollouts(), infer_many, batch_size=2):
        together[home] = record
        free.append(used.pop(home))
    for each in everything:
        each.close()
    assert together == alone
    assert max(asked) == 2 and sum(asked) == sum(record.steps for record in alone.values())
