"""Runs episodes in one process: one policy, several episodes in step, environments that are used again."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from pilot.eval.episode import EpisodeSetup, ExecutorName, SimulatorError
from pilot.eval.policies import load, robot_for
from pilot.eval.records import EpisodeRecord
from pilot.eval.rollout import ExpertPolicy, Rollout, RolloutPolicy, roll_out, run_batched, run_episode
from pilot.eval.settings import Settings
from pilot.eval.stand_ins import StandIn
from pilot.infer.high_level import Oracle
from pilot.infer.rtc import Rtc
from pilot.sims.base import SimEnv, Suite, TaskSuite

BATCH_SIZE = 8  # episodes in step in one process, with one call of the policy for all, unless answers are timed
ATTEMPTS = 3  # at an episode whose simulator crashes or hangs; then it is lost


@dataclass(frozen=True, kw_only=True)
class Job:
    """One episode to run, of an evaluation of the suite's first `episodes` scenes."""

    suite: Suite
    control: str
    scene: int
    seed: int
    episodes: int

    def __str__(self) -> str:
        return f"{self.suite.scene} {self.scene} of '{self.suite.name}' (control {self.control}, seed {self.seed})"


class Finished(NamedTuple):
    """An episode that is over: its record, and the executed actions [t ad]."""

    job: Job
    record: EpisodeRecord
    actions: np.ndarray


class Runner:
    """Runs jobs in one process. The policy is loaded once, and environments are used again.

    `entered` is called with a job whenever its simulator is about to work, so that somebody can watch.
    """

    def __init__(
        self,
        policy: Any,
        settings: Settings | None = None,
        *,
        entered: Callable[[Job], None] = lambda job: None,
    ) -> None:
        self.settings = settings = settings or Settings()
        self.policy = load(policy, num_steps=settings.num_steps)
        metadata = (self.policy or ExpertPolicy).metadata
        self.timekeeping = replace(settings.timekeeping, executor=self._choose_executor())
        if settings.timekeeping.joining is not None and self.policy is not None:
            self.policy = copy(self.policy)  # the caller's own stays as it is
            self.policy.rtc = Rtc(mode=settings.timekeeping.joining)
        self.joins_chunks = self.timekeeping.executor == "rtc" and bool(metadata.get("rtc"))
        self.entered = entered
        self.free: dict[Suite, list[SimEnv]] = {}

    def run(self, job: Job) -> tuple[EpisodeRecord, np.ndarray]:
        """Run one episode; return its record and the executed actions [t ad]."""
        for attempt in range(ATTEMPTS):
            self.entered(job)
            env = self.take_env(job.suite)
            try:
                # An expert reads the scene, and is made once that stands; a session may watch it from the start.
                session = None if self.policy is None else self.make_session(None, job)
                shown = env if session is None else self.watched(env, session, job)
                make = partial(self._session_or_expert, session, job)
                record, actions = run_episode(shown, make, self.setup(job))
            except SimulatorError as error:
                _drop(env)
                crash = str(error)
            else:
                self.free[job.suite].append(env)
                return replace(record, restarts=attempt), actions
        return lost(job, crash)

    def run_many(self, jobs: Iterable[Job]) -> Iterator[Finished]:
        """Run jobs, `batch_size` at a time where the policy can answer several; yield each as it is done."""
        if not hasattr(self.policy, "infer_many"):
            yield from (Finished(job, *self.run(job)) for job in jobs)
            return

        def rollouts() -> Iterator[tuple[Job, Rollout, RolloutPolicy]]:
            for job in jobs:
                session = self.make_session(None, job)
                yield job, self.attempt(job, session), session

        for finished in run_batched(rollouts(), self.policy.infer_many, batch_size=self.batch_size):
            yield Finished(*finished)

    @property
    def batch_size(self) -> int:
        """How many episodes are in step: one where answers are timed, for all of a batch take as long as the batch."""
        is_timed = self.timekeeping.clock and self.timekeeping.latency_ms is None
        return 1 if is_timed else BATCH_SIZE

    def attempt(self, job: Job, session: RolloutPolicy) -> Rollout:
        """Run a job for `run_batched`, up to `ATTEMPTS` times where its simulator crashes."""
        for restarts in range(ATTEMPTS):
            self.entered(job)
            env = self.take_env(job.suite)
            rollout = roll_out(self.watched(env, session, job), self.setup(job))
            try:
                shown = next(rollout)
                while True:
                    answer = yield shown
                    self.entered(job)
                    shown = rollout.send(answer)
            except SimulatorError as error:
                _drop(env)
                crash = str(error)
                session.reset()  # type: ignore[attr-defined]  # a policy that answers several has sessions
            except StopIteration as end:
                self.free[job.suite].append(env)
                record, actions = end.value
                return replace(record, restarts=restarts), actions
        return lost(job, crash)

    def setup(self, job: Job) -> EpisodeSetup:
        """Return how the job's episode is run."""
        true_subtask = isinstance(self.settings.high_level, Oracle)
        writes_boxes = self.policy and (true_subtask or job.control == "oracle")
        return EpisodeSetup(
            suite=job.suite.name,
            task=job.suite.task_of(job.scene),
            scene=job.scene,
            episode=0,
            seed=job.seed,
            robot=robot_for(self.policy or "expert", job.suite, robot=self.settings.robot) or job.suite.robot.name,
            replan_steps=self.replan_steps_in(job.suite),
            num_steps=getattr(self.policy, "num_steps", None),
            control=job.control,
            prompt=other_prompt(job) if job.control == "shuffled_prompts" else None,
            true_subtask=true_subtask,
            loc_stride=self.policy.bundle.loc_stride if writes_boxes else 1,
            hold_steps=self.settings.hold_steps,
            timekeeping=self.timekeeping,
            moments=getattr(getattr(getattr(self.policy, "model", None), "config", None), "observation_steps", 1),
            joins_chunks=self.joins_chunks,
        )

    def _choose_executor(self) -> ExecutorName:
        """Return what was asked for, or the policy's own; on the clock one that waits for no answer."""
        asked = self.settings.timekeeping
        own: ExecutorName = getattr(getattr(self.policy, "model", None), "default_executor", "open-loop")
        return asked.executor or ("rtc" if asked.clock and own == "open-loop" else own)

    def replan_steps_in(self, suite: Suite) -> int:
        """Return how many actions of a chunk are executed in a suite: what was asked for, or what suits the robot."""
        if self.settings.replan_steps:
            return self.settings.replan_steps
        if self.policy is None:
            return ExpertPolicy.metadata["replan_steps"]
        robot = robot_for(self.policy, suite, robot=self.settings.robot)
        metadata = self.policy.metadata if robot is None else self.policy.describe(robot)
        return metadata["replan_steps"]

    def take_env(self, suite: Suite) -> SimEnv:
        """Return an environment of a suite that no episode is in; those of other suites that are free are closed."""
        for other in [other for other in self.free if other != suite]:
            self._close(other)
        free = self.free.setdefault(suite, [])
        return free.pop() if free else suite.make_env()

    def _session_or_expert(self, session: RolloutPolicy | None, job: Job, env: SimEnv) -> RolloutPolicy:
        return self.make_session(env, job) if session is None else session

    def watched(self, env: SimEnv, session: RolloutPolicy, job: Job) -> SimEnv:
        """Return an environment as the session's high level watches it, if that one reads the simulator."""
        level = getattr(session, "high_level", None)
        if not isinstance(level, StandIn):
            return env
        return level.watch(env, job.suite, loc_stride=self.policy.bundle.loc_stride)

    def leave(self) -> None:
        """Close the environments that no episode is in."""
        for suite in list(self.free):
            self._close(suite)

    def _close(self, suite: Suite) -> None:
        free = self.free[suite]
        while free:
            free.pop().close()

    def make_session(self, env: SimEnv | None, job: Job) -> RolloutPolicy:
        """Make what acts in one episode: a session of the policy, or the suite's expert, which looks at `env`."""
        if self.policy is None:
            assert env is not None, "an expert reads the simulator's state"
            return ExpertPolicy(job.suite, env, seed=job.seed + job.scene)
        options: dict[str, Any] = {"replan_steps": self.replan_steps_in(job.suite)}
        if (robot := robot_for(self.policy, job.suite, robot=self.settings.robot)) is not None:
            options["robot"] = robot
        if (level := self.settings.high_level) is not None:
            options["high_level"] = level.for_episode() if isinstance(level, StandIn) else level
        return self.policy.session(**options)


def lost(job: Job, why: str) -> tuple[EpisodeRecord, np.ndarray]:
    """Return the record of an episode whose simulator crashed or hung at every attempt, and no actions."""
    record = EpisodeRecord.of_lost(
        why, suite=job.suite.name, control=job.control, scene=job.scene, seed=job.seed, restarts=ATTEMPTS - 1
    )
    # Of other suites the simulator names the task, in an episode that is played: nobody knows that of this one.
    task = job.suite.task_of(job.scene) if isinstance(job.suite, TaskSuite) else None
    return replace(record, task=task), np.zeros((0, job.suite.robot.action_dim))


def _drop(env: SimEnv) -> None:
    """Close an environment that has crashed, as far as it can."""
    with suppress(Exception):
        env.close()


def other_prompt(job: Job) -> str:
    """Return the instruction of another scene of the suite, drawn by seed, that differs from this scene's own.

    Raises:
        ValueError: all of them ask for the same.
    """
    suite = job.suite
    if suite.asks_one_thing:
        raise ValueError(f"suite '{suite.name}' asks the same of the robot everywhere, so there is nothing to shuffle")
    own = prompt_of(suite, job.scene, job.seed)
    for scene in np.random.default_rng([job.seed, job.scene]).permutation(job.episodes):
        if (other := prompt_of(suite, int(scene), job.seed)) != own:
            return other
    raise ValueError(
        f"suite '{suite.name}' asks the same in its first {job.episodes} {suite.scene}s ({own!r}), so there is "
        "nothing to shuffle; run more episodes"
    )


@cache
def prompt_of(suite: Suite, scene: int, seed: int) -> str:
    """Return the instruction of a scene's first episode; a simulator may have to build the scene to know it."""
    return suite.prompt(scene, seed=seed)
