"""`pilot verify PATH`: is this folder as it was written, by which code, from which data and weights?"""

import argparse
from pathlib import Path

from pilot.cli.arguments import Verb


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument("path", type=Path, help="folder of a checkpoint, a run, a data set or an evaluation")
    parser.add_argument(
        "--accept",
        action="store_true",
        help="write the checksums anew from the files as they are, after a change that was meant",
    )


def run(args: argparse.Namespace) -> None:
    """Run this verb with its parsed options."""
    from pilot.data.tools.verify import accept, verify

    if args.accept:
        accept(args.path)
    for line in verify(args.path):
        print(line)


VERB = Verb(
    help="Compare a folder with its checksums, and show what it was made from: commit, config, data, weights.",
    example="pilot verify checkpoints/nano",
    add_arguments=add_arguments,
    run=run,
)
