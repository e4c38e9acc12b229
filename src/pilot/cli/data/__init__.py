"""`pilot data WORD …`: what is done with data sets besides training on them; each word is one file here."""

import argparse
import warnings

from pilot.cli.arguments import Verb, add_verbs
from pilot.cli.data import annotate, import_recordings, inspect, stats, tokenizer, view

WORDS = {
    "stats": stats.VERB,
    "tokenizer": tokenizer.VERB,
    "inspect": inspect.VERB,
    "view": view.VERB,
    "annotate": annotate.VERB,
    "import": import_recordings.VERB,
}
OLD_WORDS = {"convert": "import"}


def replace_old_word(arguments: list[str]) -> list[str]:
    """Return a command line with the present name of a word of `pilot data`, with a warning if it had an old one."""
    if arguments[:1] != ["data"] or (old := arguments[1] if arguments[1:] else "") not in OLD_WORDS:
        return arguments
    new = OLD_WORDS[old]
    warnings.warn(f"'pilot data {old}' is now 'pilot data {new}'", stacklevel=2)
    return ["data", new, *arguments[2:]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    words = parser.add_subparsers(dest="what", required=True, metavar="WORD")
    add_verbs(words, WORDS)


def run(args: argparse.Namespace) -> None:
    """Run this verb with its parsed options."""
    WORDS[args.what].execute(args)


VERB = Verb(
    help="Prepare and inspect data sets.",
    example="pilot data stats data/mine --action-horizon 8",
    add_arguments=add_arguments,
    run=run,
)
