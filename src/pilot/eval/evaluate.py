"""Evaluation of a policy on suites of episodes: resumable, in several processes, with intervals.

    evaluate("checkpoints/nano", suite="SUITE", episodes=200, out="outputs/eval").rate

An evaluation that was stopped goes on where it was, and one that is finished is only read (`eval/episode_log.py`). With
`until` it ends as soon as it knows on which side of a rate the success is (`stats.anytime_interval`).
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pilot.data.loading.parallel import ParallelMap
from pilot.eval.crew import Crew, MapCrew
from pilot.eval.episode import Timekeeping
from pilot.eval.episode_log import EpisodeLog, append_row, fingerprint
from pilot.eval.policies import fetch_policy, name_of, robot_for, robots_of, with_known_robot
from pilot.eval.provenance import provenance
from pilot.eval.records import EpisodeRecord
from pilot.eval.results import SuiteResult
from pilot.eval.runner import Job, Runner, other_prompt
from pilot.eval.settings import Settings, Shard
from pilot.eval.stand_ins import Watcher
from pilot.eval.stats import anytime_interval
from pilot.eval.suites import all_suites, check_control, load_suite, suites_for
from pilot.infer.high_level import HighLevel, Human, Oracle, Vlm, make_high_level
from pilot.infer.high_level.vlm import at_once
from pilot.locks import lock_beside, lock_folder
from pilot.sims.base import Suite

LOST_IN_A_ROW = 5  # episodes whose simulator crashed or hung at every attempt, before the run is given up
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
    timekeeping: Timekeeping | None = None,
    hold_steps: int = 0,
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
        timekeeping: whether the world waits while the policy thinks (`eval/episode.py`); by default it does.
        hold_steps: control steps that an episode goes on after its first success, to see whether it lasts.
        out: folder of the log `episodes.jsonl`; with it, no finished episode runs twice.

    Raises:
        ValueError: an unknown suite or control, or a policy for another robot than the suite's, or with `out` an object
            that does not say what it was made from.
        FileNotFoundError: there is no checkpoint at the path.
        FolderInUseError: another process evaluates into `out`.
        ChildProcessError: the simulator crashes or hangs in one episode after the other.
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
        timekeeping=timekeeping,
        hold_steps=hold_steps,
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
    timekeeping: Timekeeping | None = None,
    hold_steps: int = 0,
    shard: Shard | None = None,
    parallel_map: ParallelMap | None = None,
    out: str | Path | None = None,
    progress: bool = True,
) -> list[SuiteResult]:
    """Run `evaluate` for every suite under every control, in one pool of workers; suites outermost in the answer.

    Without `suites`, those of `robot`, or of all robots of the policy. With a `shard` only its part of the episodes,
    into files of its own: shards may run at once, on machines that share the folder or not, and the same call without
    `shard` in a folder with all of their files runs nothing and returns the whole table. With a `parallel_map`, such as
    that of a Ray cluster, episodes run there instead of in `workers` of this machine.
    """
    high_level, name = prepare_high_level(high_level, policy), name_of(policy)
    check_settings(policy, episodes=episodes, num_steps=num_steps, until=until, shard=shard)
    policy = fetch_policy(policy)
    chosen = select_suites(policy, suites, robot=robot)
    controls = list(dict.fromkeys(controls))  # named twice, its episodes would count twice
    jobs = [
        Job(suite=suite, control=control, scene=scene, seed=seed, episodes=episodes)
        for suite in chosen
        for control in controls
        for scene in range(episodes)
        if shard is None or scene % shard.count == shard.number - 1
    ]
    check_fit(policy, jobs, robot=robot, high_level=high_level)
    settings = Settings(
        robot=robot, num_steps=num_steps, replan_steps=replan_steps, high_level=high_level,
        timekeeping=timekeeping or Timekeeping(), hold_steps=hold_steps,
    )  # fmt: skip
    # Nothing is kept of an object without a log, so that it need not be told from others.
    label = name if out is None and not isinstance(policy, str | Path) else fingerprint(policy)
    make_runner, count = partial(Runner, policy, settings), workers_for(policy, workers)
    crew = Crew(make_runner, workers=count) if parallel_map is None else MapCrew(make_runner, parallel_map)
    with closing(crew), lock_log(out, shard=shard):
        log = EpisodeLog(log_file(out, "episodes", shard=shard), policy=f"{label}/{settings.key()}")
        if (runs := log_file(out, "runs", shard=shard)) is not None:
            wanted = {"suites": {suite.name: suite.title for suite in chosen}, "controls": controls}
            wanted |= {"episodes": episodes, "seed": seed, "until": until, "shard": shard and str(shard)}
            append_row(runs, {"policy": name, "key": log.policy} | wanted | settings.to_json() | provenance())
        run_missing(crew, jobs, log, until=until, progress=progress)
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
    crew: Crew | MapCrew, jobs: Sequence[Job], log: EpisodeLog, *, until: float | None, progress: bool
) -> None:
    """Run the jobs that are not in the log yet, and write each into it as it is done.

    Raises:
        ChildProcessError: one episode after the other is lost, so that something is wrong with the simulator.
    """
    lost_in_a_row = 0
    with tqdm(total=len(jobs), initial=sum(job in log for job in jobs), disable=not progress, unit="episode") as bar:
        for wanted in rounds(jobs, log, until=until):
            with closing(crew.run([job for job in wanted if job not in log])) as finished:
                for job, record, actions in finished:
                    log.add(job, record, actions=actions)
                    lost_in_a_row = 0 if record.lost is None else lost_in_a_row + 1
                    if lost_in_a_row == LOST_IN_A_ROW:
                        raise ChildProcessError(
                            f"{LOST_IN_A_ROW} episodes in a row were lost, the last in {job}: {record.lost}; mend the "
                            "simulator and run the same command again: what was finished is kept"
                        )
                    bar.set_description(f"{job.suite.name} {job.control}: {log.running(job)}", refresh=False)
                    bar.update()


def log_file(out: str | Path | None, name: str, *, shard: Shard | None) -> Path | None:
    """Return the path of a log in the folder `out`, of a shard's own if there is one; None without a folder."""
    suffix = "" if shard is None else f"-{shard.number}-of-{shard.count}"
    return None if out is None else Path(out) / f"{name}{suffix}.jsonl"


def lock_log(out: str | Path | None, *, shard: Shard | None) -> AbstractContextManager[None]:
    """Lock the folder `out`, or in it the log of one shard: shards may write there at once.

    Raises:
        FolderInUseError: another process writes there.
    """
    path = log_file(out, "episodes", shard=shard)
    if path is None:
        return nullcontext()
    return lock_folder(path.parent) if shard is None else lock_beside(path)


def check_fit(policy: Any, jobs: Sequence[Job], *, robot: str | None, high_level: HighLevel | None = None) -> None:
    """Check that a policy can act in all jobs, before the first of them runs.

    Raises:
        ValueError: it cannot, or a suite has fewer scenes, or under a control nothing would change, or the high level
            says the true subtasks of a suite that knows none.
        ImportError: a suite's package is not installed.
        FileNotFoundError: files that a suite needs are missing.
    """
    for suite, control in dict.fromkeys((job.suite, job.control) for job in jobs):
        own = [job for job in jobs if (job.suite, job.control) == (suite, control)]
        robot_for(policy, suite, robot=robot)
        suite.task_of(own[-1].scene)
        suite.check_ready()
        check_control(control, suite)
        if isinstance(high_level, Oracle | Watcher) and not suite.has_subtasks:
            raise ValueError(
                f"suite '{suite.name}' knows no subtasks, so there is no high level '{high_level.name}' in it"
            )
        if control == "shuffled_prompts":
            other_prompt(own[0])


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
    """Return the suites themselves, each once; without any, all that the policy or expert can act in (as `robot`)."""
    if suites is not None:
        loaded = [suite if isinstance(suite, Suite) else load_suite(suite) for suite in suites]
        robots = {} if policy == "expert" else robots_of(policy)
        # Two names may be one suite (`homes-l1`, `homes-l1@homes`), or become one with the robot that acts.
        return list(dict.fromkeys(with_known_robot(suite, robots, robot=robot) for suite in loaded))
    if policy == "expert":
        known = suites_for(robot) if robot else [suite for suite in all_suites().values() if not suite.is_part]
        if able := [suite for suite in known if suite.has_expert and suite.is_installed]:
            return able
        raise ValueError(f"no suite for robot '{robot}' that is installed has an expert; name a suite that has one")
    return suites_for(*([robot] if robot else robots_of(policy)))


def check_settings(
    policy: Any, *, episodes: int, num_steps: int | None, until: float | None = None, shard: Shard | None = None
) -> None:
    """Check what a person may type for an evaluation.

    Raises:
        ValueError: no episodes, denoising steps for a policy that is not loaded here, a rate that is none, or a shard
            without episodes or of a run that may stop early.
    """
    if shard is not None and until is not None:
        raise ValueError("a shard does not see how the others went, so it cannot stop early; leave out until, or shard")
    if shard is not None and episodes < shard.count:
        raise ValueError(f"{shard.count} shards of {episodes} episodes leave some with none; take fewer shards")
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
