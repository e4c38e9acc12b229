"""`pilot runs`: the training runs that are known by name, one line each."""

import argparse

from pilot.cli.arguments import Verb, list_rows, listing_arguments


def run(args: argparse.Namespace) -> None:
    """Run this verb with its parsed options."""
    from pilot import configs

    found = configs.summaries() if args.file is None else configs.runs_in(args.file)
    if not found:
        raise ValueError(f"{args.file} declares no run; a run is a function `def NAME() -> TrainConfig:`")
    list_rows([{"run": name, "what": what} for name, what in found.items()], as_json=args.json)


VERB = Verb(
    help="List the training runs that are known by name, each with the first line of what it is.",
    example="pilot runs",
    add_arguments=listing_arguments,
    run=run,
)
