"""Runs the episodes of an evaluation: one policy per process, several episodes in step, several processes."""

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch

from pilot.data.loading.parallel import worker_pool
from pilot.eval.policies import load, robot_for
from pilot.eval.rollout import (
    EpisodeRecord,
    EpisodeSetup,
    ExpertPolicy,
    Rollout,
    RolloutPolicy,
    roll_out,
    run_batched,
    run_episode,
)
from pilot.infer.high_level import HighLevel, Oracle
from pilot.sims.base import SimEnv, Suite

BATCH_SIZE = 8  # episodes in step in one process, with one call of the policy for all
REPORT_EVERY = 24  # episodes that a worker runs before it reports them


@dataclass(frozen=True, kw_only=True)
class Job:
    """One episode to run, of an evaluation of the suite's first `episodes` scenes."""

    suite: Suite
    control: str
    scene: int
    seed: int
    episodes: int


class Runner:
    """Runs jobs in one process. The policy is loaded once, and environments are used again."""

    def __init__(
        self,
        policy: Any,
        *,
        robot: str | None = None,
        num_steps: int | None = None,
        replan_steps: int | None = None,
        high_level: HighLevel | None = None,
    ) -> None:
        self.policy = load(policy, num_steps=num_steps)
        self.robot, self.high_level = robot, high_level
        self.replan_steps = replan_steps or (self.policy or ExpertPolicy).metadata["replan_steps"]
        self.suite: Suite | None = None
        self.env: SimEnv

    def run(self, job: Job) -> tuple[EpisodeRecord, np.ndarray]:
        """Run one episode; return its record and the executed actions [t ad]."""
        self.enter(job.suite)
        return run_episode(self.env, lambda env: self.make_session(env, job), self.setup(job))

    def setup(self, job: Job) -> EpisodeSetup:
        """Return how the job's episode is run."""
        true_subtask = isinstance(self.high_level, Oracle)
        writes_boxes = self.policy and (true_subtask or job.control == "oracle")
        return EpisodeSetup(
            suite=job.suite.name,
            task=job.suite.task_of(job.scene),
            scene=job.scene,
            episode=0,
            seed=job.seed,
            replan_steps=self.replan_steps,
            num_steps=getattr(self.policy, "num_steps", None),
            control=job.control,
            prompt=other_prompt(job) if job.control == "shuffled_prompts" else None,
            true_subtask=true_subtask,
            loc_stride=self.policy.bundle.loc_stride if writes_boxes else 1,
        )

    def run_many(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, EpisodeRecord]]:
        """Run jobs, `BATCH_SIZE` at a time where the policy can answer several; yield each record as it is done."""
        if not hasattr(self.policy, "infer_many"):
            yield from ((job, self.run(job)[0]) for job in jobs)
            return
        for suite in dict.fromkeys(job.suite for job in jobs):
            yield from self.run_suite(suite, [job for job in jobs if job.suite == suite])

    def run_suite(self, suite: Suite, jobs: Sequence[Job]) -> Iterator[tuple[Job, EpisodeRecord]]:
        """Run jobs of one suite in step. An environment whose episode has ended takes up the next job."""
        free = [suite.make_env() for _ in range(min(BATCH_SIZE, len(jobs)))]
        busy: dict[Job, SimEnv] = {}

        def rollouts() -> Iterator[tuple[Job, Rollout, RolloutPolicy]]:
            for job in jobs:
                busy[job] = env = free.pop()
                yield job, roll_out(env, self.setup(job)), self.make_session(env, job)

        for job, record in run_batched(rollouts(), self.policy.infer_many, batch_size=BATCH_SIZE):
            free.append(busy.pop(job))
            yield job, record
        for env in free:
            env.close()

    def enter(self, suite: Suite) -> None:
        """Make the environment of a suite, unless it stands already."""
        if suite != self.suite:
            self.leave()
            self.suite, self.env = suite, suite.make_env()

    def leave(self) -> None:
        """Close the environment, if one stands."""
        if self.suite is not None:
            self.env.close()
        self.suite = None

    def make_session(self, env: SimEnv, job: Job) -> RolloutPolicy:
        """Make what acts in one episode: a session of the policy, or the suite's expert."""
        if self.policy is None:
            return ExpertPolicy(job.suite, env, seed=job.seed + job.scene)
        options: dict[str, Any] = {"replan_steps": self.replan_steps}
        if (robot := robot_for(self.policy, job.suite, robot=self.robot)) is not None:
            options["robot"] = robot
        if self.high_level is not None:
            options["high_level"] = self.high_level
        return self.policy.session(**options)


def other_prompt(job: Job) -> str:
    """Return the instruction of another scene of the suite, drawn by seed, that differs from this scene's own."""
    own = prompt_of(job.suite, job.scene)
    for scene in np.random.default_rng([job.seed, job.scene]).permutation(job.episodes):
        if (other := prompt_of(job.suite, int(scene))) != own:
            return other
    raise ValueError(
        f"suite '{job.suite.name}' asks the same in its first {job.episodes} {job.suite.scene}s ({own!r}), so there is "
        "nothing to shuffle; run more episodes"
    )


@cache
def prompt_of(suite: Suite, scene: int) -> str:
    """Return the instruction of a scene's first episode; a simulator may have to build the scene to know it."""
    return suite.prompt(scene)


def run_jobs(
    make_runner: Callable[[], Runner], jobs: Sequence[Job], *, workers: int
) -> Generator[tuple[Job, EpisodeRecord], None, None]:
    """Run jobs; yield each with its record as it is done. Worker processes make their runner themselves."""
    workers = min(workers, len(jobs))
    if workers == 1:
        yield from make_runner().run_many(jobs)
    if workers <= 1:
        return
    portions = [jobs[i : i + REPORT_EVERY] for i in range(0, len(jobs), REPORT_EVERY)]
    with worker_pool(workers, partial(_start_worker, make_runner)) as pool:
        futures = [pool.submit(_run_in_worker, portion) for portion in portions]
        for future in as_completed(futures):
            yield from future.result()


_worker: Runner | None = None


def _start_worker(make_runner: Callable[[], Runner]) -> None:
    """Make the runner of a worker process."""
    global _worker
    torch.set_num_threads(1)  # the processes are the parallelism
    _worker = make_runner()


def _run_in_worker(jobs: Sequence[Job]) -> list[tuple[Job, EpisodeRecord]]:
    assert _worker is not None, "the pool's initializer has not run"
    return list(_worker.run_many(jobs))
