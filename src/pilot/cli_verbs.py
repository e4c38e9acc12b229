"""What a word after `pilot` is, and how the wrong word is answered; free of the library, so that help is instant."""

import argparse
import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verb:
    """One word after `pilot`: how it is explained, what it takes, what it does."""

    help: str
    example: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


def choose(what: str, name: str, known: Iterable[str]) -> str:
    """`name`, if it is known.

    Raises:
        ValueError: It is not; the message gives the nearest known one.
    """
    known = list(known)
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
    raise ValueError(f"unknown {what} '{name}'; {hint}")


def add_verbs(parsers: Any, verbs: Mapping[str, Verb]) -> None:
    """A parser for each verb, whose help ends with a command to copy. `parsers` is what `add_subparsers` gave."""
    for name, verb in verbs.items():
        sub = parsers.add_parser(
            name,
            help=verb.help,
            description=verb.help,
            epilog=f"Example: {verb.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.arguments(sub)
