"""`pilot report FOLDER…`: results of any number of evaluations as one page."""

import argparse

from pilot.cli.arguments import Verb, file_to_write, whole_number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument(
        "folders", nargs="+", metavar="[NAME=]FOLDER", help="what `pilot eval --out FOLDER` wrote; folders with one "
        "NAME are trainings of one recipe with several seeds. The first is compared with each other one"
    )  # fmt: skip
    parser.add_argument("--question", help="the title of the page (default: made from the results)")
    parser.add_argument(
        "--films", type=whole_number(0), default=2, help="successes and failures to film (default: %(default)s of each)"
    )
    parser.add_argument("--out", type=file_to_write, help="the page (default: report.html in the first folder)")


def run(args: argparse.Namespace) -> None:
    """Run this verb with its parsed options."""
    from pilot.eval.merge import read_results, split_reference
    from pilot.eval.report.evaluation_page import make_page

    page = make_page(read_results(args.folders), question=args.question, films=args.films)
    path = page.save(args.out or split_reference(args.folders[0])[1] / "report.html")
    print(f"{page.title}\n{page.subtitle}\n{path}")


VERB = Verb(
    help="Make one page of results: success with intervals, controls, pairs on the same starts, films.",
    example="pilot report outputs/eval",
    add_arguments=add_arguments,
    run=run,
)
