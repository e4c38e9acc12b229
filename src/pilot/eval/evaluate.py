"""Evaluation of a policy on suites of episodes: resumable, in several processes, with intervals.

    evaluate("checkpoints/nano", suite="SUITE", episodes=200, out="outputs/eval").rate

An evaluation that was stopped goes on where it was, and one that is finished is only read (`eval/episode_log.py`).
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pilot.eval.episode_log import EpisodeLog, fingerprint
from pilot.eval.policies import fetch_policy, robot_for, robots_of, with_known_robot
from pilot.eval.results import SuiteResult
from pilot.eval.runner import Job, Runner, run_jobs
from pilot.eval.suites import all_suites, check_control, load_suite, suites_for
from pilot.infer.high_level import HighLevel, Human, Vlm, make_high_level
from pilot.infer.high_level.vlm import at_once
from pilot.sims.base import Suite


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
        out: folder of the log `episodes.jsonl`; with it, no finished episode runs twice.

    Raises:
        ValueError: an unknown suite or control, or a policy for another robot than the suite's.
        FileNotFoundError: there is no checkpoint at the path.
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
    out: str | Path | None = None,
    progress: bool = True,
) -> list[SuiteResult]:
    """Run `evaluate` for every suite under every control, in one pool of workers; suites outermost in the answer.

    Without `suites`, those of `robot`, or of all robots of the policy.
    """
    high_level = prepare_high_level(high_level, policy)
    check_settings(policy, episodes=episodes, num_steps=num_steps)
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
    log = EpisodeLog(Path(out) / "episodes.jsonl" if out else None, policy=f"{label}/{choices}")
    missing = [job for job in jobs if job not in log]
    runner = partial(
        Runner, policy, robot=robot, num_steps=num_steps, replan_steps=replan_steps, high_level=high_level
    )  # fmt: skip
    bar = tqdm(total=len(jobs), initial=len(jobs) - len(missing), disable=not progress, unit="episode")
    with bar, closing(run_jobs(runner, missing, workers=workers_for(policy, workers))) as finished:
        for job, record in finished:
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


def check_settings(policy: Any, *, episodes: int, num_steps: int | None) -> None:
    """Check what a person may type for an evaluation.

    Raises:
        ValueError: no episodes, or denoising steps for a policy that is not loaded here.
    """
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
