"""What an evaluation costs: CPU time per episode and where it goes, then episodes per minute with all cores.

    python bench/evaluation.py [--policy checkpoints/nano] [--suite homes-l1] [--episodes 48] [--workers 2]

CPU time hardly depends on what else the machine does; episodes per minute and the share of busy cores do.
"""

import argparse
import resource
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import torch

from pilot.eval.crew import Crew
from pilot.eval.runner import Job, Runner
from pilot.eval.suites import load_suite
from pilot.memory import keep_freed_memory

PARTS = {"advance": "physics", "observe": "pictures", "reset_to": "new scenes"}


def jobs_of(suite: Any, episodes: int) -> list[Job]:
    """Return the first episodes of a suite."""
    return [Job(suite=suite, control="none", scene=n, seed=0, episodes=episodes) for n in range(episodes)]


def timed(function: Callable[..., Any], part: str, spent: dict[str, float]) -> Callable[..., Any]:
    """Return the function, with its CPU time added to `spent`."""

    def run(*args: Any, **options: Any) -> Any:
        start = time.process_time()
        try:
            return function(*args, **options)
        finally:
            spent[part] += time.process_time() - start

    return run


def cost_of_an_episode(policy: str, suite: Any, *, episodes: int, portion: int) -> None:
    """Print the CPU time of an episode in one process, `portion` episodes handed out at a time."""
    runner, spent = Runner(policy), defaultdict[str, float](float)
    runner.policy.infer_many = timed(runner.policy.infer_many, "policy", spent)
    make = runner.take_env

    def take_env(suite: Any) -> Any:
        env = make(suite)
        for name, part in PARTS.items():
            if name not in vars(env):  # not timed yet
                setattr(env, name, timed(getattr(env, name), part, spent))
        return env

    runner.take_env = take_env
    list(runner.run_many(jobs_of(suite, 1)))
    spent.clear()
    start, jobs = time.process_time(), jobs_of(suite, episodes)
    portions = [jobs[i : i + portion] for i in range(0, episodes, portion)]
    records = [finished.record for part in portions for finished in runner.run_many(part)]
    total, looks = time.process_time() - start, sum(len(record.latencies_ms) for record in records)
    runner.leave()
    spent["the rest"] = total - sum(spent.values())
    shares = ", ".join(
        f"{part} {seconds / episodes:.2f}" for part, seconds in sorted(spent.items(), key=lambda item: -item[1])
    )
    print(f"{episodes} episodes, {portion} at a time, one process: {total / episodes:.2f} s of CPU each ({shares}),")
    print(f"  {1e3 * total / looks:.0f} ms per look, {looks / episodes:.0f} looks per episode, "
          f"{sum(record.success for record in records)} succeed")  # fmt: skip


def rate_of_a_crew(policy: str, suite: Any, *, episodes: int, workers: int) -> None:
    """Print episodes per minute of several processes, without their start."""
    with closing(Crew(partial(Runner, policy), workers=workers)) as crew:
        list(crew.run(jobs_of(suite, workers)))  # starts the processes and warms them up
        start, before = time.perf_counter(), cpu_of(crew)
        done = list(crew.run(jobs_of(suite, episodes)))
        seconds, used = time.perf_counter() - start, cpu_of(crew) - before
    print(
        f"{len(done)} episodes, {workers} processes: {60 * len(done) / seconds:.0f} episodes/min, "
        f"{used / len(done):.2f} s of CPU each, {used / seconds / workers:.0%} of {workers} cores busy"
    )


def cpu_of(crew: Crew) -> float:
    """Return the CPU time of this process and of a crew's workers so far [s]."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    ticks = 0
    for worker in crew.workers:
        with open(f"/proc/{worker.process.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return own.ru_utime + own.ru_stime + ticks / 100


def main(argv: Sequence[str] | None = None) -> None:
    """Print the costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="checkpoints/nano")
    parser.add_argument("--suite", default="homes-l1")
    parser.add_argument("--episodes", type=int, default=48)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--portion", type=int, help="episodes handed to the process at a time (default: all)")
    parser.add_argument("--cpu-only", action="store_true", help="leave out the episodes per minute")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    keep_freed_memory()
    suite = load_suite(args.suite)
    cost_of_an_episode(args.policy, suite, episodes=args.episodes, portion=args.portion or args.episodes)
    if not args.cpu_only:
        rate_of_a_crew(args.policy, suite, episodes=args.episodes, workers=args.workers)


if __name__ == "__main__":
    main()
