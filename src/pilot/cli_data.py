"""`pilot data WORD …`: what is done with data sets besides training on them."""

import argparse
from pathlib import Path

from pilot.cli_verbs import Verb, add_verbs, choose


def arguments(parser: argparse.ArgumentParser) -> None:
    words = parser.add_subparsers(dest="what", required=True, metavar="WORD")
    add_verbs(words, WORDS)


def run(args: argparse.Namespace) -> None:
    WORDS[args.what].run(args)


def stats_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, help="folder of a LeRobot v3.0 data set")
    parser.add_argument("--robot", default="homes", help="a file of pilot.robots (default: %(default)s)")
    parser.add_argument("--action-horizon", type=int, default=8, help="actions per chunk (default: %(default)s)")


def run_stats(args: argparse.Namespace) -> None:
    from pilot.data.lerobot import LeRobotDataset
    from pilot.data.stats import compute_norm_stats, save_norm_stats
    from pilot.robots import load_robot

    robot = load_robot(args.robot)
    stats = compute_norm_stats([LeRobotDataset(args.path, args.action_horizon)], robot)
    save_norm_stats(args.path, stats)
    for name, labels in (("state", robot.state_names), ("actions", robot.action_names)):
        print(f"{name:9} {'mean':>9} {'std':>9} {'q01':>9} {'q99':>9}")
        for i, label in enumerate(labels):
            row = (getattr(stats[name], column)[i] for column in ("mean", "std", "q01", "q99"))
            print(f"  {label:7} {' '.join(f'{value:9.4f}' for value in row)}")


def tokenizer_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="folders of data sets of one robot")
    parser.add_argument("--out", type=Path, required=True, help="folder of the tokenizer")
    parser.add_argument("--kind", default="fast", help="fast, vq or bins (default: %(default)s)")
    parser.add_argument("--robot", default="homes", help="a file of pilot.robots (default: %(default)s)")
    parser.add_argument("--action-horizon", type=int, default=10, help="actions per chunk (default: %(default)s)")
    parser.add_argument("--vocab-size", type=int, help="tokens (default: fast 1024; codes of vq and bins 256)")
    parser.add_argument("--scale", type=float, help="fast: larger is more exact and longer (default: 10)")
    parser.add_argument("--tokens", type=int, help="vq: tokens per chunk (default: 8)")
    parser.add_argument("--norm", choices=["quantile", "zscore"], default="quantile", help="(default: %(default)s)")
    parser.add_argument("--budget", type=int, default=64, help="tokens left for a chunk (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)


def run_tokenizer(args: argparse.Namespace) -> None:
    from pilot.data.chunks import whole_chunks
    from pilot.data.sources import open_episodes
    from pilot.data.stats import compute_norm_stats
    from pilot.datasets import load_layout
    from pilot.robots import load_adapter, load_robot
    from pilot.tokenizers import KINDS, fit_action_tokenizer
    from pilot.tokenizers.report import report

    choose("action tokenizer", args.kind, KINDS)
    options = {"fast": {"scale": args.scale}, "vq": {"tokens": args.tokens, "seed": args.seed}, "bins": {}}[args.kind]
    options = {name: value for name, value in {"vocab_size": args.vocab_size, **options}.items() if value is not None}
    robot = load_robot(args.robot)
    adapter = load_adapter(robot)
    datasets = [open_episodes(path, args.action_horizon, layouts=load_layout) for path in args.paths]
    stats = compute_norm_stats(datasets, robot, adapter=adapter)["actions"]
    fitted, held_out = (
        whole_chunks(datasets, robot, stats=stats, norm=args.norm, adapter=adapter, part=part, seed=args.seed)
        for part in ("fitted", "held_out")
    )
    tokenizer = fit_action_tokenizer(args.kind, fitted, **options)
    tokenizer.save(args.out)
    print(
        f"{args.out}: {args.kind} of {tokenizer.vocab_size} tokens, fitted to {len(fitted)} chunks. Held-out episodes:"
    )
    print(report(tokenizer, held_out, budget=args.budget, names=robot.action_names))


WORDS = {
    "stats": Verb(
        help="Write norm_stats.json, from the columns alone.",
        example="pilot data stats data/homes-l1 --action-horizon 8",
        arguments=stats_arguments,
        run=run_stats,
    ),
    "tokenizer": Verb(
        help="Fit an action tokenizer, and report on held-out episodes what it costs and loses.",
        example="pilot data tokenizer data/homes-l1 --kind vq --out tokenizers/homes-vq",
        arguments=tokenizer_arguments,
        run=run_tokenizer,
    ),
}
