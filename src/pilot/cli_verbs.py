"""What a word after `pilot` is, and how the wrong word is answered; free of the library, so that help is instant."""

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verb:
    """One word after `pilot`: how it is explained, what it takes, what it does."""

    help: str
    example: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


def high_level_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("high level")
    group.add_argument("--high-level", metavar="NAME", help="what decides on subtasks (default: the model, if it can): "
                       "model none implicit saycan oracle human vlm")  # fmt: skip
    group.add_argument("--labels", metavar="FILE", help="subtasks to choose from, one a line: model, saycan, vlm")
    group.add_argument("--keep-margin", type=float, metavar="NATS", help="model: how much likelier another subtask is")
    group.add_argument("--vlm", metavar="URL", help="vlm: an OpenAI-compatible endpoint, http://localhost:8000/v1")
    group.add_argument("--vlm-model", metavar="NAME", help="vlm: the model there; its key is in $OPENAI_API_KEY")


def chosen_high_level(args: argparse.Namespace) -> Any:
    """The high level that the options say, None if they say nothing.

    Raises:
        ValueError: options without a high level, or that do not belong to it.
        OSError: the labels cannot be read.
    """
    options = {"labels": args.labels, "keep_margin": args.keep_margin, "url": args.vlm, "model": args.vlm_model}
    given = {name: value for name, value in options.items() if value is not None}
    if args.high_level is None:
        if given:
            raise ValueError("options of a high level need one: --high-level NAME")
        return None
    from pilot.infer.high_levels import named

    if args.labels is not None:
        lines = Path(args.labels).read_text(encoding="utf-8").splitlines()
        given["labels"] = [line.strip() for line in lines if line.strip()]
    return named(args.high_level, **given)


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
