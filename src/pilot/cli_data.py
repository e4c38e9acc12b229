"""`pilot data WORD …`: what is done with data sets besides training on them."""

import argparse
from pathlib import Path

from pilot.cli_verbs import Verb, add_verbs


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


WORDS = {
    "stats": Verb(
        help="Write norm_stats.json, from the columns alone.",
        example="pilot data stats data/homes-l1 --action-horizon 8",
        arguments=stats_arguments,
        run=run_stats,
    ),
}
