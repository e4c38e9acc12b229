"""Evaluation of a policy on suites of episodes: resumable, in several processes, with intervals.

Every finished episode is one line of a JSONL log under a key (fingerprints of policy and code, suite, control, seed):
an evaluation that was stopped takes up where it was, and one that was made before is only read. Change the weights, the
simulator or how a policy acts, and the key changes with them.
"""

import hashlib
import json
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import as_completed
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import pilot
from pilot.data.loading.workers import worker_pool
from pilot.data.storage.files import atomic_write, clear_disk_errors, write_json
from pilot.eval.policies import at_hand, load
from pilot.eval.rollout import (
    EpisodeRecord,
    ExpertPolicy,
    Plan,
    Session,
    play,
    run_episode,
    run_together,
)
from pilot.eval.stats import wilson
from pilot.eval.suites import SUITES, Suite, check_control, get_suite
from pilot.infer.high_level import HighLevel, Human, Oracle, Vlm, named
from pilot.infer.high_level.advising import at_once
from pilot.sims.homes import HomesEnv

TOGETHER = 8  # episodes in step in one process, the policy asked once for all
BUNDLE = 24  # episodes that a worker reports at once


@dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """All episodes of one suite under one control, in order of homes."""

    suite: str
    title: str
    control: str
    policy: str
    records: tuple[EpisodeRecord, ...]

    @property
    def n(self) -> int:
        return len(self.records)

    @property
    def successes(self) -> int:
        return sum(record.success for record in self.records)

    @property
    def rate(self) -> float:
        return self.successes / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of the success rate."""
        return wilson(self.successes, self.n)

    def mean(self, of: Callable[[EpisodeRecord], float]) -> float:
        return float(np.mean([of(record) for record in self.records]))

    def to_json(self) -> dict[str, Any]:
        low, high = self.interval
        return {
            "suite": self.suite,
            "control": self.control,
            "policy": self.policy,
            "episodes": self.n,
            "successes": self.successes,
            "success": self.rate,
            "interval95": [low, high],
            "wrong_object": self.mean(lambda r: r.wrong_object),
            "right_object_first": self.mean(lambda r: r.right_object_first),
            "placed": self.mean(lambda r: r.placed / max(r.targets, 1)),
            "mean_steps": self.mean(lambda r: r.steps),
            "infer_ms": float(np.median([r.infer_ms for r in self.records])),
        }


@dataclass(frozen=True, kw_only=True)
class Job:
    """One episode to run."""

    suite: Suite
    control: str
    home: int
    seed: int
    episodes: int


class Runner:
    """Runs jobs in one process: the policy is loaded once, one environment stands at a time."""

    def __init__(self, policy: Any, *, replan_steps: int | None = None, high_level: HighLevel | None = None) -> None:
        self.policy, self.high_level = load(policy), high_level
        self.replan_steps = replan_steps or (self.policy or ExpertPolicy).metadata["replan_steps"]
        self.suite: Suite | None = None
        self.env: HomesEnv

    def run(self, job: Job) -> tuple[EpisodeRecord, np.ndarray]:
        """The episode's record and its actions."""
        self.enter(job.suite)
        return run_episode(self.env, lambda env: self.session(env, job), self.plan(job))

    def plan(self, job: Job) -> Plan:
        truth = isinstance(self.high_level, Oracle)
        return Plan(
            suite=job.suite.name,
            home=job.home,
            episode=0,
            seed=job.seed,
            replan_steps=self.replan_steps,
            control=job.control,
            prompt=other_prompt(job) if job.control == "shuffled_prompts" else None,
            truth=truth,
            loc_stride=self.policy.bundle.loc_stride if self.policy and (truth or job.control == "oracle") else 1,
        )

    def run_many(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, EpisodeRecord]]:
        """Every job with its record as it ends, `TOGETHER` at a time where the policy answers several at once."""
        if not hasattr(self.policy, "infer_many"):
            yield from ((job, self.run(job)[0]) for job in jobs)
            return
        for suite in dict.fromkeys(job.suite for job in jobs):
            of_suite = [job for job in jobs if job.suite == suite]
            free = [suite.make_env() for _ in range(min(TOGETHER, len(of_suite)))]
            envs = {}

            def games(of_suite: list[Job] = of_suite, free: list[HomesEnv] = free, envs: dict = envs) -> Iterator[Any]:
                for job in of_suite:
                    envs[job] = free.pop()
                    yield job, play(envs[job], self.plan(job)), self.session(envs[job], job)

            for job, record in run_together(games(), self.policy.infer_many, slots=TOGETHER):
                free.append(envs.pop(job))
                yield job, record
            for env in free:
                env.close()

    def enter(self, suite: Suite) -> None:
        if suite != self.suite:
            self.leave()
            self.suite, self.env = suite, suite.make_env()

    def leave(self) -> None:
        """Close the environment, if one stands."""
        if self.suite is not None:
            self.env.close()
        self.suite = None

    def session(self, env: HomesEnv, job: Job) -> Session:
        if self.policy is None:
            return ExpertPolicy(env, seed=job.seed + job.home)
        if self.high_level is None:
            return self.policy.session(replan_steps=self.replan_steps)
        return self.policy.session(replan_steps=self.replan_steps, high_level=self.high_level)


def other_prompt(job: Job) -> str:
    """The instruction of another home of the suite, drawn by seed, that differs from this home's own."""
    own = job.suite.prompt(job.home)
    for home in np.random.default_rng([job.seed, job.home]).permutation(job.episodes):
        if (other := job.suite.prompt(int(home))) != own:
            return other
    raise ValueError(
        f"suite '{job.suite.name}' asks the same in its first {job.episodes} homes ({own!r}), so there is nothing to "
        "shuffle; run more episodes"
    )


def evaluate(
    policy: Any,
    *,
    suite: str | Suite,
    episodes: int = 200,
    seed: int = 0,
    control: str = "none",
    workers: int | None = None,
    replan_steps: int | None = None,
    high_level: HighLevel | str | None = None,
    out: str | Path | None = None,
    progress: bool = True,
) -> SuiteResult:
    """Success of `policy` (a checkpoint's path, a policy, or "expert") in the suite's first `episodes` test homes.

    With `out` (a folder) every finished episode is logged to `out/episodes.jsonl` and none runs twice. `workers`
    defaults to 2 for a path; a policy object stays in this process. `replan_steps` and `high_level`
    (`infer/high_levels`) override the policy's own.
    Raises ValueError for an unknown suite or control, FileNotFoundError for a missing checkpoint.
    """
    table = evaluate_table(
        policy,
        suites=[suite],
        controls=[control],
        episodes=episodes,
        seed=seed,
        workers=workers,
        replan_steps=replan_steps,
        high_level=high_level,
        out=out,
        progress=progress,
    )
    return table[0]


def evaluate_table(
    policy: Any,
    *,
    suites: Sequence[str | Suite] = tuple(SUITES),
    controls: Sequence[str] = ("none", "blank_images", "shuffled_prompts"),
    episodes: int = 200,
    seed: int = 0,
    workers: int | None = None,
    replan_steps: int | None = None,
    high_level: HighLevel | str | None = None,
    out: str | Path | None = None,
    progress: bool = True,
) -> list[SuiteResult]:
    """`evaluate` for every suite under every control, in one pool of workers; suites outermost in the answer."""
    high_level = checked_high_level(high_level, policy)
    if episodes < 1:
        raise ValueError(f"an evaluation needs at least 1 episode, got {episodes}")
    for control in controls:
        check_control(control)
    chosen = [suite if isinstance(suite, Suite) else get_suite(suite) for suite in suites]
    jobs = [
        Job(suite=suite, control=control, home=home, seed=seed, episodes=episodes)
        for suite in chosen
        for control in controls
        for home in range(episodes)
    ]
    policy = at_hand(policy)
    label = fingerprint(policy)
    choices = f"{replan_steps or ''}" + (f"/{high_level}" if high_level else "")
    log = Log(Path(out) / "episodes.jsonl" if out else None, policy=f"{label}/{choices}")
    missing = [job for job in jobs if job not in log]
    runner = partial(Runner, policy, replan_steps=replan_steps, high_level=high_level)
    bar = tqdm(total=len(jobs), initial=len(jobs) - len(missing), disable=not progress, unit="episode")
    with bar, closing(run_jobs(runner, missing, workers=workers_for(policy, workers))) as found:
        for job, record in found:
            log.add(job, record)
            bar.set_description(f"{job.suite.name} {job.control}: {log.running(job)}", refresh=False)
            bar.update()
    return [
        SuiteResult(
            suite=suite.name,
            title=suite.title,
            control=control,
            policy=label,
            records=tuple(log[job] for job in jobs if job.suite == suite and job.control == control),
        )
        for suite in chosen
        for control in controls
    ]


def checked_high_level(level: HighLevel | str | None, policy: Any) -> HighLevel | None:
    """The high level of a policy under evaluation; None is the policy's own. One that is elsewhere is waited for."""
    if isinstance(level, str):
        level = named(level)
    if level is not None and policy == "expert":
        raise ValueError(f"the expert has no high level, got '{level.name}'")
    if isinstance(level, Human):
        raise ValueError("nobody can watch the robots of an evaluation; a person decides with: pilot serve")
    return replace(level, submit=at_once) if isinstance(level, Vlm) else level


def workers_for(policy: Any, workers: int | None) -> int:
    """Processes: those that were asked for, or 2 where each can load the policy itself."""
    portable = isinstance(policy, str | Path)
    if not portable and (workers or 1) > 1:
        raise ValueError(f"a policy object stays in this process, got workers={workers}; give the checkpoint's path")
    return workers or (2 if portable else 1)


def run_jobs(
    make_runner: Callable[[], Runner], jobs: Sequence[Job], *, workers: int
) -> Generator[tuple[Job, EpisodeRecord], None, None]:
    """Every job with its record, as they finish. Worker processes make their runner themselves."""
    workers = min(workers, len(jobs))
    if workers == 1:
        yield from make_runner().run_many(jobs)
    if workers <= 1:
        return
    bundles = [jobs[i : i + BUNDLE] for i in range(0, len(jobs), BUNDLE)]
    with worker_pool(workers, partial(_start_worker, make_runner)) as pool:
        futures = [pool.submit(_run_in_worker, bundle) for bundle in bundles]
        for future in as_completed(futures):
            yield from future.result()


_worker: Runner | None = None


def _start_worker(make_runner: Callable[[], Runner]) -> None:
    """One thread each: the processes are the parallelism."""
    global _worker
    torch.set_num_threads(1)
    _worker = make_runner()


def _run_in_worker(jobs: Sequence[Job]) -> list[tuple[Job, EpisodeRecord]]:
    assert _worker is not None, "the pool's initializer has not run"
    return list(_worker.run_many(jobs))


class Log:
    """Finished episodes of one policy by job, appended to a JSONL file if there is one.

    A line cut short by a crash is dropped, so that nothing half-written is taken for whole.
    """

    def __init__(self, path: Path | None, *, policy: str) -> None:
        self.path = path
        self.policy = f"{policy}/{code_fingerprint()}"
        self.records: dict[str, EpisodeRecord] = {}
        if path is not None and path.exists():
            self._read(path)

    def _read(self, path: Path) -> None:
        whole, _, cut = path.read_bytes().rpartition(b"\n")
        if cut:
            os.truncate(path, len(whole) + 1 if whole else 0)
        for line in whole.splitlines():
            row = json.loads(line)
            self.records[row["key"]] = EpisodeRecord.from_json(row["record"])

    def key(self, job: Job) -> str:
        pool = job.episodes if job.control == "shuffled_prompts" else ""  # prompts are drawn from that many homes
        vocabulary = "+".join((*(job.suite.kinds or ()), *(job.suite.receptacles or ())))
        return f"{self.policy}/{job.suite.name}/{vocabulary}/{job.control}/{pool}/{job.seed}/{job.home}"

    def __contains__(self, job: Job) -> bool:
        return self.key(job) in self.records

    def __getitem__(self, job: Job) -> EpisodeRecord:
        return self.records[self.key(job)]

    def add(self, job: Job, record: EpisodeRecord) -> None:
        self.records[self.key(job)] = record
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with clear_disk_errors(self.path), self.path.open("a") as file:
            file.write(json.dumps({"key": self.key(job), "record": record.to_json()}) + "\n")

    def running(self, job: Job) -> str:
        """Successes so far of the job's suite and control, as "12/20"."""
        same = self.key(job).rpartition("/")[0] + "/"
        done = [record.success for key, record in self.records.items() if key.startswith(same)]
        return f"{sum(done)}/{len(done)}"


def fingerprint(policy: Any) -> str:
    """Twelve hex digits of a checkpoint's files, or the fingerprint a policy object carries in its metadata."""
    if policy == "expert":
        return "expert"
    if not isinstance(policy, str | Path):
        return str(policy.metadata.get("fingerprint", "unnamed"))
    files = sorted(path for path in Path(policy).rglob("*") if path.is_file())
    if not files:
        raise FileNotFoundError(f"no checkpoint at {policy}; give a folder that pilot train wrote, or checkpoints/nano")
    return _digest(files)


def code_fingerprint() -> str:
    """Twelve hex digits of the source that decides an episode: the simulator's, and all that a policy acts through."""
    root = Path(pilot.__path__[0])
    folders = ("sims/homes", "robots", "tokenizers", "data", "nn", "models", "infer", "infer/high_levels")
    return _digest(sorted(path for folder in folders for path in (root / folder).glob("*.py")))


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def to_markdown(results: Sequence[SuiteResult]) -> str:
    """The table of `evaluate_table` for a page or a terminal."""
    lines = ["| suite | control | success | 95 % | wrong object first | steps |", "|---|---|---|---|---|---|"]
    for result in results:
        low, high = result.interval
        wrong = result.mean(lambda r: r.wrong_object)
        lines.append(
            f"| {result.suite} | {result.control} | {result.successes}/{result.n} = {result.rate:.1%} "
            f"| {low:.1%} – {high:.1%} | {wrong:.1%} | {result.mean(lambda r: r.steps):.0f} |"
        )
    return "\n".join(lines)


def save_table(results: Sequence[SuiteResult], path: str | Path) -> None:
    """Summary of every result as JSON at `path` and as markdown beside it, each written whole or not at all."""
    path = Path(path)
    write_json(path, [result.to_json() for result in results])
    with atomic_write(path.with_suffix(".md")) as temporary:
        temporary.write_text(to_markdown(results) + "\n")
