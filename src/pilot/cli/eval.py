"""`pilot eval POLICY`: success in a simulator's scenes, beside controls."""

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pilot.cli.arguments import (
    Verb,
    above_zero,
    checkpoint_at,
    chosen_options,
    folder_to_write,
    high_level_arguments,
    local_path,
    read_high_level,
    replay_record,
    share,
    verify_argument,
    whole_number,
)
from pilot.cli.workers import add_parallel_arguments, open_parallel_map

REMEDY = "give the folder of a data set (pilot collect makes one), or its address: hf://owner/repo, gs://…"
EXECUTORS = ("rtc", "open-loop", "ensemble")
"""The names of `pilot.serve.control.EXECUTORS`, which takes time to import; a test keeps them equal."""

OFFLINE_OPTIONS = ("policy", "offline", "rows", "robot", "seed", "num_steps", "verify", "out")
"""What has a meaning with `--offline`; all other options are of episodes in a simulator."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    from pilot.eval.suites import CONTROLS, all_suites

    names = [name for name, suite in all_suites().items() if not suite.package]
    parser.add_argument("policy", help="checkpoint folder such as checkpoints/nano, or: expert")
    parser.add_argument("--suite", nargs="+", metavar="SUITE", help=f"{' '.join(names)}, others that `pilot "
                        "suites` lists, or a file of yours (default: all of the policy's robots)")  # fmt: skip
    parser.add_argument(
        "--robot", help="which of the policy's robots acts (default: the one that the suite is for, or the only one)"
    )
    parser.add_argument("--control", nargs="+", metavar="CONTROL", default=["none"], help=" ".join(CONTROLS))
    parser.add_argument(
        "--episodes", type=whole_number(1), default=200, help="episodes per suite and control (default: %(default)s)"
    )
    parser.add_argument("--seed", type=whole_number(0), default=0, help="chooses the starts (default: %(default)s)")
    parser.add_argument("--num-steps", type=whole_number(1), help="denoising steps (default: the policy's own)")
    parser.add_argument(
        "--replan-steps", type=whole_number(1), help="actions executed per chunk (default: the policy's own)"
    )
    parser.add_argument(
        "--until",
        type=share,
        metavar="RATE",
        help="stop a suite once its success is surely above or below this rate, 0 to 1; --episodes is the most",
    )
    parser.add_argument("--plan", action="store_true", help="print how exact so many episodes would be, and run none")
    add_parallel_arguments(parser, workers=2)
    parser.add_argument(
        "--shard", metavar="2/8", help="run only this part of the episodes; then the same command without it, or "
        "`pilot report`, brings all parts together"
    )  # fmt: skip
    parser.add_argument(
        "--hold-steps", type=whole_number(0), default=0, metavar="STEPS",
        help="act on for so many control steps after the first success, and count how often it lasts",
    )  # fmt: skip
    clock_arguments(parser)
    verify_argument(parser)
    parser.add_argument(
        "--out",
        type=folder_to_write,
        help="folder for the table and the record of each episode; the same command again continues",
    )
    parser.add_argument(
        "--offline", nargs="+", metavar="DATA",
        help="act nowhere, and measure on recorded data instead: actions by step and dim, action tokens, subtasks, "
        "whether words matter, or answers to questions about pictures",
    )  # fmt: skip
    parser.add_argument(
        "--rows", type=whole_number(1), default=512, help="with --offline: frames or questions (default: %(default)s)"
    )
    high_level_arguments(parser)


def clock_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options for how the policy's thinking and the world's time go together."""
    group = parser.add_argument_group("time")
    group.add_argument("--clock", action="store_true", help="the world goes on while the policy thinks")
    group.add_argument(
        "--latency-ms", type=above_zero, metavar="MS",
        help="with --clock: how long each answer takes, so that it does not depend on this machine",
    )  # fmt: skip
    group.add_argument(
        "--executor", choices=EXECUTORS,
        help="what the robot does until an answer comes: the rest of the old chunk (rtc, default with --clock), "
        "nothing (open-loop), the mean of what all chunks say (ensemble) (default without: as the policy is made for)",
    )  # fmt: skip


def read_timekeeping(args: argparse.Namespace) -> Any:
    """Return what the options say about time, or None if they say nothing.

    Raises:
        ValueError: they contradict each other.
    """
    if not args.clock and args.latency_ms is None and args.executor is None:
        return None
    from pilot.eval.episode import Timekeeping

    return Timekeeping(clock=args.clock, latency_ms=args.latency_ms, executor=args.executor)


def run(args: argparse.Namespace) -> None:
    """Run this verb with its parsed options."""
    from pilot.eval.suites import check_control, load_suites

    if args.offline:
        refuse_options_of_episodes(args)
        run_offline(args)
        return
    if "rows" in chosen_options(args):
        raise ValueError("--rows: counts rows of recorded data; give the data with --offline DATA, or leave it out")
    suites = None if args.suite is None else load_suites(args.suite)
    for control in args.control:
        check_control(control)
    policy = args.policy if args.policy == "expert" else checkpoint_at(args.policy)
    if args.plan:
        from pilot.eval.results import describe_plan

        print(describe_plan(args.episodes))
        return
    settings = read_settings(args)
    if args.verify:
        if not isinstance(policy, Path):
            raise ValueError("the expert has no record to verify it by; leave out --verify")
        replay_record(policy)
    from pilot.eval.evaluate import evaluate_table
    from pilot.eval.results import save_table, to_markdown
    from pilot.eval.settings import Shard

    shard = None if args.shard is None else Shard.parse(args.shard)
    try:
        with nullcontext() if args.ray is None else open_parallel_map(args) as parallel_map:
            results = evaluate_table(
                policy,
                suites=suites,
                controls=args.control,
                episodes=args.episodes,
                seed=args.seed,
                robot=settings.robot,
                workers=args.workers,
                num_steps=settings.num_steps,
                replan_steps=settings.replan_steps,
                high_level=settings.high_level,
                until=args.until,
                timekeeping=settings.timekeeping,
                hold_steps=settings.hold_steps,
                shard=shard,
                parallel_map=parallel_map,
                out=args.out,
            )
    except KeyboardInterrupt as stopped:
        hint = (
            "run the same command again to continue"
            if args.out
            else "no episode was kept; with --out FOLDER the same command continues"
        )
        raise KeyboardInterrupt(f"stopped; {hint}") from stopped
    print(to_markdown(results))
    if args.out:
        name = "results" if shard is None else f"results-{shard.number}-of-{shard.count}"
        save_table(results, args.out / f"{name}.json", settings=settings.to_json())
        if shard is None:
            seal(args, policy, settings=settings.to_json())


def read_settings(args: argparse.Namespace) -> Any:
    """Return how the options say that the policy acts.

    Raises:
        ValueError: they contradict each other.
    """
    high_level, timekeeping = read_high_level(args), read_timekeeping(args)
    from pilot.eval.episode import Timekeeping
    from pilot.eval.settings import Settings

    return Settings(
        robot=args.robot, num_steps=args.num_steps, replan_steps=args.replan_steps, high_level=high_level,
        timekeeping=timekeeping or Timekeeping(), hold_steps=args.hold_steps,
    )  # fmt: skip


def refuse_options_of_episodes(args: argparse.Namespace) -> None:
    """Check that nothing is asked for that only episodes have, since `--offline` runs none.

    Raises:
        ValueError: there are such options; all of them are named.
    """
    if foreign := [option for name, option in chosen_options(args).items() if name not in OFFLINE_OPTIONS]:
        raise ValueError(f"{', '.join(foreign)}: has no meaning with --offline, which runs no episodes; leave it out")


def run_offline(args: argparse.Namespace) -> None:
    """Measure a checkpoint on data sets.

    Raises:
        ValueError: the expert, which has not learned from data.
    """
    if args.policy == "expert":
        raise ValueError("the expert reads the simulator's state, so there is nothing to measure on data")
    path, data = checkpoint_at(args.policy), [local_path(address, REMEDY) for address in args.offline]
    from pilot.eval.offline.measure import measure_offline, save_results
    from pilot.infer.policy import load_policy

    policy = load_policy(path, num_steps=args.num_steps, verify=args.verify)
    results = [measure_offline(policy, each, robot=args.robot, rows=args.rows, seed=args.seed) for each in data]
    print("\n\n".join(result.to_markdown() for result in results))
    if args.out:
        save_results(results, args.out)


def seal(args: argparse.Namespace, policy: str | Path, *, settings: dict[str, Any]) -> None:
    """Write the manifest of an evaluation: its files, and which policy it measured, how."""
    from pilot.data.storage.manifest import made_by, parent, write_manifest
    from pilot.data.tools.verify import EVALUATION_FILES

    config = {name: getattr(args, name) for name in ("suite", "control", "until")} | settings
    parents = [] if policy == "expert" else [parent(policy, role="policy") | {"path": args.policy}]
    origin = made_by({"episodes": args.episodes, "seed": args.seed, "config": config}, parents=parents)
    files = [file for pattern in EVALUATION_FILES for file in sorted(args.out.glob(pattern))]
    write_manifest(args.out, kind="evaluation", files=files, origin=origin)


VERB = Verb(
    help="Measure success in scenes never seen, with intervals, beside controls that take a sense away.",
    example="pilot eval checkpoints/nano --suite homes-l1 homes-l2 --control none blank_images --episodes 200",
    add_arguments=add_arguments,
    run=run,
)
