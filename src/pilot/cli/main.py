"""`pilot VERB …`: from the command line to the library, and nothing else.

Each verb is one file beside this one: its arguments, and a `run` that makes one call. `run` checks the names that it
was given before it imports what is heavy, so help is instant, and so is the answer to a wrong name. An error that the
person can correct becomes one line that says how; `PILOT_DEBUG=1` shows the traceback.
"""

import argparse
import errno
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pilot import __version__, missing_extra
from pilot.cli import (
    check,
    collect,
    completion,
    convert,
    data,
    demo,
    doctor,
    export,
    plan,
    play,
    pull,
    push,
    report,
    robots,
    runs,
    serve,
    study,
    suites,
    train,
    verify,
)
from pilot.cli import eval as evaluate
from pilot.cli.arguments import Parser, add_verbs
from pilot.names import check_name

VERBS = {
    "demo": demo.VERB,
    "play": play.VERB,
    "collect": collect.VERB,
    "train": train.VERB,
    "plan": plan.VERB,
    "eval": evaluate.VERB,
    "report": report.VERB,
    "study": study.VERB,
    "serve": serve.VERB,
    "data": data.VERB,
    "convert": convert.VERB,
    "export": export.VERB,
    "push": push.VERB,
    "pull": pull.VERB,
    "check": check.VERB,
    "verify": verify.VERB,
    "robots": robots.VERB,
    "runs": runs.VERB,
    "suites": suites.VERB,
    "doctor": doctor.VERB,
}
VERBS["completion"] = completion.make_verb(VERBS, data.WORDS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, and return the exit code: 0, 2 for an error that the person can correct, 130 for Ctrl-C."""
    warnings.formatwarning = format_warning
    if not sys.stderr.isatty():  # a file keeps every line of a bar; tqdm reads this when it is imported
        os.environ.setdefault("TQDM_MININTERVAL", "10")
    try:
        run(list(sys.argv[1:] if argv is None else argv))
    except (KeyboardInterrupt, ValueError, FloatingPointError, OSError, ImportError) as error:
        if os.environ.get("PILOT_DEBUG"):
            raise
        print(f"pilot: {describe_error(error)}", file=sys.stderr)
        return 130 if isinstance(error, KeyboardInterrupt) else 2
    return 0


def run(arguments: list[str]) -> None:
    """Parse a command line and run its verb."""
    arguments = data.replace_old_word(arguments)
    if arguments and not arguments[0].startswith("-"):
        check_name("verb", arguments[0], VERBS)
    if arguments[:1] == ["data"] and arguments[1:] and not arguments[1].startswith("-"):
        check_name("verb", f"data {arguments[1]}", [f"data {word}" for word in data.WORDS])
    namespace, rest = build_parser().parse_known_args(arguments or ["--help"])
    namespace.parser.refuse_unknown(rest)
    VERBS[namespace.verb].execute(namespace)


def describe_error(error: BaseException) -> str:
    """Return the line to print for an error: pilot's own messages say what to do, some of the system's do not."""
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "stopped"
    if isinstance(error, OSError) and error.errno is not None:
        return describe_system_error(error)
    if isinstance(error, ModuleNotFoundError):
        return str(missing_extra(error))
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


def describe_system_error(error: OSError) -> str:
    """Return the line to print for an error of the operating system, with the file and what to do."""
    what = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE:
        return f"{what}; choose another --port, or stop the program that listens there"
    # Pilot's own message about a full disk already names the file and what to do.
    if error.errno == errno.ENOSPC and (error.filename or what == os.strerror(errno.ENOSPC)):
        return f"the disk is full ({error.filename or 'while writing'}); free some space and run the same command again"
    if error.filename is None:
        return what
    return f"'{error.filename}' cannot be read or written: {what[0].lower()}{what[1:]}"


def format_warning(message: Warning | str, category: type[Warning], filename: str, *line: Any) -> str:
    """Return a warning as one line; those of other libraries also say where they come from."""
    if Path(filename).is_relative_to(Path(__file__).parents[1]):
        return f"pilot: {message}\n"
    return f"{filename}:{line[0]}: {category.__name__}: {message}\n"


def build_parser() -> Parser:
    """Return the parser of all verbs."""
    parser = Parser(
        prog="pilot",
        description="Robots that act on words: collect, train, evaluate and serve the π0 family.",
        epilog="Example: pilot demo --quick\nHelp on a verb: pilot train --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"pilot {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    add_verbs(verbs, VERBS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
