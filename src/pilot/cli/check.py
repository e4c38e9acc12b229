"""`pilot check FILE`: does a robot, data set, simulator, run or model of your own keep the contract of its kind?"""

import argparse
import dataclasses
import json
from pathlib import Path

from pilot.cli.arguments import Verb


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument(
        "file", metavar="FILE", help="path/to/file.py, or path/to/file.py:NAME for one of the things that it defines"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run(args: argparse.Namespace) -> None:
    """Run this verb with its parsed options."""
    from pilot.extensions import FILE_REFERENCE, import_file

    if (match := FILE_REFERENCE.fullmatch(args.file)) is None:
        raise ValueError(f"'{args.file}' is not a Python file; give path/to/file.py, or path/to/file.py:NAME")
    module = import_file(Path(match["file"]))
    from pilot.contracts import check_module
    from pilot.robots import load_robot

    if hasattr(module, "ROBOT"):
        load_robot(match["file"])  # so that a data set in the same file may name it
    results = []
    for result in check_module(module, only=match["name"]):
        is_first = not any((result.kind, result.name) == (other.kind, other.name) for other in results)
        results.append(result)
        if args.json:
            continue
        if is_first:
            print(f"{result.kind} {result.name}")
        print(f"  FAILED  {result.rule}:\n          {result.error}" if result.error else f"  ok      {result.rule}")
    if args.json:
        print(json.dumps([dataclasses.asdict(result) for result in results], indent=2))
    failed = [result for result in results if result.error]
    if failed:
        raise ValueError(f"{len(failed)} of {len(results)} checks failed; the rules are in pilot/contracts")
    if not args.json:
        print(f"all {len(results)} checks passed")


VERB = Verb(
    help="Check a robot, data set, simulator, run or model of your own by the contract that pilot's own must keep.",
    example="pilot check robots/my_arm.py",
    add_arguments=add_arguments,
    run=run,
)
