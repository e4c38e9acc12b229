"""Evaluation of a policy on suites of episodes: resumable, in several processes, with intervals.

    evaluate("checkpoints/nano", suite="SUITE", episodes=200, out="outputs/eval").rate

An evaluation that was stopped goes on where it was, and one that is finished is only read (`eval/episode_log.py`). With
`until` it ends as soon as it knows on which side of a rate the success is (`stats.anytime_interval`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pilot.eval.episode_log import EpisodeLog, fingerprint
from pilot.eval.policies import fetch_policy, robot_for, robots_of, with_known_robot
from pilot.eval.results import SuiteResult
from pilot.eval.rollout import EpisodeRecord
from pilot.eval.runner import Job, Runner, run_jobs
from pilot.eval.stats import anytime_interval
from pilot.eval.suites import all_suites, check_control, load_suite, suites_for
from pilot.infer.high_level import HighLevel, Human, Vlm, make_high_level
from pilot.infer.high_level.vlm import at_once
from pilot.locks import lock_folder
from pilot.sims.base import Suite

ROUND = 24  # episodes of each suite and control between two looks, with `until`


def evaluate(
    policy: Any,
    *,
    suite: str | Suite,
    episodes: int = 200,
    seed: int = 0,
    control: str = "none",
    robot: str | None = None,
    workers: int | None = None,
    num_steps: int | None = None,
    replan_steps: int | None = None,
    high_level: HighLevel | str | None = None,
    until: float | None = None,
    out: str | Path | None = None,
    progress: bool = True,
) -> SuiteResult:
    """Measure the success of a policy in the first `episodes` scenes of a suite.

    Args:
        policy: a checkpoint's path, a policy object, or "expert", the scripted expert of the suite.
        suite: its name, or a `Suite` of your own.
        control: what is taken away from the policy, see `eval/suites.py`.
        robot: which of the policy's robots acts; by default that of the suite by name, or the only one.
        workers: processes; by default 2 for a path. A policy object stays in this process.
        num_steps: denoising steps; None is the policy's own choice, as for `replan_steps` and `high_level`.
        replan_steps: actions of a chunk that are executed before the policy looks again.
        high_level: what decides on subtasks (`infer/high_level`).
        until: stop once the success is surely above or below this rate, which `episodes` still bounds.
        out: folder of the log `episodes.jsonl`; with it, no finished episode runs twice.

    Raises:
        ValueError: an unknown suite or control, or a policy for another robot than the suite's.
        FileNotFoundError: there is no checkpoint at the path.
        FolderInUseError: another process evaluates into `out`.
    """
    table = evaluate_table(
        policy,
        suites=[suite],
        controls=[control],
        episodes=episodes,
        seed=seed,
        robot=robot,
        workers=workers,
        num_steps=num_steps,
        replan_steps=replan_steps,
        high_level=high_level,
        until=until,
        out=out,
        progress=progress,
    )
    return table[0]


def evaluate_table(
    policy: Any,
    *,
    suites: Sequence[str | Suite] | None = None,
    controls: Sequence[str] = ("none", "blank_images", "shuffled_prompts"),
    episodes: int = 200,
    seed: int = 0,
    robot: str | None = None,
    workers: int | None = None,
    num_steps: int | None = None,
    replan_steps: int | None = None,
    high_level: HighLevel | str | None = None,
    until: float | None = None,
    out: str | Path | None = None,
    progress: bool = True,
) -> list[SuiteResult]:
    """Run `evaluate` for every suite under every control, in one pool of workers; suites outermost in the answer.

    Without `suites`, those of `robot`, or of all robots of the policy.
    """
    high_level = prepare_high_level(high_level, policy)
    check_settings(policy, episodes=episodes, num_steps=num_steps, until=until)
    policy = fetch_policy(policy)
    chosen = select_suites(policy, suites, robot=robot)
    for suite in chosen:
        robot_for(policy, suite, robot=robot)
        for control in controls:
            check_control(control, suite)
    jobs = [
        Job(suite=suite, control=control, scene=scene, seed=seed, episodes=episodes)
        for suite in chosen
        for control in controls
        for scene in range(episodes)
    ]
    label = fingerprint(policy)
    choices = f"{replan_steps or ''}" + (f"/{num_steps} steps" if num_steps else "")
    choices += f"/{high_level}" if high_level else ""
    choices += f"/robot {robot}" if robot else ""
    runner = partial(
        Runner, policy, robot=robot, num_steps=num_steps, replan_steps=replan_steps, high_level=high_level
    )  # fmt: skip
    workers = workers_for(policy, workers)
    with lock_folder(out) if out else nullcontext():
        log = EpisodeLog(Path(out) / "episodes.jsonl" if out else None, policy=f"{label}/{choices}")
        run_missing(jobs, log, runner=runner, workers=workers, until=until, progress=progress)
    return [
        SuiteResult(
            suite=suite.name,
            title=suite.title,
            control=control,
            policy=label,
            until=until,
            records=_records(jobs, log, suite=suite, control=control, until=until),
        )
        for suite in chosen
        for control in controls
    ]


def run_missing(
    jobs: Sequence[Job],
    log: EpisodeLog,
    *,
    runner: Callable[[], Runner],
    workers: int,
    until: float | None,
    progress: bool,
) -> None:
    """Run those of the jobs that are not in the log yet; with `until`, only as many as it takes to decide."""
    done = sum(job in log for job in jobs)
    with tqdm(total=len(jobs), initial=done, disable=not progress, unit="episode") as bar:
        for wanted in rounds(jobs, log, until=until):
            missing = [job for job in wanted if job not in log]
            with closing(run_jobs(runner, missing, workers=workers)) as finished:
                for job, record in finished:
                    log.add(job, record)
                    bar.set_description(f"{job.suite.name} {job.control}: {log.running(job)}", refresh=False)
                    bar.update()


def rounds(jobs: Sequence[Job], log: EpisodeLog, *, until: float | None) -> Iterator[list[Job]]:
    """Yield the jobs to run, all at once; with `until` in rounds, for the suites and controls that are not decided yet.

    The caller runs a round before it asks for the next.
    """
    if until is None:
        yield list(jobs)
        return
    cells: dict[tuple[Suite, str], list[Job]] = {}
    for job in jobs:
        cells.setdefault((job.suite, job.control), []).append(job)
    undecided, done = list(cells.values()), 0
    while undecided:
        yield [job for cell in undecided for job in cell[done : done + ROUND]]
        done += ROUND
        undecided = [
            cell
            for cell in undecided
            if len(cell) > done and not is_decided([log[job].success for job in cell[:done]], until)
        ]


def is_decided(successes: Sequence[bool], until: float) -> bool:
    """Return whether the success rate is surely above or surely below `until`, looked at in rounds."""
    low, high = anytime_interval(sum(successes), len(successes))
    return not low <= until <= high


def _records(
    jobs: Sequence[Job], log: EpisodeLog, *, suite: Suite, control: str, until: float | None
) -> tuple[EpisodeRecord, ...]:
    """Return the episodes that count: all, or those up to the end of the round that decided."""
    cell = [job for job in jobs if job.suite == suite and job.control == control]
    stop = len(cell)
    if until is not None:
        ends = [*range(ROUND, stop, ROUND), stop]
        stop = next((end for end in ends if is_decided([log[job].success for job in cell[:end]], until)), stop)
    return tuple(log[job] for job in cell[:stop])


def select_suites(policy: Any, suites: Sequence[str | Suite] | None, *, robot: str | None = None) -> list[Suite]:
    """Return the suites themselves; without any, all that the policy (as `robot`), or the expert, can act in."""
    if suites is not None:
        loaded = [suite if isinstance(suite, Suite) else load_suite(suite) for suite in suites]
        robots = {} if policy == "expert" else robots_of(policy)
        return [with_known_robot(suite, robots, robot=robot) for suite in loaded]
    if policy == "expert":
        known = all_suites().values()
        return [suite for suite in known if suite.has_expert and suite.is_installed and not suite.is_part]
    return suites_for(*([robot] if robot else robots_of(policy)))


def check_settings(policy: Any, *, episodes: int, num_steps: int | None, until: float | None = None) -> None:
    """Check what a person may type for an evaluation.

    Raises:
        ValueError: no episodes, denoising steps for a policy that is not loaded here, or a rate that is none.
    """
    if until is not None and not 0 < until < 1:
        raise ValueError(f"until is a success rate between 0 and 1, got {until}")
    if episodes < 1:
        raise ValueError(f"an evaluation needs at least 1 episode, got {episodes}")
    if num_steps is not None and policy == "expert":
        raise ValueError(f"the expert does not denoise, got num_steps={num_steps}")
    if num_steps is not None and not isinstance(policy, str | Path):
        raise ValueError("a policy object has its own num_steps; choose them in load_policy, or give the path")


def prepare_high_level(level: HighLevel | str | None, policy: Any) -> HighLevel | None:
    """Return the high level of a policy under evaluation; None is the policy's own. A remote one is waited for.

    Raises:
        ValueError: an unknown one, or one that an evaluation cannot use.
    """
    if isinstance(level, str):
        level = make_high_level(level)
    if level is not None and policy == "expert":
        raise ValueError(f"the expert has no high level, got '{level.name}'")
    if isinstance(level, Human):
        raise ValueError("nobody can watch the robots of an evaluation; a person decides with: pilot serve")
    return replace(level, submit=at_once) if isinstance(level, Vlm) else level


def workers_for(policy: Any, workers: int | None) -> int:
    """Return the number of processes: what was asked for, or 2 where each can load the policy itself."""
    portable = isinstance(policy, str | Path)
    if not portable and (workers or 1) > 1:
        raise ValueError(f"a policy object stays in this process, got workers={workers}; give the checkpoint's path")
    return workers or (2 if portable else 1)
