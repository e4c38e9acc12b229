"""Workers and simulators that crash or hang are started anew, and no episode is missing in the end."""

import dataclasses
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from eval.toy_sim import ToySuite
from pilot.data.loading.parallel import serial_map
from pilot.eval import crew as crew_module
from pilot.eval.crew import Crew, _run_portion
from pilot.eval.episode import Timekeeping
from pilot.eval.evaluate import LOST_IN_A_ROW, evaluate, evaluate_table
from pilot.eval.runner import ATTEMPTS, BATCH_SIZE, Job, Runner

TOY = ToySuite(name="toy", title="go to one")


def jobs(suite: ToySuite, episodes: int) -> list[Job]:
    return [Job(suite=suite, control="none", scene=scene, seed=0, episodes=episodes) for scene in range(episodes)]


def test_processes_that_die_or_hang_are_started_anew_with_the_same_episode(tmp_path, monkeypatch):
    monkeypatch.setattr(crew_module, "LOOK_SECONDS", 0.1)
    suite = dataclasses.replace(TOY, folder=str(tmp_path), kills=(1,), hangs=(2,))
    crew = Crew(MakeExpertRunner(), workers=2, stall_seconds=8.0)
    try:
        finished = list(crew.run(jobs(suite, 4)))
        again = list(crew.run(jobs(suite, 2)))
    finally:
        crew.close()
    assert sorted(each.job.scene for each in finished) == [0, 1, 2, 3]
    records = {each.job.scene: each.record for each in finished}
    assert {scene: record.restarts for scene, record in records.items() if record.restarts} == {1: 1, 2: 1}
    plain = {
        scene: evaluate("expert", suite=TOY, episodes=5, workers=1, progress=False).records[scene] for scene in records
    }
    untimed = {"restarts": 0, "infer_ms": 0.0, "latencies_ms": ()}
    for scene, record in records.items():
        assert dataclasses.replace(record, **untimed) == dataclasses.replace(plain[scene], **untimed)
    assert [each.record.restarts for each in again] == [0, 0]


def test_a_worker_that_dies_after_its_last_episode_ended_is_replaced(monkeypatch):
    first, *left = jobs(TOY, 3)
    monkeypatch.setattr(crew_module, "EpisodeWorker", Dead)
    crew = Crew(MakeExpertRunner(), workers=2)
    worker = Dead()
    worker.current, worker.left = first, left
    crew.workers = [worker]
    assert list(crew.replace(worker, {first: ATTEMPTS - 1})) == []
    assert crew.workers[0] is not worker and crew.workers[0].left == left


class Dead:
    """A worker whose process has died."""

    is_alive, process = False, SimpleNamespace(exitcode=-11)

    def __init__(self, make_runner=None):
        self.left = []

    def take(self, jobs):
        self.left = list(jobs)

    def end(self):
        pass


class MakeExpertRunner:
    """Makes a runner in a worker process."""

    def __call__(self, *, entered=lambda job: None) -> Runner:
        return Runner("expert", entered=entered)


def test_a_crash_is_tried_again_and_what_crashes_every_time_counts_as_failed(tmp_path):
    once = dataclasses.replace(TOY, folder=str(tmp_path), crashes=(1,))
    result = evaluate("expert", suite=once, episodes=3, workers=1, progress=False)
    assert [record.restarts for record in result.records] == [0, 1, 0] and result.records[1].success
    ever = dataclasses.replace(once, always=True)
    out = tmp_path / "out"
    result = evaluate("expert", suite=ever, episodes=3, workers=1, out=out, progress=False)
    crashed = result.records[1]
    assert result.n == 3 and not crashed.success and crashed.restarts == ATTEMPTS - 1
    assert crashed.lost == "RuntimeError: the physics blew up"
    assert len((out / "episodes.jsonl").read_text().splitlines()) == 3
    evaluate("expert", suite=ever, episodes=3, workers=1, out=out, progress=False)
    assert len((out / "episodes.jsonl").read_text().splitlines()) == 4, "only what was lost is tried again"


class Batched:
    """A policy that answers several at once: it goes to one, and remembers how many asked together."""

    metadata: ClassVar[dict[str, Any]] = {"replan_steps": 1}

    def __init__(self) -> None:
        self.together: list[int] = []

    def session(self, *, replan_steps: int) -> "Batched":
        return self

    def reset(self) -> None:
        pass

    def infer_many(self, sessions: list[Any], observations: list[Any]) -> list[dict[str, Any]]:
        self.together.append(len(sessions))
        return [{"actions": np.ones((4, 1)), "subtask": None, "timing": {"total": 0.0}} for _ in observations]


def test_an_episode_that_cannot_begin_counts_as_lost_and_the_others_go_on():
    """Scene 1 is among those that begin together, scene 9 takes the place of one that has ended."""
    suite = dataclasses.replace(TOY, broken_starts=(1, 9))
    result = evaluate(Batched(), suite=suite, episodes=BATCH_SIZE + 3, progress=False)
    lost = {record.scene: record for record in result.records if record.lost}
    assert result.n == BATCH_SIZE + 3 and set(lost) == {1, 9} and result.successes == BATCH_SIZE + 1
    assert lost[1].lost == "RuntimeError: the scene cannot be built" and lost[9].restarts == ATTEMPTS - 1


@pytest.mark.parametrize(("latency_ms", "together"), [(None, 1), (100.0, 3)])
def test_a_policy_whose_answers_are_timed_is_asked_for_one_robot_at_a_time(latency_ms, together):
    policy = Batched()
    timekeeping = Timekeeping(clock=True, latency_ms=latency_ms)
    evaluate(policy, suite=TOY, episodes=3, timekeeping=timekeeping, progress=False)
    assert max(policy.together) == together


def test_a_simulator_that_never_works_ends_the_run(tmp_path):
    broken = dataclasses.replace(TOY, folder=str(tmp_path), crashes=tuple(range(20)), always=True)
    with pytest.raises(ChildProcessError, match="5 episodes in a row were lost, the last in scene 4 of 'toy'") as error:
        evaluate("expert", suite=broken, episodes=20, workers=1, out=tmp_path, progress=False)
    assert "the physics blew up" in str(error.value) and LOST_IN_A_ROW == 5


def test_a_crashed_environment_is_closed_and_not_used_again(tmp_path):
    suite = dataclasses.replace(TOY, folder=str(tmp_path), crashes=(0,))
    runner = Runner("expert")
    first = runner.take_env(suite)
    runner.free[suite].append(first)
    record, actions = runner.run(jobs(suite, 1)[0])
    assert first.closed and record.restarts == 1 and len(actions) == record.steps
    assert np.allclose(actions, 1.0)
    (kept,) = runner.free[suite]
    runner.leave()
    assert kept.closed


def test_an_error_of_ours_in_a_worker_is_raised_here_with_its_words():
    crew = Crew(MakeBrokenRunner(), workers=2)
    with pytest.raises(ValueError, match="this policy has no arms"):
        list(crew.run(jobs(TOY, 1)))
    crew.close()


class MakeBrokenRunner:
    """Fails in the worker, as a damaged checkpoint would."""

    def __call__(self, *, entered=lambda job: None) -> Runner:
        raise ValueError("this policy has no arms")


def test_episodes_on_another_map_are_the_same_episodes(monkeypatch):
    """On a Ray cluster as here: portions go to whoever takes them, and a process keeps its runner between them."""
    made = []
    monkeypatch.setattr(crew_module, "PORTION", 2)

    def counted(token, make_runner, jobs):
        made.append(len(jobs))
        return _run_portion(token, make_runner, jobs)

    monkeypatch.setattr(crew_module, "_run_portion", counted)
    options = {"suites": [TOY], "controls": ["none"], "episodes": 5, "progress": False}
    (there,) = evaluate_table("expert", parallel_map=serial_map, **options)
    (here,) = evaluate_table("expert", workers=1, **options)
    untimed = {"infer_ms": 0.0, "latencies_ms": ()}
    for one, other in zip(there.records, here.records, strict=True):
        assert dataclasses.replace(one, **untimed) == dataclasses.replace(other, **untimed)
    assert made == [2, 2, 1] and not crew_module._kept
