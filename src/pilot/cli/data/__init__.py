"""`pilot data WORD …`: what is done with data sets besides training on them; each word is one file."""

import argparse

from pilot.cli.arguments import Verb, add_verbs
from pilot.cli.data import annotate, convert, inspect, stats, tokenizer

WORDS = {
    "stats": stats.VERB,
    "tokenizer": tokenizer.VERB,
    "inspect": inspect.VERB,
    "annotate": annotate.VERB,
    "convert": convert.VERB,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    words = parser.add_subparsers(dest="what", required=True, metavar="WORD")
    add_verbs(words, WORDS)


def run(args: argparse.Namespace) -> None:
    WORDS[args.what].run(args)


VERB = Verb(
    help="Look after data sets.",
    example="pilot data stats data/mine --action-horizon 8",
    add_arguments=add_arguments,
    run=run,
)
