"""What a word after `pilot` is, and how the wrong word is answered; free of the library, so that help is instant."""

import argparse
import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pilot.names import check_name, suggest_names

HIGH_LEVELS = ("model", "none", "implicit", "saycan", "oracle", "human", "vlm")  # those of `pilot.infer.high_level`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verb:
    """One word after `pilot`: how it is explained, what it takes, what it does."""

    help: str
    example: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


class Parser(argparse.ArgumentParser):
    """One line about what is wrong, where argparse prints the whole usage."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} ({self.prog} --help)")

    def refuse_unknown(self, words: list[str]) -> None:
        """`words` are what is left of the command line when all that is known has been taken."""
        option = next((word.partition("=")[0] for word in words if word.startswith("-")), None)
        if option is not None:
            known = re.findall(r"--[a-z][a-z-]*", self.format_usage())
            self.error(f"unknown option '{option}'; {suggest_names(option, known)}")
        if words:
            self.error(f"'{words[0]}' is one word too many")


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """What reads an option that counts something."""

    def read(text: str) -> int:
        if re.fullmatch(r"-?\d+", text) and least <= int(text) and (most is None or int(text) <= most):
            return int(text)
        limits = f"of {least} or more" if most is None else f"from {least} to {most}"
        raise argparse.ArgumentTypeError(f"takes a whole number {limits}, got '{text}'")

    return read


def above_zero(text: str) -> float:
    """An option that measures something."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"takes a number above 0, got '{text}'")
    return value


def folder_to_write(text: str) -> Path:
    """A folder that is there or can be made: refused before hours of work, not after."""
    path = Path(text)
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"'{there}' is a file; give a folder to write into")
    if not os.access(there, os.W_OK):
        raise argparse.ArgumentTypeError(f"'{there}' may not be written to; give another folder")
    return path


def file_to_write(text: str) -> Path:
    """A file that is there or can be made."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"'{path}' is a folder; give a file to write")
    folder_to_write(str(path.parent))
    return path


def local_path(address: str | Path, remedy: str, *, only: Sequence[str] = ("**",)) -> Path:
    """Where on this machine lies what a person named; `only` those files are fetched of what lies elsewhere.

    Verbs ask before they import what reads it, which may take seconds.

    Raises:
        FileNotFoundError: nothing is there; the message says `remedy`.
    """
    from pilot.data.storage.remote import fetch

    path = fetch(address, only=only)
    if not path.exists():
        raise FileNotFoundError(f"{address} does not exist; {remedy}")
    return path


def checkpoint_at(address: str | Path) -> Path:
    """The folder of a checkpoint."""
    from pilot.data.storage.remote import CHECKPOINT_FILES

    remedy = "give the folder of a checkpoint (pilot train makes one), or its address: hf://owner/repo, gs://…"
    return local_path(address, remedy, only=CHECKPOINT_FILES)


def high_level_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("high level")
    group.add_argument("--high-level", metavar="NAME", help="what decides on subtasks (default: the model, if it can): "
                       f"{' '.join(HIGH_LEVELS)}")  # fmt: skip
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
    check_name("high level", args.high_level, HIGH_LEVELS)
    if args.labels is not None:
        lines = Path(args.labels).read_text(encoding="utf-8").splitlines()
        given["labels"] = [line.strip() for line in lines if line.strip()]
    from pilot.infer.high_level import named

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
        sub.set_defaults(parser=sub)
        verb.add_arguments(sub)
