"""`pilot suites`: what can be evaluated and collected here, one line each."""

import argparse

from pilot.cli.arguments import Verb, list_rows, listing_arguments


def run(args: argparse.Namespace) -> None:
    """Run this verb with its parsed options."""
    from pilot.eval.suites import all_suites, load_suites

    rows = []
    for suite in all_suites().values() if args.file is None else load_suites([str(args.file)]):
        offers = {"expert": suite.has_expert, "subtasks": suite.has_subtasks, "questions": suite.has_questions}
        rows.append(
            {
                "suite": suite.name,
                "robot": suite.robot.name,
                "what": suite.title,
                "offers": " ".join(name for name, has in offers.items() if has),
                "installed": suite.is_installed,
            }
        )
    list_rows(rows, as_json=args.json)


VERB = Verb(
    help="List the suites that policies can be evaluated on, and what each offers.",
    example="pilot suites",
    add_arguments=listing_arguments,
    run=run,
)
